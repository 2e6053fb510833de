//! One rule of guidance: what it may say, what it sees of a sample, and what the device is to do for it.

use std::fmt::Debug;
use std::sync::Arc;

use super::arguments::Arguments;
use crate::Result;
use crate::diffusion::StepCoefficients;

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
    /// The same condition, of its parts only these.
    Only(Vec<String>),
    /// The same condition, seen by a weaker network; the model's folder or file.
    WeakModel(String),
}

/// A condition that is evaluated beside a picture's own.
#[derive(Clone, Debug, PartialEq)]
pub enum Beside {
    /// A class in the place of its own, by number or name.
    Class(String),
    /// Its own, of its parts only these: `class`, `vector`, or the name of a part of the vector; none for ∅.
    Only(Vec<String>),
}

/// The evaluations of one sample at a step.
#[derive(Clone, Copy, Debug)]
pub struct Evaluated<'a> {
    /// The latent.
    pub z: &'a [f64],
    /// eps of the condition.
    pub conditional: &'a [f64],
    /// eps of what stands for no condition.
    pub against: &'a [f64],
    /// eps of each further condition.
    pub more: &'a [&'a [f64]],
    /// The step's numbers.
    pub step: &'a StepCoefficients,
}

/// What a guider remembers of one sample from step to step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// APG's m, in the space of x̂; empty at the start.
    pub momentum: Vec<f64>,
}

/// Noise on the condition: see `annealing.rs`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Annealing {
    /// τ₁: the condition is whole while less than this part remains.
    pub whole_below: f64,
    /// τ₂: it is only noise while more than this part remains.
    pub noise_above: f64,
    /// s: the noise's size.
    pub scale: f64,
    /// ψ: how far mean and deviation are restored.
    pub mix: f64,
}

/// How the device carries a guider out; what is not named here needs no kernel of its own.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Nothing beside the step's weight and numbers.
    None,
    /// A sum over each sample, then the same combination with its own factors: see [`Rescale`](super::Rescale).
    Rescale {
        /// φ.
        phi: f64,
    },
    /// A sum over each sample, then eps_∅ scaled: see [`ZeroStar`](super::ZeroStar).
    ZeroStar,
    /// Sums over each sample and a tensor of momentum: see [`Apg`](super::Apg).
    Apg {
        /// η.
        parallel: f64,
        /// β.
        momentum: f64,
        /// r; infinite for no limit.
        radius: f64,
    },
    /// A line of WGSL in place of the combination: see [`Expression`](super::Expression).
    Expression(String),
    /// x̂ is noised again with eps_∅: see [`PlusPlus`](super::PlusPlus).
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
    fn more_conditions(&self) -> &[(Beside, f64)] {
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
