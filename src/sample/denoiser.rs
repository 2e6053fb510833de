//! What a step evaluates: a network with its weights, or a closed form.

use crate::diffusion::guiders::Annealing;
use crate::error::Result;
use crate::gpu::Gpu;
use crate::nn::unet::{Inputs, Pass};
use crate::nn::{UNet, Weights};
use crate::ops::AnnealCondition;
use crate::tensor::{Context, DType, Tensor};

/// What a recording of a step shows to what it evaluates.
pub(crate) struct Shown<'a> {
    /// `[N, H, W, C]` f32.
    pub z: &'a Tensor,
    /// `[N]` f32, the time of the move; of those that take none, nothing was recorded.
    pub times: Option<&'a Tensor>,
    /// `[T, 12]` u32: the rows of the walk, for closed forms.
    pub moves: &'a Tensor,
    /// `[1]` u32: the move.
    pub counter: &'a Tensor,
    /// `[N, 2]` u32.
    pub seeds: &'a Tensor,
    /// `[K·N]` u32 where there are classes, the first condition of all latents first.
    pub rows: Option<&'a Tensor>,
    /// K.
    pub conditions: usize,
    /// `[N]` f32: w, of distilled networks.
    pub told: Option<&'a Tensor>,
    /// `[N, H', W', C']` f32: the small pictures of an upsampler.
    pub small: Option<&'a Tensor>,
    /// Noise on the condition, and its `[T, 2]` f32.
    pub annealing: Option<(Annealing, &'a Tensor)>,
}

/// A predictor of what the walk's rows take, eps for those of `guided_step`.
pub(crate) trait Denoiser {
    /// Records its predictions, `[K·N, H, W, E]`, the first condition of all latents first. It alone repeats z.
    ///
    /// # Errors
    /// Whatever operations return.
    fn record(&self, cx: &mut Context, shown: &Shown<'_>) -> Result<Tensor>;

    /// Whether it is told the time as a tensor; else it reads the rows itself.
    fn takes_time(&self) -> bool {
        true
    }
}

/// A network as plans read it.
pub(crate) struct Network<'a> {
    unet: &'a UNet,
    weights: Weights,
    dtype: DType,
}

impl<'a> Network<'a> {
    /// A network with activations of `dtype`; its weights are copied once where these are f16.
    ///
    /// # Errors
    /// What the device objects to.
    pub fn new(gpu: &Gpu, unet: &'a UNet, weights: &Weights, dtype: DType) -> Result<Self> {
        Ok(Network { unet, weights: weights.fixed_in(gpu, dtype)?, dtype })
    }
}

impl Denoiser for Network<'_> {
    fn record(&self, cx: &mut Context, shown: &Shown<'_>) -> Result<Tensor> {
        let z = match shown.small {
            None => shown.z.clone(),
            Some(small) => self.unet.with_low_res(cx, shown.z, small)?,
        };
        let null_label = self.unet.config().null_label();
        let annealing = shown.annealing.map(|(annealing, table)| AnnealCondition {
            annealing,
            table,
            counter: shown.counter,
            seeds: shown.seeds,
            null_label,
        });
        let time = shown.times.expect("a network takes the time");
        let inputs = Inputs {
            conditions: shown.conditions,
            guidance: shown.told,
            annealing,
            ..Inputs::of(&z, time, shown.rows)
        };
        self.unet.evaluate(cx, &self.weights, inputs, &Pass::inference(self.dtype))
    }
}
