//! The Gaussians between two noise levels λ < λ', and the numbers a sampler's step needs (CFG, section 2).
//!
//! | Gaussian | mean | variance |
//! |---|---|---|
//! | forward, q(z_λ given z_λ') | (α_λ/α_λ') z_λ' | σ²_{λ given λ'} = (1 - e^{λ-λ'}) σ_λ² |
//! | posterior, q(z_λ' given z_λ, x) | e^{λ-λ'} (α_λ'/α_λ) z_λ + (1 - e^{λ-λ'}) α_λ' x | σ̃² = (1 - e^{λ-λ'}) σ_λ'² |
//! | reverse step of the sampler | the posterior's | (σ̃²)^{1-v} (σ²_{λ given λ'})^v |
//!
//! λ' is the cleaner level: `log_snr_next` here, as samplers walk towards it.

use super::schedule::{
    ContinuousSchedule, alpha_of_log_snr, sigma_of_log_snr, theta_of_log_snr, time_embedding_of_theta,
};
use crate::{Error, Result};

/// 1 - e^{λ-λ'}, without cancellation for close levels.
fn lost_fraction(log_snr: f64, log_snr_next: f64) -> f64 {
    -(log_snr - log_snr_next).exp_m1()
}

/// The factor α_λ/α_λ' of the forward transition's mean.
pub fn forward_scale(log_snr: f64, log_snr_next: f64) -> f64 {
    alpha_of_log_snr(log_snr) / alpha_of_log_snr(log_snr_next)
}

/// The forward transition's variance (1 - e^{λ-λ'}) σ_λ².
pub fn forward_variance(log_snr: f64, log_snr_next: f64) -> f64 {
    lost_fraction(log_snr, log_snr_next) * sigma_of_log_snr(log_snr).powi(2)
}

/// The factors of z_λ and of x in the posterior's mean (CFG, equation 3).
pub fn posterior_mean_factors(log_snr: f64, log_snr_next: f64) -> (f64, f64) {
    let alpha_next = alpha_of_log_snr(log_snr_next);
    let of_z = (log_snr - log_snr_next).exp() * alpha_next / alpha_of_log_snr(log_snr);
    (of_z, lost_fraction(log_snr, log_snr_next) * alpha_next)
}

/// The posterior's variance σ̃² = (1 - e^{λ-λ'}) σ_λ'².
pub fn posterior_variance(log_snr: f64, log_snr_next: f64) -> f64 {
    lost_fraction(log_snr, log_snr_next) * sigma_of_log_snr(log_snr_next).powi(2)
}

/// The variance of the sampler's step, (σ̃²)^{1-v} (σ²_{λ given λ'})^v (CFG, equation 4).
///
/// v = 0 is the posterior's, v = 1 the forward transition's; the paper uses 0.3 at 64x64 and 0.2 at 128x128.
pub fn reverse_variance(log_snr: f64, log_snr_next: f64, variance_exponent: f64) -> f64 {
    // Both variances share the factor 1 - e^{λ-λ'}: the powers act on σ² alone.
    let small = sigma_of_log_snr(log_snr_next).powi(2);
    let large = sigma_of_log_snr(log_snr).powi(2);
    lost_fraction(log_snr, log_snr_next) * small.powf(1.0 - variance_exponent) * large.powf(variance_exponent)
}

/// Everything one step of ancestral sampling needs to know of the schedule, in f64.
///
/// x̂ = (z - σ·eps)·`inverse_alpha`, then z' = `mean_z`·z + `mean_x`·x̂ + `noise_sd`·noise. In the last step `mean_z` = 0,
/// `mean_x` = 1 and `noise_sd` = 0, so that the same formula returns x̂.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepCoefficients {
    /// λ of the latent that the step reads.
    pub log_snr: f64,
    /// α at λ.
    pub alpha: f64,
    /// σ at λ.
    pub sigma: f64,
    /// 1/α at λ.
    pub inverse_alpha: f64,
    /// The factor of z in the next latent's mean: e^{λ-λ'} α'/α.
    pub mean_z: f64,
    /// The factor of x̂ in the next latent's mean: (1 - e^{λ-λ'}) α'.
    pub mean_x: f64,
    /// The standard deviation of the noise that the step adds.
    pub noise_sd: f64,
    /// What the network is told of λ: 1000·2θ/π.
    pub time_embedding: f64,
    /// Whether the step returns x̂ itself.
    pub is_last: bool,
}

