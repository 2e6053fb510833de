//! Noise levels, and the choices of them that samplers walk through.

use crate::diffusion::discrete::DiscreteSchedule;
use crate::diffusion::flow::{FlowSchedule, time_of_log_snr};
use crate::diffusion::respacing::Respacing;
use crate::diffusion::schedule::{
    ContinuousSchedule, alpha_of_log_snr, sigma_of_log_snr, theta_of_log_snr, time_embedding_of_theta,
};
use crate::diffusion::sigma::{SigmaSchedule, karras, noise_time};
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

    /// The level of step `t` of a discrete process; the network is told the original number times `time_scale`.
    pub fn discrete(schedule: &DiscreteSchedule, t: usize, time_scale: f64) -> Self {
        let time = schedule.timestep(t) * time_scale;
        Level { alpha: schedule.alpha(t), sigma: schedule.sigma(t), time }
    }

    /// The level at a time of a straight path.
    pub fn flow(t: f64) -> Self {
        Level { alpha: 1.0 - t, sigma: t, time: 1000.0 * t }
    }

    /// The level of a straight path whose λ is `log_snr`.
    pub fn flow_of_log_snr(log_snr: f64) -> Self {
        // 1 - t is the time of -λ, which near the noise keeps the digits that a difference would lose.
        let (t, alpha) = (time_of_log_snr(log_snr), time_of_log_snr(-log_snr));
        Level { alpha, ..Level::flow(t) }
    }

    /// The level of EDM's whose λ is `log_snr`.
    pub fn edm(log_snr: f64) -> Self {
        Level { time: noise_time(log_snr), ..Level::continuous(log_snr) }
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
    /// Any time of a straight path.
    Flow(FlowSchedule),
    /// EDM's: any noise level between two.
    Sigma(SigmaSchedule),
}

impl LevelSource {
    /// The process's own levels, from noisy to clean: the uniform grid of u in `steps` steps, EDM's rule, or all steps of a process,
    /// which [`DiscreteSchedule::respaced`] or a [`Spacing`](super::Spacing) has chosen.
    pub fn own(&self, steps: usize) -> Vec<Level> {
        match self {
            LevelSource::Continuous(schedule) => {
                schedule.sampling_grid(steps).into_iter().map(Level::continuous).collect()
            }
            LevelSource::Discrete(schedule, scale) => {
                (0..schedule.len()).rev().map(|t| Level::discrete(schedule, t, *scale)).collect()
            }
            LevelSource::Flow(path) => path.sampling_grid(steps).into_iter().map(Level::flow).collect(),
            LevelSource::Sigma(levels) => karras(levels.log_snr_min(), levels.log_snr_max(), steps)
                .into_iter()
                .map(Level::edm)
                .collect(),
        }
    }

    /// The levels that are kept of a discrete process; all of one of continuous time.
    ///
    /// # Errors
    /// As [`Respacing::kept`].
    pub fn respaced(&self, respacing: &Respacing) -> Result<LevelSource> {
        match self {
            LevelSource::Continuous(_) | LevelSource::Flow(_) | LevelSource::Sigma(_) => Ok(self.clone()),
            LevelSource::Discrete(schedule, scale) => {
                Ok(LevelSource::Discrete(schedule.respaced(respacing)?, *scale))
            }
        }
    }

    /// The levels at u = 1, 1 - 1/N, …, 1/N of the process, N = `steps`: those of N steps are every second one of 2N, as
    /// progressive distillation needs them (arXiv 2202.00512, algorithm 2). Of a discrete process the nearest steps.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for no step, or more steps than a discrete process has.
    pub fn halving(&self, steps: usize) -> Result<Vec<Level>> {
        let parts = (1..=steps).rev().map(|i| i as f64 / steps as f64);
        match self {
            LevelSource::Continuous(s) => {
                check_steps(steps, None)?;
                Ok(parts.map(|u| Level::continuous(s.log_snr(u))).collect())
            }
            LevelSource::Discrete(s, scale) => {
                check_steps(steps, Some(s.len()))?;
                let step = |u: f64| (u * s.len() as f64).round() as usize - 1;
                Ok(parts.map(|u| Level::discrete(s, step(u), *scale)).collect())
            }
            LevelSource::Flow(path) => {
                check_steps(steps, None)?;
                Ok(parts.map(|u| Level::flow(path.time(u))).collect())
            }
            LevelSource::Sigma(_) => Err(Error::Config(
                "steps are halved where a process has parts to halve; the levels of `edm` have no first u: take another schedule"
                    .into(),
            )),
        }
    }
}

/// Refuses no steps, and more than a discrete process has.
pub(super) fn check_steps(steps: usize, total: Option<usize>) -> Result<()> {
    if steps == 0 {
        return Err(Error::Config("sampling needs at least one step, and 0 were asked for".into()));
    }
    match total {
        Some(total) if steps > total => Err(Error::Config(format!(
            "{steps} steps were asked for, and the model has {total}; ask for 1 to {total}"
        ))),
        _ => Ok(()),
    }
}
