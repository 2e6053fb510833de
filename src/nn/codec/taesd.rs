//! Small autoencoders without norms, trained to agree with large ones (TAESD): 3x3 convolutions of one width and ReLUs. Their
//! latents are those that a denoiser sees already; their pictures are in [0, 1], which is made ours here.
//!
//! Parameters have the names of diffusers' `AutoencoderTiny`: `encoder.layers.K`, `decoder.layers.K`.

use crate::error::{Error, Result};
use crate::nn::layers::Conv2d;
use crate::nn::parameters::Parameters;
use crate::nn::weights::Weights;
use crate::ops;
use crate::tensor::{Context, DType, Tensor};

use super::latents::{Latents, affine};
use super::strips::{Cut, Reach, Seen, Strips};
use super::{Codec, CodecAbout, Halves, lacks, picture_by_picture, shape_of};

/// Where latents are clamped before they are decoded: 3·tanh(z/3).
const MAGNITUDE: f32 = 3.0;

/// The sizes of an [`AutoencoderTiny`].
#[derive(Clone, Debug, PartialEq)]
pub struct TinyConfig {
    /// Channels of pictures.
    pub picture_channels: usize,
    /// Channels of latents.
    pub latent_channels: usize,
    /// Channels of every map.
    pub width: usize,
    /// Residual blocks of each level of the encoder, that of whole pictures first.
    pub encoder_blocks: Vec<usize>,
    /// Residual blocks of each level of the decoder, that of latents first.
    pub decoder_blocks: Vec<usize>,
    /// How its latents become a denoiser's: as they are, but for files that say otherwise.
    pub latents: Latents,
}

impl TinyConfig {
    /// TAESD's, for latents of so many channels.
    pub fn taesd(latent_channels: usize) -> TinyConfig {
        TinyConfig {
            picture_channels: 3,
            latent_channels,
            width: 64,
            encoder_blocks: vec![1, 3, 3, 3],
            decoder_blocks: vec![3, 3, 3, 1],
            latents: Latents::default(),
        }
    }

    /// Refuses sizes that no such network has.
    ///
    /// # Errors
    /// [`Error::Config`] naming the size.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::Config(format!("a small autoencoder {what}")));
        let levels = [&self.encoder_blocks, &self.decoder_blocks].map(Vec::len);
        if levels[0] != levels[1] || !(1..=8).contains(&levels[0]) {
            return refuse(format!("of {} levels down and {} up: as many, 1 to 8", levels[0], levels[1]));
        }
        for (what, channels) in
            [("pictures", self.picture_channels), ("latents", self.latent_channels), ("maps", self.width)]
        {
            if !(1..=4096).contains(&channels) {
                return refuse(format!("whose {what} have {channels} channels; 1 to 4096 are possible"));
            }
        }
        if self.encoder_blocks.iter().chain(&self.decoder_blocks).any(|blocks| *blocks > 64) {
            return refuse(format!("of {:?} and {:?} blocks", self.encoder_blocks, self.decoder_blocks));
        }
        if !self.latents.suits(self.latent_channels) {
            return refuse(format!("of {} channels of latents, with other factors", self.latent_channels));
        }
        Ok(())
    }
}

/// ReLU(x + conv(ReLU(conv(ReLU(conv(x)))))).
#[derive(Clone, Debug)]
struct Block([Conv2d; 3]);

impl Block {
    fn new(parameters: &mut Parameters, name: &str, width: usize) -> Self {
        Block([0, 2, 4].map(|i| Conv2d::new(parameters, &format!("{name}.conv.{i}"), [width; 2], 3, false)))
    }
}

/// What follows a layer.
#[derive(Clone, Debug)]
enum Layer {
    Conv(Conv2d),
    /// A convolution and a ReLU.
    Bent(Conv2d),
    Block(Block),
    /// Each pixel four times, then a convolution.
    Doubled(Conv2d),
}

/// Layers one after the other.
#[derive(Clone, Debug)]
struct Stack {
    layers: Vec<Layer>,
}

impl Stack {
    fn encoder(parameters: &mut Parameters, config: &TinyConfig) -> Self {
        let (mut layers, width) = (Vec::new(), config.width);
        let mut number = 0;
        let mut name = || {
            number += 1;
            format!("encoder.layers.{}", number - 1)
        };
        for (level, blocks) in config.encoder_blocks.iter().enumerate() {
            layers.push(Layer::Conv(match level {
                0 => Conv2d::new(parameters, &name(), [config.picture_channels, width], 3, false),
                _ => Conv2d::unbiased(parameters, &name(), [width; 2], 3).stride(2),
            }));
            layers.extend((0..*blocks).map(|_| Layer::Block(Block::new(parameters, &name(), width))));
        }
        let last = Conv2d::new(parameters, &name(), [width, config.latent_channels], 3, false);
        layers.push(Layer::Conv(last));
        Stack { layers }
    }

    /// Numbers as in files: a ReLU and a doubling have theirs, too.
    fn decoder(parameters: &mut Parameters, config: &TinyConfig) -> Self {
        let width = config.width;
        let name = |number: usize| format!("decoder.layers.{number}");
        let first = Conv2d::new(parameters, &name(0), [config.latent_channels, width], 3, false);
        let (mut layers, mut number) = (vec![Layer::Bent(first)], 2);
        for (level, blocks) in config.decoder_blocks.iter().enumerate() {
            for _ in 0..*blocks {
                layers.push(Layer::Block(Block::new(parameters, &name(number), width)));
                number += 1;
            }
            if level + 1 == config.decoder_blocks.len() {
                let last = Conv2d::new(parameters, &name(number), [width, config.picture_channels], 3, false);
                layers.push(Layer::Conv(last));
            } else {
                layers.push(Layer::Doubled(Conv2d::unbiased(parameters, &name(number + 1), [width; 2], 3)));
                number += 2;
            }
        }
        Stack { layers }
    }

