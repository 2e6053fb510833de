//! DDIM (arXiv 2010.02502, equation 12), with the guided form of ADM's Algorithm 2, and its reverse.
//!
//! With eps = (z - α x̂)/σ: z' = α' x̂ + √(σ'² - s²) eps + s·noise, s = η (σ'/σ) √(1 - α²/α'²).

use super::levels::check_steps;
use super::{Entry, Level, Move, SamplerKind, Walks, Way, check_eta};
use crate::{Error, Result};

pub(super) const ENTRY: Entry = Entry {
    kind: SamplerKind::Ddim,
    name: "ddim",
    about: "the process's steps, with as much noise as eta says",
    walks: Walks::Steps,
    eta: Some(0.0),
    moves: |way| ddim(&way.levels()?, way.posterior_eta()?),
};

pub(super) const HALVING: Entry = Entry {
    kind: SamplerKind::Halving,
    name: "halving",
    about: "the steps that a student of `distill --halve` was taught",
    walks: Walks::Halves,
    eta: None,
    moves: |way| ddim(&way.source.halving(way.steps)?, 0.0),
};

pub(super) const REVERSE: Entry = Entry {
    kind: SamplerKind::DdimReverse,
    name: "ddim-reverse",
    about: "backwards: pictures (--from) to their latents",
    walks: Walks::Steps,
    eta: None,
    moves: reverse,
};

fn reverse(way: &Way<'_>) -> Result<Vec<Move>> {
    check_steps(way.steps, None)?;
    // N levels have N - 1 moves between them; one step goes from end to end.
    let levels = Way { steps: way.steps.max(2), ..*way }.levels()?;
    if levels.len() < 2 {
        let what = format!("{} goes from one level to another; ask for two steps or more", REVERSE.name);
        return Err(Error::Config(what));
    }
    Ok(ddim_reverse(&levels))
}

/// From one level to another.
pub(crate) fn between(from: Level, to: Level, eta: f64) -> Move {
    let sd = eta * to.sigma / from.sigma * (1.0 - (from.alpha / to.alpha).powi(2)).max(0.0).sqrt();
    let direction = (to.sigma.powi(2) - sd.powi(2)).max(0.0).sqrt();
    Move {
        mean_z: direction / from.sigma,
        mean_x: to.alpha - direction * from.alpha / from.sigma,
        // eps ← eps - σ g, and with it x̂ ← x̂ + σ² g/α, which is not clipped again.
        mean_gradient: to.alpha * from.sigma.powi(2) / from.alpha - direction * from.sigma,
        noise_sd: sd,
        ..Move::at(from)
    }
}

/// The moves through `levels`, from noisy to clean, and to the picture at last. η is 0 for the deterministic process, 1 for
/// the ancestral one with the small variance.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) when η is not in [0, 1].
pub fn ddim(levels: &[Level], eta: f64) -> Result<Vec<Move>> {
    check_eta(eta)?;
    let ends = levels.iter().skip(1).copied().chain([Level::CLEAN]);
    Ok(levels.iter().zip(ends).map(|(from, to)| between(*from, to, eta)).collect())
}

/// The deterministic moves back: from the last (clean) of `levels`, where the picture is taken to stand, to the first.
pub fn ddim_reverse(levels: &[Level]) -> Vec<Move> {
    levels.windows(2).rev().map(|pair| between(pair[1], pair[0], 0.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::moves::walk;
    use crate::diffusion::{BetaSchedule, DiscreteSchedule, Variance};

    fn levels(steps: usize) -> Vec<Level> {
        let whole = DiscreteSchedule::new(BetaSchedule::Cosine, 1000).unwrap();
        let kept = whole.respaced(&crate::diffusion::Respacing::Sections(vec![steps])).unwrap();
        super::super::LevelSource::Discrete(kept, 1.0).own(0)
    }

    #[test]
    fn eta_of_one_is_the_ancestral_chain_with_the_small_variance() {
        let schedule = DiscreteSchedule::new(BetaSchedule::Linear, 50).unwrap();
        let chain = super::super::ancestral(&schedule, 1.0, Variance::Small);
        let levels = super::super::LevelSource::Discrete(schedule, 1.0).own(0);
        for (a, b) in chain.iter().zip(ddim(&levels, 1.0).unwrap()) {
            assert!(
                (a.mean_z - b.mean_z).abs() < 1e-12 && (a.mean_x - b.mean_x).abs() < 1e-12,
                "{a:?} {b:?}"
            );
            assert!((a.noise_sd - b.noise_sd).abs() < 1e-12, "{a:?} {b:?}");
        }
        assert!(ddim(&levels, 1.1).is_err() && ddim(&levels, f64::NAN).is_err());
    }

    /// With an x̂ that does not depend on z, forth and back is the identity.
    #[test]
    fn the_reverse_undoes_the_way_forth() {
        let levels = levels(20);
        let mut constant = |_: &[f64], _: &Level| Ok(vec![0.4, -0.2]);
        let start = vec![1.3, -0.8];
        let forth = ddim(&levels, 0.0).unwrap();
        // The last move leaves the levels; the one before it ends on the cleanest.
        let there = walk(&mut constant, &forth[..19], start.clone(), |_| vec![]).unwrap();
        let back = walk(&mut constant, &ddim_reverse(&levels), there, |_| vec![]).unwrap();
        for (a, b) in start.iter().zip(back) {
            assert!((a - b).abs() < 1e-9, "{a} {b}");
        }
    }
}
