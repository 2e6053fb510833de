//! The continuous-time schedule: λ as a function of u in [0, 1] (CFG, section 2).
//!
//! λ = -2 log tan θ with θ = a·u + b, b = atan(e^{-λmax/2}), a = atan(e^{-λmin/2}) - b. Then α = cos θ and
//! σ = sin θ. u runs from clean to noisy: λ(0) = λmax, λ(1) = λmin. Training draws u uniformly; sampling walks a
//! uniform grid of u from 1 down to 0, so that λ rises.

use std::f64::consts::FRAC_PI_2;

use crate::{Error, Result};

/// The largest |λ| that is accepted: σ² or α² then nears the smallest normal f32, e^-87.
const LOG_SNR_LIMIT: f64 = 80.0;

/// The schedule of λ between two bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ContinuousSchedule {
    log_snr_min: f64,
    log_snr_max: f64,
}

impl Default for ContinuousSchedule {
    /// λ from -20 to 20, as in the paper.
    fn default() -> Self {
        ContinuousSchedule { log_snr_min: -20.0, log_snr_max: 20.0 }
    }
}

impl ContinuousSchedule {
    /// The schedule between two log signal-to-noise ratios.
    ///
    /// # Errors
    /// [`Error::Config`] unless both are finite, within ±80, and the first is below the second.
    pub fn new(log_snr_min: f64, log_snr_max: f64) -> Result<Self> {
        for (name, value) in [("log_snr_min", log_snr_min), ("log_snr_max", log_snr_max)] {
            if !value.is_finite() || value.abs() > LOG_SNR_LIMIT {
                return Err(Error::Config(format!(
                    "{name} is {value}: it must be a number between -{LOG_SNR_LIMIT} and {LOG_SNR_LIMIT}"
                )));
            }
        }
        if log_snr_min >= log_snr_max {
            return Err(Error::Config(format!(
                "log_snr_min {log_snr_min} must be below log_snr_max {log_snr_max}"
            )));
        }
        Ok(ContinuousSchedule { log_snr_min, log_snr_max })
    }

    /// λmin, the noisy end (u = 1).
    pub fn log_snr_min(&self) -> f64 {
        self.log_snr_min
    }

    /// λmax, the clean end (u = 0).
    pub fn log_snr_max(&self) -> f64 {
        self.log_snr_max
    }

    /// a of θ = a·u + b, in radians per unit of u.
    pub fn slope(&self) -> f64 {
        theta_of_log_snr(self.log_snr_min) - self.offset()
    }

    /// b of θ = a·u + b, in radians.
    pub fn offset(&self) -> f64 {
        theta_of_log_snr(self.log_snr_max)
    }

    /// θ = a·u + b in radians, between 0 and π/2.
    pub fn theta(&self, u: f64) -> f64 {
        self.slope() * u + self.offset()
    }

    /// α = cos θ at u.
    pub fn alpha(&self, u: f64) -> f64 {
        // Through the angle from π/2, which near u = 1 keeps the digits that cos θ would lose.
        (self.slope() * (1.0 - u) + theta_of_log_snr(-self.log_snr_min)).sin()
    }

    /// σ = sin θ at u.
    pub fn sigma(&self, u: f64) -> f64 {
        self.theta(u).sin()
    }

    /// λ at u: -2 log tan θ. λ(0) = λmax, λ(1) = λmin.
    pub fn log_snr(&self, u: f64) -> f64 {
        2.0 * (self.alpha(u) / self.sigma(u)).ln()
    }

    /// The u whose λ is `log_snr`; outside [0, 1] when λ is outside the bounds.
    pub fn u_of_log_snr(&self, log_snr: f64) -> f64 {
        (theta_of_log_snr(log_snr) - self.offset()) / self.slope()
    }

    /// What the network is told of u: 1000·2θ/π, between 0 and 1000.
    pub fn time_embedding(&self, u: f64) -> f64 {
        time_embedding_of_theta(self.theta(u))
    }

    /// λ at `steps` uniformly spaced u from 1 down to 0, so rising from λmin to λmax (CFG, Algorithm 2).
    ///
    /// One step stands at λmin; no step gives an empty grid.
    pub fn sampling_grid(&self, steps: usize) -> Vec<f64> {
        let gaps = steps.saturating_sub(1).max(1) as f64;
        let inner = |step: usize| match step {
            // The ends are exact by construction.
            0 => self.log_snr_min,
            _ if step + 1 == steps => self.log_snr_max,
            _ => self.log_snr((gaps - step as f64) / gaps),
        };
        (0..steps).map(inner).collect()
    }
}

