//! What text encoders made of texts, on the host.

use crate::error::{Error, Result};
#[cfg(not(target_arch = "wasm32"))]
use crate::gpu::{Gpu, Plan};
use crate::model::sequence::Sequence;
use crate::tensor::Tensor;

/// The states of several texts.
#[derive(Clone, Debug, PartialEq)]
pub struct TextStates {
    /// R: texts.
    pub texts: usize,
    /// L: tokens of each, padding included.
    pub tokens: usize,
    /// D: numbers of a token.
    pub width: usize,
    /// `[R]`: tokens of each that count. CLIP was trained to read its padding, so there all do; of other encoders what is behind
    /// them is zeros.
    pub lengths: Vec<usize>,
    /// `[R, L, D]`.
    pub states: Vec<f32>,
    /// `[R, P]`, where the encoder gives such.
    pub pooled: Option<Vec<f32>>,
}

impl TextStates {
    /// Each text's, as networks are told them.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for a state that is no number.
    pub fn sequences(&self) -> Result<Vec<Sequence>> {
        let one = |states: &[f32]| Sequence::new(self.width, states.to_vec());
        self.states.chunks_exact(self.tokens * self.width).map(one).collect()
    }

    /// Two encoders' states of the same texts side by side, `[R, L, D + D']`, as SDXL is told them, and the pooled vector of
    /// that one which gives one (of both, the second's).
    ///
    /// # Errors
    /// [`Error::Shape`] unless texts and tokens are as many.
    pub fn beside(&self, other: &TextStates) -> Result<TextStates> {
        if [self.texts, self.tokens] != [other.texts, other.tokens] {
            let (a, b) = ([self.texts, self.tokens, self.width], [other.texts, other.tokens, other.width]);
            return Err(Error::shape("text states", format!("{a:?} and {b:?} do not lie side by side")));
        }
        let rows = self.states.chunks_exact(self.width).zip(other.states.chunks_exact(other.width));
        let states = rows.flat_map(|(a, b)| a.iter().chain(b).copied()).collect();
        let pooled = other.pooled.clone().or_else(|| self.pooled.clone());
        let (lengths, width) = (self.lengths.clone(), self.width + other.width);
        Ok(TextStates { texts: self.texts, tokens: self.tokens, width, lengths, states, pooled })
    }
}

/// The values of a tensor in f32 that a plan kept. Waits for the device.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn read(gpu: &Gpu, plan: &Plan, tensor: &Tensor) -> Result<Vec<f32>> {
    let buffer = plan.kept(tensor.storage()).expect("it was kept");
    let bytes = gpu.read(buffer, tensor.offset()..tensor.offset() + tensor.bytes())?;
    Ok(bytemuck::pod_collect_to_vec(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_lie_side_by_side_token_by_token() {
        let a = TextStates {
            texts: 1,
            tokens: 2,
            width: 1,
            lengths: vec![2],
            states: vec![1.0, 2.0],
            pooled: None,
        };
        let states = vec![3.0, 4.0, 5.0, 6.0];
        let b =
            TextStates { texts: 1, tokens: 2, width: 2, lengths: vec![2], states, pooled: Some(vec![7.0]) };
        let both = a.beside(&b).unwrap();
        assert_eq!((both.width, both.states), (3, vec![1.0, 3.0, 4.0, 2.0, 5.0, 6.0]));
        assert_eq!(both.pooled, Some(vec![7.0]));
        let short = TextStates { tokens: 1, states: vec![1.0], ..a.clone() };
        assert!(a.beside(&short).unwrap_err().to_string().contains("[1, 1, 1]"));
    }
}
