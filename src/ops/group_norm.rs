//! Group norm with what usually follows it (Wu & He 2018, and the scale-shift norm of Dhariwal & Nichol 2021):
//! y = act(((x - mean)·rstd·gamma + beta)·(1 + scale) + shift),  mean and rstd = (var + eps)^-½ over the pixels and
//! channels of a group, act the identity or SiLU.  x `[N, ..., C]`, gamma and beta `[C]`, scale and shift `[N, C]`.
//!
//! Statistics are f32 and shifted before they are squared. How sums are split depends on the pixels, never on N.

pub(super) mod chunks;
mod problem;
mod slab;
mod tiled;

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel, Rung};
use crate::tensor::{Context, DType, GradTarget, Tensor};
use crate::wgsl;

use Access::{Read, Update, Write};
use chunks::{chunks_of, sum_chunks};
use problem::Params;
use slab::Slabs;
use tiled::Tiles;

const WHOLE_GROUPS: Kernel =
    Kernel::new("group_norm_stats", wgsl!("group_norm"), "whole_groups", &[Read, Read, Read, Read, Write]);
const OF_CHUNKS: Kernel =
    Kernel::new("group_norm_stats", wgsl!("group_norm"), "of_chunks", &[Read, Read, Read, Read, Write]);
const APPLY: Kernel = Kernel::new("group_norm", wgsl!("group_norm"), "apply", &[Read, Read, Write]);
const APPLY4: Kernel = Kernel::new("group_norm", wgsl!("group_norm"), "apply4", &[Read, Read, Write]);

const BLOCK_SUMS: Kernel =
    Kernel::new("group_norm_sums", wgsl!("group_norm_backward"), "block_sums", &[Read, Read, Read, Write]);
const BLOCK_SUMS4: Kernel =
    Kernel::new("group_norm_sums", wgsl!("group_norm_backward"), "block_sums4", &[Read, Read, Read, Write]);
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

