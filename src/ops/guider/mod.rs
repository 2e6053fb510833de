//! Guiders on the device (`diffusion::guiders`): what stands between the network's evaluations and the step.
//!
//! Guiders that only set each step's weight are the step's own kernel with another w: [`step_weight`] puts it where the
//! kernel reads it. An expression of the caller's takes the place of the kernel's own rule ([`expression_of`]). The others make one
//! eps̃ `[N, H, W, C]` of all evaluations ([`guided_eps`]), from factors of each sample
//! where a sum over it is needed, and CFG++ adds its eps_∅ after the step ([`renoise`]). The reference is
//! [`Guiders::combine`](crate::diffusion::Guiders::combine).

mod expression;
#[cfg(test)]
mod fused_tests;
mod outputs;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

pub use expression::check_expression;
pub(in crate::ops) use expression::with_rule;
pub use outputs::{outputs_to_eps, put_guided};

use super::noised::expect;
use crate::diffusion::StepCoefficients;
use crate::diffusion::guiders::{Guiders, Work, moments};
use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const OP: &str = "guider";

const READ4: [Access; 4] = [Access::Read, Access::Read, Access::Read, Access::Write];

const ROWS: Kernel = Kernel::new("guider_rows", wgsl!("guider"), "rows", &READ4);
const MOMENTUM: Kernel = Kernel::new(
    "guider_momentum",
    wgsl!("guider"),
    "momentum",
    &[Access::Read, Access::Read, Access::Read, Access::Update],
);
const APG_ROWS: Kernel = Kernel::new(
    "guider_apg_rows",
    wgsl!("guider"),
    "apg_rows",
    &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Read, Access::Write],
);
const COMBINE_PAIR: Kernel = Kernel::new(
    "guider_combine",
    wgsl!("guider"),
    "combine_pair",
    &[Access::Read, Access::Read, Access::Write],
);
const COMBINE_APG: Kernel = Kernel::new(
    "guider_combine_apg",
    wgsl!("guider"),
    "combine_apg",
    &[Access::Read, Access::Read, Access::Write, Access::Read, Access::Read],
);
const COMBINE_MANY: Kernel = Kernel::new("guider_combine_many", wgsl!("guider"), "combine_many", &READ4);
const RENOISE: Kernel = Kernel::new(
    "guider_renoise",
    wgsl!("guider"),
    "renoise",
    &[Access::Read, Access::Read, Access::Read, Access::Update],
);
const WEIGHT: Kernel = Kernel::new(
    "guider_weight",
    wgsl!("guider_weight"),
    "main",
    &[Access::Read, Access::Read, Access::Write],
);

/// Numbers of a row of the guiders' table.
pub const GUIDER_ROW: usize = 8;

#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct Params {
    count: u32,
    length: u32,
    channels: u32,
    eps_channels: u32,
    samples: u32,
    steps: u32,
    zero_star: u32,
    more: u32,
    phi: f32,
    parallel: f32,
    beta: f32,
    radius: f32,
    strengths: [f32; 8],
}

/// What guiders read and write.
#[derive(Clone, Copy, Debug)]
pub struct Guided<'a> {
    /// `[N, H, W, C]` f32.
    pub z: &'a Tensor,
    /// `[K·N, H, W, E]`: conditional predictions, those of what stands for no condition, those of further conditions.
    pub eps: &'a Tensor,
    /// `[T, 8]` f32, of [`guider_table`].
    pub table: &'a Tensor,
    /// `[1]` u32: the step.
    pub counter: &'a Tensor,
}

/// The numbers of each step that guiders read, `[T, 8]`: w, α, σ, λ, the part that is done, the factor of eps̃, the factor of
/// eps_∅ that CFG++ adds, and 1 in the first step with guidance, where nothing is remembered. `steps` are the schedule's
/// own.
pub fn guider_table(guiders: &Guiders, weight: f64, steps: &[StepCoefficients]) -> Vec<f32> {
    let moments = moments(steps);
    let weights = guiders.weights(weight, &moments);
    let (_, of_eps) = guiders.steps(steps);
    let first = weights.iter().position(|weight| guiders.needs_all(*weight));
    let rows = steps.iter().zip(&moments).zip(weights).zip(of_eps);
    rows.flat_map(|(((step, at), weight), of_eps)| {
        let (factor, fresh) = (guiders.eps_factor(), f64::from(u8::from(first == Some(at.step))));
        [weight, step.alpha, step.sigma, step.log_snr, at.progress(), factor, of_eps, fresh].map(|x| x as f32)
    })
    .collect()
}

/// Whether the guiders need no eps̃ of their own: the step's kernel with each step's weight is all.
pub fn is_weight_alone(guiders: &Guiders) -> bool {
    let alone = |work: &Work| matches!(work, Work::Renoise | Work::Anneal(_));
    guiders.work().iter().all(alone) && guiders.more_conditions().is_empty() && guiders.eps_factor() == 1.0
}

/// The expression among the guiders, which a step's kernel can put in the place of its own rule.
pub fn expression_of(guiders: &Guiders) -> Option<String> {
    guiders.work().into_iter().find_map(|work| match work {
        Work::Expression(text) => Some(text),
        _ => None,
    })
}

/// Writes the step's weight into the first element of `guidance`, where the step's kernel reads it.
pub fn step_weight(cx: &mut Context, table: &Tensor, counter: &Tensor, guidance: &Tensor) -> Result<()> {
    let steps = check_table(table, counter)?;
    if guidance.is_empty() || guidance.dtype() != DType::F32 {
        return Err(Error::shape(OP, format!("the guidance {:?} has no f32 for a weight", guidance.shape())));
    }
    let launch = cx.launch(&WEIGHT).bind(table).bind(counter).bind(guidance);
    launch.params(&[steps as u32, 0, 0, 0]).over_groups(1);
    Ok(())
}

