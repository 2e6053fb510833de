//! A sequence of tokens' vectors, as a text encoder makes it.

use std::sync::Arc;

use crate::error::{Error, Result};

/// What a text encoder makes of a text: `[L, D]` numbers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sequence {
    width: usize,
    values: Arc<[f32]>,
}

impl PartialEq for Sequence {
    fn eq(&self, other: &Sequence) -> bool {
        // A frame loop compares the same sequence with itself in every step.
        let same = Arc::ptr_eq(&self.values, &other.values);
        self.width == other.width && (same || self.values == other.values)
    }
}

impl Sequence {
    /// Tokens of `width` numbers, one behind the other.
    ///
    /// # Errors
    /// [`Error::Shape`] where `values` are not whole tokens, at least one; [`Error::Config`] for a number that is none.
    pub fn new(width: usize, values: Vec<f32>) -> Result<Sequence> {
        if width == 0 || values.is_empty() || !values.len().is_multiple_of(width) {
            let what = format!("{} numbers are no tokens of {width}", values.len());
            return Err(Error::shape("sequence", what));
        }
        match values.iter().position(|x| !x.is_finite()) {
            Some(at) => {
                let (token, value) = (at / width, values[at]);
                Err(Error::Config(format!("token {token} of a sequence holds {value}")))
            }
            None => Ok(Sequence { width, values: values.into() }),
        }
    }

    /// D: the numbers of a token.
    pub fn width(&self) -> usize {
        self.width
    }

    /// L: its tokens.
    pub fn tokens(&self) -> usize {
        self.values.len() / self.width
    }

    /// `[L, D]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}
