//! The fused step of guided ancestral sampling (CFG, Algorithm 2, lines 3-6): combine, x̂, clip, mean and noise at once.
//!
//!   eps̃ = (1 + w) eps_c - w eps_∅,  x̂ = clip((z - σ eps̃)/α),  z ← `mean_z`·z + `mean_x`·x̂ + `noise_sd`·noise;
//!   z ← x̂ in the last step.
//!
//! z `[N, H, W, C]`, in place. The step's numbers come from a table on the device and a counter beside it, so one plan
//! replays for all steps; w and the seeds lie in buffers, so it replays for other guidance and other pictures too. The order
//! of operations is that of [`diffusion::reference::guided_step`](crate::diffusion::reference::guided_step).

use bytemuck::{Pod, Zeroable};

use super::dynamic_threshold::threshold_rows;
use super::guider::{GUIDER_ROW, with_rule};
use super::noised::{expect, table};
use crate::diffusion::{Clip, StepScalars};
use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel, Rung};
use crate::random::Stream;
use crate::tensor::{Context, DType, Launch, Tensor};
use crate::wgsl;

const OP: &str = "guided_step";

use Access::{Read, Update, Write};

const STEP_ACCESS: &[Access] = &[Update, Read, Read, Read, Read, Read, Read];
const PREVIEW_ACCESS: &[Access] = &[Update, Read, Read, Read, Read, Read, Read, Write];
const MAGNITUDES_ACCESS: &[Access] = &[Update, Read, Read, Read, Read, Write];

/// The kernels of one shader.
struct Kernels {
    step: Kernel,
    preview: Kernel,
    magnitudes: Kernel,
}

impl Kernels {
    const fn of(source: &'static str) -> Self {
        Kernels {
            step: Kernel::new(OP, source, "step", STEP_ACCESS),
            preview: Kernel::new(OP, source, "step_preview", PREVIEW_ACCESS),
            magnitudes: Kernel::new("guided_magnitudes", source, "magnitudes", MAGNITUDES_ACCESS),
        }
    }

    /// # Safety
    /// As [`Kernel::trusted`], of each of them.
    const unsafe fn trusted(self) -> Self {
        let Kernels { step, preview, magnitudes } = self;
        // Sound by the promise above.
        unsafe {
            Kernels { step: step.trusted(), preview: preview.trusted(), magnitudes: magnitudes.trusted() }
        }
    }
}

/// One element at a time, any shape.
static SINGLE: Kernels = Kernels::of(wgsl!("guided_step"));
/// Eight elements an invocation, which share their noise in workgroup memory.
// Sound by the shader's header: the shapes that it counts on are checked below.
static PACKED: Kernels = unsafe { Kernels::of(wgsl!("guided_step_packed")).trusted() };

/// Invocations of a workgroup of the packed kernels, as in the shader; the channels must divide it.
const PACKED_SIZE: usize = 192;
/// Vectors of four elements that such a workgroup takes.
const PACKED_TILE: usize = 2 * PACKED_SIZE;
/// The most workgroups in y, one for each sample, that every device allows.
const PACKED_SAMPLES: usize = 65535;

/// Words of a row of the table of steps.
const ROW: usize = size_of::<StepScalars>() / 4;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    blocks: u32,
    length: u32,
    channels: u32,
    pixels: u32,
    eps_channels: u32,
    samples: u32,
    pair: u32,
    clip: u32,
    rows: u32,
    steps: u32,
    stream: u32,
}

/// What a step reads and writes.
#[derive(Clone, Copy, Debug)]
pub struct GuidedStep<'a> {
    /// `[N, H, W, C]` f32, replaced by the next latent.
    pub z: &'a Tensor,
    /// `[2N, H, W, E]` f32 or f16, the conditional predictions and then the unconditional ones; or `[N, H, W, E]`, one
    /// prediction that is used as it is. E is C, or 2C where the network predicts variances too; those are not read.
    pub eps: &'a Tensor,
    /// `[T, 12]` u32, from [`step_table`].
    pub steps: &'a Tensor,
    /// `[1]` u32, the step to take, counted from 0; see [`advance`](super::advance). T or more takes the last step.
    pub counter: &'a Tensor,
    /// f32; the first element is the guidance weight w (not the scale 1 + w). Not read when there is one prediction.
    pub guidance: &'a Tensor,
    /// `[N, 2]` u32: low and high half of each sample's own seed.
    pub seeds: &'a Tensor,
    /// What is done to x̂.
    pub clip: Clip,
    /// `[N, H, W, C]` f32 to receive x̂ after the clip.
    pub preview: Option<&'a Tensor>,
}

/// The steps of a sampler as kernels read them, `[T, 12]` u32: the words of [`StepScalars`].
pub fn step_table(cx: &Context, steps: &[StepScalars]) -> Result<Tensor> {
    cx.constant("steps", &[steps.len(), ROW], DType::U32, bytemuck::cast_slice(steps))
}

/// Records the step.
///
/// # Errors
/// [`Error::Shape`] when a tensor has not the shape or type that [`GuidedStep`] says.
pub fn guided_step(cx: &mut Context, step: GuidedStep<'_>) -> Result<()> {
    if step.guidance.is_empty() || step.guidance.dtype() != DType::F32 {
        return Err(Error::shape(OP, format!("needs a weight in f32, got {:?}", step.guidance.shape())));
    }
    record(cx, step, None)
}

