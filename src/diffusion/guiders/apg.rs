//! Adaptive projected guidance (Sadat et al., arXiv 2410.02416), in the space of x̂.
//!
//! d = x̂_c - x̂_∅;  m ← d + β m;  m' = m·min(1, r/‖m‖);  split m' along x̂_c;  x̃ = x̂_c + w (orthogonal + η·parallel).
//! With p = <m', x̂_c>/‖x̂_c‖² and g = 1 - w(1 - η)p that is x̃ = g x̂_c + w m', and as an eps
//! eps̃ = g eps_c + (1 - g) z/σ - w (α/σ) m'. What is remembered is m, before the limit.
//! η = 1, β = 0, r = ∞ is plain guidance.

use std::sync::Arc;

use super::guider::{Entry, Evaluated, Guider, Kind, Memory, Work};
use super::sums::dot;

/// Guidance whose part along the prediction is weakened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Apg {
    /// η: how much of the parallel part stays.
    pub parallel: f64,
    /// β, usually negative: how much of the steps before stays.
    pub momentum: f64,
    /// r: the longest step; infinite for no limit.
    pub radius: f64,
}

impl Guider for Apg {
    fn text(&self) -> String {
        format!("apg(eta={},beta={},r={})", self.parallel, self.momentum, self.radius)
    }

    fn kind(&self) -> Kind {
        Kind::Combination
    }

    fn work(&self) -> Work {
        Work::Apg { parallel: self.parallel, momentum: self.momentum, radius: self.radius }
    }

    fn combine(&self, weight: f64, eps: &Evaluated<'_>, memory: &mut Memory) -> Option<Vec<f64>> {
        let (alpha, sigma) = (eps.step.alpha, eps.step.sigma);
        let x_hat: Vec<f64> =
            eps.z.iter().zip(eps.conditional).map(|(z, eps)| (z - sigma * eps) / alpha).collect();
        let difference = eps.conditional.iter().zip(eps.against).map(|(c, u)| -sigma / alpha * (c - u));
        memory.momentum.resize(eps.z.len(), 0.0);
        memory.momentum.iter_mut().zip(difference).for_each(|(m, d)| *m = d + self.momentum * *m);
        let m = &memory.momentum;
        let norm = dot(m, m).sqrt();
        let limit = if norm > self.radius { self.radius / norm } else { 1.0 };
        let square = dot(&x_hat, &x_hat);
        let along = if square > 0.0 { limit * dot(m, &x_hat) / square } else { 0.0 };
        let kept = 1.0 - weight * (1.0 - self.parallel) * along;
        let one = |((c, z), m): ((&f64, &f64), &f64)| {
            kept * c + (1.0 - kept) * z / sigma - weight * limit * (alpha / sigma) * m
        };
        Some(eps.conditional.iter().zip(eps.z).zip(m).map(one).collect())
    }

    fn conflict(&self, other: &dyn Guider) -> Option<String> {
        matches!(other.work(), Work::Rescale { .. }).then(|| {
            "apg limits the guided step itself; rescaling it again would undo what its r and eta say".into()
        })
    }
}

pub(super) const ENTRY: Entry = Entry {
    name: "apg",
    usage: "apg(eta=0,beta=-0.5,r=15)",
    what: "guidance along the prediction weakened; momentum; a longest step (arXiv 2410.02416)",
    make: |arguments| {
        let parallel = arguments.named("eta")?.unwrap_or(0.0);
        let momentum = arguments.named("beta")?.unwrap_or(-0.5);
        let radius = arguments.named("r")?.unwrap_or(f64::INFINITY);
        if radius <= 0.0 || momentum.abs() >= 1.0 {
            return Err(arguments.wrong("r must be above 0, and beta between -1 and 1"));
        }
        Ok(Arc::new(Apg { parallel, momentum, radius }))
    },
};
