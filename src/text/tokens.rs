//! A text that was tokenized for a network of a fixed length.

use crate::error::brief;

/// The tokens of a text, as many as a network has places for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Their numbers: the beginning's, those of the text, the end's, and padding up to the length that was asked for.
    pub ids: Vec<u32>,
    /// How many of them are not padding.
    pub used: usize,
    /// Of a text that is too long, what had no place, written as the tokenizer reads it (lower case); else nothing.
    pub left_out: Option<String>,
}

impl Tokens {
    /// What a user is told of a text that was cut.
    pub fn warning(&self) -> Option<String> {
        let rest = self.left_out.as_ref()?;
        let places = self.ids.len().saturating_sub(2);
        Some(format!(
            "\"{rest}\" is left out: the text encoder takes {places} tokens, and the prompt has more",
            rest = brief(rest)
        ))
    }
}
