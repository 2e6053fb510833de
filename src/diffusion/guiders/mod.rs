//! The guidance family: rules that say how strongly, when, and in which way a sampler follows its condition.
//!
//! A [`Guider`] is one rule; [`Guiders`] is a chain of them as `--guider "interval(lo=-2,hi=6)+rescale(0.7)"` names it.
//! The chain starts from the weight w and goes, step by step: weight (dynamic, interval) → combination of the network's
//! evaluations (plain, zero-star, APG, several conditions, an expression of one's own) → rescale → the step itself (CFG++,
//! low temperature). An empty chain is plain classifier-free guidance.
//!
//! Everything here is the f64 reference; `ops::guider` does the same on the device.

mod annealing;
mod apg;
mod autoguidance;
mod chain;
mod conditions;
mod constant;
mod dynamic;
mod expression;
mod interval;
mod low_temperature;
mod moves;
mod negative;
mod parse;
mod plus_plus;
mod reference;
mod rescale;
#[cfg(test)]
mod tests;
mod zero_star;

use std::fmt::Debug;
use std::sync::Arc;

pub use annealing::Annealing;
pub use apg::Apg;
pub use autoguidance::Autoguidance;
pub use chain::{Guiders, moments};
pub use conditions::Conditions;
pub use constant::Constant;
pub use dynamic::{Curve, Dynamic, WeightFunction};
pub use expression::Expression;
pub use interval::Interval;
pub use low_temperature::{LowNoise, LowTemperature};
pub use moves::steps_of;
pub use negative::Negative;
pub use parse::Arguments;
pub use plus_plus::PlusPlus;
pub use reference::{Evaluated, Memory};
pub use rescale::Rescale;
pub use zero_star::ZeroStar;

use super::posterior::StepCoefficients;
use crate::Result;

/// Where in the chain of steps a guider is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// The step, from 0.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// λ of the latent that the step reads.
    pub log_snr: f64,
}

impl Moment {
    /// 0 at the first step, 1 at the last.
    pub fn progress(&self) -> f64 {
        if self.steps < 2 { 0.0 } else { self.step as f64 / (self.steps - 1) as f64 }
    }
}

/// What a guider does; a chain has at most one of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sets the weight of each step.
    Weight,
    /// Says in which steps there is guidance at all.
    Window,
    /// Combines the evaluations in its own way.
    Combination,
    /// Says what is evaluated beside the condition.
    Conditions,
    /// Changes what was combined.
    Correction,
    /// Changes the step.
    Step,
    /// Changes the condition that the network sees.
    Embedding,
}

/// What stands in the place of the unconditional evaluation.
#[derive(Clone, Debug, PartialEq)]
pub enum Against {
    /// The null condition ∅.
    Null,
    /// Another class.
    Class(String),
    /// The same condition, seen by a weaker network; the model's folder or file.
    WeakModel(String),
}

/// How the device carries a guider out; what is not named here needs no kernel of its own.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Nothing beside the step's weight and numbers.
    None,
    /// A sum over each sample, then the same combination with its own factors: see [`Rescale`].
    Rescale {
        /// φ.
        phi: f64,
    },
    /// A sum over each sample, then eps_∅ scaled: see [`ZeroStar`].
    ZeroStar,
    /// Sums over each sample and a tensor of momentum: see [`Apg`].
    Apg {
        /// η.
        parallel: f64,
        /// β.
        momentum: f64,
        /// r; infinite for no limit.
        radius: f64,
    },
    /// A line of WGSL in place of the combination: see [`Expression`].
    Expression(String),
    /// x̂ is noised again with eps_∅: see [`PlusPlus`].
    Renoise,
    /// Noise on the condition's embedding.
    Anneal(Annealing),
}

/// One rule of guidance.
///
/// Every method has a default that changes nothing, so a guider says only what it does. One's own guider may set weights
/// ([`weight`](Self::weight)), steps ([`step`](Self::step)) and, through [`Work::Expression`], the combination itself; all
/// three then run on the device.
pub trait Guider: Debug + Send + Sync {
    /// As it is written in a chain, with every argument: `interval(lo=-2,hi=6)`.
    fn text(&self) -> String;

    /// What it does.
    fn kind(&self) -> Kind;

    /// The weight w of a step, given what the rules before it say.
    fn weight(&self, _at: &Moment, weight: f64) -> f64 {
        weight
    }

    /// What takes the place of ∅.
    fn against(&self) -> Against {
        Against::Null
    }

    /// Conditions beside the first, each with its strength; none for plain guidance.
    fn more_conditions(&self) -> &[(String, f64)] {
        &[]
    }

    /// Changes the numbers of a step.
    fn step(&self, _at: &Moment, _step: &mut StepCoefficients) {}

    /// A factor of the combined eps.
    fn eps_factor(&self) -> f64 {
        1.0
    }

    /// How the device carries it out.
    fn work(&self) -> Work {
        Work::None
    }

    /// The combination of one sample's evaluations with weight w, or nothing to leave it to others.
    fn combine(&self, _weight: f64, _eps: &Evaluated<'_>, _memory: &mut Memory) -> Option<Vec<f64>> {
        None
    }

    /// Changes what was combined for one sample.
    fn correct(&self, _eps: &Evaluated<'_>, _guided: &mut Vec<f64>) {}

    /// Why it makes no sense beside `other`, if it does not.
    fn conflict(&self, _other: &dyn Guider) -> Option<String> {
        None
    }
}

/// One line for each guider: how it is written, what it is, and how it is made of its arguments.
pub struct Entry {
    /// Its name in a chain.
    pub name: &'static str,
    /// How it is written, defaults filled in.
    pub usage: &'static str,
    /// What it does, with its source.
    pub what: &'static str,
    /// Makes it.
    pub make: fn(&mut Arguments) -> Result<Arc<dyn Guider>>,
}

/// Every guider that a chain can name.
pub const GUIDERS: &[Entry] = &[
    constant::ENTRY,
    dynamic::LINEAR,
    dynamic::COSINE,
    dynamic::POWER,
    dynamic::PIECEWISE,
    interval::ENTRY,
    rescale::ENTRY,
    plus_plus::ENTRY,
    apg::ENTRY,
    zero_star::ENTRY,
    autoguidance::ENTRY,
    negative::ENTRY,
    conditions::ENTRY,
    annealing::ENTRY,
    expression::ENTRY,
    low_temperature::EPS,
    low_temperature::NOISE,
];