/// What one invocation may sum of a group, for each pixel two turns of loops counted too. Adapters in software leave all loops
/// of an invocation without a word after 65535 turns together, and the statistics go over a group twice.
const MOST_SUMMED: usize = 30_000;

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
    let invocations = cx.capabilities().limits.max_compute_invocations_per_workgroup as usize;
    let tiles = if cx.rung().is_tiled() { Tiles::new(&params, x.dtype()) } else { None };
    let slabs = if tiles.is_some() { Slabs::new(&params, x.dtype(), invocations) } else { None };
    let vectors = cx.rung() != Rung::Naive && channels.is_multiple_of(4);

    // Without scale and shift gamma holds their place, unread.
    let modulation = scale_shift.unwrap_or(gamma).clone();
    let [y, coefficients] = match (&slabs, &tiles) {
        (Some(slabs), _) => slabs.forward(cx, x, [gamma, beta, &modulation], false)?,
        (None, Some(tiles)) => tiles.forward(cx, x, [gamma, beta, &modulation], false)?,
        (None, None) => forward(cx, x, [gamma, beta, &modulation], params, vectors)?,
    };

    let inputs: Vec<&Tensor> = [x, gamma, beta].into_iter().chain(scale_shift).collect();
    cx.backward(&y, &inputs, {
        let (x, gamma, beta) = (x.clone(), gamma.clone(), beta.clone());
        let scale_shift = scale_shift.cloned();
        move |cx, dy| {
            // The sums over the pixels, for all of the gradients, and over those the sums of groups.
            let (sums, totals) = match &tiles {
                Some(tiles) => {
                    let [sums, totals] = tiles.sums(cx, &x, dy, &coefficients)?;
                    (sums, Some(totals))
                }
                None => (channel_sums(cx, [&x, dy, &coefficients], params, vectors)?, None),
            };
            if let Some(dx) = cx.grad_target(&x)? {
                match (&tiles, &totals) {
                    (Some(tiles), Some(totals)) => {
                        tiles.input_gradient(cx, [&x, dy, &coefficients, totals], &dx);
                    }
                    _ => input_gradient(cx, [&x, dy, &coefficients, &sums], &dx, params, vectors)?,
                }
            }
            for (parameter, of_beta) in [(&gamma, 0), (&beta, 1)] {
                if let Some(target) = cx.grad_target(parameter)? {
                    if let Some(tiles) = &tiles {
                        tiles.affine_gradient(cx, [&sums, &coefficients, &modulation], of_beta, &target);
                        continue;
                    }
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

/// y and the coefficients `[N, 4, C]`; an invocation takes the statistics of a whole group, or of what of it is not too much.
fn forward(
    cx: &mut Context,
    x: &Tensor,
    [gamma, beta, modulation]: [&Tensor; 3],
    params: Params,
    vectors: bool,
) -> Result<[Tensor; 2]> {
    let (batch, channels) = (params.batch as usize, params.channels as usize);
    let coefficients = cx.output("group_norm coefficients", &[batch, 4, channels], DType::F32)?;
    let [pixels, groups] = [params.pixels, params.groups].map(|extent| extent as usize);
    if pixels * (channels / groups + 2) <= MOST_SUMMED {
        let launch = cx.launch(&WHOLE_GROUPS).bind(x).bind(gamma).bind(beta).bind(modulation);
        launch.bind(&coefficients).params(&params).over(batch * groups, 16);
    } else {
        let chunks = chunks_of(pixels);
        let all = cx.output("group_norm chunks", &[batch * chunks, groups, 4], DType::F32)?;
        for n in 0..batch {
            sum_chunks(cx, (x, n * pixels, pixels), (&all, n * chunks))?;
        }
        let launch = cx.launch(&OF_CHUNKS).bind(&all).bind(gamma).bind(beta).bind(modulation);
        let params = Params { blocks: chunks as u32, ..params };
        launch.bind(&coefficients).params(&params).variant("of chunks").over(batch * groups, 16);
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
    Ok([y, coefficients])
}

/// A and D of every channel, `[N, 2, C]`.
fn channel_sums(
    cx: &mut Context,
    [x, dy, coefficients]: [&Tensor; 3],
    params: Params,
    vectors: bool,
) -> Result<Tensor> {
    let (batch, channels) = (params.batch as usize, params.channels as usize);
    let sums = cx.output("group_norm sums", &[batch, 2, channels], DType::F32)?;
    let split = params.blocked(usize::MAX);
    let (kernel, width) = if vectors { (&BLOCK_SUMS4, 4) } else { (&BLOCK_SUMS, 1) };
    let launch = cx.launch(kernel).bind(x).bind(dy).bind(coefficients).bind(&sums);
    launch.params(&split).variant(label(width)).over(split.invocations(width), 64);
    Ok(sums)
}

fn input_gradient(
    cx: &mut Context,
    [x, dy, coefficients, sums]: [&Tensor; 4],
    dx: &GradTarget,
    params: Params,
    vectors: bool,
) -> Result<()> {
    let totals = cx.output("group_norm totals", sums.shape(), DType::F32)?;
    let launch = cx.launch(&GROUP_SUMS).bind(sums).bind(coefficients).bind(&totals);
    launch.params(&params).over((params.batch * params.groups) as usize, 16);
    let split = Params { accumulate: dx.flag(), ..params.blocked(APPLY_PIXELS) };
    let (kernel, width) = if vectors { (&INPUT4, 4) } else { (&INPUT, 1) };
    let count = if vectors { split.invocations(4) } else { x.len() };
    let launch = cx.launch(kernel).bind(x).bind(dy).bind(coefficients).bind(&totals);
    launch.bind(&dx.tensor).params(&split).variant(label(width)).over(count, 64);
    Ok(())
}

fn label(width: usize) -> &'static str {
    if width == 4 { "vec4" } else { "naive" }
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
