//! Codecs: what turns pictures into latents and back. A denoiser of latents never sees a pixel.
//!
//! What comes out of [`Codec::encode`] is what a denoiser sees: factors and shifts of the file are in it ([`Latents`]), and
//! [`Codec::decode`] takes them back. Pictures are in [-1, 1], as everywhere else.

mod kl;
mod latents;
mod strips;
mod taesd;

pub use kl::{AutoencoderKl, KlConfig};
pub use latents::Latents;
pub use taesd::{AutoencoderTiny, TinyConfig};

use crate::error::{Error, Result};
use crate::ops;
use crate::shape::Shape;
use crate::tensor::{Context, DType, Tensor};

use super::parameters::Parameters;
use super::weights::Weights;

/// Which halves of a codec there are: those that are not asked for take no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halves {
    /// From pictures to latents and back.
    Both,
    /// To latents alone.
    Encoder,
    /// To pictures alone.
    Decoder,
}

impl Halves {
    /// Whether it encodes.
    pub fn encodes(self) -> bool {
        self != Halves::Decoder
    }

    /// Whether it decodes.
    pub fn decodes(self) -> bool {
        self != Halves::Encoder
    }
}

/// What a codec is, as far as others need to know.
#[derive(Clone, Debug, PartialEq)]
pub struct CodecAbout {
    /// Channels of its pictures.
    pub picture_channels: usize,
    /// Channels of its latents.
    pub latent_channels: usize,
    /// Pixels of a latent's place, along each axis.
    pub factor: usize,
    /// The halves that there are.
    pub halves: Halves,
    /// How its own latents become those that a denoiser sees.
    pub latents: Latents,
}

/// An autoencoder of pictures. It is asked while plans are recorded and never while they run.
pub trait Codec: Send + Sync {
    /// What it is. It never changes.
    fn about(&self) -> &CodecAbout;

    /// The declarations of its parameters.
    fn parameters(&self) -> &Parameters;

    /// The latent of such pictures.
    ///
    /// # Errors
    /// [`Error::Config`] for other channels, and sizes that are no multiples of the factor.
    fn latent_of(&self, pictures: Shape) -> Result<Shape> {
        let CodecAbout { picture_channels, latent_channels, factor, .. } = *self.about();
        let extent = pictures.extent.map(|axis| axis.is_multiple_of(factor).then_some(axis / factor));
        match extent.filter(|extent| {
            !extent.is_line() && pictures.channels == picture_channels && extent.places() > 0
        }) {
            Some(extent) => Ok(Shape { channels: latent_channels, extent }),
            None => Err(Error::Config(format!(
                "pictures of {pictures} for an autoencoder of {picture_channels} channels, whose latents have a place for \
                 {factor}x{factor} pixels: sizes must be multiples of {factor}"
            ))),
        }
    }

    /// The pictures of such latents.
    fn pixels_of(&self, latent: Shape) -> Shape {
        let CodecAbout { picture_channels, factor, .. } = *self.about();
        let extent = latent.extent.map(|axis| Some(axis * factor)).unwrap_or(latent.extent);
        Shape { channels: picture_channels, extent }
    }

    /// Records latents `[N, h, w, c]` f32 of pictures x `[N, H, W, C]` f32 in [-1, 1], with activations of `dtype`. Where a codec
    /// says a distribution, `noise` `[N, h, w, c]` f32, standard normal, draws from it; without it is the mean.
    ///
    /// # Errors
    /// [`Error::Config`] where it has no encoder or the sizes do not fit; whatever operations return.
    fn encode(
        &self,
        cx: &mut Context,
        weights: &Weights,
        x: &Tensor,
        noise: Option<&Tensor>,
        dtype: DType,
    ) -> Result<Tensor>;

    /// Records pictures `[N, H, W, C]` f32, about [-1, 1] and not clipped, of latents z `[N, h, w, c]` f32, with activations of
    /// `dtype`.
    ///
    /// # Errors
    /// [`Error::Config`] where it has no decoder; whatever operations return.
    fn decode(&self, cx: &mut Context, weights: &Weights, z: &Tensor, dtype: DType) -> Result<Tensor>;
}

/// `[N, H, W, C]` f32 as a shape, having checked it.
fn shape_of(x: &Tensor, what: &'static str, channels: usize) -> Result<(usize, Shape)> {
    let [n, height, width, c] = x.nhwc(what)?;
    if c != channels || x.dtype() != DType::F32 || x.is_empty() {
        let (shape, dtype) = (x.shape(), x.dtype());
        return Err(Error::shape(
            what,
            format!("expected [N, H, W, {channels}] F32, got {shape:?} {dtype:?}"),
        ));
    }
    let extent = crate::shape::Extent::Plane { height, width };
    Ok((n, Shape { channels, extent }))
}

/// What a codec that lacks a half is told.
fn lacks(half: &str) -> Error {
    Error::Config(format!("the autoencoder was opened without its {half}, or its file has none"))
}

/// y `[N, ..]` of which `one` makes each `[1, ..]`, of each `[1, ..]` of the `inputs`.
fn picture_by_picture(
    cx: &mut Context,
    inputs: &[&Tensor],
    shape: [usize; 4],
    mut one: impl FnMut(&mut Context, &[Tensor]) -> Result<Tensor>,
) -> Result<Tensor> {
    let y = cx.output("pictures", &shape, DType::F32)?;
    let each = y.len() / shape[0];
    for n in 0..shape[0] {
        let parts: Vec<Tensor> = inputs
            .iter()
            .map(|x| {
                let mut of_one = x.shape().to_vec();
                of_one[0] = 1;
                ops::section(cx, x, n * (x.len() / shape[0]), &of_one)
            })
            .collect::<Result<_>>()?;
        let made = one(cx, &parts)?;
        ops::put_section(cx, (&made, 0), (&y, n * each), each)?;
    }
    Ok(y)
}

#[cfg(test)]
mod tests;
