//! CFG++ (Chung et al., arXiv 2406.08070): x̂ from the guided eps, noised again with eps_∅.
//!
//! In the ancestral step z is replaced by α x̂ + σ eps_∅ in the mean: z' = mean_z (α x̂ + σ eps_∅) + mean_x x̂ + noise. The
//! strength is a part of the way from eps_∅ to eps_c: 0 to 1, so w from -1 to 0.

use std::sync::Arc;

use super::guider::{Entry, Guider, Kind, Moment, Work};

/// Noises x̂ with the unconditional eps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlusPlus {
    /// The strength, 0 (unconditional) to 1 (conditional).
    pub strength: f64,
}

impl Guider for PlusPlus {
    fn text(&self) -> String {
        format!("cfg++({})", self.strength)
    }

    fn kind(&self) -> Kind {
        Kind::Step
    }

    fn weight(&self, _at: &Moment, _weight: f64) -> f64 {
        self.strength - 1.0
    }

    fn work(&self) -> Work {
        Work::Renoise
    }

    fn conflict(&self, other: &dyn Guider) -> Option<String> {
        (other.kind() == Kind::Weight)
            .then(|| "cfg++ has a strength of its own, the same in every step".into())
    }
}

pub(super) const ENTRY: Entry = Entry {
    name: "cfg++",
    usage: "cfg++(0.6)",
    what: "x from the guided eps, noise from the unconditional one; strength 0 to 1 (arXiv 2406.08070)",
    make: |arguments| {
        let strength = arguments.number("strength")?;
        if !(0.0..=1.0).contains(&strength) {
            return Err(arguments.wrong("the strength lies between 0 (unconditional) and 1 (conditional)"));
        }
        Ok(Arc::new(PlusPlus { strength }))
    },
};
