//! One move of any sampler that is linear in (z, x̂, x̂ before, gradient, noise), as one kernel.
//!
//!   x̂ = clip(x_z z + x_out out),
//!   z ← mean_z z + mean_x x̂ + mean_out out + mean_previous x̂' + mean_gradient V g + noise √V normal.
//!
//! The numbers are those of [`StepRow`], made by a sampler of [`diffusion::moves`](crate::diffusion::moves); V is 1 or the
//! learned variance (IDDPM, equation 15). As in [`guided_step`](super::guided_step()), one plan replays for all moves.

use bytemuck::{Pod, Zeroable};

use super::dynamic_threshold::threshold_rows;
use super::guided_step::check_rule;
use super::guider::with_rule;
use super::noised::{expect, table};
use crate::diffusion::{Clip, StepRow, Variance};
use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::random::Stream;
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const OP: &str = "sampler_step";

use Access::{Read, Update, Write};

const STEP: Kernel =
    Kernel::new(OP, wgsl!("sampler_step"), "step", &[Update, Read, Read, Read, Read, Read, Read, Read]);
const MULTISTEP: Kernel = Kernel::new(
    "sampler_multistep",
    wgsl!("sampler_step"),
    "multistep",
    &[Update, Read, Read, Read, Read, Read, Read, Update],
);
const GIVEN: Kernel = Kernel::new(
    "sampler_step_given",
    wgsl!("sampler_step"),
    "given",
    &[Update, Read, Read, Read, Read, Read, Read],
);
const MAGNITUDES: Kernel = Kernel::new(
    "sampler_magnitudes",
    wgsl!("sampler_step"),
    "magnitudes",
    &[Update, Read, Read, Read, Read, Write],
);
const GUIDE: Kernel =
    Kernel::new("guide_output", wgsl!("sampler_step"), "guide", &[Update, Read, Read, Read]);

/// Words of a row of the table of moves.
const ROW: usize = size_of::<StepRow>() / 4;

#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct Params {
    count: u32,
    blocks: u32,
    length: u32,
    channels: u32,
    pixels: u32,
    out_channels: u32,
    samples: u32,
    pair: u32,
    clip: u32,
    rows: u32,
    steps: u32,
    stream: u32,
    variance: u32,
    guided: u32,
    counters: u32,
    pad: u32,
}

/// Where a move's noise comes from.
#[derive(Clone, Copy, Debug)]
pub enum StepNoise<'a> {
    /// Made by the kernel: `[N, 2]` u32, low and high half of each sample's own seed.
    Seeds(&'a Tensor),
    /// `[N, H, W, C]` f32.
    Given(&'a Tensor),
}

/// What a move reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct SamplerStep<'a> {
    /// `[N, H, W, C]` f32, replaced by the next latent.
    pub z: &'a Tensor,
    /// `[2N, H, W, E]` f32, the network's output with the condition and then without; or `[N, H, W, E]`, one that is used
    /// as it is. E is C, or 2C where the network predicts variances too.
    pub out: &'a Tensor,
    /// `[T, 12]` u32, from [`move_table`].
    pub steps: &'a Tensor,
    /// `[1]` u32, the move to take, or `[N]`, one for each sample. T or more takes the last.
    pub counter: &'a Tensor,
    /// f32; the first element is the guidance weight w. Not read when there is one output.
    pub guidance: &'a Tensor,
    /// The noise.
    pub noise: StepNoise<'a>,
    /// The variance that the moves were made for; only whether and how it is learned is asked.
    pub variance: Variance,
    /// What is done to x̂.
    pub clip: Clip,
    /// `[N, H, W, C]` f32: ∇ log p(c given z), times its scale.
    pub gradient: Option<&'a Tensor>,
    /// `[N, H, W, C]` f32: the x̂ of the move before, replaced by this one's. Finite before the first.
    pub previous: Option<&'a Tensor>,
}

/// Moves as kernels read them, `[T, 12]` u32.
///
/// # Errors
/// [`Error::Shape`] when there is none.
pub fn move_table(cx: &Context, rows: &[StepRow]) -> Result<Tensor> {
    if rows.is_empty() {
        return Err(Error::shape(OP, "a table of no moves"));
    }
    cx.constant("moves", &[rows.len(), ROW], DType::U32, bytemuck::cast_slice(rows))
}

/// Records the move.
///
/// # Errors
/// [`Error::Shape`] when a tensor has not the shape or type that [`SamplerStep`] says, when a learned variance has no
/// channels, and for a gradient or given noise together with an x̂ before, which no kernel takes (see [`guide_output`]).
pub fn sampler_step(cx: &mut Context, step: SamplerStep<'_>) -> Result<()> {
    if step.guidance.is_empty() || step.guidance.dtype() != DType::F32 {
        return Err(Error::shape(OP, format!("needs a weight in f32, got {:?}", step.guidance.shape())));
    }
    record(cx, step, None)
}

/// Records the move with an expression in WGSL in the place of CFG's rule, as [`guided_step_by`](super::guided_step_by()) does;
/// `guidance` is then the guiders' table.
///
/// # Errors
/// As [`sampler_step`] and [`guided_step_by`](super::guided_step_by()).
pub fn sampler_step_by(cx: &mut Context, step: SamplerStep<'_>, expression: &str) -> Result<()> {
    check_rule(OP, [step.z, step.out], step.steps, step.guidance, step.clip)?;
    record(cx, step, Some(expression))
}

