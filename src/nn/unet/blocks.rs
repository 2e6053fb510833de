//! The residual block and what changes resolution.

use crate::error::Result;
use crate::nn::layers::{Conv2d, Norm, RowLinear};
use crate::nn::parameters::Parameters;
use crate::nn::pass::Pass;
use crate::nn::weights::Weights;
use crate::ops;
use crate::tensor::{Context, Tensor};

use super::config::{TimeScaleShift, UNetConfig};
use super::transformer::{Keys, Transformer};

/// What a residual block does to the resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    Same,
    Down,
    Up,
}

impl Scale {
    fn apply(self, cx: &mut Context, x: Tensor, factors: [usize; 2]) -> Result<Tensor> {
        match self {
            Scale::Same => Ok(x),
            Scale::Down => ops::average_pool(cx, &x, factors),
            Scale::Up => ops::upsample_nearest(cx, &x, factors),
        }
    }
}

/// GroupNorm → SiLU → [resample] → conv → AdaGN → SiLU → dropout → conv, plus the (resampled, projected) input.
#[derive(Clone, Debug)]
pub(super) struct ResBlock {
    norm_in: Norm,
    conv_in: Conv2d,
    embedding: RowLinear,
    norm_out: Norm,
    conv_out: Conv2d,
    skip: Option<Conv2d>,
    scale: Scale,
    /// Of height and width.
    factors: [usize; 2],
    adaptive: bool,
    residual_scale: f32,
    dropout: f32,
    layer: u32,
}

impl ResBlock {
    /// `layer` numbers the block among those with dropout.
    pub fn new(
        parameters: &mut Parameters,
        name: &str,
        [inputs, outputs]: [usize; 2],
        scale: Scale,
        config: &UNetConfig,
        layer: u32,
    ) -> Self {
        let groups = config.norm_num_groups;
        let adaptive = config.resnet_time_scale_shift == TimeScaleShift::ScaleShift;
        let embedded = if adaptive { 2 * outputs } else { outputs };
        let norm_in = Norm::new(parameters, &format!("{name}.in_layers.0"), inputs, groups, true);
        let extent = config.sample_size;
        let conv_in =
            Conv2d::over(parameters, &format!("{name}.in_layers.2"), [inputs, outputs], extent, 3, false);
        let embedding = RowLinear::new(
            parameters,
            &format!("{name}.emb_layers.1"),
            [4 * config.model_channels, embedded],
        );
        let norm_out = Norm::new(parameters, &format!("{name}.out_layers.0"), outputs, groups, true);
        let conv_out =
            Conv2d::over(parameters, &format!("{name}.out_layers.3"), [outputs, outputs], extent, 3, true);
        let skip = (inputs != outputs).then(|| {
            Conv2d::over(parameters, &format!("{name}.skip_connection"), [inputs, outputs], extent, 1, false)
        });
        let residual_scale = if config.residual_scaling { std::f32::consts::FRAC_1_SQRT_2 } else { 1.0 };
        ResBlock {
            norm_in,
            conv_in,
            embedding,
            norm_out,
            conv_out,
            skip,
            scale,
            factors: extent.halving(),
            adaptive,
            residual_scale,
            dropout: config.dropout,
            layer,
        }
    }

    /// What the block is told, of SiLU of the embedding `[N, 4·channels]`: `[N, 2·outputs]`, or `[N, outputs]` where it is
    /// added before the norm.
    fn tell(&self, cx: &mut Context, weights: &Weights, emb: &Tensor) -> Result<Tensor> {
        self.embedding.forward(cx, weights, emb)
    }

    /// `emb` is what [`Self::tell`] made.
    fn forward(
        &self,
        cx: &mut Context,
        weights: &Weights,
        x: &Tensor,
        emb: &Tensor,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        let h = self.norm_in.forward(cx, weights, x, None)?;
        let h = self.scale.apply(cx, h, self.factors)?;
        let x = self.scale.apply(cx, x.clone(), self.factors)?;
        let h = self.conv_in.forward(cx, weights, &h)?;

        let h = if self.adaptive {
            self.norm_out.forward(cx, weights, &h, Some(emb))?
        } else {
            let h = ops::add_per_sample(cx, &h, emb)?;
            self.norm_out.forward(cx, weights, &h, None)?
        };
        let h = pass.dropout(cx, h, self.dropout, self.layer)?;

        let x = match &self.skip {
            Some(skip) => skip.forward(cx, weights, &x)?,
            None => x,
        };
        if self.residual_scale == 1.0 {
            return self.conv_out.forward_add(cx, weights, &h, &x);
        }
        let h = self.conv_out.forward(cx, weights, &h)?;
        ops::add(cx, &x, &h, self.residual_scale)
    }
}

/// What the blocks of a network are told, each its own share.
pub(super) struct Shares {
    /// Of the embedding: those of the residual blocks in their order.
    embedding: std::vec::IntoIter<Tensor>,
    /// Of the tokens.
    keys: Keys,
}

impl Shares {
    /// What the residual blocks among `blocks` are told, in their order, each with the SiLU of the embedding that it takes: all
    /// of them one after the other, for they depend on nothing else. Together they keep a GPU busy that each alone leaves idle.
    /// `keys` are those of the tokens, for all transformers.
    pub fn new<'a>(
        cx: &mut Context,
        weights: &Weights,
        blocks: impl Iterator<Item = (&'a Block, &'a Tensor)>,
        keys: Keys,
    ) -> Result<Shares> {
        let mut told = Vec::new();
        for (block, emb) in blocks {
            if let Block::Res(block) = block {
                told.push(block.tell(cx, weights, emb)?);
            }
        }
        Ok(Shares { embedding: told.into_iter(), keys })
    }
}

/// One step of the way down or up.
#[derive(Clone, Debug)]
pub(super) enum Block {
    Res(Box<ResBlock>),
    Attention(Box<crate::nn::layers::Attention>),
    Transformer(Box<Transformer>),
    /// The stem, or IDDPM's stride-2 convolution down.
    Conv(Conv2d),
    /// IDDPM's way up: nearest, by these factors of height and width, then a convolution.
    UpConv([usize; 2], Conv2d),
}

impl Block {
    /// Takes its own of `shares`, the next of its kind.
    pub fn forward(
        &self,
        cx: &mut Context,
        weights: &Weights,
        x: &Tensor,
        shares: &mut Shares,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        match self {
            Block::Res(block) => {
                let emb = shares.embedding.next().expect("every residual block was told its share");
                block.forward(cx, weights, x, &emb, pass)
            }
            Block::Attention(block) => block.forward(cx, weights, x),
            Block::Transformer(block) => block.forward(cx, weights, x, &mut shares.keys),
            Block::Conv(conv) => conv.forward(cx, weights, x),
            Block::UpConv(factors, conv) => {
                let x = ops::upsample_nearest(cx, x, *factors)?;
                conv.forward(cx, weights, &x)
            }
        }
    }
}
