//! The UNet of ADM (arXiv 2105.05233) with IDDPM's options, its parameters named as in guided-diffusion.

mod blocks;
mod classifier;
mod config;
mod late;
mod transformer;
mod trunk;
mod work;

pub use super::pass::{Dropout, Pass};
pub use super::takes::NullClass;
pub use classifier::Classifier;
pub use config::{QkvLayout, Resample, TimeScaleShift, UNetConfig};
pub use transformer::TransformerConfig;
pub use work::Work;

use crate::error::{Error, Result};
use crate::ops;
use crate::tensor::{Context, DType, Tensor};

use super::denoiser::{About, Denoiser};
use super::layers::{Conv2d, Embedding, Norm, RowLinear};
use super::parameters::Parameters;
use super::told::Told;
use super::weights::Weights;
use blocks::{Block, Scale, Shares};
use late::Late;
use transformer::{Keys, Transformer};
use trunk::{Builder, Trunk, check_input, embed_guidance, embed_time};

/// A UNet: its configuration, its parameters and its blocks.
#[derive(Clone, Debug)]
pub struct UNet {
    config: UNetConfig,
    about: About,
    parameters: Parameters,
    time_embed: [RowLinear; 2],
    label_emb: Option<Embedding>,
    vector_embed: Option<[RowLinear; 2]>,
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
                    blocks.push(builder.attention(&format!("{name}.1"), channels, Some(level)));
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
        let vector_embed = (config.vector_width > 0).then(|| {
            [
                RowLinear::new(p, "vector_embed.0", [config.vector_width, embedded]),
                RowLinear::new(p, "vector_embed.2", [embedded, embedded]),
            ]
        });
        let about = config.about();
        let config = config.clone();
        Ok(UNet {
            config,
            about,
            parameters,
            time_embed,
            label_emb,
            vector_embed,
            w_embed,
            trunk,
            output_blocks,
            out,
        })
    }

    /// Its configuration.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// Its parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Records the network under one condition, a class or none: `z` `[N, H, W, C]` f32, `time` `[N]` f32 (what the sinusoidal
    /// embedding takes), `labels` `[N]` u32 where the network has classes. Returns `[N, H, W, out_channels]` f32.
    ///
    /// # Errors
    /// As [`Denoiser::record`].
    pub fn forward(
        &self,
        cx: &mut Context,
        weights: &Weights,
        z: &Tensor,
        time: &Tensor,
        labels: Option<&Tensor>,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        self.record(cx, weights, z, time, Told { class: labels, ..Told::default() }, pass)
    }

    /// What the first block sees: `z` `[N, H, W, C]`, and behind it what comes beside it, of an upsampler the small picture
    /// `[N, H/F, W/F, C']`, brought to the same size bilinearly. All f32.
    fn input(&self, cx: &mut Context, z: &Tensor, picture: Option<&Tensor>) -> Result<Tensor> {
        if self.config.beside_channels > 0 {
            return self.with_beside(cx, z, picture);
        }
        let want = self.config.low_res_channels;
        let small = match (want, picture) {
            (0, None) => return Ok(z.clone()),
            (_, Some(small)) if want > 0 => small,
            (0, Some(_)) => {
                return Err(Error::shape("unet", "a small picture came, but the network is no upsampler"));
            }
            _ => return Err(Error::shape("unet", "the network is an upsampler, but no small picture came")),
        };
        let ([n, h, w, _], [m, low_h, low_w, low_c]) = (z.nhwc("upsampler")?, small.nhwc("upsampler")?);
        let factor = h.checked_div(low_h).unwrap_or(0);
        if n != m || factor == 0 || h != factor * low_h || w != factor * low_w || low_c != want {
            let what = format!(
                "z {:?} and the small picture {:?} do not fit {want} small channels and one whole factor",
                z.shape(),
                small.shape()
            );
            return Err(Error::shape("upsampler", what));
        }
        let large = ops::upsample_bilinear(cx, small, factor)?;
        ops::concat(cx, z, &large)
    }

    /// `z` `[N, H, W, C]` and behind it the picture `[N, H, W, C']` that comes beside it.
    fn with_beside(&self, cx: &mut Context, z: &Tensor, picture: Option<&Tensor>) -> Result<Tensor> {
        let channels = self.config.beside_channels;
        let Some(picture) = picture else {
            let what = format!(
                "the network takes a picture of {channels} channels beside its samples, but none came"
            );
            return Err(Error::shape("unet", what));
        };
        let [n, h, w, _] = z.nhwc("unet")?;
        if picture.shape() != [n, h, w, channels] {
            let (z, got) = (z.shape(), picture.shape());
            let what =
                format!("beside z {z:?} comes a picture {got:?}, expected [{n}, {h}, {w}, {channels}]");
            return Err(Error::shape("unet", what));
        }
        ops::concat(cx, z, picture)
    }

    /// All blocks in their order, each with its number: input blocks from 0, the middle, output blocks.
    fn blocks(&self) -> impl Iterator<Item = (usize, &Block)> {
        let first = self.config.block_counts().0 + 1;
        let up = self.output_blocks.iter().enumerate();
        let up = up.flat_map(move |(i, blocks)| blocks.iter().map(move |block| (first + i, block)));
        self.trunk.blocks().chain(up)
    }

    /// The transformers among them.
    fn transformers(&self) -> impl Iterator<Item = &Transformer> {
        self.blocks().filter_map(|(_, block)| match block {
            Block::Transformer(block) => Some(&**block),
            _ => None,
        })
    }

    /// Keys and values of the tokens: what was prepared, or those of each sample's own, gathered first, so that in a training
    /// no gradient is scattered.
    fn keys(&self, cx: &mut Context, weights: &Weights, told: Told<'_>, pass: &Pass<'_>) -> Result<Keys> {
        let fail = |what: String| Err(Error::shape("unet", what));
        let bank = match (&self.config.transformer, told.tokens) {
            (Some(_), Some(bank)) => bank,
            (None, None) => return Ok(Keys::none()),
            (Some(_), None) => return fail("the network reads tokens, but none came".into()),
            (None, Some(_)) => return fail("tokens came, but the network reads none".into()),
        };
        if told.prepared.is_empty() {
            let &[rows, length, width] = bank.values.shape() else {
                return fail(format!("expected tokens [R, L, D], got {:?}", bank.values.shape()));
            };
            let flat = bank.values.reshape(&[rows, length * width])?;
            let own = ops::embedding(cx, &flat, bank.rows)?;
            let own = own.reshape(&[bank.rows.len(), length, width])?;
            let values = self.prepare(cx, weights, &own, pass)?.into_iter();
            return Ok(Keys { values, rows: None });
        }
        let layers: usize = self.transformers().map(Transformer::len).sum();
        if told.prepared.len() != layers {
            let count = told.prepared.len();
            return fail(format!("keys and values of {count} layers were prepared, and there are {layers}"));
        }
        Ok(Keys { values: told.prepared.to_vec().into_iter(), rows: Some(bank.rows.clone()) })
    }

    /// The embedding of the time and the guidance weight, `[N, 4·channels]`.
    fn embed_level(
        &self,
        cx: &mut Context,
        weights: &Weights,
        time: &Tensor,
        told: Told<'_>,
    ) -> Result<Tensor> {
        let channels = self.config.model_channels;
        let emb = embed_time(cx, weights, &self.time_embed, channels, time)?;
        match (&self.w_embed, told.guidance) {
            (Some(layers), Some(w)) => {
                let of_w = embed_guidance(cx, weights, layers, channels, w)?;
                ops::add(cx, &emb, &of_w, 1.0)
            }
            (None, None) => Ok(emb),
            (Some(_), None) => {
                let what = "the network is distilled: it is told the guidance weight, but none came";
                Err(Error::Config(what.into()))
            }
            (None, Some(_)) => {
                Err(Error::shape("unet", "a guidance weight came, but the network is not distilled"))
            }
        }
    }

    /// `emb` `[K·N, 4·channels]` and the embeddings of the class and the vector.
    fn add_condition(
        &self,
        cx: &mut Context,
        weights: &Weights,
        emb: Tensor,
        told: Told<'_>,
    ) -> Result<Tensor> {
        let emb = match (&self.label_emb, told.class) {
            (Some(table), Some(labels)) => {
                let mut class = table.forward(cx, weights, labels)?;
                if let Some(annealing) = told.annealing {
                    class = ops::anneal_condition(cx, &class, labels, annealing)?;
                }
                ops::add(cx, &emb, &class, 1.0)?
            }
            (None, None) => emb,
            (Some(_), None) => {
                return Err(Error::shape("unet", "the network has classes, but no labels came"));
            }
            (None, Some(_)) => {
                return Err(Error::shape("unet", "labels came, but the network has no classes"));
            }
        };
        match (&self.vector_embed, told.vector) {
            (Some([first, second]), Some(bank)) => {
                let vector = ops::embedding(cx, bank.values, bank.rows)?;
                let vector = first.forward(cx, weights, &vector)?;
                let vector = ops::silu(cx, &vector)?;
                let vector = second.forward(cx, weights, &vector)?;
                ops::add(cx, &emb, &vector, 1.0)
            }
            (None, None) => Ok(emb),
            (Some(_), None) => Err(Error::shape("unet", "the network takes a vector, but none came")),
            (None, Some(_)) => Err(Error::shape("unet", "a vector came, but the network takes none")),
        }
    }
}

