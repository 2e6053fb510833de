//! A move as a kernel reads it: with the network's prediction and variance put in, in f32.

use super::Move;
use crate::diffusion::prediction::Prediction;
use crate::{Error, Result};

/// Twelve words. x̂ = clip(`x_z`·z + `x_out`·out); then z ← `mean_z`·z + `mean_x`·x̂ + `mean_out`·out + `mean_previous`·x̂
/// before + `mean_gradient`·V·g + `noise`·√V·normal, where V is 1, or the learned variance.
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct StepRow {
    /// The factor of z in x̂.
    pub x_z: f32,
    /// The factor of the output in x̂.
    pub x_out: f32,
    /// The factor of z in the mean.
    pub mean_z: f32,
    /// The factor of x̂ in the mean.
    pub mean_x: f32,
    /// The factor of the output in the mean, where it is the mean.
    pub mean_out: f32,
    /// The factor of the x̂ before.
    pub mean_previous: f32,
    /// The factor of the noise.
    pub noise: f32,
    /// What the network is told; in the place where [`StepScalars`](crate::diffusion::StepScalars) has it.
    pub time: f32,
    /// The factor of a guiding gradient.
    pub mean_gradient: f32,
    /// log β̃, for learned variances. Networks whose input is scaled learn none: of them it is the scale of z in their input.
    pub log_small: f32,
    /// log β.
    pub log_large: f32,
    /// By how much a gradient shifts the output in the continuous form: eps ← eps - σ g.
    pub out_gradient: f32,
}

impl StepRow {
    /// The word of a row that holds the scale of the network's input, where there is one.
    pub const INPUT: usize = 9;

    /// The same row for a network that sees `factor`·z.
    pub fn with_input(self, factor: f64) -> Self {
        StepRow { log_small: factor as f32, ..self }
    }

    /// The row of a move of a network with this prediction.
    ///
    /// # Errors
    /// [`Error::Config`] for a network that predicts the previous x in another sampler than the discrete ancestral one.
    pub fn new(step: &Move, prediction: Prediction) -> Result<Self> {
        let (alpha, sigma) = (step.level.alpha, step.level.sigma);
        let is_mean = prediction == Prediction::PreviousX;
        let Some((small, large)) = step.log_variances.or((!is_mean).then_some((0.0, 0.0))) else {
            return Err(Error::Config(
                "a network that predicts the previous x can only be sampled by ancestral steps".into(),
            ));
        };
        let (x_z, x_out) = prediction.x_factors(alpha, sigma, (step.mean_x, step.mean_z));
        // What shifting eps by -σ g does to each prediction, z staying as it is.
        let out_gradient = match prediction {
            Prediction::Eps => -sigma,
            Prediction::X0 => sigma.powi(2) / alpha,
            Prediction::V => -sigma / alpha,
            Prediction::PreviousX => step.mean_x * sigma.powi(2) / alpha,
            // -σ g - σ² g/α with α + σ = 1.
            Prediction::Flow { towards_data } => sigma / alpha * if towards_data { 1.0 } else { -1.0 },
            Prediction::Preconditioned { .. } => sigma.powi(2) / (alpha * x_out),
        };
        let (mean_z, mean_x) = if is_mean { (0.0, 0.0) } else { (step.mean_z, step.mean_x) };
        Ok(StepRow {
            x_z: x_z as f32,
            x_out: x_out as f32,
            mean_z: mean_z as f32,
            mean_x: mean_x as f32,
            mean_out: if is_mean { 1.0 } else { 0.0 },
            mean_previous: step.mean_previous as f32,
            noise: step.noise_sd as f32,
            time: step.level.time as f32,
            mean_gradient: step.mean_gradient as f32,
            log_small: small as f32,
            log_large: large as f32,
            out_gradient: out_gradient as f32,
        })
    }
}
