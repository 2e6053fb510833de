//! CLIP's text transformer (Radford et al. 2021), OpenAI's and OpenCLIP's.  x = tokens + positions; in each layer
//! x += attention(norm(x)), x += fc2(gelu(fc1(norm(x)))), where a token sees those before it and itself.
//!
//! Parameters have the names of transformers' `CLIPTextModel`, but that queries, keys and values are one matrix (`qkv_proj`).

use crate::error::{Error, Result};
use crate::nn::layers::{LayerNorm, Linear};
use crate::nn::parameters::{Init, Layout, ParameterId, Parameters};
use crate::nn::pass::Pass;
use crate::nn::weights::Weights;
use crate::ops::{self, Gelu, QkvOrder};
use crate::tensor::{Context, DType, Tensor};

use super::{Encoded, Sequences, TextAbout, TextEncoder, check_sizes, places_of};

/// The sizes of a CLIP text transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipTextConfig {
    /// Numbers of a token.
    pub width: usize,
    /// Layers that there are.
    pub layers: usize,
    /// Heads of each layer's attention.
    pub heads: usize,
    /// Channels between the two matrices of a layer's perceptron.
    pub hidden: usize,
    /// Rows of the table of positions: the most tokens of a text.
    pub places: usize,
    /// OpenAI's is the quick one, OpenCLIP's that of the error function.
    pub act: Gelu,
    /// Added to the variances of layer norms; 1e-5 everywhere.
    pub eps: f32,
    /// Numbers of the pooled vector behind a projection, where there is one.
    pub projection: Option<usize>,
}

/// What of an encoder's states is given: which that is differs from model to model, and all look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// The states behind so many layers; 0 are the embeddings themselves.
    pub layer: usize,
    /// Whether the final norm is applied to them.
    pub norm: bool,
    /// Whether the pooled vector is given too: of the last layer's states with the final norm, whatever `layer` is, that of
    /// the end token, projected where there is a projection.
    pub pooled: bool,
}

impl ClipTextConfig {
    /// Checks what files and hosts may get wrong.
    ///
    /// # Errors
    /// [`Error::Config`], naming the number.
    pub fn check(&self) -> Result<()> {
        let ClipTextConfig { width, layers, heads, hidden, places, eps, .. } = *self;
        let projection = ("projection", self.projection.unwrap_or(1));
        let sizes = [("layers", layers), ("hidden", hidden), ("places", places), projection];
        check_sizes(width, heads, eps, &sizes)
    }
}

/// A CLIP text transformer.
#[derive(Clone, Debug)]
pub struct ClipText {
    about: TextAbout,
    config: ClipTextConfig,
    given: Given,
    parameters: Parameters,
    positions: ParameterId,
    layers: Vec<Layer>,
    last_norm: Option<LayerNorm>,
    projection: Option<ParameterId>,
}

#[derive(Clone, Debug)]
struct Layer {
    attention_norm: LayerNorm,
    qkv: Linear,
    out: Linear,
    perceptron_norm: LayerNorm,
    widen: Linear,
    narrow: Linear,
}

impl Layer {
    fn new(parameters: &mut Parameters, name: &str, config: &ClipTextConfig) -> Self {
        let ClipTextConfig { width, hidden, eps, .. } = *config;
        let p = parameters;
        Layer {
            attention_norm: LayerNorm::new(p, &format!("{name}.layer_norm1"), width, eps),
            qkv: Linear::new(p, &format!("{name}.self_attn.qkv_proj"), [width, 3 * width]),
            out: Linear::new(p, &format!("{name}.self_attn.out_proj"), [width, width]),
            perceptron_norm: LayerNorm::new(p, &format!("{name}.layer_norm2"), width, eps),
            widen: Linear::new(p, &format!("{name}.mlp.fc1"), [width, hidden]),
            narrow: Linear::new(p, &format!("{name}.mlp.fc2"), [hidden, width]),
        }
    }

    fn forward(
        &self,
        cx: &mut Context,
        weights: &Weights,
        x: &Tensor,
        config: &ClipTextConfig,
    ) -> Result<Tensor> {
        let h = self.attention_norm.forward(cx, weights, x)?;
        let qkv = self.qkv.forward(cx, weights, &h)?;
        let h = ops::attention_causal(cx, &qkv, config.heads, QkvOrder::New)?;
        let x = self.out.forward_add(cx, weights, &h, x)?;
        let h = self.perceptron_norm.forward(cx, weights, &x)?;
        let h = self.widen.forward(cx, weights, &h)?;
        let h = ops::gelu(cx, &h, config.act)?;
        self.narrow.forward_add(cx, weights, &h, &x)
    }
}

