//! A negative condition: a second condition takes the place of ∅, and guidance leads away from it.

use std::sync::Arc;

use super::guider::{Against, Entry, Guider, Kind};

/// Guidance away from a class.
#[derive(Clone, Debug, PartialEq)]
pub struct Negative {
    /// Its number or name.
    pub class: String,
}

impl Guider for Negative {
    fn text(&self) -> String {
        format!("negative({})", self.class)
    }

    fn kind(&self) -> Kind {
        Kind::Conditions
    }

    fn against(&self) -> Against {
        Against::Class(self.class.clone())
    }
}

pub(super) const ENTRY: Entry = Entry {
    name: "negative",
    usage: "negative(CLASS)",
    what: "away from a class instead of from no condition",
    make: |arguments| Ok(Arc::new(Negative { class: arguments.text("class")? })),
};
