//! Where a sampler's levels lie between the ends of a process.
//!
//! | name | levels, from noisy to clean | whose default |
//! |---|---|---|
//! | `edm` | the process's end, then EDM's from σ/α = 80 (or the end, where that is cleaner) with ρ = 7 | solvers here |
//! | `karras` | EDM's rule with ρ = 7 (arXiv 2206.00364, equation 5) from end to end | k-diffusion; diffusers' `use_karras_sigmas` |
//! | `exponential` | λ in equal steps | k-diffusion's of that name; diffusers' `use_exponential_sigmas` |
//! | `uniform` | the steps of a discrete process evenly, both ends among them; u in equal steps in continuous time | guided-diffusion; diffusers' `linspace` |
//! | `trailing` | the noisy end of each of N equal parts | diffusers' of that name; halved students |
//! | `leading` | the clean end of each of N equal parts, `leading+1` a step above; begins below the noisy end | diffusers' of that name |
//!
//! On a straight path t has equal steps in `uniform` and `trailing`, and `trailing`, from t = 1 to 1/N and then to the picture, is
//! the default of all samplers. Of EDM's levels `edm` is that.
//!
//! x̂ hardly changes beyond σ/α = 80, and Karras' rule would spend more than half of its steps there on a process that ends at
//! 20,000 (cosine, continuous time), so `edm` crosses that part in one step, from where the process really begins.

use std::fmt;
use std::str::FromStr;

use super::levels::{Level, LevelSource, check_steps};
use crate::diffusion::discrete::DiscreteSchedule;
use crate::diffusion::flow::FlowSchedule;
use crate::diffusion::respacing::Respacing;
use crate::diffusion::schedule::ContinuousSchedule;
use crate::diffusion::sigma::{SigmaSchedule, karras};
use crate::error::brief;
use crate::{Error, Result};

/// How levels are spread between the ends of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    /// The process's end, then EDM's levels.
    Edm,
    /// EDM's rule from end to end.
    Karras,
    /// λ in equal steps.
    Exponential,
    /// The process's own steps evenly.
    Uniform,
    /// The noisy end of each part.
    Trailing,
    /// The clean end of each part, so many steps above it.
    Leading(usize),
}

/// Every spacing and its names: the first is its own.
const SPACINGS: &[(Spacing, &[&str])] = &[
    (Spacing::Edm, &["edm"]),
    (Spacing::Karras, &["karras"]),
    (Spacing::Exponential, &["exponential"]),
    (Spacing::Uniform, &["uniform", "linspace"]),
    (Spacing::Trailing, &["trailing"]),
    (Spacing::Leading(0), &["leading"]),
];

/// The σ/α of EDM's first and last level (its table 1).
const EDM_RANGE: (f64, f64) = (0.002, 80.0);

impl LevelSource {
    /// `steps` levels from noisy to clean, no two alike.
    ///
    /// # Errors
    /// [`Error::Config`] for no step, more steps than a discrete process has, or a spacing that the process has not.
    pub fn spaced(&self, spacing: Spacing, steps: usize) -> Result<Vec<Level>> {
        match self {
            LevelSource::Continuous(schedule) => {
                Ok(log_snrs(schedule, spacing, steps)?.into_iter().map(Level::continuous).collect())
            }
            LevelSource::Discrete(schedule, scale) => {
                let kept = kept(schedule, spacing, steps)?;
                Ok(LevelSource::Discrete(kept, *scale).own(steps))
            }
            LevelSource::Flow(path) => flow_levels(path, spacing, steps),
            LevelSource::Sigma(levels) => {
                Ok(sigma_log_snrs(levels, spacing, steps)?.into_iter().map(Level::edm).collect())
            }
        }
    }
}

/// λ of each of `steps` levels in continuous time, rising.
///
/// # Errors
/// As [`LevelSource::spaced`].
pub(super) fn log_snrs(schedule: &ContinuousSchedule, spacing: Spacing, steps: usize) -> Result<Vec<f64>> {
    check_steps(steps, None)?;
    let (noisy, clean) = (schedule.log_snr_min(), schedule.log_snr_max());
    // EDM ends at 0.002: what lies beyond is below a picture's rounding.
    let cleanest = clean.min(-2.0 * EDM_RANGE.0.ln());
    match spacing {
        Spacing::Edm => Ok(edm(noisy, cleanest, steps)),
        Spacing::Karras => Ok(karras(noisy, cleanest, steps)),
        Spacing::Exponential => Ok(evenly(noisy, clean, steps)),
        Spacing::Uniform => Ok(schedule.sampling_grid(steps)),
        Spacing::Trailing => {
            Ok((1..=steps).rev().map(|i| schedule.log_snr(i as f64 / steps as f64)).collect())
        }
        Spacing::Leading(_) => Err(Error::Config(
            "the spacing `leading` is of the steps of a discrete process, and this one is of continuous time"
                .into(),
        )),
    }
}

