//! What a picture is asked for with, part by part.

use super::sequence::Sequence;

/// A condition: the parts that are given; a network is told "nothing" in the place of the others. The default gives none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition {
    /// A class of the network's own table.
    pub class: Option<u32>,
    /// Tokens, as a text encoder makes them of a prompt. Encoded before, and not while sampling: an encoder need not stay in memory.
    pub tokens: Option<Sequence>,
    /// A vector of the network's width ([`Takes::vector`](crate::nn::Takes::vector)); zeros are "nothing".
    pub vector: Option<Vec<f32>>,
}

/// A class or none, and nothing else.
impl From<Option<u32>> for Condition {
    fn from(class: Option<u32>) -> Self {
        Condition { class, ..Condition::default() }
    }
}
