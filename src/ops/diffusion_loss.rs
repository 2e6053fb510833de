//! The losses of a diffusion model: mean squared error of any prediction, the variational bound in bits, both.
//!
//!   total_n = `mse`·mean (target - out)² + `bits`·L_t,  loss = `scale`·Σ_n weight_n total_n,
//!
//! L_t = KL(q(z_{t-1} given z_t, x), p(z_{t-1} given z_t))/ln 2 a dimension, and at t = 0 the discretised decoder's
//! -log2 p(x) with bins of ±1/255 (DDPM, equation 13; IDDPM, section 2). What differs between samples stands in rows
//! ([`LossRow`]); gradients go to the output alone.

use bytemuck::{Pod, Zeroable};

use super::noised::expect;
use crate::diffusion::{LossRow, Variance};
use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const OP: &str = "diffusion_loss";

use Access::{Read, Update, Write};

const BLOCKS: Kernel =
    Kernel::new(OP, wgsl!("diffusion_loss"), "blocks", &[Read, Read, Read, Read, Read, Write]);
const TOTALS: Kernel = Kernel::new(
    "diffusion_loss_totals",
    wgsl!("diffusion_loss"),
    "totals",
    &[Read, Read, Write, Write, Write],
);
const GRADIENT: Kernel = Kernel::new(
    "diffusion_loss_backward",
    wgsl!("diffusion_loss"),
    "gradient",
    &[Read, Read, Read, Read, Read, Read, Update],
);

/// Elements of a sample that one workgroup sums, as in the shader.
const BLOCK: usize = 4096;
/// Words of a row.
const ROW: usize = size_of::<LossRow>() / 4;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    samples: u32,
    length: u32,
    blocks: u32,
    channels: u32,
    out_channels: u32,
    variance: u32,
    clip: u32,
    frozen: u32,
    accumulate: u32,
    count: u32,
    mse: f32,
    bits: f32,
    scale: f32,
    pad: [u32; 3],
}

/// What a loss is of.
#[derive(Clone, Copy, Debug)]
pub struct LossInputs<'a> {
    /// `[N, H, W, E]` f32, the network's output: C channels of prediction and, where variances are learned, C more.
    pub out: &'a Tensor,
    /// `[N, H, W, C]` f32, the clean pictures.
    pub x: &'a Tensor,
    /// `[N, H, W, C]` f32, the latents.
    pub z: &'a Tensor,
    /// `[N, H, W, C]` f32, their noise.
    pub eps: &'a Tensor,
    /// `[N, 16]` f32, the words of [`LossRow`].
    pub rows: &'a Tensor,
}

/// How the terms are weighed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossWeights {
    /// Of the mean squared error.
    pub mse: f32,
    /// Of the bits; 0 where they are not asked for.
    pub bits: f32,
    /// Of the whole: 1/N for a mean over the batch.
    pub scale: f32,
    /// Whether the bits' gradient goes into the variance channels alone (IDDPM, section 3.1).
    pub frozen_mean: bool,
    /// Which variance the model has; small and large are in the rows.
    pub variance: Variance,
    /// Whether x̂ is clipped to [-1, 1], as sampling does; training does not.
    pub clip: bool,
}

/// What comes of it.
#[derive(Clone, Debug)]
pub struct Losses {
    /// `[1]` f32; has gradients.
    pub loss: Tensor,
    /// `[N]` f32: each sample's total, without its weight.
    pub totals: Tensor,
    /// `[N, 4]` f32: total, mse, bits a dimension, mean (x - x̂)².
    pub terms: Tensor,
}

/// Records the losses of a batch.
///
/// # Errors
/// [`Error::Shape`] when a tensor has not the shape or type that [`LossInputs`] says.
pub fn diffusion_loss(cx: &mut Context, inputs: LossInputs<'_>, weights: LossWeights) -> Result<Losses> {
    let LossInputs { out, x, z, eps, rows } = inputs;
    let [n, h, w, c] = x.nhwc(OP)?;
    let [.., channels] = out.nhwc(OP)?;
    for (name, tensor) in [("x", x), ("z", z), ("eps", eps)] {
        expect(OP, name, tensor, &[n, h, w, c], DType::F32)?;
    }
    let learned = weights.variance.is_learned();
    if channels != 2 * c && (channels != c || learned) {
        let what = format!("x has {c} channels, so the output must have {}", 2 * c);
        let or = if learned { "".to_owned() } else { format!(" or {c}") };
        return Err(Error::shape(OP, format!("{what}{or}, not {channels}")));
    }
    expect(OP, "out", out, &[n, h, w, channels], DType::F32)?;
    expect(OP, "rows", rows, &[n, ROW], DType::F32)?;
    let length = h * w * c;
    let blocks = length.div_ceil(BLOCK);
    let params = Params {
        samples: n as u32,
        length: length as u32,
        blocks: blocks as u32,
        channels: c as u32,
        out_channels: channels as u32,
        variance: match weights.variance {
            Variance::Small | Variance::Large => 0,
            Variance::LearnedRange => 1,
            Variance::Learned => 2,
        },
        clip: weights.clip.into(),
        frozen: weights.frozen_mean.into(),
        accumulate: 0,
        count: out.len() as u32,
        mse: weights.mse,
        bits: weights.bits,
        scale: weights.scale,
        pad: [0; 3],
    };
    let partial = cx.output("loss partial", &[n, blocks, 4], DType::F32)?;
    let totals = cx.output("loss totals", &[n], DType::F32)?;
    let terms = cx.output("loss terms", &[n, 4], DType::F32)?;
    let loss = cx.output("loss", &[1], DType::F32)?;
    let launch = cx.launch(&BLOCKS).bind(out).bind(x).bind(z).bind(eps).bind(rows).bind(&partial);
    launch.params(&params).over_groups(n * blocks);
    let launch = cx.launch(&TOTALS).bind(&partial).bind(rows).bind(&totals).bind(&terms).bind(&loss);
    launch.params(&params).over_groups(1);
    cx.backward(&loss, &[out], {
        let [out, x, z, eps, rows] = [out, x, z, eps, rows].map(Tensor::clone);
        move |cx, dloss| {
            if let Some(d) = cx.grad_target(&out)? {
                let params = Params { accumulate: d.flag(), ..params };
                let launch = cx.launch(&GRADIENT).bind(&out).bind(&x).bind(&z).bind(&eps).bind(&rows);
                launch.bind(dloss).bind(&d.tensor).params(&params).over(out.len(), 64);
            }
            Ok(())
        }
    });
    Ok(Losses { loss, totals, terms })
}

#[cfg(test)]
mod tests;