fn record(cx: &mut Context, step: SamplerStep<'_>, rule: Option<&str>) -> Result<()> {
    let SamplerStep { z, out, steps, counter, guidance, noise, variance, clip, gradient, previous } = step;
    let [n, h, w, c] = z.nhwc(OP)?;
    expect(OP, "z", z, &[n, h, w, c], DType::F32)?;
    let mut params = shape_params(z, out, steps, counter)?;
    if variance.is_learned() && params.out_channels as usize != 2 * c {
        let what =
            format!("learned variances need {} channels, the output has {}", 2 * c, params.out_channels);
        return Err(Error::shape(OP, what));
    }
    for (name, tensor) in [("gradient", gradient), ("previous", previous)] {
        if let Some(tensor) = tensor {
            expect(OP, name, tensor, z.shape(), DType::F32)?;
        }
    }
    params.variance = match variance {
        Variance::Small | Variance::Large => 0,
        Variance::LearnedRange => 1,
        Variance::Learned => 2,
    };
    params.guided = u32::from(gradient.is_some());
    let mut strength = guidance.clone();
    match clip {
        Clip::None => {}
        Clip::Static => params.clip = 1,
        Clip::Dynamic { quantile } => {
            let length = h * w * c;
            let magnitudes = cx.output("sampler magnitudes", &[n, length], DType::F32)?;
            let of_all = Params { count: z.len() as u32, ..params };
            let launch = cx.launch(&MAGNITUDES).bind(z).bind(out).bind(steps).bind(counter).bind(guidance);
            launch.bind(&magnitudes).params(&of_all).over(z.len(), 64);
            strength = threshold_rows(cx, &magnitudes, guidance, quantile)?;
            (params.clip, params.rows) = (2, 1);
        }
    }
    let ruled = |kernel: &'static Kernel| rule.map_or(Ok(kernel), |text| with_rule(kernel, text));
    // Where there is no gradient another tensor takes its place, and is not read.
    let slope = gradient.unwrap_or(out);
    match (noise, previous) {
        (StepNoise::Seeds(seeds), previous) => {
            expect(OP, "seeds", seeds, &[n, 2], DType::U32)?;
            let table = table(cx)?;
            let (kernel, last) = match previous {
                None => (&STEP, slope),
                Some(_) if gradient.is_some() => {
                    let what =
                        "no kernel takes both a gradient and an x̂ before; shift the output with guide_output";
                    return Err(Error::shape(OP, what));
                }
                Some(previous) => (&MULTISTEP, previous),
            };
            let launch =
                cx.launch(ruled(kernel)?).bind(z).bind(out).bind(steps).bind(counter).bind(&strength);
            let launch = launch.bind(seeds).bind(&table).bind(last).params(&params).variant(clip);
            launch.over(params.count as usize, 64);
        }
        (StepNoise::Given(_), Some(_)) => {
            return Err(Error::shape(OP, "no kernel takes both given noise and an x̂ before"));
        }
        (StepNoise::Given(noise), None) => {
            expect(OP, "noise", noise, z.shape(), DType::F32)?;
            let params = Params { count: z.len() as u32, ..params };
            let launch =
                cx.launch(ruled(&GIVEN)?).bind(z).bind(out).bind(steps).bind(counter).bind(&strength);
            launch.bind(noise).bind(slope).params(&params).variant(clip).over(z.len(), 64);
        }
    }
    Ok(())
}

/// Guidance by a gradient in the continuous form: eps̃ = eps - σ g, z staying as it is (CFG, section 3.1), in both halves of
/// `out`, whatever the network predicts. `gradient` `[N, H, W, C]` f32 is ∇ log p(c given z) times its scale.
///
/// # Errors
/// As [`sampler_step`].
pub fn guide_output(
    cx: &mut Context,
    out: &Tensor,
    gradient: &Tensor,
    steps: &Tensor,
    counter: &Tensor,
) -> Result<()> {
    let params = shape_params(gradient, out, steps, counter)?;
    let halves = 1 + params.pair as usize;
    let params = Params { count: (gradient.len() * halves) as u32, ..params };
    let launch = cx.launch(&GUIDE).bind(out).bind(gradient).bind(steps).bind(counter);
    launch.params(&params).over(params.count as usize, 64);
    Ok(())
}

fn shape_params(z: &Tensor, out: &Tensor, steps: &Tensor, counter: &Tensor) -> Result<Params> {
    let [n, h, w, c] = z.nhwc(OP)?;
    let [batch, .., channels] = out.nhwc(OP)?;
    if (batch != n && batch != 2 * n) || (channels != c && channels != 2 * c) {
        let what = format!("z is {:?} but the output {:?}: its batch must be {n}", z.shape(), out.shape());
        return Err(Error::shape(OP, format!("{what} or {}, its channels {c} or {}", 2 * n, 2 * c)));
    }
    expect(OP, "out", out, &[batch, h, w, channels], DType::F32)?;
    expect(OP, "steps", steps, &[steps.shape().first().copied().unwrap_or(1), ROW], DType::U32)?;
    let counters = if counter.shape() == [n] { n } else { 1 };
    expect(OP, "counter", counter, &[counters], DType::U32)?;
    let length = h * w * c;
    let blocks = length.div_ceil(4);
    Ok(Params {
        count: (n * blocks) as u32,
        blocks: blocks as u32,
        length: length as u32,
        channels: c as u32,
        pixels: (h * w) as u32,
        out_channels: channels as u32,
        samples: n as u32,
        pair: u32::from(batch != n),
        steps: steps.shape()[0] as u32,
        stream: Stream::StepNoise as u32,
        counters: counters as u32,
        ..Params::default()
    })
}

#[cfg(test)]
mod tests;
