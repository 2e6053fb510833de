//! Zero-star (Fan et al., arXiv 2503.18886, a rule for flows carried over): eps_∅ is scaled by
//! s = <eps_c, eps_∅>/(‖eps_∅‖² + 1e-8) of each sample, and the first k steps leave z unchanged.

use std::sync::Arc;

use super::guider::{Entry, Evaluated, Guider, Kind, Memory, Moment, Work};
use super::sums::dot;
use crate::diffusion::StepCoefficients;

/// Guidance against the best multiple of the unconditional eps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ZeroStar {
    /// k: steps at the start that do nothing.
    pub idle_steps: usize,
}

/// Added to ‖eps_∅‖².
pub const FLOOR: f64 = 1e-8;

impl Guider for ZeroStar {
    fn text(&self) -> String {
        format!("zero-star(k={})", self.idle_steps)
    }

    fn kind(&self) -> Kind {
        Kind::Combination
    }

    fn work(&self) -> Work {
        Work::ZeroStar
    }

    fn step(&self, at: &Moment, step: &mut StepCoefficients) {
        if at.step < self.idle_steps && !step.is_last {
            (step.mean_z, step.mean_x, step.noise_sd) = (1.0, 0.0, 0.0);
        }
    }

    fn combine(&self, weight: f64, eps: &Evaluated<'_>, _memory: &mut Memory) -> Option<Vec<f64>> {
        let scale = dot(eps.conditional, eps.against) / (dot(eps.against, eps.against) + FLOOR);
        let one = |(c, u): (&f64, &f64)| (1.0 + weight) * c - weight * scale * u;
        Some(eps.conditional.iter().zip(eps.against).map(one).collect())
    }
}

pub(super) const ENTRY: Entry = Entry {
    name: "zero-star",
    usage: "zero-star(k=1)",
    what: "eps_u scaled to fit eps_c best; the first k steps do nothing (arXiv 2503.18886)",
    make: |arguments| {
        let idle_steps = arguments.named("k")?.unwrap_or(0.0);
        if idle_steps < 0.0 || idle_steps.fract() != 0.0 {
            return Err(arguments.wrong("k is a number of steps"));
        }
        Ok(Arc::new(ZeroStar { idle_steps: idle_steps as usize }))
    },
};
