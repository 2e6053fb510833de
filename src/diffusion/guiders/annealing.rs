//! Condition annealing, CADS (Sadat et al., arXiv 2310.17347): noise on the condition's embedding early in the chain.
//!
//! With u the part of the chain that remains (1 at the noisy end), γ(u) is 1 below τ₁, 0 above τ₂ and straight between;
//! y' = √γ y + s √(1-γ) n, rescaled to the mean and deviation of y, and y'' = ψ·rescaled + (1-ψ) y'.

use std::sync::Arc;

use super::guider::{Annealing, Entry, Guider, Kind, Moment, Work};
use super::sums::deviation;

impl Annealing {
    /// γ of a step: how much of the condition's variance stays.
    pub fn kept(&self, at: &Moment) -> f64 {
        let remaining = 1.0 - at.progress();
        if remaining <= self.whole_below {
            1.0
        } else if remaining >= self.noise_above {
            0.0
        } else {
            (self.noise_above - remaining) / (self.noise_above - self.whole_below)
        }
    }

    /// y'' of an embedding `y` and its `noise`.
    pub fn apply(&self, at: &Moment, y: &[f64], noise: &[f64]) -> Vec<f64> {
        let kept = self.kept(at);
        if kept == 1.0 {
            return y.to_vec();
        }
        let noisy: Vec<f64> = y
            .iter()
            .zip(noise)
            .map(|(y, n)| kept.sqrt() * y + self.scale * (1.0 - kept).sqrt() * n)
            .collect();
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        let (m, d) = (mean(&noisy), deviation(&noisy));
        let (to_m, to_d) = (mean(y), deviation(y));
        let restored = |x: f64| if d > 0.0 { (x - m) / d * to_d + to_m } else { x };
        noisy.iter().map(|&x| self.mix * restored(x) + (1.0 - self.mix) * x).collect()
    }
}

impl Guider for Annealing {
    fn text(&self) -> String {
        format!(
            "annealing(t1={},t2={},s={},psi={})",
            self.whole_below, self.noise_above, self.scale, self.mix
        )
    }

    fn kind(&self) -> Kind {
        Kind::Embedding
    }

    fn work(&self) -> Work {
        Work::Anneal(*self)
    }
}

pub(super) const ENTRY: Entry = Entry {
    name: "annealing",
    usage: "annealing(t1=0.6,t2=0.9,s=0.15,psi=1)",
    what: "noise on the condition's embedding early on, for variety (arXiv 2310.17347)",
    make: |arguments| {
        let whole_below = arguments.named("t1")?.unwrap_or(0.6);
        let noise_above = arguments.named("t2")?.unwrap_or(0.9);
        let scale = arguments.named("s")?.unwrap_or(0.15);
        let mix = arguments.named("psi")?.unwrap_or(1.0);
        if !(0.0 <= whole_below && whole_below < noise_above && (0.0..=1.0).contains(&mix) && scale >= 0.0) {
            return Err(arguments.wrong("0 <= t1 < t2, s >= 0, and psi between 0 and 1"));
        }
        Ok(Arc::new(Annealing { whole_below, noise_above, scale, mix }))
    },
};
