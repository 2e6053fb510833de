//! What each block of a network is told: the time, and from a certain block on the condition too (late conditioning).

use crate::error::Result;
use crate::ops;
use crate::tensor::{Context, Tensor};

/// SiLU of the embedding for the blocks before the condition enters, and for those from then on.
pub(super) struct Late {
    /// The first block that is told the condition.
    from: usize,
    before: Option<Tensor>,
    after: Tensor,
    /// K: conditions of each latent.
    conditions: usize,
}

impl Late {
    /// All blocks are told the same, `[N, 4·channels]`.
    pub fn all(emb: Tensor) -> Self {
        Late { from: 0, before: None, after: emb, conditions: 1 }
    }

    /// Blocks before number `from` are told `before` `[N, ..]`, the others `after` `[K·N, ..]`.
    pub fn from(from: usize, before: Tensor, after: Tensor, conditions: usize) -> Self {
        Late { from, before: Some(before), after, conditions }
    }

    /// What block number `block` is told.
    pub fn of(&self, block: usize) -> &Tensor {
        match &self.before {
            Some(before) if block < self.from => before,
            _ => &self.after,
        }
    }

    /// What goes into block number `block`: `h`, K times over where the condition enters.
    pub fn enter(&self, cx: &mut Context, block: usize, h: Tensor) -> Result<Tensor> {
        match &self.before {
            Some(_) if block == self.from => ops::repeat_batch(cx, &h, self.conditions),
            _ => Ok(h),
        }
    }
}
