//! Guidance in a limited interval of noise levels (Kynkäänniemi et al., arXiv 2404.07724); EDM's σ is λ = -2 ln σ.

use std::sync::Arc;

use super::guider::{Entry, Guider, Kind, Moment, Work};

/// Guidance only for λ in [lo, hi]; outside it the condition alone, one evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The noisiest λ with guidance.
    pub lo: f64,
    /// The cleanest.
    pub hi: f64,
}

impl Guider for Interval {
    fn text(&self) -> String {
        format!("interval(lo={},hi={})", self.lo, self.hi)
    }

    fn kind(&self) -> Kind {
        Kind::Window
    }

    fn weight(&self, at: &Moment, weight: f64) -> f64 {
        if (self.lo..=self.hi).contains(&at.log_snr) { weight } else { 0.0 }
    }

    fn conflict(&self, other: &dyn Guider) -> Option<String> {
        (other.work() == Work::Renoise)
            .then(|| "outside the interval there is no unconditional evaluation to noise x with again".into())
    }
}

pub(super) const ENTRY: Entry = Entry {
    name: "interval",
    usage: "interval(lo=-2,hi=6)",
    what: "guidance only at these log-SNR, one evaluation elsewhere (arXiv 2404.07724)",
    make: |arguments| {
        let lo = arguments.named("lo")?.unwrap_or(f64::NEG_INFINITY);
        let hi = arguments.named("hi")?.unwrap_or(f64::INFINITY);
        if lo >= hi {
            return Err(arguments.wrong("lo must be below hi"));
        }
        Ok(Arc::new(Interval { lo, hi }))
    },
};
