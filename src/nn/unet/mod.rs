//! The UNet of ADM (arXiv 2105.05233) with IDDPM's options, its parameters named as in guided-diffusion.

mod blocks;
mod config;

pub use config::{NullClass, QkvLayout, Resample, TimeScaleShift, UNetConfig};

use crate::error::{Error, Result};
use crate::ops::{self, DropoutSeeds, QkvOrder};
use crate::tensor::{Context, DType, Tensor};

use super::layers::{Attention, Conv2d, Embedding, Linear, Norm};
use super::parameters::Parameters;
use super::weights::Weights;
use blocks::{Block, ResBlock, Scale};

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

    fn dropout(&self, cx: &mut Context, x: Tensor, rate: f32, layer: u32) -> Result<Tensor> {
        match self.dropout {
            Some(source) if rate > 0.0 => {
                let image_index = source.image_index.clone();
                ops::dropout(cx, &x, rate, &DropoutSeeds { seed: source.seed, image_index, layer })
            }
            _ => Ok(x),
        }
    }
}

/// A UNet: its configuration, its parameters and its blocks.
#[derive(Clone, Debug)]
pub struct UNet {
    config: UNetConfig,
    parameters: Parameters,
    time_embed: [Linear; 2],
    label_emb: Option<Embedding>,
    input_blocks: Vec<Vec<Block>>,
    middle_block: Vec<Block>,
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
        let p = &mut parameters;
        let embedded = 4 * config.model_channels;
        let time_embed = [
            Linear::new(p, "time_embed.0", [config.model_channels, embedded]),
            Linear::new(p, "time_embed.2", [embedded, embedded]),
        ];
        let label_emb = config.embedding_rows().map(|rows| Embedding::new(p, "label_emb", rows, embedded));

        let mut layer = 0;
        let mut res = |p: &mut Parameters, name: &str, channels: [usize; 2], scale: Scale| {
            layer += 1;
            Block::Res(Box::new(ResBlock::new(p, name, channels, scale, config, layer)))
        };
        let attention = |p: &mut Parameters, name: &str, channels: usize| {
            let order = match config.qkv_order {
                QkvLayout::New => QkvOrder::New,
                QkvLayout::Legacy => QkvOrder::Legacy,
            };
            let heads = config.heads(channels);
            Block::Attention(Box::new(Attention::new(
                p,
                name,
                channels,
                config.norm_num_groups,
                heads,
                order,
            )))
        };
        let (widths, sizes) = (config.widths(), config.sizes());
        let attends = |level: usize| config.attention_resolutions.contains(&sizes[level]);
        let levels = widths.len();

        // Down: the stem, then each level's blocks and the way to the next.
        let stem = Conv2d::new(p, "input_blocks.0.0", [config.in_channels, widths[0]], 3, false);
        let mut input_blocks = vec![vec![Block::Conv(stem)]];
        let mut channels = widths[0];
        let mut skips = vec![channels];
        for (level, &width) in widths.iter().enumerate() {
            for _ in 0..config.layers_per_block {
                let name = format!("input_blocks.{}", input_blocks.len());
                let mut blocks = vec![res(p, &format!("{name}.0"), [channels, width], Scale::Same)];
                channels = width;
                if attends(level) {
                    blocks.push(attention(p, &format!("{name}.1"), channels));
                }
                input_blocks.push(blocks);
                skips.push(channels);
            }
            if level + 1 < levels {
                let name = format!("input_blocks.{}.0", input_blocks.len());
                let down = match config.resample {
                    Resample::Resnet => res(p, &name, [channels, channels], Scale::Down),
                    Resample::Conv => {
                        let name = format!("{name}.op");
                        Block::Conv(Conv2d::new(p, &name, [channels, channels], 3, false).stride(2))
                    }
                };
                input_blocks.push(vec![down]);
                skips.push(channels);
            }
        }

        let middle_block = vec![
            res(p, "middle_block.0", [channels, channels], Scale::Same),
            attention(p, "middle_block.1", channels),
            res(p, "middle_block.2", [channels, channels], Scale::Same),
        ];

