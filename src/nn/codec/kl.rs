//! The autoencoder of latent diffusion (Rombach et al. 2022): residual blocks over levels of half the size each, one wide head of
//! attention in the middle. Its encoder says means and log-variances.
//!
//! Parameters have the names of diffusers' `AutoencoderKL`. Group norms add 1e-6; a level is halved by a 3x3 convolution of
//! stride 2 that is padded behind alone.

use crate::error::{Error, Result};
use crate::nn::layers::{Conv2d, Linear, Norm};
use crate::nn::parameters::Parameters;
use crate::nn::weights::Weights;
use crate::ops;
use crate::tensor::{Context, DType, Tensor};

use super::latents::{Latents, affine};
use super::strips::{Cut, Reach, Seen, Strips};
use super::{Codec, CodecAbout, Halves, lacks, picture_by_picture, shape_of};

/// Added to the variance by every group norm.
const EPS: f32 = 1e-6;

/// The sizes of an [`AutoencoderKl`].
#[derive(Clone, Debug, PartialEq)]
pub struct KlConfig {
    /// Channels of pictures.
    pub picture_channels: usize,
    /// Channels of each level, that of whole pictures first.
    pub channels: Vec<usize>,
    /// Residual blocks of a level of the encoder; the decoder has one more.
    pub layers: usize,
    /// Channels of latents.
    pub latent_channels: usize,
    /// Groups of group norms.
    pub groups: usize,
    /// Whether the middle attends.
    pub attends: bool,
    /// Whether a 1x1 convolution stands behind the encoder.
    pub quant: bool,
    /// Whether a 1x1 convolution stands before the decoder.
    pub post_quant: bool,
    /// How its latents become a denoiser's.
    pub latents: Latents,
    /// Whether it was used with pictures in [0, 1] instead of [-1, 1], as EDM2's latents were.
    pub unit_pictures: bool,
}

impl KlConfig {
    /// Stable Diffusion's.
    pub fn stable_diffusion() -> KlConfig {
        KlConfig {
            picture_channels: 3,
            channels: vec![128, 256, 512, 512],
            layers: 2,
            latent_channels: 4,
            groups: 32,
            attends: true,
            quant: true,
            post_quant: true,
            latents: Latents::scaled(0.18215, 0.0).expect("it is a factor"),
            unit_pictures: false,
        }
    }

    /// Pixels of a latent's place, along each axis.
    fn factor(&self) -> usize {
        1 << (self.channels.len() - 1)
    }

    /// Refuses sizes that no such network has.
    ///
    /// # Errors
    /// [`Error::Config`] naming the size.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::Config(format!("an autoencoder {what}")));
        let levels = self.channels.len();
        if !(1..=8).contains(&levels) || !(1..=64).contains(&self.layers) {
            return refuse(format!(
                "of {levels} levels of {} residual blocks: 1 to 8 of 1 to 64",
                self.layers
            ));
        }
        for (what, channels) in [("pictures", self.picture_channels), ("latents", self.latent_channels)] {
            if !(1..=1024).contains(&channels) {
                return refuse(format!("whose {what} have {channels} channels; 1 to 1024 are possible"));
            }
        }
        let bad = |channels: &&usize| {
            self.groups == 0 || !(1..=1 << 14).contains(*channels) || !channels.is_multiple_of(self.groups)
        };
        if let Some(channels) = self.channels.iter().find(bad) {
            return refuse(format!(
                "of a level of {channels} channels, which do not divide into {} groups",
                self.groups
            ));
        }
        if !self.latents.suits(self.latent_channels) {
            let channels = self.latent_channels;
            return refuse(format!(
                "of {channels} channels of latents, with another number of means or spreads"
            ));
        }
        Ok(())
    }
}

