//! Group norm with what usually follows it (Wu & He 2018, and the scale-shift norm of Dhariwal & Nichol 2021):
//! y = act(((x - mean)·rstd·gamma + beta)·(1 + scale) + shift),  mean and rstd = (var + eps)^-½ over the pixels and
//! channels of a group, act the identity or SiLU.  x `[N, ..., C]`, gamma and beta `[C]`, scale and shift `[N, C]`.
//!
//! Statistics are f32 and shifted before they are squared. How sums are split depends on the pixels, never on N.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel, Rung};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

use Access::{Read, Update, Write};

const WHOLE_GROUPS: Kernel =
    Kernel::new("group_norm_stats", wgsl!("group_norm"), "whole_groups", &[Read, Read, Read, Read, Write]);
const BLOCK_STATISTICS: Kernel =
    Kernel::new("group_norm_blocks", wgsl!("group_norm"), "block_statistics4", &[Read, Write]);
const COMBINE: Kernel =
    Kernel::new("group_norm_combine", wgsl!("group_norm"), "combine", &[Read, Read, Read, Read, Write]);
const APPLY: Kernel = Kernel::new("group_norm", wgsl!("group_norm"), "apply", &[Read, Read, Write]);
const APPLY4: Kernel = Kernel::new("group_norm", wgsl!("group_norm"), "apply4", &[Read, Read, Write]);

const BLOCK_SUMS: Kernel =
    Kernel::new("group_norm_sums", wgsl!("group_norm_backward"), "block_sums", &[Read, Read, Read, Write]);
const BLOCK_SUMS4: Kernel =
    Kernel::new("group_norm_sums", wgsl!("group_norm_backward"), "block_sums4", &[Read, Read, Read, Write]);
const CHANNEL_SUMS: Kernel =
    Kernel::new("group_norm_channel_sums", wgsl!("group_norm_backward"), "channel_sums", &[Read, Write]);
const GROUP_SUMS: Kernel =
    Kernel::new("group_norm_group_sums", wgsl!("group_norm_backward"), "group_sums", &[Read, Read, Write]);
const INPUT: Kernel = Kernel::new(
    "group_norm_backward",
    wgsl!("group_norm_backward"),
    "input_gradient",
    &[Read, Read, Read, Read, Update],
);
const INPUT4: Kernel = Kernel::new(
    "group_norm_backward",
    wgsl!("group_norm_backward"),
    "input_gradient4",
    &[Read, Read, Read, Read, Update],
);
const AFFINE: Kernel = Kernel::new(
    "group_norm_affine",
    wgsl!("group_norm_backward"),
    "affine_gradient",
    &[Read, Read, Read, Update],
);
const SCALE_SHIFT: Kernel = Kernel::new(
    "group_norm_scale_shift",
    wgsl!("group_norm_backward"),
    "scale_shift_gradient",
    &[Read, Read, Read, Read, Update],
);

/// Pixels that one invocation of an element-wise pass takes, so that it reads its coefficients once.
const APPLY_PIXELS: usize = 8;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    batch: u32,
    pixels: u32,
    channels: u32,
    groups: u32,
    block: u32,
    blocks: u32,
    silu: u32,
    scale_shift: u32,
    eps: f32,
    accumulate: u32,
    of_beta: u32,
    pad: u32,
}

impl Params {
    /// These, with the pixels of an image in blocks of `block`.
    fn blocked(self, block: usize) -> Params {
        let block = (block as u32).min(self.pixels).max(1);
        Params { block, blocks: self.pixels.div_ceil(block), ..self }
    }

    /// Invocations that take `width` channels of a block each.
    fn invocations(&self, width: usize) -> usize {
        self.batch as usize * self.blocks as usize * self.channels as usize / width
    }
}

/// What a group norm is made of besides its tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNorm {
    /// Groups that the channels are split into.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
    /// Whether SiLU follows.
    pub silu: bool,
}