/// eps̃ `[N, H, W, C]` f32 of all evaluations. `momentum` `[N, H, W, C]` f32 is APG's, kept from step to step; what is in it
/// before the first guided step is not read.
///
/// # Errors
/// [`Error::Shape`] when a tensor does not fit, [`Error::Config`] for an expression that does not compile, or APG
/// without momentum.
pub fn guided_eps(
    cx: &mut Context,
    guiders: &Guiders,
    step: Guided<'_>,
    momentum: Option<&Tensor>,
) -> Result<Tensor> {
    let Guided { z, eps, table, counter } = step;
    let mut params = check(step, 2 + guiders.more_conditions().len())?;
    let (count, samples) = (params.count as usize, params.samples as usize);
    for (slot, (_, strength)) in params.strengths.iter_mut().zip(guiders.more_conditions()) {
        *slot = *strength as f32;
        params.more += 1;
    }
    let work = guiders.work();
    let out = cx.output("guided eps", z.shape(), DType::F32)?;
    let mut apg = None;
    for one in &work {
        match one {
            Work::Rescale { phi } => params.phi = *phi as f32,
            Work::ZeroStar => params.zero_star = 1,
            Work::Apg { parallel, momentum, radius } => apg = Some((*parallel, *momentum, *radius)),
            Work::Expression(text) => {
                let kernel = expression::kernel(text)?;
                let launch = cx.launch(kernel).bind(eps).bind(table).bind(counter).bind(z).bind(&out);
                launch.params(&params).over(count, 64);
                return Ok(out);
            }
            Work::None | Work::Renoise | Work::Anneal(_) => {}
        }
    }
    if let Some((parallel, beta, radius)) = apg {
        let Some(momentum) = momentum else {
            return Err(Error::Config("apg needs a tensor of momentum".into()));
        };
        expect(OP, "momentum", momentum, z.shape(), DType::F32)?;
        (params.parallel, params.beta) = (parallel as f32, beta as f32);
        params.radius = if radius.is_finite() { radius as f32 } else { 0.0 };
        let rows = cx.output("apg factors", &[samples, 4], DType::F32)?;
        let launch = cx.launch(&MOMENTUM).bind(eps).bind(table).bind(counter).bind(momentum);
        launch.params(&params).over(count, 64);
        let launch =
            cx.launch(&APG_ROWS).bind(eps).bind(table).bind(counter).bind(z).bind(momentum).bind(&rows);
        launch.params(&params).over_groups(samples);
        let launch = cx.launch(&COMBINE_APG).bind(eps).bind(&rows).bind(&out).bind(z).bind(momentum);
        launch.params(&params).over(count, 64);
    } else if params.more > 0 {
        let launch = cx.launch(&COMBINE_MANY).bind(eps).bind(table).bind(counter).bind(&out);
        launch.params(&params).over(count, 64);
    } else {
        let rows = guided_rows(cx, step, &params)?;
        cx.launch(&COMBINE_PAIR).bind(eps).bind(&rows).bind(&out).params(&params).over(count, 64);
    }
    Ok(out)
}

/// The rows (a, b, 1, 0) of each sample, `[N, 4]`.
fn guided_rows(cx: &mut Context, step: Guided<'_>, params: &Params) -> Result<Tensor> {
    let rows = cx.output("guider factors", &[params.samples as usize, 4], DType::F32)?;
    let launch = cx.launch(&ROWS).bind(step.eps).bind(step.table).bind(step.counter).bind(&rows);
    launch.params(params).over_groups(params.samples as usize);
    Ok(rows)
}

/// z + factor·eps_∅ in place, after the step and before its counter goes on: what CFG++ adds.
pub fn renoise(cx: &mut Context, step: Guided<'_>) -> Result<()> {
    let params = check(step, 2)?;
    let launch = cx.launch(&RENOISE).bind(step.eps).bind(step.table).bind(step.counter).bind(step.z);
    launch.params(&params).over(params.count as usize, 64);
    Ok(())
}

fn check_table(table: &Tensor, counter: &Tensor) -> Result<usize> {
    let steps = table.shape().first().copied().unwrap_or(0);
    expect(OP, "table", table, &[steps.max(1), GUIDER_ROW], DType::F32)?;
    expect(OP, "counter", counter, &[1], DType::U32)?;
    Ok(steps)
}

fn check(step: Guided<'_>, evaluations: usize) -> Result<Params> {
    let [n, h, w, c] = step.z.nhwc(OP)?;
    expect(OP, "z", step.z, &[n, h, w, c], DType::F32)?;
    let [batch, .., eps_channels] = step.eps.nhwc(OP)?;
    if batch < evaluations * n
        || !batch.is_multiple_of(n)
        || eps_channels < c
        || step.eps.dtype() == DType::U32
    {
        let what = format!("z is {:?} but eps {:?}", step.z.shape(), step.eps.shape());
        return Err(Error::shape(OP, format!("{what}: {evaluations} evaluations of {n} samples are needed")));
    }
    expect(OP, "eps", step.eps, &[batch, h, w, eps_channels], step.eps.dtype())?;
    let steps = check_table(step.table, step.counter)?;
    let length = h * w * c;
    Ok(Params {
        count: (n * length) as u32,
        length: length as u32,
        channels: c as u32,
        eps_channels: eps_channels as u32,
        samples: n as u32,
        steps: steps as u32,
        ..Params::default()
    })
}