/// Norm, SiLU, convolution, twice, plus the (projected) input.
#[derive(Clone, Debug)]
struct Resnet {
    norm1: Norm,
    conv1: Conv2d,
    norm2: Norm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl Resnet {
    fn new(parameters: &mut Parameters, name: &str, [inputs, outputs]: [usize; 2], groups: usize) -> Self {
        let norm = |parameters: &mut Parameters, part: &str, channels| {
            Norm::new(parameters, &format!("{name}.{part}"), channels, groups, true).eps(EPS)
        };
        let norm1 = norm(parameters, "norm1", inputs);
        let conv1 = Conv2d::new(parameters, &format!("{name}.conv1"), [inputs, outputs], 3, false);
        let norm2 = norm(parameters, "norm2", outputs);
        let conv2 = Conv2d::new(parameters, &format!("{name}.conv2"), [outputs, outputs], 3, false);
        let shortcut = (inputs != outputs)
            .then(|| Conv2d::new(parameters, &format!("{name}.conv_shortcut"), [inputs, outputs], 1, false));
        Resnet { norm1, conv1, norm2, conv2, shortcut }
    }

    fn forward(&self, cx: &mut Context, weights: &Weights, cut: Cut, x: Strips) -> Result<Strips> {
        let seen = x.normed(cx, weights, &self.norm1)?;
        let (mut inside, mut beside) = (Vec::new(), Vec::new());
        // What is made of a strip of x is made together, so that it may go.
        for rows in Strips::cut(cut, weights, &self.conv1, &seen) {
            inside.push(seen.convolve(cx, weights, &self.conv1, Reach::Around, rows.clone(), None)?);
            if let Some(shortcut) = &self.shortcut {
                let x = x.rows(cx, rows)?;
                beside.push(shortcut.forward(cx, weights, &x)?);
            }
        }
        let x = if self.shortcut.is_some() { beside.into_iter().collect() } else { x };
        let seen = inside.into_iter().collect::<Strips>().normed(cx, weights, &self.norm2)?;
        Strips::convolve((cx, weights, cut), &self.conv2, &seen, Reach::Around, Some(&x), |_, y| Ok(y))
    }
}

/// One head over all pixels: x + out(attention(norm(x))).
#[derive(Clone, Debug)]
struct Attention {
    norm: Norm,
    /// Queries, keys, values, and what becomes of them.
    maps: [Linear; 4],
}

impl Attention {
    fn new(parameters: &mut Parameters, name: &str, channels: usize, groups: usize) -> Self {
        let norm = Norm::new(parameters, &format!("{name}.group_norm"), channels, groups, false).eps(EPS);
        let maps = ["to_q", "to_k", "to_v", "to_out.0"]
            .map(|part| Linear::new(parameters, &format!("{name}.{part}"), [channels; 2]));
        Attention { norm, maps }
    }

    /// x `[N, H, W, C]`.
    fn forward(&self, cx: &mut Context, weights: &Weights, x: &Tensor) -> Result<Tensor> {
        let &[n, height, width, channels] = x.shape() else { unreachable!("a map is [N, H, W, C]") };
        let normed = self.norm.forward(cx, weights, x, None)?.reshape(&[n, height * width, channels])?;
        let [q, k, v, out] = &self.maps;
        let [q, k, v] = [q, k, v].map(|map| map.forward(cx, weights, &normed));
        let seen = ops::wide_attention(cx, &q?, &k?, &v?)?;
        let x = x.reshape(seen.shape())?;
        out.forward_add(cx, weights, &seen, &x)?.reshape(&[n, height, width, channels])
    }
}

/// The middle.
#[derive(Clone, Debug)]
struct Middle {
    resnets: [Resnet; 2],
    attention: Option<Attention>,
}

impl Middle {
    fn new(parameters: &mut Parameters, name: &str, channels: usize, config: &KlConfig) -> Self {
        let resnet = |parameters: &mut Parameters, i: usize| {
            Resnet::new(parameters, &format!("{name}.resnets.{i}"), [channels; 2], config.groups)
        };
        let first = resnet(parameters, 0);
        let attention = config
            .attends
            .then(|| Attention::new(parameters, &format!("{name}.attentions.0"), channels, config.groups));
        Middle { resnets: [first, resnet(parameters, 1)], attention }
    }

    fn forward(&self, cx: &mut Context, weights: &Weights, cut: Cut, x: Strips) -> Result<Strips> {
        let mut x = self.resnets[0].forward(cx, weights, cut, x)?;
        if let Some(attention) = &self.attention {
            let whole = x.join(cx)?;
            x = Strips::whole(&attention.forward(cx, weights, &whole)?)?;
        }
        self.resnets[1].forward(cx, weights, cut, x)
    }
}

/// Residual blocks, and what comes to the next level.
#[derive(Clone, Debug)]
struct Level {
    resnets: Vec<Resnet>,
    resample: Option<Conv2d>,
}

#[derive(Clone, Debug)]
struct Encoder {
    conv_in: Conv2d,
    levels: Vec<Level>,
    middle: Middle,
    norm_out: Norm,
    conv_out: Conv2d,
    quant: Option<Conv2d>,
}

impl Encoder {
    fn new(parameters: &mut Parameters, config: &KlConfig) -> Self {
        let (channels, latent) = (&config.channels, config.latent_channels);
        let conv_in =
            Conv2d::new(parameters, "encoder.conv_in", [config.picture_channels, channels[0]], 3, false);
        let mut levels = Vec::new();
        for (i, &outputs) in channels.iter().enumerate() {
            let name = format!("encoder.down_blocks.{i}");
            let before = channels[i.saturating_sub(1)];
            let resnets = (0..config.layers).map(|j| {
                let inputs = if j == 0 { before } else { outputs };
                Resnet::new(parameters, &format!("{name}.resnets.{j}"), [inputs, outputs], config.groups)
            });
            let resnets = resnets.collect();
            let resample = (i + 1 < channels.len()).then(|| {
                Conv2d::new(parameters, &format!("{name}.downsamplers.0.conv"), [outputs; 2], 3, false)
                    .stride(2)
            });
            levels.push(Level { resnets, resample });
        }
        let last = channels[channels.len() - 1];
        let middle = Middle::new(parameters, "encoder.mid_block", last, config);
        let norm_out = Norm::new(parameters, "encoder.conv_norm_out", last, config.groups, true).eps(EPS);
        let conv_out = Conv2d::new(parameters, "encoder.conv_out", [last, 2 * latent], 3, false);
        let quant = config.quant.then(|| Conv2d::new(parameters, "quant_conv", [2 * latent; 2], 1, false));
        Encoder { conv_in, levels, middle, norm_out, conv_out, quant }
    }