impl ClipText {
    /// Declares what is needed of an encoder to give what is asked of it: layers that nothing of it passes are left out.
    ///
    /// # Errors
    /// [`Error::Config`] for sizes that cannot be, or a layer that there is not.
    pub fn new(config: &ClipTextConfig, given: Given) -> Result<ClipText> {
        config.check()?;
        if given.layer > config.layers {
            let what = format!("layer {} of a text encoder that has {}", given.layer, config.layers);
            return Err(Error::Config(what));
        }
        let mut parameters = Parameters::default();
        let p = &mut parameters;
        let shape = [config.places, config.width];
        let name = "text_model.embeddings.position_embedding.weight";
        let positions = p.declare(name, &shape, Layout::Plain, Init::Normal);
        let run = if given.pooled { config.layers } else { given.layer };
        let layer = |i| Layer::new(p, &format!("text_model.encoder.layers.{i}"), config);
        let layers = (0..run).map(layer).collect();
        let needs_norm = given.norm || given.pooled;
        let last_norm =
            needs_norm.then(|| LayerNorm::new(p, "text_model.final_layer_norm", config.width, config.eps));
        // One row a text, in f32 whatever the activations are.
        let projection = config.projection.filter(|_| given.pooled).map(|outputs| {
            let init = Init::Uniform(1.0 / (config.width as f32).sqrt());
            p.declare("text_projection.weight", &[config.width, outputs], Layout::Linear, init)
        });
        let pooled = given.pooled.then(|| config.projection.unwrap_or(config.width));
        let about = TextAbout { places: config.places, width: config.width, pooled };
        let config = config.clone();
        Ok(ClipText { about, config, given, parameters, positions, layers, last_norm, projection })
    }

    /// Its sizes.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// What of its states it gives.
    pub fn given(&self) -> Given {
        self.given
    }

    /// The vectors of tokens with those of their places, `[R, L, D]` f32.
    fn placed(&self, cx: &mut Context, weights: &Weights, tokens: &Tensor) -> Result<Tensor> {
        let rows = places_of(&self.about, tokens)?;
        let rows = cx.constant_u32("places", &[rows.len()], &rows)?;
        let positions = ops::embedding(cx, weights.get(self.positions), &rows)?.reshape(tokens.shape())?;
        ops::add(cx, tokens, &positions, 1.0)
    }

    /// The final norm of states, where it is asked for.
    fn normed(&self, cx: &mut Context, weights: &Weights, x: &Tensor, asked: bool) -> Result<Tensor> {
        match &self.last_norm {
            Some(norm) if asked => norm.forward(cx, weights, x),
            _ => Ok(x.clone()),
        }
    }
}

impl TextEncoder for ClipText {
    fn about(&self) -> &TextAbout {
        &self.about
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn record(
        &self,
        cx: &mut Context,
        weights: &Weights,
        texts: Sequences<'_>,
        pass: &Pass<'_>,
    ) -> Result<Encoded> {
        let x = self.placed(cx, weights, texts.tokens)?;
        let mut x = ops::cast(cx, &x, pass.dtype)?;
        let mut given = x.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(cx, weights, &x, &self.config)?;
            if i + 1 == self.given.layer {
                given = x.clone();
            }
        }
        let states = self.normed(cx, weights, &given, self.given.norm)?;
        let states = ops::cast(cx, &states, DType::F32)?;
        if !self.given.pooled {
            return Ok(Encoded { states, pooled: None });
        }
        let ends = texts.ends.ok_or_else(|| {
            Error::shape("text encoder", "gives a pooled vector, but was not told where the texts end")
        })?;
        let rows: usize = x.shape()[..2].iter().product();
        let last = ops::cast(cx, &x, DType::F32)?.reshape(&[rows, self.about.width])?;
        let pooled = ops::embedding(cx, &last, ends)?;
        let pooled = self.normed(cx, weights, &pooled, true)?;
        let pooled = match self.projection {
            Some(projection) => ops::linear_rows(cx, &pooled, weights.get(projection), None)?,
            None => pooled,
        };
        Ok(Encoded { states, pooled: Some(pooled) })
    }
}
