//! Statistics of many pixels, chunk by chunk: no invocation sums more than some thousand numbers.
//!
//! Sums are of blocks of pixels around the block's first, put together block by block (Chan et al. 1983).

use bytemuck::{Pod, Zeroable};

use super::super::pack::choose;
use crate::error::Result;
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

use Access::{Read, Update, Write};

const CHANNELS: Kernel =
    Kernel::new("group_norm_channels", wgsl!("group_norm_parts"), "channels", &[Read, Write]);
const CHANNELS_PACKED: Kernel =
    Kernel::new("group_norm_channels", wgsl!("group_norm_parts"), "channels_packed", &[Read, Write]);
const CHUNKS: Kernel = Kernel::new("group_norm_chunks", wgsl!("group_norm_parts"), "chunks", &[Read, Update]);

/// Pixels of a block, and blocks of a chunk.
const BLOCK: usize = 128;
const CHUNK: usize = 64;

/// What the kernels of `group_norm_parts.wgsl` are told.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
pub(in crate::ops) struct Params {
    pub pixels: u32,
    pub channels: u32,
    pub groups: u32,
    pub blocks: u32,
    pub chunks: u32,
    pub first: u32,
    pub source: u32,
    pub to: u32,
    pub silu: u32,
    pub eps: f32,
    pub unused: [u32; 2],
}

/// Chunks of so many pixels.
pub(in crate::ops) fn chunks_of(pixels: usize) -> usize {
    pixels.div_ceil(BLOCK).div_ceil(CHUNK)
}

/// Mean, sum of squares around it and count of each group in each chunk of `pixels` pixels of x, from pixel `source` on, into
/// `all` `[chunks, G, 4]` f32 from chunk `first` on.
pub(in crate::ops) fn sum_chunks(
    cx: &mut Context,
    (x, source, pixels): (&Tensor, usize, usize),
    (all, first): (&Tensor, usize),
) -> Result<()> {
    let (channels, groups) = (x.shape()[x.shape().len() - 1], all.shape()[1]);
    let blocks = pixels.div_ceil(BLOCK);
    let of_blocks = cx.output("group_norm blocks", &[blocks, channels, 2], DType::F32)?;
    let [told_pixels, told_channels, told_groups] = [pixels, channels, groups].map(|extent| extent as u32);
    let told = Params {
        pixels: told_pixels,
        channels: told_channels,
        groups: told_groups,
        blocks: blocks as u32,
        first: first as u32,
        source: source as u32,
        ..Params::default()
    };
    let chosen = choose(cx, x.dtype(), &[channels], &CHANNELS_PACKED, &CHANNELS);
    let launch = cx.launch(chosen.kernel).bind(x).bind(&of_blocks).params(&told);
    launch.variant(chosen.variant("")).over(blocks * channels / chosen.lanes, 64);
    let launch = cx.launch(&CHUNKS).bind(&of_blocks).bind(all).params(&told);
    launch.over(chunks_of(pixels) * groups, 64);
    Ok(())
}