    /// x `[N, H, W, C]`; f32 is what comes out.
    fn forward(&self, cx: &mut Context, weights: &Weights, cut: Cut, x: &Tensor) -> Result<Tensor> {
        let mut h = Strips::whole(x)?;
        let keep = |_: &mut Context, y| Ok(y);
        let relu = |cx: &mut Context, y: Tensor| ops::relu(cx, &y);
        let around = Reach::Around;
        for layer in &self.layers {
            h = match layer {
                Layer::Conv(conv) => {
                    Strips::convolve((cx, weights, cut), conv, &Seen::Plain(h), around, None, keep)?
                }
                Layer::Bent(conv) => {
                    Strips::convolve((cx, weights, cut), conv, &Seen::Plain(h), around, None, relu)?
                }
                Layer::Doubled(conv) => {
                    Strips::convolve((cx, weights, cut), conv, &Seen::Doubled(h), around, None, keep)?
                }
                Layer::Block(Block([first, second, third])) => {
                    let seen = Seen::Plain(h.clone());
                    let inside = Strips::convolve((cx, weights, cut), first, &seen, around, None, relu)?;
                    let seen = Seen::Plain(inside);
                    let inside = Strips::convolve((cx, weights, cut), second, &seen, around, None, relu)?;
                    let seen = Seen::Plain(inside);
                    Strips::convolve((cx, weights, cut), third, &seen, around, Some(&h), relu)?
                }
            };
        }
        let y = h.join(cx)?;
        ops::cast(cx, &y, DType::F32)
    }
}

/// A small autoencoder, or half of one.
#[derive(Clone, Debug)]
pub struct AutoencoderTiny {
    config: TinyConfig,
    about: CodecAbout,
    parameters: Parameters,
    encoder: Option<Stack>,
    decoder: Option<Stack>,
    strip_bytes: Option<u64>,
}

impl AutoencoderTiny {
    /// Declares its parameters, those of the `halves` alone.
    ///
    /// # Errors
    /// As [`TinyConfig::check`].
    pub fn new(config: &TinyConfig, halves: Halves) -> Result<Self> {
        config.check()?;
        let mut parameters = Parameters::default();
        let encoder = halves.encodes().then(|| Stack::encoder(&mut parameters, config));
        let decoder = halves.decodes().then(|| Stack::decoder(&mut parameters, config));
        let about = CodecAbout {
            picture_channels: config.picture_channels,
            latent_channels: config.latent_channels,
            factor: 1 << (config.encoder_blocks.len() - 1),
            halves,
            latents: config.latents.clone(),
        };
        Ok(AutoencoderTiny { config: config.clone(), about, parameters, encoder, decoder, strip_bytes: None })
    }

    /// As [`AutoencoderKl::in_strips_of`](super::AutoencoderKl::in_strips_of).
    pub fn in_strips_of(self, bytes: u64) -> Self {
        AutoencoderTiny { strip_bytes: Some(bytes), ..self }
    }

    /// Its sizes.
    pub fn config(&self) -> &TinyConfig {
        &self.config
    }

    fn cut(&self, cx: &Context, n: usize, pixels: usize, dtype: DType) -> Cut {
        Cut::of(cx, (n * pixels * self.config.width * dtype.bytes()) as u64, self.strip_bytes)
    }
}

impl Codec for AutoencoderTiny {
    fn about(&self) -> &CodecAbout {
        &self.about
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// It says no distribution: `noise` is not looked at.
    fn encode(
        &self,
        cx: &mut Context,
        weights: &Weights,
        x: &Tensor,
        _noise: Option<&Tensor>,
        dtype: DType,
    ) -> Result<Tensor> {
        let encoder = self.encoder.as_ref().ok_or_else(|| lacks("encoder"))?;
        let (n, pictures) = shape_of(x, "encode", self.config.picture_channels)?;
        let latent = self.latent_of(pictures)?;
        let cut = self.cut(cx, n, pictures.extent.places(), dtype);
        if n > 1 && !cut.is_whole() {
            return picture_by_picture(cx, &[x], latent.nhwc(n), |cx, one| {
                self.encode(cx, weights, &one[0], None, dtype)
            });
        }
        let x = affine(cx, x, |_| [0.5, 0.5])?;
        let x = ops::cast(cx, &x, dtype)?;
        let raw = encoder.forward(cx, weights, cut, &x)?;
        self.config.latents.seen(cx, &raw)
    }

    fn decode(&self, cx: &mut Context, weights: &Weights, z: &Tensor, dtype: DType) -> Result<Tensor> {
        let decoder = self.decoder.as_ref().ok_or_else(|| lacks("decoder"))?;
        let (n, latent) = shape_of(z, "decode", self.config.latent_channels)?;
        let pictures = self.pixels_of(latent);
        let cut = self.cut(cx, n, pictures.extent.places(), dtype);
        if n > 1 && !cut.is_whole() {
            return picture_by_picture(cx, &[z], pictures.nhwc(n), |cx, one| {
                self.decode(cx, weights, &one[0], dtype)
            });
        }
        let raw = self.config.latents.raw(cx, z)?;
        let clamped = ops::soft_clamp(cx, &raw, MAGNITUDE)?;
        let clamped = ops::cast(cx, &clamped, dtype)?;
        let x = decoder.forward(cx, weights, cut, &clamped)?;
        affine(cx, &x, |_| [2.0, -1.0])
    }
}
