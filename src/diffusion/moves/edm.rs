//! The samplers of Karras et al. (arXiv 2206.00364) on the probability flow dy/dτ = (y - x̂)/τ, y = z/α, τ = σ/α.

use super::ddim::between;
use super::{Entry, Level, Move, SamplerKind, Walks, check_eta};
use crate::Result;

pub(super) const EULER: Entry = Entry {
    kind: SamplerKind::Euler,
    name: "euler",
    about: "Euler's method on the probability flow",
    walks: Walks::Levels,
    eta: None,
    moves: |way| Ok(euler(&way.levels()?)),
};

pub(super) const EULER_ANCESTRAL: Entry = Entry {
    kind: SamplerKind::EulerAncestral,
    name: "euler-ancestral",
    about: "the same with fresh noise in each step",
    walks: Walks::Levels,
    eta: Some(1.0),
    moves: |way| euler_ancestral(&way.levels()?, way.posterior_eta()?),
};

pub(super) const HEUN: Entry = Entry {
    kind: SamplerKind::Heun,
    name: "heun",
    about: "Heun's method, of order two: two evaluations a step",
    walks: Walks::Levels,
    eta: None,
    moves: |way| Ok(heun(&way.levels()?)),
};

/// Euler's method. In these coordinates it is the deterministic DDIM step; what differs are the levels.
pub fn euler(levels: &[Level]) -> Vec<Move> {
    let ends = levels.iter().skip(1).copied().chain([Level::CLEAN]);
    levels.iter().zip(ends).map(|(from, to)| between(*from, to, 0.0)).collect()
}

/// Euler's method to a level below the next, and fresh noise up to it; η = 1 adds as much as the posterior does.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) when η is not in [0, 1].
pub fn euler_ancestral(levels: &[Level], eta: f64) -> Result<Vec<Move>> {
    check_eta(eta)?;
    super::ddim(levels, eta)
}

/// The largest quotient of a step's τ that Heun's method corrects.
const LONGEST_STEP: f64 = 100.0;

/// Heun's method (EDM, Algorithm 1): each step but the last evaluates twice, at both of its ends. A step over more than two
/// orders of magnitude, as from the end of a process to EDM's first level, is Euler's: the average of both slopes would
/// multiply the difference of their x̂ by half of that.
pub fn heun(levels: &[Level]) -> Vec<Move> {
    let mut moves = Vec::with_capacity(2 * levels.len());
    for pair in levels.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let there = between(from, to, 0.0);
        moves.push(there);
        if from.ratio() > LONGEST_STEP * to.ratio() {
            continue;
        }
        // y' = y + (τ' - τ)(d + d')/2 with d = (y - x̂)/τ, d' = (ŷ - x̂')/τ', and y taken back out of Euler's ŷ.
        let (tau, next) = (from.ratio(), to.ratio());
        let gap = next - tau;
        let (of_y, of_x) = (tau / next, 1.0 - tau / next); // y = of_y ŷ + of_x x̂
        let half = 0.5 * gap;
        moves.push(Move {
            mean_z: of_y * (1.0 + half / tau) + half / next,
            mean_x: -to.alpha * half / next,
            mean_previous: to.alpha * (of_x * (1.0 + half / tau) - half / tau),
            ..Move::at(to)
        });
    }
    if let Some(last) = levels.last() {
        moves.push(between(*last, Level::CLEAN, 0.0));
    }
    moves
}
