//! A denoiser with its weights, as the plans of a step read it.

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::nn::{About, Denoiser, Pass, Told, Weights};
use crate::tensor::{Context, DType, Tensor};

/// What a step evaluates.
pub(crate) struct Network<'a> {
    denoiser: &'a dyn Denoiser,
    weights: Weights,
    dtype: DType,
}

impl<'a> Network<'a> {
    /// A network with activations of `dtype`; its weights are copied once where these are f16.
    ///
    /// # Errors
    /// What the device objects to.
    pub fn new(gpu: &Gpu, denoiser: &'a dyn Denoiser, weights: &Weights, dtype: DType) -> Result<Self> {
        Ok(Network { denoiser, weights: weights.fixed_in(gpu, dtype)?, dtype })
    }

    /// What the network is.
    pub fn about(&self) -> &About {
        self.denoiser.about()
    }

    /// Records its predictions, `[K·N, H, W, out]` f32.
    ///
    /// # Errors
    /// What the network returns; [`Error::Shape`] where it gave something else than it says of itself.
    pub fn record(&self, cx: &mut Context, z: &Tensor, time: &Tensor, told: Told<'_>) -> Result<Tensor> {
        let [n, h, w, _] = z.nhwc("denoiser")?;
        let pass = Pass::inference(self.dtype);
        let out = self.denoiser.record(cx, &self.weights, z, time, told, &pass)?;
        let expected = [told.conditions * n, h, w, self.about().out_channels];
        if out.shape() != expected || out.dtype() != DType::F32 {
            let what = format!(
                "the network gave {:?} of {:?} for {n} latents under {} conditions, expected {expected:?} of F32",
                out.shape(),
                out.dtype(),
                told.conditions
            );
            return Err(Error::shape("denoiser", what));
        }
        Ok(out)
    }
}
