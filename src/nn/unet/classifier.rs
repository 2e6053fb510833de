//! ADM's noise-aware classifier (arXiv 2105.05233, section 4): the UNet's way down and middle, then an attention pool.

use crate::error::{Error, Result};
use crate::nn::Weights;
use crate::nn::layers::{Linear, Norm, RowLinear};
use crate::nn::parameters::{Init, Layout, ParameterId, Parameters};
use crate::nn::pass::Pass;
use crate::ops::{self, QkvOrder};
use crate::shape::Extent;
use crate::tensor::{Context, DType, Tensor};

use super::blocks::Shares;
use super::config::UNetConfig;
use super::late::Late;
use super::transformer::Keys;
use super::trunk::{Builder, Trunk, check_input, embed_time};

/// A classifier of noisy pictures. Its configuration is a UNet's whose `out_channels` are the classes.
#[derive(Clone, Debug)]
pub struct Classifier {
    config: UNetConfig,
    parameters: Parameters,
    time_embed: [RowLinear; 2],
    trunk: Trunk,
    norm: Norm,
    pool: AttentionPool,
}

impl Classifier {
    /// Declares the network. Its own class condition is always absent: `num_classes` is not looked at.
    ///
    /// # Errors
    /// As [`UNetConfig::check`].
    pub fn new(config: &UNetConfig) -> Result<Classifier> {
        config.check()?;
        if config.out_channels == 0 {
            return Err(Error::Config("a classifier of 0 classes".into()));
        }
        if config.transformer.is_some() {
            return Err(Error::Config("a classifier reads no tokens, and has no transformers".into()));
        }
        let mut parameters = Parameters::default();
        let mut builder = Builder::new(&mut parameters, config);
        let time_embed = builder.time_embed();
        let trunk = builder.trunk();
        let (channels, heads) = (trunk.channels, config.heads(trunk.channels));
        let norm = Norm::new(&mut parameters, "out.0", channels, config.norm_num_groups, true);
        // A place of its own for each token: of all extents it takes its own alone.
        let last = config.sample_size.halved(config.channel_mult.len() as u32 - 1);
        let places = last.map_or(0, Extent::places);
        let pool =
            AttentionPool::new(&mut parameters, "out.2", [channels, config.out_channels], places, heads);
        Ok(Classifier { config: config.clone(), parameters, time_embed, trunk, norm, pool })
    }

    /// Its configuration.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// Its parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Records the network: `z` `[N, H, W, C]` f32 and `time` `[N]` f32 to the classes' logits `[N, out_channels]` f32.
    ///
    /// # Errors
    /// [`Error::Shape`] when an input does not fit the configuration; its extent must be the configuration's own.
    pub fn forward(
        &self,
        cx: &mut Context,
        weights: &Weights,
        z: &Tensor,
        time: &Tensor,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        let extent = check_input(&self.config, z, time)?;
        if extent != self.config.sample_size {
            let own = self.config.sample_size;
            let what =
                format!("it has a place for each token of {own} and takes no other extent, such as {extent}");
            return Err(Error::shape("classifier", what));
        }
        let emb = embed_time(cx, weights, &self.time_embed, self.config.model_channels, time)?;
        let emb = ops::silu(cx, &emb)?;
        let told = Late::all(emb);
        let blocks = self.trunk.blocks().map(|(i, block)| (block, told.of(i)));
        let mut shares = Shares::new(cx, weights, blocks, Keys::none())?;
        let (h, _) = self.trunk.forward(cx, weights, z, &told, &mut shares, pass)?;
        let h = ops::cast(cx, &h, DType::F32)?;
        let h = self.norm.forward(cx, weights, &h, None)?;
        self.pool.forward(cx, weights, &h)
    }
}

/// Attention among the pixels and their mean; what the mean attends to is the picture's summary.
#[derive(Clone, Debug)]
struct AttentionPool {
    places: ParameterId,
    qkv: Linear,
    projection: Linear,
    heads: usize,
}

impl AttentionPool {
    /// Of so many pixels.
    fn new(
        parameters: &mut Parameters,
        name: &str,
        [channels, outputs]: [usize; 2],
        places: usize,
        heads: usize,
    ) -> Self {
        let tokens = places + 1;
        // The reference's variance, 1/C.
        let start = Init::Uniform((3.0 / channels as f32).sqrt());
        AttentionPool {
            // `[C, 1 + places]` in files: the order of a linear layer's weight.
            places: parameters.declare(
                format!("{name}.positional_embedding"),
                &[tokens, channels],
                Layout::Linear,
                start,
            ),
            qkv: Linear::conv1d(parameters, &format!("{name}.qkv_proj"), [channels, 3 * channels], false),
            projection: Linear::conv1d(parameters, &format!("{name}.c_proj"), [channels, outputs], false),
            heads,
        }
    }

    /// `[N, h, w, C]` f32 to `[N, outputs]`.
    fn forward(&self, cx: &mut Context, weights: &Weights, x: &Tensor) -> Result<Tensor> {
        let tokens = ops::pool_tokens(cx, x, weights.get(self.places))?;
        let qkv = self.qkv.forward(cx, weights, &tokens)?;
        // The pool splits its channels in the new order even where the network's attention is of the legacy one.
        let h = ops::attention(cx, &qkv, self.heads, QkvOrder::New)?;
        let h = ops::first_token(cx, &h)?;
        self.projection.forward(cx, weights, &h)
    }
}
