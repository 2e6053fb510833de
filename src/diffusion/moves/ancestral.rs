//! Ancestral sampling of a discrete process (DDPM, Algorithm 2; learned variances: IDDPM, section 3.1).

use super::spacing::{kept, log_snrs, sigma_log_snrs};
use super::{Entry, Level, LevelSource, Move, SamplerKind, Walks, Way};
use crate::diffusion::discrete::DiscreteSchedule;
use crate::diffusion::posterior::{StepCoefficients, ancestral_steps_through};
use crate::diffusion::prediction::Variance;
use crate::{Error, Result};

pub(super) const ENTRY: Entry = Entry {
    kind: SamplerKind::Ancestral,
    name: "ancestral",
    about: "DDPM's chain, or Algorithm 2 of the CFG paper in continuous time",
    walks: Walks::Steps,
    eta: None,
    moves: chain,
};

fn chain(way: &Way<'_>) -> Result<Vec<Move>> {
    match way.source {
        LevelSource::Continuous(schedule) => {
            let grid = log_snrs(schedule, way.spacing, way.steps)?;
            Ok(continuous(&ancestral_steps_through(&grid, way.variance_exponent)?, Level::continuous))
        }
        LevelSource::Sigma(levels) => {
            let grid = sigma_log_snrs(levels, way.spacing, way.steps)?;
            Ok(continuous(&ancestral_steps_through(&grid, way.variance_exponent)?, Level::edm))
        }
        LevelSource::Discrete(schedule, scale) => {
            let schedule = match way.respacing {
                Some(respacing) => schedule.respaced(respacing)?,
                None => kept(schedule, way.spacing, way.steps)?,
            };
            Ok(ancestral(&schedule, *scale, way.variance))
        }
        LevelSource::Flow(_) => Err(Error::Config(
            "ancestral steps count on α² + σ² = 1, which a flow has not: take ddim, euler, heun, dpmpp-2m or dpmpp-2m-sde".into(),
        )),
    }
}

/// CFG's Algorithm 2 as moves; `level` is that of a λ.
fn continuous(steps: &[StepCoefficients], level: fn(f64) -> Level) -> Vec<Move> {
    let one = |step: &StepCoefficients| Move {
        mean_z: step.mean_z,
        mean_x: step.mean_x,
        noise_sd: step.noise_sd,
        mean_gradient: step.noise_sd.powi(2),
        ..Move::at(level(step.log_snr))
    };
    steps.iter().map(one).collect()
}

/// A move for each step, the noisiest first: the posterior's mean of (x̂, z), and noise of the chosen variance, none in the
/// last. Guided, the mean moves by variance times gradient (ADM, Algorithm 1).
pub fn ancestral(schedule: &DiscreteSchedule, time_scale: f64, variance: Variance) -> Vec<Move> {
    let step = |t: usize| {
        let (mean_x, mean_z) = schedule.posterior_mean_factors(t);
        let (small, large) = (schedule.posterior_log_variance(t), schedule.large_log_variance(t));
        let (sd, gradient) = match variance {
            Variance::Small => ((0.5 * small).exp(), schedule.posterior_variance(t)),
            Variance::Large => ((0.5 * large).exp(), large.exp()),
            Variance::Learned | Variance::LearnedRange => (1.0, 1.0),
        };
        Move {
            mean_z,
            mean_x,
            mean_gradient: gradient,
            noise_sd: if t == 0 { 0.0 } else { sd },
            // The learned range ends at β itself, at t = 0 too.
            log_variances: Some((small, schedule.beta(t).ln())),
            ..Move::at(Level::discrete(schedule, t, time_scale))
        }
    };
    (0..schedule.len()).rev().map(step).collect()
}
