//! Group norm in workgroups that have whole groups of a block of pixels: two passes over x forward, two over x and dy
//! backward. See `shaders/norm_tile.wgsl` for how the work is shared out.

use bytemuck::{Pod, Zeroable};

use super::super::pack::lanes;
use crate::error::Result;
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, GradTarget, Tensor};
use crate::wgsl;

use Access::{Read, Update, Write};

const CHECKED: [Kernel; 2] = [
    Kernel::new("group_norm_stats", wgsl!("group_norm_tiled"), "statistics", &[Read, Write]),
    Kernel::new(
        "group_norm",
        wgsl!("group_norm_tiled"),
        "apply",
        &[Read, Read, Read, Read, Read, Write, Write],
    ),
];

// The shader's header says why no access is out of bounds; every loop counts up to a number of the launch.
const FORWARD: [Kernel; 2] = unsafe {
    let [statistics, apply] = CHECKED;
    [statistics.trusted(), apply.trusted()]
};
const SUMS: Kernel = Kernel::new(
    "group_norm_sums",
    wgsl!("group_norm_tiled_backward"),
    "tile_sums",
    &[Read, Read, Read, Write],
);
const TOTALS: Kernel = Kernel::new(
    "group_norm_totals",
    wgsl!("group_norm_tiled_backward"),
    "totals_of_group",
    &[Read, Read, Write, Write],
);
const INPUT: Kernel = Kernel::new(
    "group_norm_backward",
    wgsl!("group_norm_tiled_backward"),
    "input_gradient",
    &[Read, Read, Read, Read, Update],
);
const AFFINE: Kernel = Kernel::new(
    "group_norm_affine",
    wgsl!("group_norm_tiled_backward"),
    "affine_gradient",
    &[Read, Read, Read, Update],
);

/// Lanes of a workgroup, the most packs and the most groups of a slab, as in the shaders.
const SIZE: usize = 192;
const PACKS: usize = 96;
const GROUPS: usize = 256;

/// Pixels of a block of statistics, and how many blocks an image may have. Each workgroup of the second pass reads the numbers
/// of all blocks, four to a lane at once; few blocks leave a GPU idle if the batch is small. On an H100, f16: 16x64x64x192 takes
/// 29.2 us in 16 blocks, 30.9 in 32; 1x256x256x256 53 us in 64 blocks, 68 in 32, 54 in 256.
const BLOCK: usize = 256;
const BLOCKS: [usize; 2] = [16, 64];

/// Workgroups of an element-wise pass: enough to fill a GPU. And the most pixels of one.
const WORKGROUPS: usize = 528;
const TILE: usize = 128;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    batch: u32,
    pixels: u32,
    channels: u32,
    groups: u32,
    width: u32,
    packs: u32,
    rows: u32,
    slab_groups: u32,
    block: u32,
    blocks: u32,
    tile: u32,
    silu: u32,
    scale_shift: u32,
    accumulate: u32,
    of_beta: u32,
    eps: f32,
}

/// How a group norm's work is shared out.
#[derive(Clone, Copy)]
pub(super) struct Tiles(Params);

impl Tiles {
    /// `None` where the channels do not come in whole packs, or in no slabs of whole groups that are small enough.
    pub fn new(of: &super::problem::Params, dtype: DType) -> Option<Tiles> {
        let [batch, pixels, channels, groups] =
            [of.batch, of.pixels, of.channels, of.groups].map(|extent| extent as usize);
        let lanes = lanes(dtype);
        if !channels.is_multiple_of(lanes) {
            return None;
        }
        let packs = channels / lanes;
        let fits = |slabs: &usize| {
            packs.is_multiple_of(*slabs)
                && groups.is_multiple_of(*slabs)
                && packs / slabs <= PACKS
                && groups / slabs <= GROUPS
        };
        let slabs = (1..=groups).find(fits)?;
        let rows = SIZE / (packs / slabs);
        // How sums are split must not depend on the batch; how the element-wise passes are split may.
        let [few, many] = BLOCKS;
        let block = pixels.div_ceil((pixels / BLOCK).clamp(few, many)).max(4 * rows).min(pixels);
        let tile = (batch * pixels * slabs).div_ceil(WORKGROUPS);
        let tile = tile.clamp(2 * rows, TILE.max(2 * rows)).min(pixels);
        let blocks = pixels.div_ceil(block);
        if pixels.div_ceil(tile) > 65535 || groups > 65535 {
            return None;
        }
        Some(Tiles(Params {
            batch: of.batch,
            pixels: of.pixels,
            channels: of.channels,
            groups: of.groups,
            width: (channels / groups) as u32,
            packs: (packs / slabs) as u32,
            rows: rows as u32,
            slab_groups: (groups / slabs) as u32,
            block: block as u32,
            blocks: blocks as u32,
            tile: tile as u32,
            silu: of.silu,
            scale_shift: of.scale_shift,
            accumulate: 0,
            of_beta: 0,
            eps: of.eps,
        }))
    }