    /// Means and log-variances `[N, h, w, 2c]` f32 of x `[N, H, W, C]`.
    fn forward(&self, cx: &mut Context, weights: &Weights, cut: Cut, x: &Tensor) -> Result<Tensor> {
        let seen = Seen::Plain(Strips::whole(x)?);
        let keep = |_: &mut Context, y| Ok(y);
        let mut h = Strips::convolve((cx, weights, cut), &self.conv_in, &seen, Reach::Around, None, keep)?;
        for level in &self.levels {
            for resnet in &level.resnets {
                h = resnet.forward(cx, weights, cut, h)?;
            }
            if let Some(conv) = &level.resample {
                h = Strips::convolve((cx, weights, cut), conv, &Seen::Plain(h), Reach::Behind, None, keep)?;
            }
        }
        h = self.middle.forward(cx, weights, cut, h)?;
        let seen = h.normed(cx, weights, &self.norm_out)?;
        h = Strips::convolve((cx, weights, cut), &self.conv_out, &seen, Reach::Around, None, keep)?;
        let moments = h.join(cx)?;
        let moments = ops::cast(cx, &moments, DType::F32)?;
        match &self.quant {
            Some(quant) => quant.forward(cx, weights, &moments),
            None => Ok(moments),
        }
    }
}

#[derive(Clone, Debug)]
struct Decoder {
    post_quant: Option<Conv2d>,
    conv_in: Conv2d,
    middle: Middle,
    levels: Vec<Level>,
    norm_out: Norm,
    conv_out: Conv2d,
}

impl Decoder {
    fn new(parameters: &mut Parameters, config: &KlConfig) -> Self {
        let (channels, latent) = (&config.channels, config.latent_channels);
        let last = channels[channels.len() - 1];
        let post_quant =
            config.post_quant.then(|| Conv2d::new(parameters, "post_quant_conv", [latent; 2], 1, false));
        let conv_in = Conv2d::new(parameters, "decoder.conv_in", [latent, last], 3, false);
        let middle = Middle::new(parameters, "decoder.mid_block", last, config);
        let mut levels = Vec::new();
        let mut before = last;
        for (i, &outputs) in channels.iter().rev().enumerate() {
            let name = format!("decoder.up_blocks.{i}");
            let resnets = (0..=config.layers).map(|j| {
                let inputs = if j == 0 { before } else { outputs };
                Resnet::new(parameters, &format!("{name}.resnets.{j}"), [inputs, outputs], config.groups)
            });
            let resnets = resnets.collect();
            let resample = (i + 1 < channels.len()).then(|| {
                Conv2d::new(parameters, &format!("{name}.upsamplers.0.conv"), [outputs; 2], 3, false)
            });
            levels.push(Level { resnets, resample });
            before = outputs;
        }
        let norm_out =
            Norm::new(parameters, "decoder.conv_norm_out", channels[0], config.groups, true).eps(EPS);
        let conv_out =
            Conv2d::new(parameters, "decoder.conv_out", [channels[0], config.picture_channels], 3, false);
        Decoder { post_quant, conv_in, middle, levels, norm_out, conv_out }
    }

