//! What is evaluated beside a picture's own condition.

use crate::model::KeptVector;
use crate::nn::Takes;

/// A condition that is evaluated beside each picture's own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Other {
    /// A row of the network's own table; none for the picture's own.
    pub class: Option<u32>,
    /// Whether the picture's own tokens stay; else there are those that stand for "nothing".
    pub tokens: bool,
    /// What stays of the picture's own vector.
    pub vector: KeptVector,
}

impl Other {
    /// "Nothing", in the place of every part.
    pub fn nothing(takes: &Takes) -> Other {
        Other { class: Some(takes.null_row()), tokens: false, vector: KeptVector::Nothing }
    }
}

/// Vectors that a bank holds for each picture: its own, and what stays of it in parts.
pub(crate) fn derived(others: &[Other]) -> Vec<&KeptVector> {
    let mut all: Vec<&KeptVector> = vec![&KeptVector::Whole];
    for other in others {
        if other.vector != KeptVector::Nothing && !all.contains(&&other.vector) {
            all.push(&other.vector);
        }
    }
    all
}
