//! Rescaled guidance (Lin et al., arXiv 2305.08891, section 3.4): φ·guided·(std_c/std_guided) + (1 - φ)·guided.

use std::sync::Arc;

use super::guider::{Entry, Evaluated, Guider, Kind, Work};
use super::sums::deviation;

/// Brings the guided eps's standard deviation over a sample back towards that of the conditional one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rescale {
    /// φ from 0 (nothing) to 1 (all the way).
    pub phi: f64,
}

impl Guider for Rescale {
    fn text(&self) -> String {
        format!("rescale({})", self.phi)
    }

    fn kind(&self) -> Kind {
        Kind::Correction
    }

    fn work(&self) -> Work {
        Work::Rescale { phi: self.phi }
    }

    fn correct(&self, eps: &Evaluated<'_>, guided: &mut Vec<f64>) {
        let (of_c, of_guided) = (deviation(eps.conditional), deviation(guided));
        // A guided eps without any spread cannot be brought to one.
        let ratio = if of_guided > 0.0 { of_c / of_guided } else { 1.0 };
        let factor = self.phi * ratio + (1.0 - self.phi);
        guided.iter_mut().for_each(|x| *x *= factor);
    }
}

pub(super) const ENTRY: Entry = Entry {
    name: "rescale",
    usage: "rescale(0.7)",
    what: "brings eps's deviation back to the conditional one's, this far (arXiv 2305.08891)",
    make: |arguments| {
        let phi = arguments.number("phi")?;
        if !(0.0..=1.0).contains(&phi) {
            return Err(arguments.wrong("phi lies between 0 and 1"));
        }
        Ok(Arc::new(Rescale { phi }))
    },
};
