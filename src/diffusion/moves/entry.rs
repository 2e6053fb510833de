//! What is known of a sampler: an entry of [`SAMPLERS`](super::SAMPLERS), beside its function in a file of its own.

use super::levels::LevelSource;
use super::{Level, Move, Spacing};
use crate::diffusion::prediction::Variance;
use crate::diffusion::respacing::Respacing;
use crate::{Error, Result};

/// A sampler by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SamplerKind {
    /// DDPM's chain, or CFG's Algorithm 2 on a network of continuous time.
    Ancestral,
    /// DDIM with η.
    Ddim,
    /// Deterministic DDIM through the levels of halved students: u = 1, 1 - 1/N, …, 1/N, then the picture.
    Halving,
    /// DDIM backwards: a picture to its latent.
    DdimReverse,
    /// Euler's method on the probability flow, over EDM's levels.
    Euler,
    /// The same with fresh noise in each step.
    EulerAncestral,
    /// Heun's method: two evaluations a step.
    Heun,
    /// DPM-Solver++(2M).
    Dpmpp2m,
    /// SDE-DPM-Solver++(2M).
    Dpmpp2mSde,
}

/// Which levels a sampler goes through when nobody says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walks {
    /// The steps of the process, evenly; of a discrete one they can be named.
    Steps,
    /// Levels of the probability flow, by EDM's rule.
    Levels,
    /// Those that a halved student was taught at; no others can be asked for.
    Halves,
}

/// One sampler.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Which it is.
    pub kind: SamplerKind,
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is, in a line of a help text.
    pub about: &'static str,
    /// Which levels it goes through.
    pub walks: Walks,
    /// η when nobody says, where η means something to it.
    pub eta: Option<f64>,
    /// Its moves from the noisiest level to the picture.
    pub moves: fn(&Way<'_>) -> Result<Vec<Move>>,
}

/// What a sampler is given: the levels that there are, and what is asked for, nothing left open.
#[derive(Debug, Clone, Copy)]
pub struct Way<'a> {
    /// The levels that the network was trained on.
    pub source: &'a LevelSource,
    /// The steps of a discrete process by name; else `spacing` chooses `steps` of them.
    pub respacing: Option<&'a Respacing>,
    /// How the levels lie between the ends.
    pub spacing: Spacing,
    /// How many.
    pub steps: usize,
    /// η; 0 for samplers without.
    pub eta: f64,
    /// The variance of a discrete chain's steps.
    pub variance: Variance,
    /// v of CFG's Algorithm 2.
    pub variance_exponent: f64,
}

impl Way<'_> {
    /// η, where noise of the posterior means something.
    ///
    /// # Errors
    /// [`Error::Config`] on a straight path: the posterior's formula counts on α² + σ² = 1.
    pub fn posterior_eta(&self) -> Result<f64> {
        match self.source {
            LevelSource::Flow(_) if self.eta > 0.0 => Err(Error::Config(
                "the noise of η counts on α² + σ² = 1, which a flow has not: leave --eta at 0 (ddim, euler), or take \
                 dpmpp-2m-sde"
                    .into(),
            )),
            _ => Ok(self.eta),
        }
    }

    /// The levels from noisy to clean.
    ///
    /// # Errors
    /// As [`LevelSource::spaced`].
    pub fn levels(&self) -> Result<Vec<Level>> {
        match self.respacing {
            Some(respacing) => Ok(self.source.respaced(respacing)?.own(self.steps)),
            None => self.source.spaced(self.spacing, self.steps),
        }
    }
}
