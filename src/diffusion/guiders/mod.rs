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
mod arguments;
mod autoguidance;
mod chain;
mod conditions;
mod constant;
mod dynamic;
mod expression;
mod guider;
mod interval;
mod low_temperature;
mod moves;
mod negative;
mod parse;
mod parts;
mod plus_plus;
mod reference;
mod rescale;
mod sums;
#[cfg(test)]
mod tests;
mod zero_star;

pub use apg::Apg;
pub use arguments::Arguments;
pub use autoguidance::Autoguidance;
pub use chain::{Guiders, moments};
pub use conditions::Conditions;
pub use constant::Constant;
pub use dynamic::{Curve, Dynamic, WeightFunction};
pub use expression::Expression;
pub use guider::{Against, Annealing, Beside, Entry, Evaluated, Guider, Kind, Memory, Moment, Work};
pub use interval::Interval;
pub use low_temperature::{LowNoise, LowTemperature};
pub use moves::steps_of;
pub use negative::Negative;
pub use parts::Parts;
pub use plus_plus::PlusPlus;
pub use rescale::Rescale;
pub use zero_star::ZeroStar;

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
    parts::ENTRY,
    annealing::ENTRY,
    expression::ENTRY,
    low_temperature::EPS,
    low_temperature::NOISE,
];
