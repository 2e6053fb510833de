//! The straight path between a picture and noise (Liu et al., arXiv 2209.03003; Lipman et al., arXiv 2210.02747):
//! z = (1 - t) x + t eps, so α = 1 - t and σ = t, and α² + σ² is not 1 between the ends.
//!
//! λ = 2 log((1 - t)/t). Training draws t uniformly or logit-normally (arXiv 2403.03206, section 3.1) between the times of two
//! λ, which lie so near 0 and 1 that nothing is lost there but infinities. The network is told 1000·t.

use crate::Result;
use crate::diffusion::schedule::ContinuousSchedule;

/// The times of the path that a network is trained on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FlowSchedule {
    log_snr_min: f64,
    log_snr_max: f64,
}

/// t of λ: σ = t, α = 1 - t.
pub fn time_of_log_snr(log_snr: f64) -> f64 {
    1.0 / (1.0 + (0.5 * log_snr).exp())
}

impl FlowSchedule {
    /// The path between the times of two λ.
    ///
    /// # Errors
    /// As [`ContinuousSchedule::new`].
    pub fn new(log_snr_min: f64, log_snr_max: f64) -> Result<Self> {
        ContinuousSchedule::new(log_snr_min, log_snr_max)?;
        Ok(FlowSchedule { log_snr_min, log_snr_max })
    }

    /// λ at the noisy end.
    pub fn log_snr_min(&self) -> f64 {
        self.log_snr_min
    }

    /// λ at the clean end.
    pub fn log_snr_max(&self) -> f64 {
        self.log_snr_max
    }

    /// t at u in [0, 1], which runs from the clean end to the noisy one.
    pub fn time(&self, u: f64) -> f64 {
        let (clean, noisy) = (time_of_log_snr(self.log_snr_max), time_of_log_snr(self.log_snr_min));
        clean + (noisy - clean) * u
    }

    /// `steps` times from the noisy end to the clean one, both among them.
    pub fn sampling_grid(&self, steps: usize) -> Vec<f64> {
        let gaps = steps.saturating_sub(1).max(1) as f64;
        (0..steps).map(|step| self.time((gaps - step as f64) / gaps)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_log_snr() {
        let path = FlowSchedule::new(-20.0, 20.0).unwrap();
        for log_snr in [-20.0, -3.0, 0.0, 1.7, 20.0] {
            let t = time_of_log_snr(log_snr);
            assert!((2.0 * ((1.0 - t) / t).ln() - log_snr).abs() < 1e-9, "{log_snr}: {t}");
        }
        let grid = path.sampling_grid(5);
        assert!((grid[0] - (1.0 - 4.54e-5)).abs() < 1e-7 && (grid[4] - 4.54e-5).abs() < 1e-7, "{grid:?}");
        assert!((grid[2] - 0.5).abs() < 1e-15 && (grid[1] - grid[2] - (grid[2] - grid[3])).abs() < 1e-15);
        assert!(path.sampling_grid(0).is_empty() && path.sampling_grid(1) == [path.time(1.0)]);
        assert!(FlowSchedule::new(3.0, 3.0).is_err());
    }
}
