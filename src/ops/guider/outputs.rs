//! Outputs of networks that predict x or v, or variances beside, as guiders and steps need them.

use bytemuck::{Pod, Zeroable};

use super::{Guided, OP, check};
use crate::diffusion::Prediction;
use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::ops::noised::expect;
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const TO_EPS: Kernel = Kernel::new(
    "outputs_to_eps",
    wgsl!("guider_outputs"),
    "to_eps",
    &[Access::Update, Access::Read, Access::Read, Access::Read],
);
const PUT: Kernel =
    Kernel::new("put_guided", wgsl!("guider_outputs"), "put", &[Access::Update, Access::Read]);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    length: u32,
    channels: u32,
    out_channels: u32,
    samples: u32,
    steps: u32,
    velocity: u32,
    sigma_data: f32,
}

/// Turns what a network predicts, `step.eps` `[K·N, H, W, E]` f32, into eps in place: (z - α x)/σ, σ z + α v, z ± α out
/// of a flow, or (σ/r² z - α σ_data/r out) of a preconditioned network, r² = σ² + σ_data² α². Of an x or v a rounding is lost by it that 1/α magnifies when x̂ is made again, as it is of any predicted eps.
///
/// # Errors
/// [`Error::Shape`] when a tensor does not fit; [`Error::Config`] for a network that predicts the previous x.
pub fn outputs_to_eps(cx: &mut Context, prediction: Prediction, step: Guided<'_>) -> Result<()> {
    let of = check(step, 1)?;
    let velocity = match prediction {
        Prediction::Eps => return Ok(()),
        Prediction::X0 => 0,
        Prediction::V => 1,
        Prediction::Flow { towards_data: false } => 2,
        Prediction::Flow { towards_data: true } => 3,
        Prediction::Preconditioned { .. } => 4,
        Prediction::PreviousX => {
            let what = "a network that predicts the previous x has no eps at one noise level to guide";
            return Err(Error::Config(what.into()));
        }
    };
    expect(OP, "out", step.eps, step.eps.shape(), DType::F32)?;
    let params = Params {
        count: of.count * (step.eps.shape()[0] / step.z.shape()[0]) as u32,
        length: of.length,
        channels: of.channels,
        out_channels: of.eps_channels,
        samples: of.samples,
        steps: of.steps,
        velocity,
        sigma_data: match prediction {
            Prediction::Preconditioned { sigma_data } => sigma_data as f32,
            _ => 0.0,
        },
    };
    let launch = cx.launch(&TO_EPS).bind(step.eps).bind(step.z).bind(step.table).bind(step.counter);
    launch.params(&params).over(params.count as usize, 64);
    Ok(())
}

/// Puts `guided` `[N, H, W, C]` f32 in the place of the first evaluation's predictions in `out` `[K·N, H, W, E]` f32, whose
/// variance channels stay, and gives that evaluation `[N, H, W, E]`.
///
/// # Errors
/// [`Error::Shape`] when they do not fit.
pub fn put_guided(cx: &mut Context, out: &Tensor, guided: &Tensor) -> Result<Tensor> {
    let ([n, h, w, c], [batch, .., e]) = (guided.nhwc(OP)?, out.nhwc(OP)?);
    if batch < n || e < c {
        let what = format!("guided {:?} does not fit into {:?}", guided.shape(), out.shape());
        return Err(Error::shape(OP, what));
    }
    expect(OP, "guided", guided, &[n, h, w, c], DType::F32)?;
    expect(OP, "out", out, &[batch, h, w, e], DType::F32)?;
    let params = Params {
        count: guided.len() as u32,
        length: (h * w * c) as u32,
        channels: c as u32,
        out_channels: e as u32,
        samples: n as u32,
        steps: 1,
        velocity: 0,
        sigma_data: 0.0,
    };
    cx.launch(&PUT).bind(out).bind(guided).params(&params).over(guided.len(), 64);
    Ok(Tensor::new(out.storage().clone(), out.offset(), &[n, h, w, e], DType::F32))
}
