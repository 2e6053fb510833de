//! Group norm forward in one dispatch: a workgroup has all pixels of a slab of channels. See `shaders/norm_slab.wgsl` for
//! how the work is shared out.

use bytemuck::{Pod, Zeroable};

use super::super::pack::lanes;
use crate::error::Result;
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

use Access::{Read, Write};

const CHECKED: Kernel =
    Kernel::new("group_norm", wgsl!("group_norm_slab"), "slab", &[Read, Read, Read, Read, Write, Write]);

// The shader's header says why no access is out of bounds; every loop counts up to a number of the launch.
const SLAB: Kernel = unsafe { CHECKED.trusted() };

/// The most groups of a slab, and the lanes that put the rows of a pack together, as in the shaders.
const GROUPS: usize = 32;
const PARTS: usize = 32;

/// A pack narrower than a sector of the memory is read twice; a slab of fewer packs than lanes leaves some idle.
const FEWEST_PACKS: usize = 2;
const LEAST_WORK: usize = 256;

/// Packs of a slab above which one workgroup takes longer than two dispatches of many: on an H200 a 64x64 image of 192
/// channels takes 23 us instead of 11.
const MOST_WORK: usize = 4096;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    pixels: u32,
    channels: u32,
    width: u32,
    packs: u32,
    rows: u32,
    slab_groups: u32,
    silu: u32,
    scale_shift: u32,
    eps: f32,
    pad: [u32; 3],
}

/// How a group norm's work is shared out.
#[derive(Clone, Copy)]
pub(super) struct Slabs {
    params: Params,
    size: usize,
    groups: [u32; 3],
}

impl Slabs {
    /// For workgroups of at most `invocations`. `None` where the channels do not come in whole packs of at most two groups, or
    /// in no slabs that one workgroup should have. Independent of the batch, as sums are split by it.
    pub fn new(of: &super::problem::Params, dtype: DType, invocations: usize) -> Option<Slabs> {
        let [pixels, channels, groups] = [of.pixels, of.channels, of.groups].map(|extent| extent as usize);
        let (lanes, width) = (lanes(dtype), channels / groups);
        if !channels.is_multiple_of(lanes) || !two_groups_at_most(channels, lanes, width) {
            return None;
        }
        let packs = channels / lanes;
        let splits = |slabs: &usize| {
            packs.is_multiple_of(*slabs) && groups.is_multiple_of(*slabs) && groups / slabs <= GROUPS
        };
        let size_of = |slabs: usize| {
            let packs = packs / slabs;
            let wanted: usize = if packs * pixels <= 1024 { 256 } else { 512 };
            wanted.max(packs * PARTS).min(invocations)
        };
        let fits = |slabs: &usize| splits(slabs) && packs / slabs * PARTS <= size_of(*slabs);
        let wide =
            |slabs: &usize| packs / slabs >= FEWEST_PACKS.min(packs) && packs / slabs * pixels >= LEAST_WORK;
        // The most slabs that keep their lanes busy; else the fewest.
        let slabs = (1..=groups).rev().find(|slabs| fits(slabs) && wide(slabs)).or((1..=groups).find(fits))?;
        let (packs, size) = (packs / slabs, size_of(slabs));
        if packs * pixels > MOST_WORK || of.batch > 65535 {
            return None;
        }
        let params = Params {
            pixels: of.pixels,
            channels: of.channels,
            width: width as u32,
            packs: packs as u32,
            rows: (size / packs) as u32,
            slab_groups: (groups / slabs) as u32,
            silu: of.silu,
            scale_shift: of.scale_shift,
            eps: of.eps,
            pad: [0; 3],
        };
        Some(Slabs { params, size, groups: [slabs as u32, of.batch, 1] })
    }

    /// y, and the coefficients `[N, 4, C]` as the backward pass wants them; `checked` as a test wants it.
    pub fn forward(
        &self,
        cx: &mut Context,
        x: &Tensor,
        [gamma, beta, modulation]: [&Tensor; 3],
        checked: bool,
    ) -> Result<[Tensor; 2]> {
        let shape = [self.groups[1] as usize, 4, self.params.channels as usize];
        let coefficients = cx.output("group_norm coefficients", &shape, DType::F32)?;
        let y = cx.output("group_norm", x.shape(), x.dtype())?;
        let launch =
            cx.launch(if checked { &CHECKED } else { &SLAB }).bind(x).bind(gamma).bind(beta).bind(modulation);
        let launch = launch.bind(&coefficients).bind(&y).params(&self.params);
        launch.constant("SIZE", self.size as f64).variant(format!("slab {}", self.size)).groups(self.groups);
        Ok([y, coefficients])
    }
}

/// Whether no pack has channels of three groups of `width`.
fn two_groups_at_most(channels: usize, lanes: usize, width: usize) -> bool {
    (0..channels).step_by(lanes).all(|first| (first + lanes - 1) / width <= first / width + 1)
}