    /// Pictures `[N, H, W, C]` f32 of raw latents `[N, h, w, c]` f32.
    fn forward(
        &self,
        cx: &mut Context,
        weights: &Weights,
        cut: Cut,
        z: &Tensor,
        dtype: DType,
    ) -> Result<Tensor> {
        let z = match &self.post_quant {
            Some(post_quant) => post_quant.forward(cx, weights, z)?,
            None => z.clone(),
        };
        let seen = Seen::Plain(Strips::whole(&ops::cast(cx, &z, dtype)?)?);
        let keep = |_: &mut Context, y| Ok(y);
        let mut h = Strips::convolve((cx, weights, cut), &self.conv_in, &seen, Reach::Around, None, keep)?;
        h = self.middle.forward(cx, weights, cut, h)?;
        for level in &self.levels {
            for resnet in &level.resnets {
                h = resnet.forward(cx, weights, cut, h)?;
            }
            if let Some(conv) = &level.resample {
                h = Strips::convolve((cx, weights, cut), conv, &Seen::Doubled(h), Reach::Around, None, keep)?;
            }
        }
        let seen = h.normed(cx, weights, &self.norm_out)?;
        let to_f32 = |cx: &mut Context, y: Tensor| ops::cast(cx, &y, DType::F32);
        h = Strips::convolve((cx, weights, cut), &self.conv_out, &seen, Reach::Around, None, to_f32)?;
        h.join(cx)
    }
}

/// An autoencoder with means and log-variances, or half of one.
#[derive(Clone, Debug)]
pub struct AutoencoderKl {
    config: KlConfig,
    about: CodecAbout,
    parameters: Parameters,
    encoder: Option<Encoder>,
    decoder: Option<Decoder>,
    strip_bytes: Option<u64>,
}

impl AutoencoderKl {
    /// Declares its parameters, those of the `halves` alone.
    ///
    /// # Errors
    /// As [`KlConfig::check`].
    pub fn new(config: &KlConfig, halves: Halves) -> Result<Self> {
        config.check()?;
        let mut parameters = Parameters::default();
        let encoder = halves.encodes().then(|| Encoder::new(&mut parameters, config));
        let decoder = halves.decodes().then(|| Decoder::new(&mut parameters, config));
        let about = CodecAbout {
            picture_channels: config.picture_channels,
            latent_channels: config.latent_channels,
            factor: config.factor(),
            halves,
            latents: config.latents.clone(),
        };
        Ok(AutoencoderKl { config: config.clone(), about, parameters, encoder, decoder, strip_bytes: None })
    }

    /// The same with feature maps in strips of at most so many bytes, or two rows. Without it they are whole where the device's
    /// bindings hold them, and else in strips that these do hold.
    pub fn in_strips_of(self, bytes: u64) -> Self {
        AutoencoderKl { strip_bytes: Some(bytes), ..self }
    }

    /// Its sizes.
    pub fn config(&self) -> &KlConfig {
        &self.config
    }

    /// How maps are cut for `n` pictures of so many pixels.
    fn cut(&self, cx: &Context, n: usize, pixels: usize, dtype: DType) -> Cut {
        let channels = &self.config.channels;
        let widest = |level: usize| channels[level].max(channels[(level + 1).min(channels.len() - 1)]);
        let largest = (0..channels.len()).map(|level| (pixels >> (2 * level)) * widest(level)).max();
        Cut::of(cx, (n * largest.unwrap_or(0) * dtype.bytes()) as u64, self.strip_bytes)
    }
}

impl Codec for AutoencoderKl {
    fn about(&self) -> &CodecAbout {
        &self.about
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn encode(
        &self,
        cx: &mut Context,
        weights: &Weights,
        x: &Tensor,
        noise: Option<&Tensor>,
        dtype: DType,
    ) -> Result<Tensor> {
        let encoder = self.encoder.as_ref().ok_or_else(|| lacks("encoder"))?;
        let (n, pictures) = shape_of(x, "encode", self.config.picture_channels)?;
        let latent = self.latent_of(pictures)?;
        let cut = self.cut(cx, n, pictures.extent.places(), dtype);
        if n > 1 && !cut.is_whole() {
            let inputs: Vec<&Tensor> = [x].into_iter().chain(noise).collect();
            return picture_by_picture(cx, &inputs, latent.nhwc(n), |cx, one| {
                self.encode(cx, weights, &one[0], one.get(1), dtype)
            });
        }
        let x = if self.config.unit_pictures { affine(cx, x, |_| [0.5, 0.5])? } else { x.clone() };
        let x = ops::cast(cx, &x, dtype)?;
        let moments = encoder.forward(cx, weights, cut, &x)?;
        let raw = ops::posterior_sample(cx, &moments, noise)?;
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
        let x = decoder.forward(cx, weights, cut, &raw, dtype)?;
        if self.config.unit_pictures { affine(cx, &x, |_| [2.0, -1.0]) } else { Ok(x) }
    }
}