/// [`StepCoefficients`] rounded to f32 as a kernel reads them: twelve words, so any uniform layout can hold it.
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct StepScalars {
    /// α at λ.
    pub alpha: f32,
    /// σ at λ.
    pub sigma: f32,
    /// 1/α at λ.
    pub inverse_alpha: f32,
    /// The factor of z in the next latent's mean.
    pub mean_z: f32,
    /// The factor of x̂ in the next latent's mean.
    pub mean_x: f32,
    /// The standard deviation of the step's noise.
    pub noise_sd: f32,
    /// λ.
    pub log_snr: f32,
    /// 1000·2θ/π.
    pub time_embedding: f32,
    /// 1 in the last step, else 0.
    pub is_last: u32,
    /// Fills the third vector of four words.
    pub padding: [u32; 3],
}

impl StepCoefficients {
    /// The step from λ to λ', with the variance exponent v.
    pub fn between(log_snr: f64, log_snr_next: f64, variance_exponent: f64) -> Self {
        let (mean_z, mean_x) = posterior_mean_factors(log_snr, log_snr_next);
        let noise_sd = reverse_variance(log_snr, log_snr_next, variance_exponent).sqrt();
        StepCoefficients { mean_z, mean_x, noise_sd, is_last: false, ..StepCoefficients::last(log_snr) }
    }

    /// The step that returns x̂ of the latent at λ.
    pub fn last(log_snr: f64) -> Self {
        let alpha = alpha_of_log_snr(log_snr);
        StepCoefficients {
            log_snr,
            alpha,
            sigma: sigma_of_log_snr(log_snr),
            inverse_alpha: alpha.recip(),
            mean_z: 0.0,
            mean_x: 1.0,
            noise_sd: 0.0,
            time_embedding: time_embedding_of_theta(theta_of_log_snr(log_snr)),
            is_last: true,
        }
    }

    /// The same numbers in f32.
    pub fn scalars(&self) -> StepScalars {
        StepScalars {
            alpha: self.alpha as f32,
            sigma: self.sigma as f32,
            inverse_alpha: self.inverse_alpha as f32,
            mean_z: self.mean_z as f32,
            mean_x: self.mean_x as f32,
            noise_sd: self.noise_sd as f32,
            log_snr: self.log_snr as f32,
            time_embedding: self.time_embedding as f32,
            is_last: u32::from(self.is_last),
            padding: [0; 3],
        }
    }
}

/// The `steps` steps of ancestral sampling over the schedule's grid (CFG, Algorithm 2); the last returns x̂.
///
/// # Errors
/// [`Error::Config`] when there is no step, or when the variance exponent v is not in [0, 1].
pub fn ancestral_steps(
    schedule: &ContinuousSchedule,
    steps: usize,
    variance_exponent: f64,
) -> Result<Vec<StepCoefficients>> {
    crate::sizes::check_steps(steps)?;
    ancestral_steps_through(&schedule.sampling_grid(steps), variance_exponent)
}