/// Group norm of x `[N, ..., C]` with gamma and beta `[C]`, then optionally ·(1 + scale) + shift with scale and shift
/// the halves of `scale_shift` `[N, 2C]`, then optionally SiLU.
///
/// # Errors
/// [`Error::Shape`] when the shapes or types do not fit, or the groups do not divide the channels.
pub fn group_norm(
    cx: &mut Context,
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    scale_shift: Option<&Tensor>,
    options: &GroupNorm,
) -> Result<Tensor> {
    let params = check(x, gamma, beta, scale_shift, options)?;
    let (batch, channels) = (params.batch as usize, params.channels as usize);
    let vectors = cx.rung() != Rung::Naive && channels.is_multiple_of(4);
    let tiled = cx.rung().is_tiled() && vectors;

    // Without scale and shift gamma holds their place, unread.
    let modulation = scale_shift.unwrap_or(gamma).clone();
    let coefficients = cx.output("group_norm coefficients", &[batch, 4, channels], DType::F32)?;
    if tiled {
        let split = params.blocked(block_pixels(params.pixels as usize));
        let shape = [batch, split.blocks as usize, 2, channels];
        let partial = cx.output("group_norm partial", &shape, DType::F32)?;
        let launch = cx.launch(&BLOCK_STATISTICS).bind(x).bind(&partial).params(&split);
        launch.variant("tiled").over(split.invocations(4), 64);
        let launch = cx.launch(&COMBINE).bind(&partial).bind(gamma).bind(beta).bind(&modulation);
        launch.bind(&coefficients).params(&split).variant("tiled").over_groups(batch * options.groups);
    } else {
        let launch = cx.launch(&WHOLE_GROUPS).bind(x).bind(gamma).bind(beta).bind(&modulation);
        launch.bind(&coefficients).params(&params).over(batch * options.groups, 16);
    }

    let y = cx.output("group_norm", x.shape(), x.dtype())?;
    if vectors {
        let split = params.blocked(APPLY_PIXELS);
        let launch = cx.launch(&APPLY4).bind(x).bind(&coefficients).bind(&y).params(&split);
        launch.variant("vec4").over(split.invocations(4), 64);
    } else {
        let launch = cx.launch(&APPLY).bind(x).bind(&coefficients).bind(&y).params(&params);
        launch.variant("naive").over(x.len(), 64);
    }

    let inputs: Vec<&Tensor> = [x, gamma, beta].into_iter().chain(scale_shift).collect();
    cx.backward(&y, &inputs, {
        let (x, gamma, beta) = (x.clone(), gamma.clone(), beta.clone());
        let scale_shift = scale_shift.cloned();
        move |cx, dy| {
            // The sums over the pixels, for all of the gradients.
            let split = params.blocked(if tiled { block_pixels(params.pixels as usize) } else { usize::MAX });
            let shape = [batch, split.blocks as usize, 2, channels];
            let partial = cx.output("group_norm partial", &shape, DType::F32)?;
            let (kernel, width) = if vectors { (&BLOCK_SUMS4, 4) } else { (&BLOCK_SUMS, 1) };
            let launch = cx.launch(kernel).bind(&x).bind(dy).bind(&coefficients).bind(&partial);
            launch.params(&split).variant(label(width)).over(split.invocations(width), 64);
            let mut sums = partial.reshape(&[batch * split.blocks as usize, 2, channels])?;
            if split.blocks > 1 {
                sums = cx.output("group_norm sums", &[batch, 2, channels], DType::F32)?;
                let launch = cx.launch(&CHANNEL_SUMS).bind(&partial).bind(&sums).params(&split);
                launch.over(sums.len(), 64);
            }

            if let Some(dx) = cx.grad_target(&x)? {
                let totals = cx.output("group_norm totals", &[batch, 2, channels], DType::F32)?;
                let launch = cx.launch(&GROUP_SUMS).bind(&sums).bind(&coefficients).bind(&totals);
                launch.params(&params).over(batch * params.groups as usize, 16);
                let split = Params { accumulate: dx.flag(), ..params.blocked(APPLY_PIXELS) };
                let (kernel, count) =
                    if vectors { (&INPUT4, split.invocations(4)) } else { (&INPUT, x.len()) };
                let launch = cx.launch(kernel).bind(&x).bind(dy).bind(&coefficients).bind(&totals);
                launch.bind(&dx.tensor).params(&split).variant(label(width)).over(count, 64);
            }
            for (parameter, of_beta) in [(&gamma, 0), (&beta, 1)] {
                if let Some(target) = cx.grad_target(parameter)? {
                    let params = Params { accumulate: target.flag(), of_beta, ..params };
                    let launch = cx.launch(&AFFINE).bind(&sums).bind(&coefficients).bind(&modulation);
                    launch.bind(&target.tensor).params(&params).over(channels, 16);
                }
            }
            if let Some(scale_shift) = &scale_shift
                && let Some(target) = cx.grad_target(scale_shift)?
            {
                let params = Params { accumulate: target.flag(), ..params };
                let launch = cx.launch(&SCALE_SHIFT).bind(&sums).bind(&coefficients).bind(&gamma).bind(&beta);
                launch.bind(&target.tensor).params(&params).over(batch * channels, 64);
            }
            Ok(())
        }
    });
    Ok(y)
}