        // Up: every input block's output is concatenated once.
        let mut output_blocks = Vec::new();
        for (level, &width) in widths.iter().enumerate().rev() {
            for i in 0..=config.layers_per_block {
                let name = format!("output_blocks.{}", output_blocks.len());
                let skip = skips.pop().expect("one skip for each block on the way up");
                let mut blocks = vec![res(p, &format!("{name}.0"), [channels + skip, width], Scale::Same)];
                channels = width;
                if attends(level) {
                    blocks.push(attention(p, &format!("{name}.1"), channels));
                }
                if level > 0 && i == config.layers_per_block {
                    let name = format!("{name}.{}", blocks.len());
                    blocks.push(match config.resample {
                        Resample::Resnet => res(p, &name, [channels, channels], Scale::Up),
                        Resample::Conv => {
                            let name = format!("{name}.conv");
                            Block::UpConv(Conv2d::new(p, &name, [channels, channels], 3, false))
                        }
                    });
                }
                output_blocks.push(blocks);
            }
        }
        let out = (
            Norm::new(p, "out.0", channels, config.norm_num_groups, true),
            Conv2d::new(p, "out.2", [channels, config.out_channels], 3, true),
        );
        let config = config.clone();
        Ok(UNet { config, parameters, time_embed, label_emb, input_blocks, middle_block, output_blocks, out })
    }

    /// Its configuration.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// Its parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Records the network: `z` `[N, H, W, C]` f32, `time` `[N]` f32 (what the sinusoidal embedding takes), `labels`
    /// `[N]` u32 where the network has classes. Returns `[N, H, W, out_channels]` f32.
    ///
    /// # Errors
    /// [`Error::Shape`] when an input does not fit the configuration.
    pub fn forward(
        &self,
        cx: &mut Context,
        weights: &Weights,
        z: &Tensor,
        time: &Tensor,
        labels: Option<&Tensor>,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        let config = &self.config;
        let [n, h, w, c] = z.nhwc("unet")?;
        let halved = 1 << (config.channel_mult.len() - 1);
        if c != config.in_channels || h % halved != 0 || w % halved != 0 {
            let (want, levels) = (config.in_channels, config.channel_mult.len());
            let what = format!("input {:?} does not fit {want} channels and {levels} levels", z.shape());
            return Err(Error::shape("unet", what));
        }
        if time.shape() != [n] {
            return Err(Error::shape("unet", format!("time must be [{n}], got {:?}", time.shape())));
        }

        // The embedding: of the time, plus that of the class. Every block starts from its SiLU.
        let [first, second] = &self.time_embed;
        let emb = ops::timestep_embedding(cx, time, config.model_channels)?;
        let emb = first.forward(cx, weights, &emb)?;
        let emb = ops::silu(cx, &emb)?;
        let mut emb = second.forward(cx, weights, &emb)?;
        match (&self.label_emb, labels) {
            (Some(table), Some(labels)) => {
                let class = table.forward(cx, weights, labels)?;
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

        // Down, middle, up.
        let mut skips = Vec::with_capacity(self.input_blocks.len());
        let mut h = z.clone();
        for (i, blocks) in self.input_blocks.iter().enumerate() {
            for block in blocks {
                h = block.forward(cx, weights, &h, &emb, pass)?;
            }
            if i == 0 {
                h = ops::cast(cx, &h, pass.dtype)?;
            }
            skips.push(h.clone());
        }
        for block in &self.middle_block {
            h = block.forward(cx, weights, &h, &emb, pass)?;
        }
        for blocks in &self.output_blocks {
            let skip = skips.pop().expect("one skip for each block on the way up");
            h = ops::concat(cx, &h, &skip)?;
            for block in blocks {
                h = block.forward(cx, weights, &h, &emb, pass)?;
            }
        }

        let h = ops::cast(cx, &h, DType::F32)?;
        let (norm, conv) = &self.out;
        let h = norm.forward(cx, weights, &h, None)?;
        conv.forward(cx, weights, &h)
    }
}

#[cfg(test)]
pub(crate) mod tests;
