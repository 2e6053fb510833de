//! The layers that networks are built of. Each declares its parameters and records itself.

use crate::error::Result;
use crate::ops::{self, GroupNorm, QkvOrder};
use crate::shape::Extent;
use crate::tensor::{Context, Tensor};

use super::parameters::{Init, Layout, ParameterId, Parameters};
use super::weights::Weights;

/// Uniform in ±1/√fan_in: what the reference's layers start from.
fn fan_in(inputs: usize) -> Init {
    Init::Uniform(1.0 / (inputs as f32).sqrt())
}

/// A convolution with "same" padding.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: ParameterId,
    bias: ParameterId,
    stride: usize,
}

impl Conv2d {
    /// `kernel`x`kernel`, from `inputs` to `outputs` channels; `zero` starts it at zero.
    pub fn new(
        parameters: &mut Parameters,
        name: &str,
        [inputs, outputs]: [usize; 2],
        kernel: usize,
        zero: bool,
    ) -> Self {
        Self::over(parameters, name, [inputs, outputs], Extent::square(1), kernel, zero)
    }

    /// The same over planes, or of `1`x`kernel` along lines, held in files as a 1-d convolution.
    pub fn over(
        parameters: &mut Parameters,
        name: &str,
        [inputs, outputs]: [usize; 2],
        extent: Extent,
        kernel: usize,
        zero: bool,
    ) -> Self {
        let [height, width] = extent.kernel(kernel);
        let layout = if extent.is_line() { Layout::ConvLine } else { Layout::Conv2d };
        let init = if zero { Init::Zero } else { fan_in(inputs * height * width) };
        let shape = [height, width, inputs, outputs];
        Conv2d {
            weight: parameters.declare_matrix(format!("{name}.weight"), &shape, layout, init),
            bias: parameters.declare(format!("{name}.bias"), &[outputs], Layout::Plain, init),
            stride: 1,
        }
    }

    /// The same with a stride.
    pub fn stride(self, stride: usize) -> Self {
        Conv2d { stride, ..self }
    }

    /// `[N, H, W, C]` to `[N, ⌈H/stride⌉, ⌈W/stride⌉, K]`.
    pub fn forward(&self, cx: &mut Context, weights: &Weights, x: &Tensor) -> Result<Tensor> {
        ops::conv2d(cx, x, weights.matrix(self.weight, x.dtype()), Some(weights.get(self.bias)), self.stride)
    }

    /// The same plus `residual`, of the output's shape.
    pub fn forward_add(
        &self,
        cx: &mut Context,
        weights: &Weights,
        x: &Tensor,
        residual: &Tensor,
    ) -> Result<Tensor> {
        let (weight, bias) = (weights.matrix(self.weight, x.dtype()), weights.get(self.bias));
        ops::conv2d_add(cx, x, weight, Some(bias), self.stride, residual)
    }
}

/// An affine map of the last axis.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: ParameterId,
    bias: Option<ParameterId>,
}

impl Linear {
    /// From `inputs` to `outputs` channels.
    pub fn new(parameters: &mut Parameters, name: &str, channels: [usize; 2]) -> Self {
        Self::with(parameters, name, channels, Layout::Linear, false)
    }

    /// The same, its output zero at the start.
    pub fn zero(parameters: &mut Parameters, name: &str, channels: [usize; 2]) -> Self {
        Self::with(parameters, name, channels, Layout::Linear, true)
    }

    /// The same without a bias, as the queries, keys and values of transformers have none.
    pub fn unbiased(parameters: &mut Parameters, name: &str, channels: [usize; 2]) -> Self {
        let init = fan_in(channels[0]);
        let weight = parameters.declare_matrix(format!("{name}.weight"), &channels, Layout::Linear, init);
        Linear { weight, bias: None }
    }

    /// The same, held in files as a 1-d convolution of width 1, as attention layers do; `zero` starts it at zero.
    pub fn conv1d(parameters: &mut Parameters, name: &str, channels: [usize; 2], zero: bool) -> Self {
        Self::with(parameters, name, channels, Layout::Conv1d, zero)
    }

    fn with(
        parameters: &mut Parameters,
        name: &str,
        [inputs, outputs]: [usize; 2],
        layout: Layout,
        zero: bool,
    ) -> Self {
        let init = if zero { Init::Zero } else { fan_in(inputs) };
        Linear {
            weight: parameters.declare_matrix(format!("{name}.weight"), &[inputs, outputs], layout, init),
            bias: Some(parameters.declare(format!("{name}.bias"), &[outputs], Layout::Plain, init)),
        }
    }

    /// `[..., C]` to `[..., K]`.
    pub fn forward(&self, cx: &mut Context, weights: &Weights, x: &Tensor) -> Result<Tensor> {
        let bias = self.bias.map(|bias| weights.get(bias));
        ops::linear(cx, x, weights.matrix(self.weight, x.dtype()), bias)
    }

    /// The same plus `residual`, of the output's shape.
    pub fn forward_add(
        &self,
        cx: &mut Context,
        weights: &Weights,
        x: &Tensor,
        residual: &Tensor,
    ) -> Result<Tensor> {
        let bias = self.bias.map(|bias| weights.get(bias));
        ops::linear_add(cx, x, weights.matrix(self.weight, x.dtype()), bias, residual)
    }
}

/// An affine map of one row a picture, as embeddings have.
#[derive(Clone, Debug)]
pub struct RowLinear {
    weight: ParameterId,
    bias: ParameterId,
}