/// θ = atan(e^{-λ/2}) in radians.
pub fn theta_of_log_snr(log_snr: f64) -> f64 {
    (-0.5 * log_snr).exp().atan()
}

/// α = sqrt(sigmoid(λ)).
pub fn alpha_of_log_snr(log_snr: f64) -> f64 {
    1.0 / (1.0 + (-log_snr).exp()).sqrt()
}

/// σ = sqrt(sigmoid(-λ)).
pub fn sigma_of_log_snr(log_snr: f64) -> f64 {
    alpha_of_log_snr(-log_snr)
}

/// 1000·2θ/π: the number whose sinusoidal embedding conditions the network on λ.
pub fn time_embedding_of_theta(theta: f64) -> f64 {
    1000.0 * (theta / FRAC_PI_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(actual: f64, expected: f64, tolerance: f64) {
        assert!((actual - expected).abs() <= tolerance, "{actual} is not {expected} within {tolerance:e}");
    }

    #[test]
    fn the_papers_constants() {
        let schedule = ContinuousSchedule::default();
        close(schedule.slope(), 1.570_705_526_9, 1e-10);
        close(schedule.offset(), 4.539_993e-5, 1e-11);
        close(schedule.log_snr(0.0), 20.0, 1e-12);
        close(schedule.log_snr(1.0), -20.0, 1e-12);
        close(schedule.log_snr(0.5), 0.0, 1e-14);
    }

    #[test]
    fn the_first_gaps_of_the_grid_are_wide() {
        let schedule = ContinuousSchedule::default();
        for (steps, first) in [(128, &[-8.778, -7.395][..]), (256, &[-10.165]), (1024, &[-12.900])] {
            let grid = schedule.sampling_grid(steps);
            assert_eq!(grid.len(), steps);
            assert_eq!((grid[0], grid[steps - 1]), (-20.0, 20.0));
            assert!(grid.windows(2).all(|pair| pair[0] < pair[1]), "{steps} steps: λ must rise");
            for (actual, expected) in grid[1..].iter().zip(first) {
                close(*actual, *expected, 6e-4);
            }
        }
        assert_eq!(schedule.sampling_grid(1), [-20.0]);
        assert_eq!(schedule.sampling_grid(2), [-20.0, 20.0]);
        assert!(schedule.sampling_grid(0).is_empty());
    }

    #[test]
    fn alpha_and_sigma_are_those_of_the_log_snr() {
        let schedule = ContinuousSchedule::new(-17.0, 12.5).unwrap();
        for i in 0..=1000 {
            let u = f64::from(i) / 1000.0;
            let (alpha, sigma, log_snr) = (schedule.alpha(u), schedule.sigma(u), schedule.log_snr(u));
            close(alpha * alpha, 1.0 / (1.0 + (-log_snr).exp()), 1e-15);
            close(alpha / alpha_of_log_snr(log_snr), 1.0, 1e-13);
            close(sigma / sigma_of_log_snr(log_snr), 1.0, 1e-13);
            close(alpha, schedule.theta(u).cos(), 1e-15);
            close(log_snr, -2.0 * schedule.theta(u).tan().ln(), 1e-11);
            close(schedule.u_of_log_snr(log_snr), u, 1e-13);
        }
    }

    #[test]
    fn the_noisy_end_keeps_its_digits() {
        close(1.0 / alpha_of_log_snr(-20.0), 22_026.465_817_506_11, 1e-9);
        let schedule = ContinuousSchedule::default();
        close(schedule.alpha(1.0) / alpha_of_log_snr(-20.0), 1.0, 1e-15);
    }

    #[test]
    fn the_time_embedding_spans_a_thousand() {
        let schedule = ContinuousSchedule::default();
        close(schedule.time_embedding(0.5), 500.0, 1e-10);
        close(schedule.time_embedding(0.0), 1000.0 * 4.539_993e-5 / FRAC_PI_2, 1e-8);
        close(schedule.time_embedding(1.0), 1000.0 - schedule.time_embedding(0.0), 1e-10);
    }

    #[test]
    fn senseless_bounds_are_errors() {
        for (min, max) in [(1.0, 1.0), (2.0, -2.0), (f64::NAN, 1.0), (-20.0, f64::INFINITY), (-1000.0, 20.0)]
        {
            let error = ContinuousSchedule::new(min, max).unwrap_err().to_string();
            assert!(error.contains("log_snr"), "{error}");
        }
    }
}