    /// Workgroups in blocks of `size` pixels.
    fn in_blocks_of(&self, size: u32) -> [u32; 3] {
        [self.0.pixels.div_ceil(size), self.0.groups / self.0.slab_groups, self.0.batch]
    }

    /// y, and the coefficients `[N, 4, C]` as the backward pass wants them; `checked` as a test wants it.
    pub fn forward(
        &self,
        cx: &mut Context,
        x: &Tensor,
        [gamma, beta, modulation]: [&Tensor; 3],
        checked: bool,
    ) -> Result<[Tensor; 2]> {
        let [statistics, apply] = if checked { &CHECKED } else { &FORWARD };
        let params = &self.0;
        let [batch, channels, groups, blocks] =
            [params.batch, params.channels, params.groups, params.blocks].map(|extent| extent as usize);
        let partial = cx.output("group_norm partial", &[batch, groups, blocks, 2], DType::F32)?;
        let launch = cx.launch(statistics).bind(x).bind(&partial).params(params);
        launch.variant("tiled").groups(self.in_blocks_of(params.block));
        let coefficients = cx.output("group_norm coefficients", &[batch, 4, channels], DType::F32)?;
        let y = cx.output("group_norm", x.shape(), x.dtype())?;
        // Of few pixels four at once would be past the end.
        let ahead: u32 = if params.tile >= 8 * params.rows { 4 } else { 2 };
        let launch = cx.launch(apply).bind(x).bind(&partial).bind(gamma).bind(beta).bind(modulation);
        launch
            .bind(&coefficients)
            .bind(&y)
            .params(params)
            .constant("AHEAD", ahead.into())
            .variant("tiled")
            .groups(self.in_blocks_of(params.tile));
        Ok([y, coefficients])
    }

    /// The sums `[N, 2, C]` that all gradients are made of, and of each group K1 and K2 `[N, G, 2]`.
    pub fn sums(
        &self,
        cx: &mut Context,
        x: &Tensor,
        dy: &Tensor,
        coefficients: &Tensor,
    ) -> Result<[Tensor; 2]> {
        let params = &self.0;
        let [batch, channels, groups, blocks] =
            [params.batch, params.channels, params.groups, params.blocks].map(|extent| extent as usize);
        let partial = cx.output("group_norm partial", &[batch, blocks, 2, channels], DType::F32)?;
        let launch = cx.launch(&SUMS).bind(x).bind(dy).bind(coefficients).bind(&partial);
        launch.params(params).variant("tiled").groups(self.in_blocks_of(params.block));
        let sums = cx.output("group_norm sums", &[batch, 2, channels], DType::F32)?;
        let totals = cx.output("group_norm totals", &[batch, groups, 2], DType::F32)?;
        let launch = cx.launch(&TOTALS).bind(&partial).bind(coefficients).bind(&sums).bind(&totals);
        launch.params(params).variant("tiled").groups([params.groups, params.batch, 1]);
        Ok([sums, totals])
    }

    /// dx, of what the sums came to.
    pub fn input_gradient(
        &self,
        cx: &mut Context,
        [x, dy, coefficients, totals]: [&Tensor; 4],
        dx: &GradTarget,
    ) {
        let params = Params { accumulate: dx.flag(), ..self.0 };
        let launch = cx.launch(&INPUT).bind(x).bind(dy).bind(coefficients).bind(totals);
        launch.bind(&dx.tensor).params(&params).variant("tiled").groups(self.in_blocks_of(params.tile));
    }

    /// dbeta if `of_beta` is set, else dgamma.
    pub fn affine_gradient(
        &self,
        cx: &mut Context,
        [sums, coefficients, modulation]: [&Tensor; 3],
        of_beta: u32,
        target: &GradTarget,
    ) {
        let params = Params { accumulate: target.flag(), of_beta, ..self.0 };
        let launch = cx.launch(&AFFINE).bind(sums).bind(coefficients).bind(modulation);
        let groups = params.channels.div_ceil(16);
        launch.bind(&target.tensor).elem(DType::F32).params(&params).variant("tiled").groups([groups, 1, 1]);
    }
}
