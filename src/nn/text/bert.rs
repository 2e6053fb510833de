//! BERT's transformer (Devlin et al. 2018).  x = norm(tokens + positions + first type); in each layer
//! x = norm(x + attention(x)), x = norm(x + fc2(gelu(fc1(x)))), where every token sees all.
//!
//! Padding is no part of a text here: texts of one length are recorded together, and no mask is needed. Parameters have the names
//! of transformers' `BertModel`, but that queries, keys and values are one matrix (`attention.self.qkv`).

use crate::error::Result;
use crate::nn::layers::{Embedding, LayerNorm, Linear};
use crate::nn::parameters::Parameters;
use crate::nn::pass::Pass;
use crate::nn::weights::Weights;
use crate::ops::{self, Gelu, QkvOrder};
use crate::tensor::{Context, DType, Tensor};

use super::{Encoded, Sequences, TextAbout, TextEncoder, check_sizes, places_of};

/// The sizes of a BERT.
#[derive(Clone, Debug, PartialEq)]
pub struct BertConfig {
    /// Numbers of a token.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of each layer's attention.
    pub heads: usize,
    /// Channels between the two matrices of a layer's perceptron.
    pub hidden: usize,
    /// Rows of the table of positions: the most tokens of a text.
    pub places: usize,
    /// Rows of the table of types, of which the first is taken.
    pub types: usize,
    /// Which GELU.
    pub act: Gelu,
    /// Added to the variances of layer norms; 1e-12.
    pub eps: f32,
}

impl BertConfig {
    /// Checks what files and hosts may get wrong.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config), naming the number.
    pub fn check(&self) -> Result<()> {
        let BertConfig { width, layers, heads, hidden, places, types, eps, .. } = *self;
        let sizes = [("layers", layers), ("hidden", hidden), ("places", places), ("types", types)];
        check_sizes(width, heads, eps, &sizes)
    }
}

/// A BERT.
#[derive(Clone, Debug)]
pub struct BertText {
    about: TextAbout,
    config: BertConfig,
    parameters: Parameters,
    positions: Embedding,
    types: Embedding,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

#[derive(Clone, Debug)]
struct Layer {
    qkv: Linear,
    out: Linear,
    attention_norm: LayerNorm,
    widen: Linear,
    narrow: Linear,
    norm: LayerNorm,
}

impl Layer {
    fn new(parameters: &mut Parameters, name: &str, config: &BertConfig) -> Self {
        let BertConfig { width, hidden, eps, .. } = *config;
        let p = parameters;
        Layer {
            qkv: Linear::new(p, &format!("{name}.attention.self.qkv"), [width, 3 * width]),
            out: Linear::new(p, &format!("{name}.attention.output.dense"), [width, width]),
            attention_norm: LayerNorm::new(p, &format!("{name}.attention.output.LayerNorm"), width, eps),
            widen: Linear::new(p, &format!("{name}.intermediate.dense"), [width, hidden]),
            narrow: Linear::new(p, &format!("{name}.output.dense"), [hidden, width]),
            norm: LayerNorm::new(p, &format!("{name}.output.LayerNorm"), width, eps),
        }
    }

    fn forward(
        &self,
        cx: &mut Context,
        weights: &Weights,
        x: &Tensor,
        config: &BertConfig,
    ) -> Result<Tensor> {
        let qkv = self.qkv.forward(cx, weights, x)?;
        let h = ops::attention(cx, &qkv, config.heads, QkvOrder::New)?;
        let x = self.out.forward_add(cx, weights, &h, x)?;
        let x = self.attention_norm.forward(cx, weights, &x)?;
        let h = self.widen.forward(cx, weights, &x)?;
        let h = ops::gelu(cx, &h, config.act)?;
        let x = self.narrow.forward_add(cx, weights, &h, &x)?;
        self.norm.forward(cx, weights, &x)
    }
}

impl BertText {
    /// Declares a BERT; its states are those of the last layer.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for sizes that cannot be.
    pub fn new(config: &BertConfig) -> Result<BertText> {
        config.check()?;
        let BertConfig { width, places, types, eps, .. } = *config;
        let mut parameters = Parameters::default();
        let p = &mut parameters;
        let positions = Embedding::new(p, "embeddings.position_embeddings", places, width);
        let types = Embedding::new(p, "embeddings.token_type_embeddings", types, width);
        let norm = LayerNorm::new(p, "embeddings.LayerNorm", width, eps);
        let layers =
            (0..config.layers).map(|i| Layer::new(p, &format!("encoder.layer.{i}"), config)).collect();
        let about = TextAbout { places, width, pooled: None };
        Ok(BertText { about, config: config.clone(), parameters, positions, types, norm, layers })
    }

    /// Its sizes.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }
}

impl TextEncoder for BertText {
    fn about(&self) -> &TextAbout {
        &self.about
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// As the trait has it; the texts have no padding.
    fn record(
        &self,
        cx: &mut Context,
        weights: &Weights,
        texts: Sequences<'_>,
        pass: &Pass<'_>,
    ) -> Result<Encoded> {
        let tokens = texts.tokens;
        let rows = places_of(&self.about, tokens)?;
        let first = vec![0; rows.len()];
        let [rows, first] = [rows, first].map(|rows| cx.constant_u32("places", &[rows.len()], &rows));
        let positions = self.positions.forward(cx, weights, &rows?)?;
        let types = self.types.forward(cx, weights, &first?)?;
        let beside = ops::add(cx, &positions, &types, 1.0)?.reshape(tokens.shape())?;
        let x = ops::add(cx, tokens, &beside, 1.0)?;
        let x = self.norm.forward(cx, weights, &x)?;
        let mut x = ops::cast(cx, &x, pass.dtype)?;
        for layer in &self.layers {
            x = layer.forward(cx, weights, &x, &self.config)?;
        }
        Ok(Encoded { states: ops::cast(cx, &x, DType::F32)?, pooled: None })
    }
}
