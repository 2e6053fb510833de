//! The transformers of latent diffusion's UNets (Rombach et al. 2022, arXiv 2112.10752): group norm, a projection, layers of
//! self-attention among the pixels, cross-attention over tokens and a gated feed-forward part, a projection, plus the input.
//!
//! Queries, keys and values of self-attention are one joint projection, keys and values of cross-attention another, so that
//! each is one product; files of others hold them apart. Keys and values of tokens do not depend on the sample: they are made
//! ahead of it, for all layers of a network.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::nn::layers::{LayerNorm, Linear, Norm};
use crate::nn::parameters::Parameters;
use crate::nn::weights::Weights;
use crate::ops::{self, QkvOrder};
use crate::tensor::{Context, Tensor};

/// Added to the variance in the group norm in front of a transformer: not that of a UNet's other norms.
const GROUP_EPS: f32 = 1e-6;
/// Added to the variance in its layer norms.
const LAYER_EPS: f32 = 1e-5;
/// Beyond any network.
const MOST_LAYERS: usize = 64;

/// What the transformers of a UNet are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransformerConfig {
    /// D: the numbers of a token that cross-attention reads.
    pub context_width: usize,
    /// Layers of a transformer at each level; 0 at those that do not attend.
    pub layers: Vec<usize>,
    /// Those of the middle.
    pub middle_layers: usize,
}

impl TransformerConfig {
    /// Refuses what does not go with the levels that attend, with the numbers.
    pub(super) fn check(&self, attends: &[bool]) -> Result<()> {
        let refuse = |what: String| Err(Error::Config(what));
        if self.context_width == 0 || self.context_width > 1 << 16 {
            return refuse(format!("tokens of {} numbers are beyond what can be read", self.context_width));
        }
        let fits = self.layers.len() == attends.len()
            && self.layers.iter().zip(attends).all(|(layers, attends)| (*layers > 0) == *attends);
        if !fits {
            return refuse(format!(
                "`layers` of the transformers are {:?}, and the levels that attend {attends:?}: one number for each level, 0 \
                 where it does not attend",
                self.layers
            ));
        }
        let most = self.layers.iter().copied().fold(self.middle_layers, usize::max);
        if self.middle_layers == 0 || most > MOST_LAYERS {
            return refuse(format!(
                "transformers of {:?} layers at the levels and {} in the middle: there are 1 to {MOST_LAYERS}",
                self.layers, self.middle_layers
            ));
        }
        Ok(())
    }
}

/// Keys and values of the tokens, for the layers of all transformers in their order.
pub(super) struct Keys {
    /// `[R, L, 2·channels]`, one for each layer.
    pub values: std::vec::IntoIter<Tensor>,
    /// `[K·N]` u32: whose keys and values a sample reads; none where sample n reads those of row n.
    pub rows: Option<Tensor>,
}

impl Keys {
    /// Of a network that reads no tokens.
    pub fn none() -> Self {
        Keys { values: Vec::new().into_iter(), rows: None }
    }
}

/// A transformer over the pixels.
#[derive(Clone, Debug)]
pub(super) struct Transformer {
    norm: Norm,
    proj_in: Linear,
    layers: Vec<Layer>,
    proj_out: Linear,
}

impl Transformer {
    /// Over `channels` channels in `groups` groups and `heads` heads, of `layers` layers, reading tokens of `context` numbers.
    pub fn new(
        parameters: &mut Parameters,
        name: &str,
        channels: usize,
        [groups, heads]: [usize; 2],
        [layers, context]: [usize; 2],
    ) -> Self {
        let norm = Norm::new(parameters, &format!("{name}.norm"), channels, groups, false).eps(GROUP_EPS);
        let proj_in = Linear::new(parameters, &format!("{name}.proj_in"), [channels, channels]);
        let layers = (0..layers)
            .map(|i| {
                let name = format!("{name}.transformer_blocks.{i}");
                Layer::new(parameters, &name, [channels, context], heads)
            })
            .collect();
        let proj_out = Linear::zero(parameters, &format!("{name}.proj_out"), [channels, channels]);
        Transformer { norm, proj_in, layers, proj_out }
    }

