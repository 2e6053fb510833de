//! The way down and the middle: what a UNet and a classifier have in common.

use crate::error::{Error, Result};
use crate::nn::Weights;
use crate::nn::layers::{Attention, Conv2d, RowLinear};
use crate::nn::parameters::Parameters;
use crate::nn::pass::Pass;
use crate::ops::{self, QkvOrder};
use crate::shape::Extent;
use crate::tensor::{Context, Tensor};

use super::blocks::{Block, ResBlock, Scale, Shares};
use super::config::{QkvLayout, Resample, UNetConfig};
use super::late::Late;
use super::transformer::Transformer;

/// Declares blocks, and counts those that have dropout.
pub(super) struct Builder<'a> {
    pub parameters: &'a mut Parameters,
    pub config: &'a UNetConfig,
    layer: u32,
}

impl<'a> Builder<'a> {
    pub fn new(parameters: &'a mut Parameters, config: &'a UNetConfig) -> Self {
        Builder { parameters, config, layer: 0 }
    }

    /// The two layers behind the sinusoidal embedding.
    pub fn time_embed(&mut self) -> [RowLinear; 2] {
        let (channels, embedded) = (self.config.model_channels, 4 * self.config.model_channels);
        [
            RowLinear::new(self.parameters, "time_embed.0", [channels, embedded]),
            RowLinear::new(self.parameters, "time_embed.2", [embedded, embedded]),
        ]
    }

    pub fn res(&mut self, name: &str, channels: [usize; 2], scale: Scale) -> Block {
        self.layer += 1;
        Block::Res(Box::new(ResBlock::new(self.parameters, name, channels, scale, self.config, self.layer)))
    }

    /// A convolution over samples of the configuration's kind.
    pub fn conv(&mut self, name: &str, channels: [usize; 2], zero: bool) -> Conv2d {
        Conv2d::over(self.parameters, name, channels, self.config.sample_size, 3, zero)
    }

    /// The attention of a level, or of the middle where there is none: plain, or a transformer.
    pub fn attention(&mut self, name: &str, channels: usize, level: Option<usize>) -> Block {
        let (groups, heads) = (self.config.norm_num_groups, self.config.heads(channels));
        if let Some(of) = &self.config.transformer {
            let layers = level.map_or(of.middle_layers, |level| of.layers[level]);
            let sizes = [layers, of.context_width];
            let transformer = Transformer::new(self.parameters, name, channels, [groups, heads], sizes);
            return Block::Transformer(Box::new(transformer));
        }
        let order = match self.config.qkv_order {
            QkvLayout::New => QkvOrder::New,
            QkvLayout::Legacy => QkvOrder::Legacy,
        };
        Block::Attention(Box::new(Attention::new(self.parameters, name, channels, groups, heads, order)))
    }

    /// The stem, each level's blocks with the way to the next, and the middle.
    pub fn trunk(&mut self) -> Trunk {
        let config = self.config;
        let widths = config.widths();
        let inputs = config.in_channels + config.low_res_channels + config.beside_channels;
        let stem = self.conv("input_blocks.0.0", [inputs, widths[0]], false);
        let mut input_blocks = vec![vec![Block::Conv(stem)]];
        let mut channels = widths[0];
        let mut skips = vec![channels];
        for (level, &width) in widths.iter().enumerate() {
            for _ in 0..config.layers_per_block {
                let name = format!("input_blocks.{}", input_blocks.len());
                let mut blocks = vec![self.res(&format!("{name}.0"), [channels, width], Scale::Same)];
                channels = width;
                if config.attends(level) {
                    blocks.push(self.attention(&format!("{name}.1"), channels, Some(level)));
                }
                input_blocks.push(blocks);
                skips.push(channels);
            }
            if level + 1 < widths.len() {
                let name = format!("input_blocks.{}.0", input_blocks.len());
                let down = match config.resample {
                    Resample::Resnet => self.res(&name, [channels, channels], Scale::Down),
                    Resample::Conv => {
                        Block::Conv(self.conv(&format!("{name}.op"), [channels, channels], false).stride(2))
                    }
                };
                input_blocks.push(vec![down]);
                skips.push(channels);
            }
        }
        let middle_block = vec![
            self.res("middle_block.0", [channels, channels], Scale::Same),
            self.attention("middle_block.1", channels, None),
            self.res("middle_block.2", [channels, channels], Scale::Same),
        ];
        Trunk { input_blocks, middle_block, skips, channels }
    }
}