impl Denoiser for UNet {
    fn about(&self) -> &About {
        &self.about
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Where the condition enters late, the blocks before it run once for all conditions.
    fn record(
        &self,
        cx: &mut Context,
        weights: &Weights,
        z: &Tensor,
        time: &Tensor,
        told: Told<'_>,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        let conditions = told.conditions;
        check_input(&self.config, z, time)?;
        weights.check_serve(pass.dtype)?;
        let keys = self.keys(cx, weights, told, pass)?;
        let late = self.config.condition_block()?;
        let at_once = if late == 0 { conditions } else { 1 };
        let z = self.input(cx, z, told.picture)?;
        let z = ops::repeat_batch(cx, &z, at_once)?;

        // Blocks start from the SiLU of the embedding.
        let emb = self.embed_level(cx, weights, time, told)?;
        let before = match late {
            0 => None,
            _ => Some(ops::silu(cx, &emb)?),
        };
        let emb = ops::repeat_batch(cx, &emb, conditions)?;
        let emb = self.add_condition(cx, weights, emb, told)?;
        let emb = ops::silu(cx, &emb)?;
        let told = match before {
            None => Late::all(emb),
            Some(before) => Late::from(late, before, emb, conditions),
        };

        // What of the condition each block takes.
        let blocks = self.blocks().map(|(i, block)| (block, told.of(i)));
        let mut shares = Shares::new(cx, weights, blocks, keys)?;

        // Down, middle, up.
        let (mut h, mut skips) = self.trunk.forward(cx, weights, &z, &told, &mut shares, pass)?;
        let first = self.config.block_counts().0 + 1;
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

    /// Keys and values `[R, L, 2·channels]` of every cross-attention, in the order of its transformers' layers.
    fn prepare(
        &self,
        cx: &mut Context,
        weights: &Weights,
        tokens: &Tensor,
        pass: &Pass<'_>,
    ) -> Result<Vec<Tensor>> {
        let Some(of) = &self.config.transformer else { return Ok(Vec::new()) };
        weights.check_serve(pass.dtype)?;
        let (shape, width) = (tokens.shape(), of.context_width);
        if shape.len() != 3 || shape[2] != width {
            let what = format!(
                "tokens are {shape:?}, expected [R, L, {width}]: the network reads tokens of {width} numbers"
            );
            return Err(Error::shape("unet", what));
        }
        let tokens = ops::cast(cx, tokens, pass.dtype)?;
        let mut keys = Vec::new();
        for transformer in self.transformers() {
            keys.extend(transformer.keys(cx, weights, &tokens)?);
        }
        Ok(keys)
    }
}

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
pub(crate) mod token_tests;
