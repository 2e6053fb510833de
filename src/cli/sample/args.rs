//! What `sample` takes.

use std::path::PathBuf;

use crate::cli::guider;
use crate::cli::model_args::ModelArgs;
use crate::cli::shared_args::{ForceArgs, PrecisionArgs};
use crate::cli::{DeviceArgs, number, ranges, samplers};
use crate::diffusion::{Respacing, SamplerKind, Spacing};
use crate::shape::Extent;

/// Shown first by `--help`.
const EXAMPLES: &str = "\
Examples:
  freeguide sample --model out/digits --class 7 --w 2 --seeds 0-15
  freeguide sample --model sd15.safetensors --prompt 'a red fox' --size 512x512 --seeds 1
  freeguide sample --model out/digits --guider 'interval(lo=-2,hi=6)+rescale(0.7)' --force";

/// Make pictures with a model.
#[derive(clap::Args)]
#[command(before_help = EXAMPLES, after_long_help = samplers::table() + "\n" + &guider::table())]
pub struct Args {
    /// The model: a training's folder, a .safetensors file beside its config.json, or a .pt file of guided-diffusion.
    #[arg(long, value_name = "DIR|FILE")]
    pub(super) model: PathBuf,
    #[command(flatten)]
    pub(super) opening: ModelArgs,
    /// The class by number or name, `none` for no condition, `all` for every class.
    #[arg(long, value_name = "N|name|none|all", default_value = "all")]
    pub(super) class: String,
    /// What a text-to-image model is to draw; given several times, several pictures of each seed.
    #[arg(long, value_name = "TEXT", help_heading = "Text", conflicts_with_all = ["class", "attributes"])]
    pub(super) prompt: Vec<String>,
    /// What guidance leads away from instead of the empty text.
    #[arg(long, value_name = "TEXT", requires = "prompt", help_heading = "Text")]
    pub(super) negative: Option<String>,
    /// Which layer of the text encoder is read: 1 is its last, 2 the last but one [default: the model's].
    #[arg(
        long,
        value_name = "N",
        requires = "prompt",
        value_parser = number::count(1..=64),
        help_heading = "Text"
    )]
    pub(super) clip_skip: Option<usize>,
    /// The text encoder, where the model does not bring its own.
    #[arg(long, value_name = "DIR|FILE", requires = "prompt", help_heading = "Text")]
    pub(super) text_encoder: Option<PathBuf>,
    /// The autoencoder that makes pictures of latents, where it is not to be the model's own.
    #[arg(long, value_name = "DIR|FILE", requires = "prompt", help_heading = "Text")]
    pub(super) vae: Option<PathBuf>,
    /// Begin with this noise instead of the seeds': a float32 .npy of [N,H,W,C].
    #[arg(long, value_name = "FILE.npy", help_heading = "Text", requires = "prompt")]
    pub(super) noise: Option<PathBuf>,
    /// Write the noise that the pictures begin with.
    #[arg(long, value_name = "FILE.npy", help_heading = "Text", requires = "prompt")]
    pub(super) save_noise: Option<PathBuf>,
    /// Write to the .npz what comes out before it is rounded to bytes: float32, in 0..1.
    #[arg(long, help_heading = "Text", requires = "prompt")]
    pub(super) float: bool,
    /// What else the picture is to be, of a model trained with --attributes: thickness=2,slant=0.3; what is not named is left
    /// open.
    #[arg(long, value_name = "NAME=VALUE,…")]
    pub(super) attributes: Option<String>,
    /// Guidance weight w of the CFG paper: 0 is plain conditional, -1 unconditional [default: 1; 0 of a model without a null
    /// class].
    #[arg(
        long,
        value_name = "F",
        allow_negative_numbers = true,
        conflicts_with = "guidance_scale",
        value_parser = number::real(-number::MOST_WEIGHT..=number::MOST_WEIGHT)
    )]
    pub(super) w: Option<f64>,
    /// The same as most tools count it: scale = 1 + w; 1 is plain conditional, 0 unconditional.
    #[arg(
        long,
        value_name = "F",
        allow_negative_numbers = true,
        value_parser = number::real(1.0 - number::MOST_WEIGHT..=1.0 + number::MOST_WEIGHT),
        help_heading = "Guidance"
    )]
    pub(super) guidance_scale: Option<f64>,
    /// How guidance is done, guiders joined by +, as in interval(lo=-2,hi=6)+rescale(0.7); see below.
    #[arg(long, value_name = "GUIDERS", default_value = "", help_heading = "Guidance")]
    pub(super) guider: String,
    /// Denoising steps [default: the model's].
    #[arg(
        long,
        value_name = "N",
        value_parser = number::count(1..=number::MOST_STEPS),
        help_heading = "Sampler"
    )]
    pub(super) steps: Option<usize>,
    #[arg(long, value_name = "NAME", help_heading = "Sampler", help = samplers::help())]
    pub(super) sampler: Option<SamplerKind>,
    /// Begin with what is there, --seeds being the numbers of which: pictures, as `train` takes them, for ddim-reverse, whose
    /// latents go to a .npz; such a .npz for any other sampler.
    #[arg(long, value_name = "DATA|LATENTS.npz", help_heading = "Sampler")]
    pub(super) from: Option<String>,
    #[arg(
        long,
        value_name = "F",
        value_parser = number::real(0.0..=1.0),
        help_heading = "Sampler",
        help = samplers::eta_help()
    )]
    pub(super) eta: Option<f64>,
    /// Steps of a discrete process: 250 evenly, 90,60,60,20,20 so many in each fifth, ddim25 by a fixed stride.
    #[arg(long, value_name = "SPEC", conflicts_with = "steps", help_heading = "Sampler")]
    pub(super) respacing: Option<Respacing>,
    /// How the levels lie between noise and picture: edm, karras, exponential, uniform (linspace), trailing, leading, leading+1
    /// [default: the model's; edm for euler, heun and the like, else uniform].
    #[arg(long, value_name = "NAME", conflicts_with = "respacing", help_heading = "Sampler")]
    pub(super) spacing: Option<Spacing>,
    /// Variance of ancestral steps of a discrete process: small, large, learned [default: the model's].
    #[arg(long, value_name = "small|large|learned", help_heading = "Sampler")]
    pub(super) variance: Option<String>,
    /// Exponent v of the reverse variance in continuous time, from 0 (least noise) to 1 (most) [default: the model's].
    #[arg(long, value_name = "F", value_parser = number::real(0.0..=1.0), help_heading = "Sampler")]
    pub(super) v: Option<f64>,
    /// Seeds of the pictures; for several classes each class is made with each seed.
    #[arg(long, value_name = "0-15,20", default_value = "0-7", value_parser = number::checked(ranges::seeds))]
    pub(super) seeds: String,
    /// Size of the pictures, where it is another than the model was trained at: the side of squares, or both, as in 96x64; of
    /// multiples of what its levels halve.
    #[arg(long, value_name = "N|HxW", value_parser = number::size(number::MOST_SIDE), help_heading = "Sampler")]
    pub(super) size: Option<Extent>,
    /// Pictures at a time. It never changes a picture.
    #[arg(
        long,
        value_name = "N",
        value_parser = number::count(1..=number::MOST_BATCH),
        help_heading = "Device"
    )]
    pub(super) batch: Option<usize>,
    /// What keeps a prediction within the range of pictures: none, static, dynamic [default: the model's].
    #[arg(long, value_name = "none|static|dynamic", help_heading = "Sampler")]
    pub(super) clip: Option<String>,
    /// A classifier of noisy pictures to guide with, from `train-classifier`.
    #[arg(long, value_name = "DIR|FILE", help_heading = "Guidance")]
    pub(super) classifier: Option<PathBuf>,
    /// How strongly the classifier guides: the factor of its gradient [default: 1].
    #[arg(
        long,
        value_name = "F",
        allow_negative_numbers = true,
        requires = "classifier",
        value_parser = number::real(-1e6..=1e6),
        help_heading = "Guidance"
    )]
    pub(super) classifier_scale: Option<f64>,
    /// Where the unconditional half of guidance comes from: the network's null class, or `from-classes`: the predictions
    /// of all classes, weighed by what the chain so far says of the class. An evaluation for each class, few of them.
    #[arg(
        long,
        value_name = "null|from-classes",
        default_value = "null",
        value_parser = ["null", "from-classes"],
        help_heading = "Guidance"
    )]
    pub(super) uncond: String,
    /// Another model for the unconditional half of guidance: one trained without classes.
    #[arg(long, value_name = "DIR|FILE", help_heading = "Guidance")]
    pub(super) uncond_model: Option<PathBuf>,
    /// An upsampler to make the pictures larger with, from `train --upsample-from`; guidance is for the first model only.
    #[arg(long, value_name = "DIR|FILE", help_heading = "Second stage")]
    pub(super) upsampler: Option<PathBuf>,
    /// Steps of the upsampler [default: its own].
    #[arg(
        long,
        value_name = "N",
        requires = "upsampler",
        value_parser = number::count(1..=number::MOST_STEPS),
        help_heading = "Second stage"
    )]
    pub(super) upsampler_steps: Option<usize>,
    /// Evaluate with and without the class one after the other: half the memory, the same picture.
    #[arg(long, help_heading = "Device")]
    pub(super) two_pass: bool,
    /// Sooner done for few pictures at a time, at the price of last bits that depend on how many.
    #[arg(long, help_heading = "Device")]
    pub(super) fast: bool,
    /// A .png for all pictures in a grid, a .npz (arr_0, arr_1), or a folder for one .png each.
    #[arg(long, value_name = "FILE.png|FILE.npz|DIR", default_value = "samples.png")]
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) force: ForceArgs,
    #[command(flatten, next_help_heading = "Device")]
    pub(super) precision: PrecisionArgs,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
    /// Afterwards print the GPU time of one step by kernel.
    #[arg(long, help_heading = "Device")]
    pub(super) profile: bool,
}