/// The way down and the middle.
#[derive(Clone, Debug)]
pub(super) struct Trunk {
    input_blocks: Vec<Vec<Block>>,
    middle_block: Vec<Block>,
    /// The channels of each input block's output.
    pub skips: Vec<usize>,
    /// The channels behind the middle.
    pub channels: usize,
}

impl Trunk {
    /// The blocks in their order, each with its number: input blocks from 0, the middle behind them.
    pub fn blocks(&self) -> impl Iterator<Item = (usize, &Block)> {
        let all = self.input_blocks.iter().chain([&self.middle_block]);
        all.enumerate().flat_map(|(i, blocks)| blocks.iter().map(move |block| (i, block)))
    }

    /// What comes out of the middle, and what each input block made. `z` becomes `pass.dtype`. `shares` are what the blocks are
    /// told; `told` says where the condition enters.
    pub fn forward(
        &self,
        cx: &mut Context,
        weights: &Weights,
        z: &Tensor,
        told: &Late,
        shares: &mut Shares,
        pass: &Pass<'_>,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let mut skips = Vec::with_capacity(self.input_blocks.len());
        let mut h = ops::cast(cx, z, pass.dtype)?;
        for (i, blocks) in self.input_blocks.iter().enumerate() {
            h = told.enter(cx, i, h)?;
            for block in blocks {
                h = block.forward(cx, weights, &h, shares, pass)?;
            }
            skips.push(h.clone());
        }
        let middle = self.input_blocks.len();
        h = told.enter(cx, middle, h)?;
        for block in &self.middle_block {
            h = block.forward(cx, weights, &h, shares, pass)?;
        }
        Ok((h, skips))
    }
}

/// Checks that samples and their times fit the configuration; gives their extent.
pub(super) fn check_input(config: &UNetConfig, z: &Tensor, time: &Tensor) -> Result<Extent> {
    let [n, height, width, c] = z.nhwc("unet")?;
    let want = config.in_channels;
    let levels = config.channel_mult.len();
    let extent = if config.sample_size.is_line() && height == 1 {
        Extent::Line(width)
    } else {
        Extent::Plane { height, width }
    };
    let halves =
        extent.is_line() == config.sample_size.is_line() && extent.halved(levels as u32 - 1).is_some();
    if c != want || !halves {
        let what = format!("input {:?} does not fit {want} channels and {levels} levels", z.shape());
        return Err(Error::shape("unet", what));
    }
    if time.shape() != [n] {
        return Err(Error::shape("unet", format!("time must be [{n}], got {:?}", time.shape())));
    }
    Ok(extent)
}

/// The embedding of the time, before that of a class is added.
pub(super) fn embed_time(
    cx: &mut Context,
    weights: &Weights,
    [first, second]: &[RowLinear; 2],
    channels: usize,
    time: &Tensor,
) -> Result<Tensor> {
    let emb = ops::timestep_embedding(cx, time, channels)?;
    let emb = first.forward(cx, weights, &emb)?;
    let emb = ops::silu(cx, &emb)?;
    second.forward(cx, weights, &emb)
}

/// What w is multiplied by for the sinusoidal embedding, which was made for times of up to a thousand.
const TIME_OF_WEIGHT: f32 = 100.0;

/// The embedding of the guidance weight of a distilled network, made like that of the time (arXiv 2210.03142, section 3).
pub(super) fn embed_guidance(
    cx: &mut Context,
    weights: &Weights,
    layers: &[RowLinear; 2],
    channels: usize,
    w: &Tensor,
) -> Result<Tensor> {
    let scaled = ops::scale(cx, w, TIME_OF_WEIGHT)?;
    embed_time(cx, weights, layers, channels, &scaled)
}
