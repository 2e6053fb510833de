//! Guidance by a gradient: a classifier's, or that of any differentiable function of z.
//!
//! | form | rule |
//! |---|---|
//! | ancestral, discrete time (ADM, arXiv 2105.05233, Algorithm 1) | μ ← μ + Σ g |
//! | DDIM, discrete time (ADM, Algorithm 2) | eps ← eps - √(1-ᾱ) g, the clip of x̂ coming before |
//! | any other, and continuous time (CFG, section 3.1) | eps ← eps - σ g, the clip coming after |
//!
//! with g = scale · ∇_z log p(c given z), from the tape.

use crate::autograd::backprop;
use crate::error::{Error, Result};
use crate::nn::unet::Pass;
use crate::nn::{Classifier, Weights};
use crate::ops;
use crate::shape::Extent;
use crate::tensor::{Context, Tensor};

/// What a sampler shows a guide in each step.
pub struct GuideInput<'a> {
    /// `[N, H, W, C]` f32, the latents.
    pub z: &'a Tensor,
    /// `[N]` f32, what the denoising network is told of their noise level.
    pub times: &'a Tensor,
    /// `[N]` u32, the classes asked for; the null label where there is none.
    pub labels: &'a Tensor,
}

/// A function of z to be followed uphill: the log of a likelihood, minus a cost, times a scale.
pub trait Guide {
    /// Records its value, one f32 summed over the batch, on the context's tape.
    ///
    /// # Errors
    /// Whatever operations return.
    fn value(&self, cx: &mut Context, input: &GuideInput<'_>) -> Result<Tensor>;

    /// How many classes it knows, where it is for classes: a request for one past the last is refused.
    fn classes(&self) -> Option<usize> {
        None
    }

    /// The one extent that it takes, where it takes no other.
    fn extent(&self) -> Option<Extent> {
        None
    }
}

impl<F: Fn(&mut Context, &GuideInput<'_>) -> Result<Tensor>> Guide for F {
    fn value(&self, cx: &mut Context, input: &GuideInput<'_>) -> Result<Tensor> {
        self(cx, input)
    }
}

/// scale · log p(class given z) of a classifier of noisy pictures; a sample without a class is left as it is.
pub struct ClassifierGuide<'a> {
    /// The network.
    pub network: &'a Classifier,
    /// Its weights.
    pub weights: Weights,
    /// The scale s.
    pub scale: f32,
}

impl Guide for ClassifierGuide<'_> {
    fn value(&self, cx: &mut Context, input: &GuideInput<'_>) -> Result<Tensor> {
        let pass = Pass::inference(crate::tensor::DType::F32);
        let logits = self.network.forward(cx, &self.weights, input.z, input.times, &pass)?;
        Ok(ops::cross_entropy(cx, &logits, input.labels, -self.scale)?.loss)
    }

    fn classes(&self) -> Option<usize> {
        Some(self.network.config().out_channels)
    }

    fn extent(&self) -> Option<Extent> {
        Some(self.network.config().sample_size)
    }
}

/// The gradient of `value` at z, `[N, H, W, C]` f32. The recording must have a tape; what is recorded afterwards is not
/// tracked.
///
/// # Errors
/// [`Error::Config`] without a tape or when the value does not depend on z; [`Error::Shape`] when it is not one f32;
/// whatever `value` returns.
pub fn log_likelihood_gradient(
    cx: &mut Context,
    z: &Tensor,
    value: impl FnOnce(&mut Context, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    if !cx.has_tape() {
        return Err(Error::Config("a gradient needs a recording with a tape".into()));
    }
    // A copy is watched, so that z itself stays untracked where the denoising network reads it.
    let watched = cx.copy(z)?;
    cx.watch(&watched);
    let value = value(cx, &watched)?;
    backprop(cx, &value)?;
    cx.grad(&watched)
        .ok_or_else(|| Error::Config("the function that guides does not depend on the latents".into()))
}
