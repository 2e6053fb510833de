//! The two baselines of low temperature that do not give what guidance gives (CFG, section 1): eps/τ, and noise·τ, τ < 1.
//! Kept to reproduce the negative result.

use std::sync::Arc;

use super::guider::{Entry, Guider, Kind, Moment};
use crate::Result;
use crate::diffusion::StepCoefficients;

/// The combined eps divided by τ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LowTemperature {
    /// τ, above 0.
    pub temperature: f64,
}

/// The noise of every step multiplied by τ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LowNoise {
    /// τ, from 0.
    pub temperature: f64,
}

impl Guider for LowTemperature {
    fn text(&self) -> String {
        format!("temperature({})", self.temperature)
    }

    fn kind(&self) -> Kind {
        Kind::Correction
    }

    fn eps_factor(&self) -> f64 {
        self.temperature.recip()
    }
}

impl Guider for LowNoise {
    fn text(&self) -> String {
        format!("low-noise({})", self.temperature)
    }

    fn kind(&self) -> Kind {
        Kind::Step
    }

    fn step(&self, _at: &Moment, step: &mut StepCoefficients) {
        step.noise_sd *= self.temperature;
    }
}

fn tau(arguments: &mut super::Arguments) -> Result<f64> {
    let tau = arguments.number("tau")?;
    if tau > 0.0 { Ok(tau) } else { Err(arguments.wrong("tau must be above 0")) }
}

pub(super) const EPS: Entry = Entry {
    name: "temperature",
    usage: "temperature(0.9)",
    what: "eps divided by tau: a baseline that fails (CFG, section 1)",
    make: |arguments| Ok(Arc::new(LowTemperature { temperature: tau(arguments)? })),
};

pub(super) const NOISE: Entry = Entry {
    name: "low-noise",
    usage: "low-noise(0.9)",
    what: "the noise of each step times tau: a baseline that fails (CFG, section 1)",
    make: |arguments| Ok(Arc::new(LowNoise { temperature: tau(arguments)? })),
};
