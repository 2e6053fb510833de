//! The variational bound of a discrete process (DDPM, section 3; IDDPM, section 2): what a kernel needs for each sample.

use std::f64::consts::LN_2;

use super::discrete::DiscreteSchedule;
use super::prediction::{Prediction, Variance};

/// One sample's numbers for the loss: 16 words.
///
/// target = `target_x`·x + `target_z`·z + `target_eps`·eps; the true mean less the model's is `mean_factor`·(target - out).
#[derive(Debug, Clone, Copy, PartialEq, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct LossRow {
    /// The factor of x in the target.
    pub target_x: f32,
    /// The factor of z.
    pub target_z: f32,
    /// The factor of eps.
    pub target_eps: f32,
    /// From a difference in the output to one of the posterior's mean.
    pub mean_factor: f32,
    /// The posterior's log variance, clipped at t = 0.
    pub log_true: f32,
    /// The model's log variance, or the lower end of a learned range.
    pub log_small: f32,
    /// The upper end of a learned range.
    pub log_large: f32,
    /// 1 at t = 0, where the bound is the decoder's, else 0.
    pub decoder: f32,
    /// The sample's weight in the loss.
    pub weight: f32,
    /// The factor of z in x̂.
    pub x_z: f32,
    /// The factor of the output in x̂.
    pub x_out: f32,
    /// The factor of x̂ in the model's mean.
    pub mean_x: f32,
    /// 1 where the output is the mean itself.
    pub is_mean: f32,
    /// Fills the fourth vector.
    pub padding: [f32; 3],
}

impl LossRow {
    /// The row of step `t` of a process.
    pub fn discrete(
        schedule: &DiscreteSchedule,
        t: usize,
        prediction: Prediction,
        variance: Variance,
        weight: f64,
    ) -> Self {
        let posterior = schedule.posterior_mean_factors(t);
        let (alpha, sigma) = (schedule.alpha(t), schedule.sigma(t));
        let c1 = posterior.0;
        let log_small = match variance {
            Variance::Large => schedule.large_log_variance(t),
            _ => schedule.posterior_log_variance(t),
        };
        LossRow {
            // z being given, x is a multiple of the prediction's error; so no large numbers cancel.
            mean_factor: match prediction {
                Prediction::Eps => -c1 * sigma / alpha,
                Prediction::X0 => c1,
                Prediction::V => -c1 * sigma,
                Prediction::PreviousX => 1.0,
                Prediction::Flow { towards_data } => {
                    if towards_data {
                        c1 * sigma
                    } else {
                        -c1 * sigma
                    }
                }
                Prediction::Preconditioned { .. } => c1 * prediction.x_factors(alpha, sigma, posterior).1,
            } as f32,
            log_true: schedule.posterior_log_variance(t) as f32,
            log_small: log_small as f32,
            log_large: schedule.beta(t).ln() as f32,
            decoder: if t == 0 { 1.0 } else { 0.0 },
            mean_x: c1 as f32,
            ..Self::without_bound(alpha, sigma, posterior, prediction, weight)
        }
    }

    /// The row of a sample at (α, σ) whose bits are not asked for, as in continuous time.
    pub fn continuous(alpha: f64, sigma: f64, prediction: Prediction, weight: f64) -> Self {
        Self::without_bound(alpha, sigma, (1.0, 0.0), prediction, weight)
    }

    fn without_bound(
        alpha: f64,
        sigma: f64,
        posterior: (f64, f64),
        prediction: Prediction,
        weight: f64,
    ) -> Self {
        let target = prediction.target(alpha, sigma, posterior);
        let (x_z, x_out) = prediction.x_factors(alpha, sigma, posterior);
        LossRow {
            target_x: target.of_x as f32,
            target_z: target.of_z as f32,
            target_eps: target.of_eps as f32,
            weight: weight as f32,
            x_z: x_z as f32,
            x_out: x_out as f32,
            is_mean: if prediction == Prediction::PreviousX { 1.0 } else { 0.0 },
            ..LossRow::default()
        }
    }
}

/// The prior's part of the bound, KL(q(z_T given x), N(0, I)) in bits a dimension, of all of one picture's `x`.
pub fn prior_bits(schedule: &DiscreteSchedule, x: &[f64]) -> f64 {
    let last = schedule.len() - 1;
    let (alpha, variance) = (schedule.alpha(last), 1.0 - schedule.alpha_cumprod(last));
    let kl = |x: &f64| 0.5 * (variance + (alpha * x).powi(2) - 1.0 - variance.ln());
    x.iter().map(kl).sum::<f64>() / x.len().max(1) as f64 / LN_2
}
