//! A denoiser with its weights, as the plans of a step read it.

use crate::error::{Error, Result};
use crate::gpu::{Gpu, Plan};
use crate::nn::{About, Denoiser, Pass, Told, Weights};
use crate::tensor::{Context, DType, Tensor};

/// What a step evaluates.
pub(crate) struct Network<'a> {
    denoiser: &'a dyn Denoiser,
    weights: Weights,
    dtype: DType,
    /// What it made of the bank of tokens.
    prepared: Vec<Tensor>,
}

impl<'a> Network<'a> {
    /// A network with activations of `dtype`; its weights are copied once where these are f16.
    ///
    /// # Errors
    /// What the device objects to.
    pub fn new(gpu: &Gpu, denoiser: &'a dyn Denoiser, weights: &Weights, dtype: DType) -> Result<Self> {
        Ok(Network { denoiser, weights: weights.fixed_in(gpu, dtype)?, dtype, prepared: Vec::new() })
    }

    /// What the network is.
    pub fn about(&self) -> &About {
        self.denoiser.about()
    }

    /// Records what depends on the bank of tokens alone into a plan of its own, to be run whenever tokens change; none of a network
    /// that takes none, or makes nothing of them.
    ///
    /// # Errors
    /// What the network returns, and what the device objects to.
    pub fn prepare(&mut self, gpu: &Gpu, tokens: Option<&Tensor>) -> Result<Option<Plan>> {
        let Some(tokens) = tokens.filter(|_| self.about().takes.tokens.is_some()) else { return Ok(None) };
        let mut cx = Context::new(gpu);
        let made = self.denoiser.prepare(&mut cx, &self.weights, tokens, &Pass::inference(self.dtype))?;
        made.iter().for_each(|tensor| cx.keep(tensor));
        let plan = cx.finish("tokens")?;
        let kept = made.iter().map(|tensor| {
            let buffer = plan.kept(tensor.storage());
            let buffer = buffer
                .ok_or_else(|| Error::shape("denoiser", "what it prepared is no output of an operation"));
            buffer.map(|buffer| Tensor::over(buffer, tensor.shape(), tensor.dtype()))
        });
        self.prepared = kept.collect::<Result<_>>()?;
        Ok((!made.is_empty()).then_some(plan))
    }

    /// Records its predictions, `[K·N, H, W, out]` f32.
    ///
    /// # Errors
    /// What the network returns; [`Error::Shape`] where it gave something else than it says of itself.
    pub fn record(&self, cx: &mut Context, z: &Tensor, time: &Tensor, told: Told<'_>) -> Result<Tensor> {
        let [n, h, w, _] = z.nhwc("denoiser")?;
        let pass = Pass::inference(self.dtype);
        let told = Told { prepared: if told.tokens.is_some() { &self.prepared } else { &[] }, ..told };
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