    /// Its layers.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// Keys and values `[R, L, 2·channels]` of tokens `[R, L, D]`, for each layer.
    pub fn keys(&self, cx: &mut Context, weights: &Weights, tokens: &Tensor) -> Result<Vec<Tensor>> {
        self.layers.iter().map(|layer| layer.kv.forward(cx, weights, tokens)).collect()
    }

    /// `[N, H, W, C]` to the same.
    pub fn forward(
        &self,
        cx: &mut Context,
        weights: &Weights,
        x: &Tensor,
        keys: &mut Keys,
    ) -> Result<Tensor> {
        let h = self.norm.forward(cx, weights, x, None)?;
        let mut h = self.proj_in.forward(cx, weights, &h)?;
        for layer in &self.layers {
            let of_layer = keys.values.next().expect("every layer has its keys and values");
            h = layer.forward(cx, weights, &h, (&of_layer, keys.rows.as_ref()))?;
        }
        self.proj_out.forward_add(cx, weights, &h, x)
    }
}

/// x + attention(norm x), then x + attention(norm x over tokens), then x + feed-forward(norm x).
#[derive(Clone, Debug)]
struct Layer {
    norms: [LayerNorm; 3],
    qkv: Linear,
    of_pixels: Linear,
    q: Linear,
    kv: Linear,
    of_tokens: Linear,
    /// To values and gates.
    wide: Linear,
    narrow: Linear,
    heads: usize,
}

impl Layer {
    fn new(parameters: &mut Parameters, name: &str, [channels, context]: [usize; 2], heads: usize) -> Self {
        let p = parameters;
        let called = |part: &str| format!("{name}.{part}");
        let square = [channels, channels];
        let qkv = Linear::unbiased(p, &called("attn1.to_qkv"), [channels, 3 * channels]);
        let of_pixels = Linear::new(p, &called("attn1.to_out.0"), square);
        let q = Linear::unbiased(p, &called("attn2.to_q"), square);
        let kv = Linear::unbiased(p, &called("attn2.to_kv"), [context, 2 * channels]);
        let of_tokens = Linear::new(p, &called("attn2.to_out.0"), square);
        let wide = Linear::new(p, &called("ff.net.0.proj"), [channels, 8 * channels]);
        let narrow = Linear::new(p, &called("ff.net.2"), [4 * channels, channels]);
        let norms =
            ["norm1", "norm2", "norm3"].map(|part| LayerNorm::new(p, &called(part), channels, LAYER_EPS));
        Layer { norms, qkv, of_pixels, q, kv, of_tokens, wide, narrow, heads }
    }

    fn forward(
        &self,
        cx: &mut Context,
        weights: &Weights,
        x: &Tensor,
        (keys, rows): (&Tensor, Option<&Tensor>),
    ) -> Result<Tensor> {
        let h = self.norms[0].forward(cx, weights, x)?;
        let h = self.qkv.forward(cx, weights, &h)?;
        let h = ops::attention(cx, &h, self.heads, QkvOrder::New)?;
        let x = self.of_pixels.forward_add(cx, weights, &h, x)?;

        let h = self.norms[1].forward(cx, weights, &x)?;
        let h = self.q.forward(cx, weights, &h)?;
        let h = ops::cross_attention(cx, &h, keys, rows, self.heads)?;
        let x = self.of_tokens.forward_add(cx, weights, &h, &x)?;

        let h = self.norms[2].forward(cx, weights, &x)?;
        let h = self.wide.forward(cx, weights, &h)?;
        let h = ops::geglu(cx, &h)?;
        self.narrow.forward_add(cx, weights, &h, &x)
    }
}
