//! What the kernels of attention are told.

use bytemuck::{Pod, Zeroable};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Params {
    pub batch: u32,
    pub tokens: u32,
    pub heads: u32,
    pub head: u32,
    pub part_stride: u32,
    pub head_stride: u32,
    pub accumulate: u32,
    pub scale: f32,
}
