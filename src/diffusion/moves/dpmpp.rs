//! DPM-Solver++(2M), deterministic and as an SDE (Lu et al., arXiv 2211.01095, Algorithm 2 and equation 18).
//!
//! With half log SNRs l = log(α/σ), h = l' - l, and D = x̂ + (x̂ - x̂ before)·h/(2 h before):
//! z' = (σ'/σ) e^{-ηh} z + α'(1 - e^{-(1+η)h}) D + σ' √(1 - e^{-2ηh}) noise.

use super::{Entry, Level, Move, SamplerKind, Walks, check_eta};
use crate::Result;

pub(super) const ENTRY: Entry = Entry {
    kind: SamplerKind::Dpmpp2m,
    name: "dpmpp-2m",
    about: "DPM-Solver++(2M), of order two: one evaluation a step",
    walks: Walks::Levels,
    eta: None,
    moves: |way| Ok(dpmpp_2m(&way.levels()?)),
};

pub(super) const SDE: Entry = Entry {
    kind: SamplerKind::Dpmpp2mSde,
    name: "dpmpp-2m-sde",
    about: "the same as an SDE",
    walks: Walks::Levels,
    eta: Some(1.0),
    moves: |way| dpmpp_2m_sde(&way.levels()?, way.eta),
};

/// The deterministic solver: order two with one evaluation a step.
pub fn dpmpp_2m(levels: &[Level]) -> Vec<Move> {
    solver(levels, 0.0)
}

/// The stochastic solver; η = 1 is the reverse SDE, 0 the deterministic solver.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) when η is not in [0, 1].
pub fn dpmpp_2m_sde(levels: &[Level], eta: f64) -> Result<Vec<Move>> {
    check_eta(eta)?;
    Ok(solver(levels, eta))
}

fn solver(levels: &[Level], eta: f64) -> Vec<Move> {
    let half_log_snr = |level: &Level| 0.5 * level.log_snr();
    let mut before: Option<f64> = None;
    let mut moves = Vec::with_capacity(levels.len());
    for pair in levels.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let h = half_log_snr(&to) - half_log_snr(&from);
        let of_d = -to.alpha * (-(1.0 + eta) * h).exp_m1();
        // The first step has no x̂ before it and is of order one.
        let extrapolated = before.map_or(0.0, |before| 0.5 * h / before);
        moves.push(Move {
            mean_z: to.sigma / from.sigma * (-eta * h).exp(),
            mean_x: of_d * (1.0 + extrapolated),
            mean_previous: -of_d * extrapolated,
            noise_sd: to.sigma * (-(-2.0 * eta * h).exp_m1()).sqrt(),
            ..Move::at(from)
        });
        before = Some(h);
    }
    moves.extend(levels.last().map(|last| Move::at(*last)));
    moves
}
