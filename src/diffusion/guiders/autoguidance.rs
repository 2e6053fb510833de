//! Autoguidance (Karras et al., arXiv 2406.02507): eps_weak + s (eps_strong - eps_weak), a weaker network of the same
//! condition in the place of the unconditional evaluation.

use std::sync::Arc;

use super::guider::{Against, Entry, Guider, Kind};

/// Guidance away from a weaker network.
#[derive(Clone, Debug, PartialEq)]
pub struct Autoguidance {
    /// The weaker model's folder or file.
    pub model: String,
}

impl Guider for Autoguidance {
    fn text(&self) -> String {
        format!("autoguidance({})", self.model)
    }

    fn kind(&self) -> Kind {
        Kind::Conditions
    }

    fn against(&self) -> Against {
        Against::WeakModel(self.model.clone())
    }
}

pub(super) const ENTRY: Entry = Entry {
    name: "autoguidance",
    usage: "autoguidance(DIR)",
    what: "away from a weaker network of the same condition (arXiv 2406.02507)",
    make: |arguments| Ok(Arc::new(Autoguidance { model: arguments.text("model")? })),
};