/// Records the step with an expression in WGSL in the place of CFG's rule ([`check_expression`](super::check_expression) says what
/// it may name); `guidance` is then the guiders' table, `[T, 8]` f32 of [`guider_table`](super::guider_table).
///
/// # Errors
/// As [`guided_step`]; [`Error::Shape`] without two predictions; [`Error::Config`] for an expression that does not compile and
/// for a dynamic clip, whose threshold is of a combination that is known before.
pub fn guided_step_by(cx: &mut Context, step: GuidedStep<'_>, expression: &str) -> Result<()> {
    check_rule(OP, [step.z, step.eps], step.steps, step.guidance, step.clip)?;
    record(cx, step, Some(expression))
}

/// Refuses what a rule of the caller's cannot be recorded with.
pub(super) fn check_rule(
    op: &'static str,
    [z, out]: [&Tensor; 2],
    steps: &Tensor,
    table: &Tensor,
    clip: Clip,
) -> Result<()> {
    expect(op, "guiders' table", table, &[steps.shape()[0], GUIDER_ROW], DType::F32)?;
    if out.shape()[0] != 2 * z.shape()[0] {
        let what = format!(
            "z is {:?}, so a rule of two predictions needs twice as many, got {:?}",
            z.shape(),
            out.shape()
        );
        return Err(Error::shape(op, what));
    }
    match clip {
        Clip::Dynamic { .. } => Err(Error::Config(
            "a dynamic threshold is of a combination that is known before the step; make eps̃ of the expression first".into(),
        )),
        Clip::None | Clip::Static => Ok(()),
    }
}

fn record(cx: &mut Context, step: GuidedStep<'_>, rule: Option<&str>) -> Result<()> {
    let GuidedStep { z, eps, steps, counter, guidance, seeds, clip, preview } = step;
    let [n, h, w, c] = z.nhwc(OP)?;
    expect(OP, "z", z, &[n, h, w, c], DType::F32)?;
    let [batch, .., eps_channels] = eps.nhwc(OP)?;
    if (batch != n && batch != 2 * n) || (eps_channels != c && eps_channels != 2 * c) {
        let what =
            format!("z is {:?} but eps {:?}: its batch must be {n} or {}", z.shape(), eps.shape(), 2 * n);
        return Err(Error::shape(OP, format!("{what}, its channels {c} or {}", 2 * c)));
    }
    if eps.dtype() == DType::U32 {
        return Err(Error::shape(OP, format!("eps must be floats, got {:?}", eps.dtype())));
    }
    expect(OP, "steps", steps, &[steps.shape().first().copied().unwrap_or(1), ROW], DType::U32)?;
    expect(OP, "counter", counter, &[1], DType::U32)?;
    expect(OP, "seeds", seeds, &[n, 2], DType::U32)?;
    if steps.is_empty() {
        return Err(Error::shape(OP, format!("needs a step, got {:?}", steps.shape())));
    }
    if let Some(preview) = preview {
        expect(OP, "preview", preview, z.shape(), DType::F32)?;
    }

    let length = h * w * c;
    let blocks = length.div_ceil(4);
    let packed = cx.rung() != Rung::Naive
        && (h * w).is_multiple_of(4)
        && PACKED_SIZE.is_multiple_of(c)
        && n <= PACKED_SAMPLES;
    let kernels = if packed { &PACKED } else { &SINGLE };
    let groups = [(length / 4).div_ceil(PACKED_TILE) as u32, n as u32, 1];
    let mut params = Params {
        count: (n * blocks) as u32,
        blocks: blocks as u32,
        length: length as u32,
        channels: c as u32,
        pixels: (h * w) as u32,
        eps_channels: eps_channels as u32,
        samples: n as u32,
        pair: u32::from(batch != n),
        clip: 0,
        rows: 0,
        steps: steps.shape()[0] as u32,
        stream: Stream::StepNoise as u32,
    };
    let mut strength = guidance.clone();
    match clip {
        Clip::None => {}
        Clip::Static => params.clip = 1,
        Clip::Dynamic { quantile } => {
            let magnitudes = cx.output("guided magnitudes", &[n, length], DType::F32)?;
            let of_all = Params { count: z.len() as u32, ..params };
            let launch = cx.launch(&kernels.magnitudes).bind(z).bind(eps).bind(steps).bind(counter);
            let launch = launch.bind(guidance).bind(&magnitudes).params(&of_all);
            match packed {
                true => with_constants(launch.variant("x8"), &params).groups(groups),
                false => launch.over(z.len(), 64),
            }
            strength = threshold_rows(cx, &magnitudes, guidance, quantile)?;
            (params.clip, params.rows) = (2, 1);
        }
    }
    let table = table(cx)?;
    let kernel = if preview.is_some() { &kernels.preview } else { &kernels.step };
    let kernel = rule.map_or(Ok(kernel), |text| with_rule(kernel, text))?;
    let mut launch = cx.launch(kernel).bind(z).bind(eps).bind(steps).bind(counter).bind(&strength);
    launch = launch.bind(seeds).bind(&table);
    if let Some(preview) = preview {
        launch = launch.bind(preview);
    }
    let launch = launch.params(&params);
    match packed {
        true => with_constants(launch.variant(format!("x8 {clip}")), &params).groups(groups),
        false => launch.variant(clip).over(params.count as usize, 64),
    }
    Ok(())
}

/// What the packed kernels know when they are compiled.
fn with_constants<'a>(launch: Launch<'a>, params: &Params) -> Launch<'a> {
    let launch = launch.constant("channels", params.channels.into()).constant("pair", params.pair.into());
    launch.constant("eps_channels", params.eps_channels.into())
}

#[cfg(test)]
mod tests;
