//! Samplers: free functions that turn noise levels into moves, over one contract, `denoise(z, level) -> x̂`.
//!
//! A move goes from one level to a cleaner one: z ← `mean_z`·z + `mean_x`·x̂ + `mean_previous`·x̂ of the move before +
//! `mean_gradient`·∇log p(c given z) + `noise_sd`·noise. All samplers here are linear in these, so their numbers are
//! computed in f64 once, and one loop ([`walk`]) or one kernel walks any of them. To add a sampler: a file with its function
//! and its entry, its name as a [`SamplerKind`], and a line of [`SAMPLERS`]; help texts and refusals are made of the entry.

mod ancestral;
#[cfg(test)]
mod convergence;
mod ddim;
mod dpmpp;
mod edm;
mod entry;
mod levels;
#[cfg(test)]
mod preconditioned_tests;
mod process;
mod row;
mod spacing;
#[cfg(test)]
mod spacing_tests;

pub use ancestral::ancestral;
pub(crate) use ddim::between as ddim_between;
pub use ddim::{ddim, ddim_reverse};
pub use dpmpp::{dpmpp_2m, dpmpp_2m_sde};
pub use edm::{euler, euler_ancestral, heun};
pub use entry::{Entry, SamplerKind, Walks, Way};
pub use levels::{Level, LevelSource};
pub use process::{Method, Process};
pub use row::StepRow;
pub use spacing::Spacing;

use std::fmt;
use std::str::FromStr;

use crate::diffusion::prediction::Variance;
use crate::diffusion::schedule::ContinuousSchedule;
use crate::error::brief;
use crate::{Error, Result};

/// One evaluation of the network and what follows from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Move {
    /// Where z stands before the move.
    pub level: Level,
    /// The factor of z.
    pub mean_z: f64,
    /// The factor of x̂, after its clip.
    pub mean_x: f64,
    /// The factor of the x̂ of the move before.
    pub mean_previous: f64,
    /// The factor of a guiding gradient; with learned variances it is multiplied by the variance.
    pub mean_gradient: f64,
    /// The standard deviation of the noise; with learned variances 1, or 0 in the last move.
    pub noise_sd: f64,
    /// Of a move of [`ancestral`]: the logs of the small and the large variance.
    pub log_variances: Option<(f64, f64)>,
}

impl Move {
    /// The move that changes nothing but the level's own numbers.
    fn at(level: Level) -> Self {
        Move {
            level,
            mean_z: 0.0,
            mean_x: 1.0,
            mean_previous: 0.0,
            mean_gradient: 0.0,
            noise_sd: 0.0,
            log_variances: None,
        }
    }
}

/// What makes x̂ of a latent: a network, a closed form, a guided combination of either.
pub trait Denoise {
    /// x̂ of `z` at `level`, after any clip.
    ///
    /// # Errors
    /// Whatever keeps it from being computed.
    fn denoise(&mut self, z: &[f64], level: &Level) -> Result<Vec<f64>>;
}

impl<F: FnMut(&[f64], &Level) -> Result<Vec<f64>>> Denoise for F {
    fn denoise(&mut self, z: &[f64], level: &Level) -> Result<Vec<f64>> {
        self(z, level)
    }
}

/// Walks `moves` from `z` in f64 on the host, `noise(move)` giving the standard normal numbers of a move that needs some.
///
/// # Errors
/// [`Error::Shape`] when a length differs from that of `z`; [`Error::Config`] for learned variances, which only a network
/// has; whatever `denoise` returns.
pub fn walk(
    denoise: &mut impl Denoise,
    moves: &[Move],
    z: Vec<f64>,
    mut noise: impl FnMut(usize) -> Vec<f64>,
) -> Result<Vec<f64>> {
    let mut z = z;
    let mut previous = vec![0.0; z.len()];
    for (index, step) in moves.iter().enumerate() {
        let x = denoise.denoise(&z, &step.level)?;
        let eps = if step.noise_sd == 0.0 { vec![0.0; z.len()] } else { noise(index) };
        if x.len() != z.len() || eps.len() != z.len() {
            let what = format!("z has {} elements, x {}, the noise {}", z.len(), x.len(), eps.len());
            return Err(Error::shape("walk", what));
        }
        for i in 0..z.len() {
            let mean = step.mean_z * z[i] + step.mean_x * x[i] + step.mean_previous * previous[i];
            z[i] = mean + step.noise_sd * eps[i];
        }
        previous = x;
    }
    Ok(z)
}

