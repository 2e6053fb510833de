//! The same weight in every step: plain classifier-free guidance, eps̃ = (1 + w) eps_c - w eps_∅ (CFG, equation 6).

use std::sync::Arc;

use super::guider::{Entry, Guider, Kind, Moment};

/// A weight for all steps; without one, that of the sampler.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Constant {
    /// w.
    pub weight: Option<f64>,
}

impl Guider for Constant {
    fn text(&self) -> String {
        self.weight.map_or_else(|| "constant".into(), |weight| format!("constant({weight})"))
    }

    fn kind(&self) -> Kind {
        Kind::Weight
    }

    fn weight(&self, _at: &Moment, weight: f64) -> f64 {
        self.weight.unwrap_or(weight)
    }
}

pub(super) const ENTRY: Entry = Entry {
    name: "constant",
    usage: "constant(w)",
    what: "the same weight in every step; without an argument that of --w",
    make: |arguments| Ok(Arc::new(Constant { weight: arguments.optional("w")? })),
};
