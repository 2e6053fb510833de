//! The UNet of ADM (arXiv 2105.05233) with IDDPM's options, its parameters named as in guided-diffusion.

mod blocks;
mod classifier;
mod config;
mod told;
mod trunk;
mod work;

pub use super::pass::{Dropout, Pass};
pub use classifier::Classifier;
pub use config::{NullClass, QkvLayout, Resample, TimeScaleShift, UNetConfig};
pub use work::Work;

use crate::error::{Error, Result};
use crate::ops::{self, AnnealCondition};
use crate::tensor::{Context, DType, Tensor};

use super::layers::{Conv2d, Embedding, Norm, RowLinear};
use super::parameters::Parameters;
use super::weights::Weights;
use blocks::{Block, Scale, tell_all};
use told::Told;
use trunk::{Builder, Trunk, check_input, embed_guidance, embed_time};

/// What a network is evaluated on.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// `[N, H, W, C]` f32; for an upsampler what [`UNet::with_low_res`] makes.
    pub z: &'a Tensor,
    /// `[N]` f32: what the sinusoidal embedding takes.
    pub time: &'a Tensor,
    /// `[K·N]` u32 where the network has classes, the first condition of all latents first.
    pub labels: Option<&'a Tensor>,
    /// K.
    pub conditions: usize,
    /// `[N]` f32, w, where the network is distilled.
    pub guidance: Option<&'a Tensor>,
    /// Noise on the class's embedding.
    pub annealing: Option<AnnealCondition<'a>>,
}

impl<'a> Inputs<'a> {
    /// One condition of each latent, and nothing else that the network is told.
    pub fn of(z: &'a Tensor, time: &'a Tensor, labels: Option<&'a Tensor>) -> Self {
        Inputs { z, time, labels, conditions: 1, guidance: None, annealing: None }
    }
}

/// A UNet: its configuration, its parameters and its blocks.
#[derive(Clone, Debug)]
pub struct UNet {
    config: UNetConfig,
    parameters: Parameters,
    time_embed: [RowLinear; 2],
    label_emb: Option<Embedding>,
    w_embed: Option<[RowLinear; 2]>,
    trunk: Trunk,
    output_blocks: Vec<Vec<Block>>,
    out: (Norm, Conv2d),
}

impl UNet {
    /// Declares the network.
    ///
    /// # Errors
    /// As [`UNetConfig::check`].
    pub fn new(config: &UNetConfig) -> Result<UNet> {
        config.check()?;
        let mut parameters = Parameters::default();
        let mut builder = Builder::new(&mut parameters, config);
        let time_embed = builder.time_embed();
        let embedded = 4 * config.model_channels;
        let label_emb = config
            .embedding_rows()
            .map(|rows| Embedding::new(builder.parameters, "label_emb", rows, embedded));
        let trunk = builder.trunk();

        // Up: every input block's output is concatenated once.
        let (mut skips, mut channels) = (trunk.skips.clone(), trunk.channels);
        let mut output_blocks = Vec::new();
        for (level, width) in config.widths().into_iter().enumerate().rev() {
            for i in 0..=config.layers_per_block {
                let name = format!("output_blocks.{}", output_blocks.len());
                let skip = skips.pop().expect("one skip for each block on the way up");
                let mut blocks =
                    vec![builder.res(&format!("{name}.0"), [channels + skip, width], Scale::Same)];
                channels = width;
                if config.attends(level) {
                    blocks.push(builder.attention(&format!("{name}.1"), channels));
                }
                if level > 0 && i == config.layers_per_block {
                    let name = format!("{name}.{}", blocks.len());
                    blocks.push(match config.resample {
                        Resample::Resnet => builder.res(&name, [channels, channels], Scale::Up),
                        Resample::Conv => {
                            let conv = builder.conv(&format!("{name}.conv"), [channels, channels], false);
                            Block::UpConv(config.sample_size.halving(), conv)
                        }
                    });
                }
                output_blocks.push(blocks);
            }
        }
        let p = &mut parameters;
        let out = (
            Norm::new(p, "out.0", channels, config.norm_num_groups, true),
            Conv2d::over(p, "out.2", [channels, config.out_channels], config.sample_size, 3, true),
        );
        // Behind all others, so that these start from the same values with and without it.
        let w_embed = config.guidance_range.map(|_| {
            [
                RowLinear::new(p, "w_embed.0", [config.model_channels, embedded]),
                RowLinear::zero(p, "w_embed.2", [embedded, embedded]),
            ]
        });
        let config = config.clone();
        Ok(UNet { config, parameters, time_embed, label_emb, w_embed, trunk, output_blocks, out })
    }