/// `steps` levels of a straight path, from noisy to clean; `uniform` and `trailing` are of t.
fn flow_levels(path: &FlowSchedule, spacing: Spacing, steps: usize) -> Result<Vec<Level>> {
    check_steps(steps, None)?;
    let (noisy, clean) = (path.log_snr_min(), path.log_snr_max());
    let cleanest = clean.min(-2.0 * EDM_RANGE.0.ln());
    let along = |log_snrs: Vec<f64>| Ok(log_snrs.into_iter().map(Level::flow_of_log_snr).collect());
    match spacing {
        Spacing::Edm => along(edm(noisy, cleanest, steps)),
        Spacing::Karras => along(karras(noisy, cleanest, steps)),
        Spacing::Exponential => along(evenly(noisy, clean, steps)),
        Spacing::Uniform => Ok(path.sampling_grid(steps).into_iter().map(Level::flow).collect()),
        Spacing::Trailing => {
            Ok((1..=steps).rev().map(|i| Level::flow(path.time(i as f64 / steps as f64))).collect())
        }
        Spacing::Leading(_) => Err(Error::Config(
            "the spacing `leading` is of the steps of a discrete process, and this one is a flow in continuous time".into(),
        )),
    }
}

/// λ of each of `steps` levels of EDM's, rising.
///
/// # Errors
/// [`Error::Config`] for no step, and for spacings of a process's steps.
pub(super) fn sigma_log_snrs(levels: &SigmaSchedule, spacing: Spacing, steps: usize) -> Result<Vec<f64>> {
    check_steps(steps, None)?;
    let (noisy, clean) = (levels.log_snr_min(), levels.log_snr_max());
    match spacing {
        Spacing::Edm => Ok(edm(noisy, clean, steps)),
        Spacing::Karras => Ok(karras(noisy, clean, steps)),
        Spacing::Exponential => Ok(evenly(noisy, clean, steps)),
        Spacing::Uniform | Spacing::Trailing | Spacing::Leading(_) => Err(Error::Config(format!(
            "the spacing `{spacing}` is of the steps of a process, and the schedule `edm` has levels alone: take edm, karras or \
             exponential"
        ))),
    }
}

/// The process through `steps` levels of a discrete one.
///
/// # Errors
/// As [`LevelSource::spaced`].
pub(super) fn kept(schedule: &DiscreteSchedule, spacing: Spacing, steps: usize) -> Result<DiscreteSchedule> {
    let total = schedule.len();
    check_steps(steps, Some(total))?;
    let (noisy, clean) = (schedule.log_snr(total - 1), schedule.log_snr(0));
    let along = |log_snrs: Vec<f64>| {
        let mut times: Vec<f64> = log_snrs.iter().rev().map(|l| schedule.time_of_log_snr(*l)).collect();
        // The ends are exact by construction.
        if let [first, .., _] = &mut times[..] {
            *first = 0.0;
        }
        if let Some(last) = times.last_mut() {
            *last = (total - 1) as f64;
        }
        schedule.at_times(&times)
    };
    match spacing {
        Spacing::Edm => along(edm(noisy, clean, steps)),
        Spacing::Karras => along(karras(noisy, clean, steps)),
        Spacing::Exponential => along(evenly(noisy, clean, steps)),
        // One step is a step from the noise.
        Spacing::Uniform if steps == 1 => schedule.at(&[total - 1]),
        Spacing::Uniform => schedule.respaced(&Respacing::Sections(vec![steps])),
        Spacing::Trailing => {
            let part = total as f64 / steps as f64;
            let end = |i: usize| (total as f64 - i as f64 * part).round_ties_even() as usize - 1;
            schedule.at(&(0..steps).rev().map(end).collect::<Vec<_>>())
        }
        Spacing::Leading(offset) => {
            let steps_of = |i: usize| i * (total / steps) + offset;
            if steps_of(steps - 1) >= total {
                return Err(Error::Config(format!(
                    "the spacing {spacing} of {steps} steps would begin at t = {}, and the model's last is {}; ask for fewer \
                     steps or another spacing",
                    steps_of(steps - 1),
                    total - 1
                )));
            }
            schedule.at(&(0..steps).map(steps_of).collect::<Vec<_>>())
        }
    }
}

/// λ in equal steps from end to end.
fn evenly(noisy: f64, clean: f64, steps: usize) -> Vec<f64> {
    let gaps = (steps.max(2) - 1) as f64;
    (0..steps).map(|i| noisy + (clean - noisy) * i as f64 / gaps).collect()
}

/// The end, and Karras' levels from EDM's first on.
fn edm(noisy: f64, clean: f64, steps: usize) -> Vec<f64> {
    let first = -2.0 * EDM_RANGE.1.ln();
    if noisy >= first || clean <= first {
        return karras(noisy, clean, steps);
    }
    std::iter::once(noisy).chain(karras(first, clean, steps - 1)).collect()
}

impl FromStr for Spacing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let lower = text.to_ascii_lowercase();
        if let Some(offset) = lower.strip_prefix("leading+").and_then(|offset| offset.parse().ok()) {
            return Ok(Spacing::Leading(offset));
        }
        let found = SPACINGS.iter().find(|(_, names)| names.contains(&lower.as_str()));
        found.map(|(spacing, _)| *spacing).ok_or_else(|| {
            let names: Vec<&str> = SPACINGS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
            Error::Config(format!(
                "`{text}` is no spacing; there are {} and leading+N",
                names.join(", "),
                text = brief(text)
            ))
        })
    }
}

impl fmt::Display for Spacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Spacing::Leading(offset @ 1..) = self {
            return write!(f, "leading+{offset}");
        }
        let name = SPACINGS.iter().find(|(spacing, _)| spacing == self).map_or("", |(_, names)| names[0]);
        f.write_str(name)
    }
}
