//! How a network is run, whatever it is made of.

use crate::error::Result;
use crate::ops::{self, DropoutSeeds};
use crate::tensor::{Context, DType, Tensor};

/// What dropout masks are functions of, beside their layer.
pub struct Dropout {
    /// The run's seed.
    pub seed: u64,
    /// `[N, 2]` u32: low and high half of each sample's image index.
    pub image_index: Tensor,
}

/// How the network is run: the storage type of its activations and, while training, dropout.
pub struct Pass<'a> {
    /// The type activations are stored in. Input, `out` layers and output are f32 all the same.
    pub dtype: DType,
    /// The seeds of dropout masks; none while sampling.
    pub dropout: Option<&'a Dropout>,
}

impl Pass<'_> {
    /// Sampling with activations of `dtype`.
    pub fn inference(dtype: DType) -> Self {
        Pass { dtype, dropout: None }
    }

    /// `x` with the masks of layer `layer`, where there is dropout.
    pub(super) fn dropout(&self, cx: &mut Context, x: Tensor, rate: f32, layer: u32) -> Result<Tensor> {
        match self.dropout {
            Some(source) if rate > 0.0 => {
                let image_index = source.image_index.clone();
                ops::dropout(cx, &x, rate, &DropoutSeeds { seed: source.seed, image_index, layer })
            }
            _ => Ok(x),
        }
    }
}