/// The same through any rising λ, at least one.
///
/// # Errors
/// As [`ancestral_steps`].
pub fn ancestral_steps_through(grid: &[f64], variance_exponent: f64) -> Result<Vec<StepCoefficients>> {
    let Some(last) = grid.last() else {
        return Err(Error::Config("sampling needs at least one step, and there is no level".into()));
    };
    if !(0.0..=1.0).contains(&variance_exponent) {
        return Err(Error::Config(format!(
            "the variance exponent v is {variance_exponent}: it must lie between 0 (the posterior's variance) \
             and 1 (the forward transition's)"
        )));
    }
    let between = grid.windows(2).map(|pair| StepCoefficients::between(pair[0], pair[1], variance_exponent));
    Ok(between.chain([StepCoefficients::last(*last)]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIRS: [(f64, f64); 6] =
        [(-20.0, -8.778), (-3.0, -2.5), (-0.1, 0.2), (0.0, 5.0), (4.0, 4.01), (11.0, 20.0)];

    fn relative(actual: f64, expected: f64, tolerance: f64, what: &str) {
        let error = (actual / expected - 1.0).abs();
        assert!(error <= tolerance, "{what}: {actual} is not {expected}: relative error {error:e}");
    }

    /// Conditions the joint Gaussian of (z_λ', z_λ) given x on z_λ, from the marginals and the forward factor alone.
    #[test]
    fn the_posterior_is_that_of_the_joint_gaussian() {
        for (low, high) in PAIRS {
            let (alpha, sigma) = (alpha_of_log_snr(low), sigma_of_log_snr(low));
            let (alpha_next, sigma_next) = (alpha_of_log_snr(high), sigma_of_log_snr(high));
            let covariance = alpha / alpha_next * sigma_next.powi(2);
            let gain = covariance / sigma.powi(2);
            // Mean α'x + gain·(z - αx), variance σ'² - gain·covariance.
            let (of_z, of_x) = posterior_mean_factors(low, high);
            relative(of_z, gain, 1e-12, "factor of z");
            relative(of_x, alpha_next - gain * alpha, 1e-11, "factor of x");
            let variance = sigma_next.powi(2) - gain * covariance;
            relative(posterior_variance(low, high), variance, 1e-11, "variance");
            let forward = sigma.powi(2) - (forward_scale(low, high) * sigma_next).powi(2);
            relative(forward_variance(low, high), forward, 1e-11, "forward variance");
        }
    }

    /// The chain keeps the marginals: α_λ ↦ α_λ' in the mean and σ_λ² ↦ σ_λ'² in the variance.
    #[test]
    fn the_posterior_maps_marginal_to_marginal() {
        for (low, high) in PAIRS {
            let (of_z, of_x) = posterior_mean_factors(low, high);
            relative(of_z * alpha_of_log_snr(low) + of_x, alpha_of_log_snr(high), 1e-13, "alpha");
            let variance = (of_z * sigma_of_log_snr(low)).powi(2) + posterior_variance(low, high);
            relative(variance, sigma_of_log_snr(high).powi(2), 1e-13, "variance");
        }
    }

    #[test]
    fn the_variance_exponent_runs_from_posterior_to_forward() {
        for (low, high) in PAIRS {
            let (small, large) = (posterior_variance(low, high), forward_variance(low, high));
            relative(reverse_variance(low, high, 0.0), small, 1e-14, "v = 0");
            relative(reverse_variance(low, high, 1.0), large, 1e-14, "v = 1");
            let between = small.powf(0.7) * large.powf(0.3);
            relative(reverse_variance(low, high, 0.3), between, 1e-13, "v = 0.3");
        }
    }

    #[test]
    fn close_levels_at_the_noisy_end_do_not_cancel() {
        for gap in [1e-6, 1e-9, 1e-12] {
            let (low, high) = (-20.0, -20.0 + gap);
            let gap = high - low; // as stored
            let sigma2 = sigma_of_log_snr(low).powi(2);
            relative(
                forward_variance(low, high),
                (gap - gap * gap / 2.0) * sigma2,
                1e-12,
                "forward variance",
            );
            let (_, of_x) = posterior_mean_factors(low, high);
            relative(of_x, (gap - gap * gap / 2.0) * alpha_of_log_snr(high), 1e-12, "factor of x");
        }
    }

    #[test]
    fn the_steps_of_a_chain() {
        let steps = ancestral_steps(&ContinuousSchedule::default(), 128, 0.3).unwrap();
        assert_eq!(steps.len(), 128);
        assert!(steps[..127].iter().all(|step| !step.is_last && step.noise_sd > 0.0));
        let last = steps[127];
        assert!(last.is_last);
        assert_eq!((last.log_snr, last.mean_z, last.mean_x, last.noise_sd), (20.0, 0.0, 1.0, 0.0));
        relative(steps[0].inverse_alpha, 22_026.465_817_506, 1e-12, "1/alpha of the first step");
        assert!(steps.windows(2).all(|pair| pair[0].time_embedding > pair[1].time_embedding));
        let scalars = steps[3].scalars();
        assert_eq!(scalars.mean_x, steps[3].mean_x as f32);
        assert_eq!(size_of::<StepScalars>(), 48);
        let single = ancestral_steps(&ContinuousSchedule::default(), 1, 0.0).unwrap();
        assert!(single.len() == 1 && single[0].is_last && single[0].log_snr == -20.0);
    }

    #[test]
    fn senseless_requests_are_errors() {
        let schedule = ContinuousSchedule::default();
        assert!(ancestral_steps(&schedule, 0, 0.3).is_err());
        for v in [-0.1, 1.1, f64::NAN] {
            assert!(ancestral_steps(&schedule, 10, v).unwrap_err().to_string().contains("variance exponent"));
        }
    }
}
