//! How `sample` draws, where it is said.

use crate::diffusion::{Method, Variance};
use crate::error::{Error, Result, brief};
use crate::gpu::Gpu;
use crate::model::ModelConfig;

use super::args::Args;

/// The variance that `--variance` names.
pub fn variance(text: &str) -> Result<Variance> {
    match text {
        "small" => Ok(Variance::Small),
        "large" => Ok(Variance::Large),
        "learned" => Ok(Variance::LearnedRange),
        other => Err(Error::Config(format!(
            "--variance {other:?} is none of small, large, learned",
            other = brief(other)
        ))),
    }
}

/// Which sampler is asked for; else the model's own.
pub(super) fn method(args: &Args, config: &ModelConfig) -> Result<Method> {
    let variance = args.variance.as_deref().map(variance).transpose()?;
    config.method_for(Method {
        kind: args.sampler,
        eta: args.eta,
        respacing: args.respacing.clone(),
        spacing: args.spacing,
        variance,
    })
}

/// As many as keep the device busy.
pub fn default_batch(gpu: &Gpu) -> usize {
    if gpu.capabilities().kind == wgpu::DeviceType::Cpu { 32 } else { 64 }
}