impl RowLinear {
    /// From `inputs` to `outputs` channels.
    pub fn new(parameters: &mut Parameters, name: &str, channels: [usize; 2]) -> Self {
        Self::with(parameters, name, channels, fan_in(channels[0]))
    }

    /// The same, its output zero at the start.
    pub fn zero(parameters: &mut Parameters, name: &str, channels: [usize; 2]) -> Self {
        Self::with(parameters, name, channels, Init::Zero)
    }

    /// A row is f32 whatever the activations are, so its weight is no matrix of theirs.
    fn with(parameters: &mut Parameters, name: &str, channels: [usize; 2], init: Init) -> Self {
        RowLinear {
            weight: parameters.declare(format!("{name}.weight"), &channels, Layout::Linear, init),
            bias: parameters.declare(format!("{name}.bias"), &channels[1..], Layout::Plain, init),
        }
    }

    /// `[N, C]` f32 to `[N, K]`.
    pub fn forward(&self, cx: &mut Context, weights: &Weights, x: &Tensor) -> Result<Tensor> {
        ops::linear_rows(cx, x, weights.get(self.weight), Some(weights.get(self.bias)))
    }
}

/// A group norm with its affine map, and what is fused with it.
#[derive(Clone, Debug)]
pub struct Norm {
    gamma: ParameterId,
    beta: ParameterId,
    options: GroupNorm,
}

impl Norm {
    /// Over `groups` groups of `channels` channels, eps 1e-5, followed by a SiLU if `silu`.
    pub fn new(parameters: &mut Parameters, name: &str, channels: usize, groups: usize, silu: bool) -> Self {
        Norm {
            gamma: parameters.declare(format!("{name}.weight"), &[channels], Layout::Plain, Init::One),
            beta: parameters.declare(format!("{name}.bias"), &[channels], Layout::Plain, Init::Zero),
            options: GroupNorm { groups, eps: 1e-5, silu },
        }
    }

    /// The same with another number added to the variance.
    pub fn eps(self, eps: f32) -> Self {
        Norm { options: GroupNorm { eps, ..self.options }, ..self }
    }

    /// Normalises; `scale_shift` `[N, 2C]` makes it adaptive (AdaGN).
    pub fn forward(
        &self,
        cx: &mut Context,
        weights: &Weights,
        x: &Tensor,
        scale_shift: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (gamma, beta) = (weights.get(self.gamma), weights.get(self.beta));
        ops::group_norm(cx, x, gamma, beta, scale_shift, &self.options)
    }
}

/// A layer norm over the last axis with its affine map.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    gamma: ParameterId,
    beta: ParameterId,
    eps: f32,
}

impl LayerNorm {
    /// Over `channels` channels, `eps` added to their variance.
    pub fn new(parameters: &mut Parameters, name: &str, channels: usize, eps: f32) -> Self {
        LayerNorm {
            gamma: parameters.declare(format!("{name}.weight"), &[channels], Layout::Plain, Init::One),
            beta: parameters.declare(format!("{name}.bias"), &[channels], Layout::Plain, Init::Zero),
            eps,
        }
    }

    /// Normalises x `[.., C]`.
    pub fn forward(&self, cx: &mut Context, weights: &Weights, x: &Tensor) -> Result<Tensor> {
        ops::layer_norm(cx, x, Some(weights.get(self.gamma)), Some(weights.get(self.beta)), self.eps)
    }
}

/// A table of rows, one for each class.
#[derive(Clone, Debug)]
pub struct Embedding {
    table: ParameterId,
}

impl Embedding {
    /// `rows` rows of `channels`.
    pub fn new(parameters: &mut Parameters, name: &str, rows: usize, channels: usize) -> Self {
        let shape = [rows, channels];
        Embedding { table: parameters.declare(format!("{name}.weight"), &shape, Layout::Plain, Init::Normal) }
    }

    /// The rows of `indices` `[N]`; an index past the table gives zeros.
    pub fn forward(&self, cx: &mut Context, weights: &Weights, indices: &Tensor) -> Result<Tensor> {
        ops::embedding(cx, weights.get(self.table), indices)
    }
}

/// Self-attention over the pixels: x + proj(attention(qkv(norm(x)))).
#[derive(Clone, Debug)]
pub struct Attention {
    norm: Norm,
    qkv: Linear,
    projection: Linear,
    heads: usize,
    order: QkvOrder,
}

impl Attention {
    /// Over `channels` channels in `heads` heads.
    pub fn new(
        parameters: &mut Parameters,
        name: &str,
        channels: usize,
        groups: usize,
        heads: usize,
        order: QkvOrder,
    ) -> Self {
        Attention {
            norm: Norm::new(parameters, &format!("{name}.norm"), channels, groups, false),
            qkv: Linear::conv1d(parameters, &format!("{name}.qkv"), [channels, 3 * channels], false),
            projection: Linear::conv1d(parameters, &format!("{name}.proj_out"), [channels, channels], true),
            heads,
            order,
        }
    }

    /// `[N, H, W, C]` to the same.
    pub fn forward(&self, cx: &mut Context, weights: &Weights, x: &Tensor) -> Result<Tensor> {
        let h = self.norm.forward(cx, weights, x, None)?;
        let qkv = self.qkv.forward(cx, weights, &h)?;
        let h = ops::attention(cx, &qkv, self.heads, self.order)?;
        self.projection.forward_add(cx, weights, &h, x)
    }
}