fn label(width: usize) -> &'static str {
    if width == 4 { "vec4" } else { "naive" }
}

/// Pixels of a block of partial sums: enough blocks to fill a GPU, few enough to be summed in one go.
fn block_pixels(pixels: usize) -> usize {
    if pixels <= 1024 { 8 } else { 32 }
}

fn check(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    scale_shift: Option<&Tensor>,
    options: &GroupNorm,
) -> Result<Params> {
    let fail = |what: String| Err(Error::shape("group_norm", what));
    let (shape, groups) = (x.shape(), options.groups);
    let &[batch, .., channels] = shape else {
        return fail(format!("expected [N, ..., C] (two dimensions or more), got {shape:?}"));
    };
    if x.is_empty() || x.dtype() == DType::U32 {
        return fail(format!("x is {shape:?} {:?}, expected floats, at least one", x.dtype()));
    }
    if groups == 0 || !channels.is_multiple_of(groups) {
        return fail(format!("x is {shape:?}: its {channels} channels do not divide into {groups} groups"));
    }
    for (name, parameter) in [("gamma", gamma), ("beta", beta)] {
        if parameter.shape() != [channels] || parameter.dtype() != DType::F32 {
            let (shape, dtype) = (parameter.shape(), parameter.dtype());
            return fail(format!(
                "{name} is {shape:?} {dtype:?}, expected [{channels}] F32 for x {:?}",
                x.shape()
            ));
        }
    }
    let mut kind = 0;
    if let Some(scale_shift) = scale_shift {
        let (shape, dtype) = (scale_shift.shape(), scale_shift.dtype());
        if shape != [batch, 2 * channels] || (dtype != DType::F32 && dtype != x.dtype()) {
            return fail(format!(
                "scale and shift are {shape:?} {dtype:?}, expected [{batch}, {}] in F32 or the type of x, {:?} {:?}",
                2 * channels,
                x.shape(),
                x.dtype()
            ));
        }
        kind = if dtype == DType::F16 { 2 } else { 1 };
    }
    Ok(Params {
        batch: batch as u32,
        pixels: (x.len() / (batch * channels)) as u32,
        channels: channels as u32,
        groups: groups as u32,
        block: 1,
        blocks: 1,
        silu: u32::from(options.silu),
        scale_shift: kind,
        eps: options.eps,
        accumulate: 0,
        of_beta: 0,
        pad: 0,
    })
}

#[cfg(test)]
mod tests;