    /// Its configuration.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// Its parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// What an upsampler is run on: `z` `[N, H, W, in_channels]` and behind it the small picture `low_res` `[N, H/F,
    /// W/F, low_res_channels]`, brought to the same size bilinearly. Both f32.
    ///
    /// # Errors
    /// [`Error::Shape`] when the sizes are no whole multiples, or the network is no upsampler.
    pub fn with_low_res(&self, cx: &mut Context, z: &Tensor, low_res: &Tensor) -> Result<Tensor> {
        let ([n, h, w, c], [m, low_h, low_w, low_c]) = (z.nhwc("upsampler")?, low_res.nhwc("upsampler")?);
        let factor = h.checked_div(low_h).unwrap_or(0);
        let fits = n == m && factor > 0 && h == factor * low_h && w == factor * low_w;
        if !fits || c != self.config.in_channels || low_c == 0 || low_c != self.config.low_res_channels {
            let (want, low) = (self.config.in_channels, self.config.low_res_channels);
            let what = format!(
                "z {:?} and the small picture {:?} do not fit {want} and {low} channels and one whole factor",
                z.shape(),
                low_res.shape()
            );
            return Err(Error::shape("upsampler", what));
        }
        let large = ops::upsample_bilinear(cx, low_res, factor)?;
        ops::concat(cx, z, &large)
    }

    /// Records the network: `z` `[N, H, W, C]` f32 (for an upsampler what [`Self::with_low_res`] makes), `time` `[N]` f32 (what the sinusoidal embedding takes), `labels`
    /// `[N]` u32 where the network has classes. Returns `[N, H, W, out_channels]` f32.
    ///
    /// # Errors
    /// As [`Self::evaluate`].
    pub fn forward(
        &self,
        cx: &mut Context,
        weights: &Weights,
        z: &Tensor,
        time: &Tensor,
        labels: Option<&Tensor>,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        self.evaluate(cx, weights, Inputs::of(z, time, labels), pass)
    }

    /// Records the network under K conditions of each latent. Where the condition enters late, the blocks before it run
    /// once for all of them. Returns `[K·N, H, W, out_channels]` f32, the first condition of all latents first.
    ///
    /// # Errors
    /// [`Error::Shape`] when an input does not fit the configuration; [`Error::Config`] when several conditions are to be
    /// trained on, or no guidance weight came for a distilled network.
    pub fn evaluate(
        &self,
        cx: &mut Context,
        weights: &Weights,
        inputs: Inputs<'_>,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        let Inputs { z, time, labels, conditions, guidance, annealing } = inputs;
        check_input(&self.config, z, time)?;
        let late = self.config.condition_block()?;
        let at_once = if late == 0 { conditions } else { 1 };
        let z = ops::repeat_batch(cx, z, at_once)?;

        // The embedding: of the time, of the guidance weight, and that of the class. Blocks start from its SiLU.
        let mut emb = embed_time(cx, weights, &self.time_embed, self.config.model_channels, time)?;
        match (&self.w_embed, guidance) {
            (Some(layers), Some(w)) => {
                let of_w = embed_guidance(cx, weights, layers, self.config.model_channels, w)?;
                emb = ops::add(cx, &emb, &of_w, 1.0)?;
            }
            (None, None) => {}
            (Some(_), None) => {
                let what = "the network is distilled: it is told the guidance weight, but none came";
                return Err(Error::Config(what.into()));
            }
            (None, Some(_)) => {
                return Err(Error::shape("unet", "a guidance weight came, but the network is not distilled"));
            }
        }
        let before = match late {
            0 => None,
            _ => Some(ops::silu(cx, &emb)?),
        };
        emb = ops::repeat_batch(cx, &emb, conditions)?;
        match (&self.label_emb, labels) {
            (Some(table), Some(labels)) => {
                let mut class = table.forward(cx, weights, labels)?;
                if let Some(annealing) = annealing {
                    class = ops::anneal_condition(cx, &class, labels, annealing)?;
                }
                emb = ops::add(cx, &emb, &class, 1.0)?;
            }
            (None, None) => {}
            (Some(_), None) => {
                return Err(Error::shape("unet", "the network has classes, but no labels came"));
            }
            (None, Some(_)) => {
                return Err(Error::shape("unet", "labels came, but the network has no classes"));
            }
        }
        let emb = ops::silu(cx, &emb)?;
        let told = match before {
            None => Told::all(emb),
            Some(before) => Told::from(late, before, emb, conditions),
        };

        // What of the embedding each residual block takes.
        let first = self.config.block_counts().0 + 1;
        let up = self.output_blocks.iter().enumerate();
        let up = up.flat_map(|(i, blocks)| blocks.iter().map(move |block| (first + i, block)));
        let blocks = self.trunk.blocks().chain(up).map(|(i, block)| (block, told.of(i)));
        let mut shares = tell_all(cx, weights, blocks)?;

        // Down, middle, up.
        let (mut h, mut skips) = self.trunk.forward(cx, weights, &z, &told, &mut shares, pass)?;
        for (i, blocks) in self.output_blocks.iter().enumerate() {
            h = told.enter(cx, first + i, h)?;
            let skip = skips.pop().expect("one skip for each block on the way up");
            // A skip from before the condition entered is the same under all of them.
            let skip = ops::repeat_batch(cx, &skip, h.shape()[0] / skip.shape()[0])?;
            h = ops::concat(cx, &h, &skip)?;
            for block in blocks {
                h = block.forward(cx, weights, &h, &mut shares, pass)?;
            }
        }

        let (norm, conv) = &self.out;
        let h = norm.forward(cx, weights, &h, None)?;
        let h = conv.forward(cx, weights, &h)?;
        ops::cast(cx, &h, DType::F32)
    }
}

#[cfg(test)]
pub(crate) mod tests;
