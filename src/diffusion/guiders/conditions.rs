//! Several conditions, each with its own strength: eps̃ = eps_∅ + Σ_i s_i (eps_i - eps_∅).
//!
//! The first is the picture's own class, with s = 1 + w of the step; the others are named here.

use std::sync::Arc;

use super::guider::{Beside, Entry, Evaluated, Guider, Kind, Memory};
use super::sums::combined;
use crate::error::brief;

/// Further conditions.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    /// Classes and their s_i.
    pub more: Vec<(Beside, f64)>,
}

impl Guider for Conditions {
    fn text(&self) -> String {
        let text = |(beside, strength): &(Beside, f64)| match beside {
            Beside::Class(class) => format!("{class}:{strength}"),
            Beside::Only(parts) => format!("{}:{strength}", parts.join("&")),
        };
        format!("also({})", self.more.iter().map(text).collect::<Vec<_>>().join(" "))
    }

    fn kind(&self) -> Kind {
        Kind::Combination
    }

    fn more_conditions(&self) -> &[(Beside, f64)] {
        &self.more
    }

    fn combine(&self, weight: f64, eps: &Evaluated<'_>, _memory: &mut Memory) -> Option<Vec<f64>> {
        Some(combined(weight, eps, &self.more))
    }
}

pub(super) const ENTRY: Entry = Entry {
    name: "also",
    usage: "also(CLASS:0.5 CLASS:1)",
    what: "further classes, each with its own strength s (1 is once its difference from no condition)",
    make: |arguments| {
        let text = arguments.text("conditions")?;
        let one = |text: &str| {
            let (class, strength) = text.rsplit_once(':')?;
            let strength = strength.parse::<f64>().ok().filter(|strength| strength.is_finite())?;
            (!class.is_empty()).then(|| (Beside::Class(class.to_owned()), strength))
        };
        match text.split_whitespace().map(one).collect::<Option<Vec<_>>>() {
            Some(more) if (1..=6).contains(&more.len()) => Ok(Arc::new(Conditions { more })),
            _ => Err(arguments.wrong(&format!(
                "{text:?} is not one to six of CLASS:STRENGTH, spaces between",
                text = brief(&text)
            ))),
        }
    },
};
