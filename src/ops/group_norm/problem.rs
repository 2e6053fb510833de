//! What the kernels of group norms are told.

use bytemuck::{Pod, Zeroable};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Params {
    pub batch: u32,
    pub pixels: u32,
    pub channels: u32,
    pub groups: u32,
    pub block: u32,
    pub blocks: u32,
    pub silu: u32,
    pub scale_shift: u32,
    pub eps: f32,
    pub accumulate: u32,
    pub of_beta: u32,
    pub pad: u32,
}

impl Params {
    /// These, with the pixels of an image in blocks of `block`.
    pub fn blocked(self, block: usize) -> Params {
        let block = (block as u32).min(self.pixels).max(1);
        Params { block, blocks: self.pixels.div_ceil(block), ..self }
    }

    /// Invocations that take `width` channels of a block each.
    pub fn invocations(&self, width: usize) -> usize {
        self.batch as usize * self.blocks as usize * self.channels as usize / width
    }
}
