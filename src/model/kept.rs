//! What stays of a condition of which only some parts are kept.

use std::ops::Range;

/// What stays of a condition of which only some parts are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Whether its class does.
    pub class: bool,
    /// What of its vector does.
    pub vector: KeptVector,
}

/// What stays of a vector; the other numbers are zeros.
#[derive(Clone, Debug, PartialEq)]
pub enum KeptVector {
    /// Nothing.
    Nothing,
    /// All of it.
    Whole,
    /// These ranges of its numbers.
    Pieces(Vec<Range<usize>>),
}

impl KeptVector {
    /// Keeps a range more.
    pub(super) fn add(&mut self, range: Range<usize>) {
        match self {
            KeptVector::Whole => {}
            KeptVector::Nothing => *self = KeptVector::Pieces(vec![range]),
            KeptVector::Pieces(ranges) => ranges.push(range),
        }
    }

    /// What stays of `vector`.
    pub fn of(&self, vector: &[f32]) -> Vec<f32> {
        let keeps = |at: usize| match self {
            KeptVector::Nothing => false,
            KeptVector::Whole => true,
            KeptVector::Pieces(ranges) => ranges.iter().any(|range| range.contains(&at)),
        };
        vector.iter().enumerate().map(|(at, x)| if keeps(at) { *x } else { 0.0 }).collect()
    }
}