/// Every sampler.
pub const SAMPLERS: &[Entry] = &[
    ancestral::ENTRY,
    ddim::ENTRY,
    ddim::HALVING,
    ddim::REVERSE,
    edm::EULER,
    edm::EULER_ANCESTRAL,
    edm::HEUN,
    dpmpp::ENTRY,
    dpmpp::SDE,
];

impl SamplerKind {
    /// All that is known of it.
    ///
    /// # Panics
    /// Never: every kind has an entry, which a test makes sure of.
    pub fn entry(self) -> &'static Entry {
        SAMPLERS.iter().find(|entry| entry.kind == self).expect("every kind has an entry")
    }

    /// The spacing of its levels when none is asked for.
    pub fn default_spacing(self) -> Spacing {
        match self.entry().walks {
            Walks::Steps => Spacing::Uniform,
            Walks::Levels => Spacing::Edm,
            Walks::Halves => Spacing::Trailing,
        }
    }

    /// Whether it is a solver of the probability flow, which goes from level to level rather than through a chain's steps.
    pub fn is_solver(self) -> bool {
        self.entry().walks == Walks::Levels
    }

    /// Whether a move needs the x̂ of the move before: whether one of a few moves has a factor of it.
    pub fn is_multistep(self) -> bool {
        let source = LevelSource::Continuous(ContinuousSchedule::default());
        let way = Way {
            source: &source,
            respacing: None,
            spacing: self.default_spacing(),
            steps: PROBED_STEPS,
            eta: self.default_eta().unwrap_or(0.0),
            variance: Variance::Small,
            variance_exponent: 0.0,
        };
        match (self.entry().moves)(&way) {
            Ok(moves) => moves.iter().any(|step| step.mean_previous != 0.0),
            // Of another process alone: the slot is kept, which costs memory; a missing one would cost the picture.
            Err(_) => true,
        }
    }

    /// Whether η means something to it, and what it is when nobody says.
    pub fn default_eta(self) -> Option<f64> {
        self.entry().eta
    }
}

/// Steps enough for a solver to be in its stride.
const PROBED_STEPS: usize = 8;

impl FromStr for SamplerKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let lower = text.to_ascii_lowercase().replace('_', "-");
        let found = SAMPLERS.iter().find(|entry| entry.name == lower);
        found.map(|entry| entry.kind).ok_or_else(|| {
            let names: Vec<&str> = SAMPLERS.iter().map(|entry| entry.name).collect();
            Error::Config(format!(
                "`{text}` is no sampler; there are {}",
                names.join(", "),
                text = brief(text)
            ))
        })
    }
}

impl fmt::Display for SamplerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.entry().name)
    }
}

/// Refuses an η outside [0, 1].
fn check_eta(eta: f64) -> Result<()> {
    if (0.0..=1.0).contains(&eta) {
        return Ok(());
    }
    Err(Error::Config(format!("η is {eta}: it must lie between 0 (deterministic) and 1 (ancestral)")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the table leaves out follows from the moves; the expectations are read off the papers.
    #[test]
    fn facts_that_no_entry_tells_follow_from_the_moves() {
        for entry in SAMPLERS {
            let looks_back =
                matches!(entry.kind, SamplerKind::Heun | SamplerKind::Dpmpp2m | SamplerKind::Dpmpp2mSde);
            assert_eq!(entry.kind.is_multistep(), looks_back, "{}", entry.name);
            assert_eq!(entry.kind.entry().name, entry.name);
        }
        let names: std::collections::BTreeSet<_> = SAMPLERS.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), SAMPLERS.len());
        assert_eq!(SamplerKind::Dpmpp2mSde as usize + 1, SAMPLERS.len(), "a kind has no entry");
    }
}
