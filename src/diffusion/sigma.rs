//! The noise levels of EDM (Karras et al., arXiv 2206.00364, table 1): y = x + s n, trained at log-normal s, sampled from s = 80
//! down to 0.002.
//!
//! Latents are in the scale of all other processes here, z = α x + σ eps with α² + σ² = 1, where s = σ/α and y = z/α: so
//! λ = -2 log s, a sampler begins with plain noise, and whatever counts on α² + σ² = 1 holds. The network is told log(s)/4.
//! What it predicts is another matter: [`Prediction::Preconditioned`](super::Prediction::Preconditioned).

use crate::diffusion::schedule::ContinuousSchedule;
use crate::random::normal;
use crate::{Error, Result};

/// The mean of log s in training.
const P_MEAN: f64 = -1.2;
/// The standard deviation of log s in training.
const P_STD: f64 = 1.2;
/// ρ of the sampling levels.
const RHO: f64 = 7.0;
/// σ_data where nothing else is said: about that of pictures in [-1, 1].
pub const SIGMA_DATA: f64 = 0.5;

/// The levels between which a network is sampled; training draws them without bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SigmaSchedule {
    log_snr_min: f64,
    log_snr_max: f64,
}

impl Default for SigmaSchedule {
    /// From s = 80 to s = 0.002.
    fn default() -> Self {
        let log_snr = |s: f64| -2.0 * s.ln();
        SigmaSchedule { log_snr_min: log_snr(80.0), log_snr_max: log_snr(0.002) }
    }
}

impl SigmaSchedule {
    /// Steps of a sampler when nobody says: those of EDM's CIFAR-10 samples.
    pub const STEPS: usize = 18;

    /// The levels between two λ.
    ///
    /// # Errors
    /// As [`ContinuousSchedule::new`].
    pub fn new(log_snr_min: f64, log_snr_max: f64) -> Result<Self> {
        ContinuousSchedule::new(log_snr_min, log_snr_max)?;
        Ok(SigmaSchedule { log_snr_min, log_snr_max })
    }

    /// λ at the noisy end.
    pub fn log_snr_min(&self) -> f64 {
        self.log_snr_min
    }

    /// λ at the clean end.
    pub fn log_snr_max(&self) -> f64 {
        self.log_snr_max
    }

    /// λ of a training image at u in [0, 1), which runs from the clean end to the noisy one: log s is the normal quantile of u,
    /// -1.2 in the mean, with a standard deviation of 1.2.
    pub fn trained_log_snr(u: f64) -> f64 {
        -2.0 * (P_MEAN + P_STD * normal_quantile(u))
    }
}

/// λ of levels whose (σ/α)^(1/ρ) lie in equal steps from the noisy end to the clean one (equation 5).
pub(crate) fn karras(noisy: f64, clean: f64, steps: usize) -> Vec<f64> {
    let root = |log_snr: f64| (-0.5 * log_snr / RHO).exp();
    let (first, last) = (root(noisy), root(clean));
    let gaps = (steps.max(2) - 1) as f64;
    let between = |i: usize| match i {
        0 => noisy,
        _ => -2.0 * RHO * (first + (last - first) * i as f64 / gaps).ln(),
    };
    (0..steps).map(between).collect()
}

/// What a network is told of λ: log(s)/4.
pub fn noise_time(log_snr: f64) -> f64 {
    -0.125 * log_snr
}

/// Φ⁻¹ in the middle of the 2^-32 that u lies in, to 4e-6 and within ±6.2.
fn normal_quantile(u: f64) -> f64 {
    let tail = u.min(1.0 - u).clamp(0.0, 0.5);
    // 31 bits of the tail above the bit of the sign, as normal numbers are made of words.
    let word = ((tail * 2f64.powi(32)) as u32).min(u32::MAX >> 1) << 1;
    let size = f64::from(normal(word).abs());
    if u < 0.5 { -size } else { size }
}

/// Refuses a σ_data that is no standard deviation.
///
/// # Errors
/// [`Error::Config`] with the number.
pub fn check_sigma_data(sigma_data: f64) -> Result<()> {
    if (1e-3..=1e3).contains(&sigma_data) {
        return Ok(());
    }
    Err(Error::Config(format!(
        "σ_data is {sigma_data}: it is the standard deviation of the data, from 0.001 to 1000 (0.5 for pictures in [-1, 1])"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against values of Φ⁻¹ from tables.
    #[test]
    fn quantiles_are_those_of_the_normal_distribution() {
        for (u, z) in [(0.5, 0.0), (0.975, 1.959_963_985), (0.841_344_746, 1.0), (1e-4, -3.719_016_485)] {
            assert!((normal_quantile(u) - z).abs() < 1e-5, "{u}: {}", normal_quantile(u));
            assert!((normal_quantile(1.0 - u) + z).abs() < 1e-5, "{u}");
        }
        let grid: Vec<f64> = (0..=1000).map(|i| normal_quantile(f64::from(i) / 1000.0)).collect();
        assert!(grid.windows(2).all(|pair| pair[0] < pair[1]), "{grid:?}");
    }

    /// The middle is s = e^-1.2 and 16 % lie below e^-2.4, as EDM's figure 5 has it.
    #[test]
    fn training_levels_are_log_normal() {
        let log_s = |u: f64| -0.5 * SigmaSchedule::trained_log_snr(u);
        assert!((log_s(0.5) + 1.2).abs() < 1e-5 && (log_s(0.158_655_254) + 2.4).abs() < 1e-5);
        assert!((log_s(0.841_344_746)).abs() < 1e-5, "{}", log_s(0.841_344_746));
        assert!(log_s(0.0).is_finite() && log_s(1.0 - 2f64.powi(-32)).is_finite());
    }

    #[test]
    fn the_ends_are_edms_and_the_network_is_told_the_fourth_of_the_log() {
        let levels = SigmaSchedule::default();
        assert!(((-0.5 * levels.log_snr_min()).exp() - 80.0).abs() < 1e-10);
        assert!(((-0.5 * levels.log_snr_max()).exp() - 0.002).abs() < 1e-14);
        assert!((noise_time(levels.log_snr_min()) - 80f64.ln() / 4.0).abs() < 1e-15);
        assert!(SigmaSchedule::new(3.0, 3.0).is_err());
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(check_sigma_data(bad).unwrap_err().to_string().contains("σ_data"), "{bad}");
        }
    }
}
