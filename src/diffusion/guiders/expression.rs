//! A combination of one's own, as a line of WGSL: `expression(eps_c + 2.0 * tanh(eps_c - eps_u))`.
//!
//! It sees `eps_c`, `eps_u`, `z`, `w` (the step's weight), `alpha`, `sigma`, `log_snr` and `progress`, all f32, and gives
//! eps̃. It is compiled at run time; the reference does not know it.

use std::sync::Arc;

use super::guider::{Entry, Guider, Kind, Work};

/// A WGSL expression of f32.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    /// Its text.
    pub wgsl: String,
}

impl Guider for Expression {
    fn text(&self) -> String {
        format!("expression({})", self.wgsl)
    }

    fn kind(&self) -> Kind {
        Kind::Combination
    }

    fn work(&self) -> Work {
        Work::Expression(self.wgsl.clone())
    }

    fn conflict(&self, other: &dyn Guider) -> Option<String> {
        matches!(other.work(), Work::Rescale { .. }).then(|| {
            "rescale needs the sums of a combination it knows; write the factor into the expression".into()
        })
    }
}

pub(super) const ENTRY: Entry = Entry {
    name: "expression",
    usage: "expression(eps_c + w * (eps_c - eps_u))",
    what: "WGSL of one's own over eps_c, eps_u, z, w, alpha, sigma, log_snr, progress",
    make: |arguments| Ok(Arc::new(Expression { wgsl: arguments.whole()? })),
};
