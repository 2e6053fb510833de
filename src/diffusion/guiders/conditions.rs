//! Several conditions, each with its own strength: eps̃ = eps_∅ + Σ_i s_i (eps_i - eps_∅).
//!
//! The first is the picture's own class, with s = 1 + w of the step; the others are named here.

use std::sync::Arc;

use super::guider::{Entry, Evaluated, Guider, Kind, Memory};
use crate::error::brief;

/// Further conditions.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    /// Class, by number or name, and s_i.
    pub more: Vec<(String, f64)>,
}

impl Guider for Conditions {
    fn text(&self) -> String {
        let more: Vec<String> =
            self.more.iter().map(|(class, strength)| format!("{class}:{strength}")).collect();
        format!("also({})", more.join(" "))
    }

    fn kind(&self) -> Kind {
        Kind::Combination
    }

    fn more_conditions(&self) -> &[(String, f64)] {
        &self.more
    }

    fn combine(&self, weight: f64, eps: &Evaluated<'_>, _memory: &mut Memory) -> Option<Vec<f64>> {
        let mut guided: Vec<f64> =
            eps.conditional.iter().zip(eps.against).map(|(c, u)| (1.0 + weight) * c - weight * u).collect();
        for ((_, strength), more) in self.more.iter().zip(eps.more) {
            let further = more.iter().zip(eps.against).map(|(eps, u)| strength * (eps - u));
            guided.iter_mut().zip(further).for_each(|(x, further)| *x += further);
        }
        Some(guided)
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
            (!class.is_empty()).then(|| (class.to_owned(), strength))
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
