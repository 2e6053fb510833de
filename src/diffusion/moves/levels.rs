//! Noise levels, and the choices of them that samplers walk through.

use crate::diffusion::discrete::DiscreteSchedule;
use crate::diffusion::schedule::{
    ContinuousSchedule, alpha_of_log_snr, sigma_of_log_snr, theta_of_log_snr, time_embedding_of_theta,
};
use crate::{Error, Result};

/// One noise level: z = α x + σ eps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// α.
    pub alpha: f64,
    /// σ.
    pub sigma: f64,
    /// What the network is told.
    pub time: f64,
}

impl Level {
    /// The clean end: z is the picture.
    pub const CLEAN: Level = Level { alpha: 1.0, sigma: 0.0, time: 0.0 };

    /// The level of a network of continuous time.
    pub fn continuous(log_snr: f64) -> Self {
        Level {
            alpha: alpha_of_log_snr(log_snr),
            sigma: sigma_of_log_snr(log_snr),
            time: time_embedding_of_theta(theta_of_log_snr(log_snr)),
        }
    }

    /// The level of step `t` of a discrete process; the network is told the original integer times `time_scale`.
    pub fn discrete(schedule: &DiscreteSchedule, t: usize, time_scale: f64) -> Self {
        let time = schedule.timestep(t) as f64 * time_scale;
        Level { alpha: schedule.alpha(t), sigma: schedule.sigma(t), time }
    }

    /// λ.
    pub fn log_snr(&self) -> f64 {
        2.0 * (self.alpha / self.sigma).ln()
    }

    /// EDM's noise level σ/α.
    pub fn ratio(&self) -> f64 {
        self.sigma / self.alpha
    }
}

/// What levels can be had of a network: those it was trained on.
#[derive(Debug, Clone, PartialEq)]
pub enum LevelSource {
    /// Any λ between two bounds.
    Continuous(ContinuousSchedule),
    /// The steps of a discrete process; the network is told t times the factor (1000/T where it was trained so, else 1).
    Discrete(DiscreteSchedule, f64),
}

/// The range of σ/α that Karras' levels span at most (EDM, table 1).
const KARRAS_RANGE: (f64, f64) = (0.002, 80.0);
/// EDM's ρ.
const KARRAS_RHO: f64 = 7.0;

impl LevelSource {
    /// The process's own levels, from noisy to clean: the uniform grid of u in `steps` steps, or all steps of a process,
    /// which [`DiscreteSchedule::respaced`] has chosen.
    pub fn own(&self, steps: usize) -> Vec<Level> {
        match self {
            LevelSource::Continuous(schedule) => {
                schedule.sampling_grid(steps).into_iter().map(Level::continuous).collect()
            }
            LevelSource::Discrete(schedule, scale) => {
                (0..schedule.len()).rev().map(|t| Level::discrete(schedule, t, *scale)).collect()
            }
        }
    }

    /// The levels at u = 1, 1 - 1/N, …, 1/N of the process, N = `steps`: those of N steps are every second one of 2N, as
    /// progressive distillation needs them (arXiv 2202.00512, algorithm 2). Of a discrete process the nearest steps.
    ///
    /// # Errors
    /// [`Error::Config`] for no step, or more steps than a discrete process has.
    pub fn halving(&self, steps: usize) -> Result<Vec<Level>> {
        if steps == 0 {
            return Err(Error::Config("sampling needs at least one step, and 0 were asked for".into()));
        }
        let parts = (1..=steps).rev().map(|i| i as f64 / steps as f64);
        match self {
            LevelSource::Continuous(s) => Ok(parts.map(|u| Level::continuous(s.log_snr(u))).collect()),
            LevelSource::Discrete(s, _) if steps > s.len() => {
                Err(Error::Config(format!("{steps} steps of a process that has {}", s.len())))
            }
            LevelSource::Discrete(s, scale) => {
                let step = |u: f64| (u * s.len() as f64).round() as usize - 1;
                Ok(parts.map(|u| Level::discrete(s, step(u), *scale)).collect())
            }
        }
    }

    /// `steps` levels with σ/α spaced as in EDM (equation 5, ρ = 7), from 80 or the noisiest there is down to 0.002 or the
    /// cleanest. A discrete process gives its nearest steps, because its network knows integers alone.
    ///
    /// # Errors
    /// [`Error::Config`] for no step, or more steps than a discrete process has distinct levels for.
    pub fn karras(&self, steps: usize) -> Result<Vec<Level>> {
        if steps == 0 {
            return Err(Error::Config("sampling needs at least one step, and 0 were asked for".into()));
        }
        let (low, high) = match self {
            LevelSource::Continuous(s) => ((-0.5 * s.log_snr_max()).exp(), (-0.5 * s.log_snr_min()).exp()),
            LevelSource::Discrete(s, _) => {
                let ratio = |t| Level::discrete(s, t, 1.0).ratio();
                (ratio(0), ratio(s.len() - 1))
            }
        };
        let (low, high) = (low.max(KARRAS_RANGE.0), high.min(KARRAS_RANGE.1));
        let (first, last) = (high.powf(1.0 / KARRAS_RHO), low.powf(1.0 / KARRAS_RHO));
        let gaps = (steps.max(2) - 1) as f64;
        let log_snr = |i: usize| -2.0 * KARRAS_RHO * (first + (last - first) * i as f64 / gaps).ln();
        match self {
            LevelSource::Continuous(_) => Ok((0..steps).map(|i| Level::continuous(log_snr(i))).collect()),
            LevelSource::Discrete(s, scale) => {
                let mut found: Vec<usize> = (0..steps).map(|i| s.nearest(log_snr(i))).collect();
                found.dedup();
                if found.len() < steps {
                    return Err(Error::Config(format!(
                        "{steps} of Karras' levels fall on {} different steps of this process of {}; ask for fewer steps",
                        found.len(),
                        s.len()
                    )));
                }
                Ok(found.into_iter().map(|t| Level::discrete(s, t, *scale)).collect())
            }
        }
    }
}
