//! What `train` takes.

use std::path::PathBuf;

use crate::cli::data::DataArgs;
use crate::cli::shared_args::{
    AttentionArgs, AverageArgs, FlipArgs, ImageSizeArgs, ImagesArgs, PrecisionArgs, RateArgs, SaveArgs,
    SeedArgs, StepsTotalArgs,
};
use crate::cli::{DeviceArgs, number, start};
use crate::diffusion::{Prediction, TimeSampler};
use crate::shape::Extent;
use crate::train::{LossKind, TrainSchedule};

use super::network::VariationArgs;

/// Shown first by `--help`.
const EXAMPLES: &str = "\
Examples:
  freeguide train --data digits --out out/digits
  freeguide train --data pictures/ --image-size 64 --out out/pictures --dry-run
  freeguide train --data cifar10.zip --preset cifar10 --flip --out out/cifar10";

/// Train a class-conditional model with label dropout. The same command again resumes.
#[derive(clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// Pictures and their labels: `digits`, a folder or .zip (with dataset.json, metadata.csv or metadata.jsonl, with class
    /// sub-folders, or of class_name.png files), or an IDX images file (its labels beside it).
    #[arg(long, value_name = "digits|DIR|FILE.zip|IDX")]
    pub(super) data: String,
    /// Take no labels of the data: train a network without a class condition.
    #[arg(long, conflicts_with = "label", help_heading = "Data")]
    pub(super) unlabelled: bool,
    #[command(flatten)]
    pub(super) reading: DataArgs,
    /// What the network is told of a picture beside its class, as a vector: columns of the data's metadata.csv or
    /// metadata.jsonl, of numbers or names; of the digits thickness and slant. With `class` among them the class is a part of
    /// the vector and not of a table.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', help_heading = "Data")]
    pub(super) attributes: Vec<String>,
    /// Where the model, the log and the states go.
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// Where all other options start from: digits, custom, cifar10, imagenet64 [default: digits for the digits, else
    /// custom].
    #[arg(long, value_name = "NAME")]
    pub(super) preset: Option<String>,
    #[command(flatten)]
    pub(super) image_size: ImageSizeArgs,
    /// Where pictures of other proportions are cropped: center or random; none stretches them to size instead.
    #[arg(long, value_name = "center|random|none", default_value = "center", help_heading = "Data")]
    pub(super) crop: String,
    #[command(flatten)]
    pub(super) flip: FlipArgs,
    /// Train an upsampler, from pictures of this size to pictures of --image-size.
    #[arg(long, value_name = "N|HxW", value_parser = number::size(number::MOST_SIDE), help_heading = "Data")]
    pub(super) upsample_from: Option<Extent>,

    /// Channels of the first level.
    #[arg(
        long,
        value_name = "N",
        help_heading = "Network",
        value_parser = number::count(1..=number::MOST_SIDE)
    )]
    pub(super) channels: Option<usize>,
    /// Width of each level, as multiples of --channels; as many levels as numbers.
    #[arg(
        long,
        value_name = "1,2,…",
        help_heading = "Network",
        value_parser = number::list(number::real(0.001..=16.0))
    )]
    pub(super) channel_mult: Option<String>,
    /// Residual blocks a level.
    #[arg(long, value_name = "N", help_heading = "Network", value_parser = number::count(1..=64))]
    pub(super) res_blocks: Option<usize>,
    #[command(flatten)]
    pub(super) attention: AttentionArgs,
    #[command(flatten)]
    pub(super) variations: VariationArgs,
    /// Groups of the group norms; must divide every level's width.
    #[arg(
        long,
        value_name = "N",
        help_heading = "Network",
        value_parser = number::count(1..=number::MOST_SIDE)
    )]
    pub(super) norm_groups: Option<usize>,
    /// The first block that is told the class, as input_blocks.2, middle_block or output_blocks.3: what is before it runs
    /// once for both halves of guidance.
    #[arg(long, value_name = "BLOCK", help_heading = "Network")]
    pub(super) condition_from: Option<String>,
    /// Dropout in residual blocks.
    #[arg(long, value_name = "F", help_heading = "Network", value_parser = number::below(0.0, 1.0))]
    pub(super) dropout: Option<f64>,

    /// Images a step [default: the preset's, on small sets a sixteenth of the pictures, from 8].
    #[arg(
        long,
        value_name = "N",
        help_heading = "Optimisation",
        value_parser = number::count(1..=number::MOST_BATCH)
    )]
    pub(super) batch: Option<usize>,
    /// Images at a time on the device, to save memory; must divide --batch.
    #[arg(
        long,
        value_name = "N",
        help_heading = "Optimisation",
        value_parser = number::count(1..=number::MOST_BATCH)
    )]
    pub(super) microbatch: Option<usize>,
    #[command(flatten)]
    pub(super) lr: RateArgs,
    /// Images over which the learning rate rises from zero [default: the preset's, at most six passes].
    #[arg(
        long,
        value_name = "IMAGES",
        help_heading = "Optimisation",
        value_parser = number::whole(0..=number::MOST_IMAGES)
    )]
    pub(super) warmup: Option<u64>,
    /// Decoupled weight decay.
    #[arg(
        long,
        value_name = "F",
        help_heading = "Optimisation",
        value_parser = number::real(0.0..=number::MOST_FACTOR)
    )]
    pub(super) weight_decay: Option<f64>,
    /// Largest norm of the gradient; 0 for none.
    #[arg(long, value_name = "F", help_heading = "Optimisation", value_parser = number::real(0.0..=1e9))]
    pub(super) grad_clip: Option<f64>,
    #[command(flatten)]
    pub(super) images: ImagesArgs,
    /// The same as passes over the data.
    #[arg(
        long,
        value_name = "N",
        help_heading = "Optimisation",
        conflicts_with = "images",
        value_parser = number::whole(1..=number::MOST_IMAGES)
    )]
    pub(super) epochs: Option<u64>,
    /// Probability of leaving a label out, so that one network learns both models.
    #[arg(
        long,
        value_name = "F",
        default_value_t = 0.1,
        help_heading = "Optimisation",
        value_parser = number::real(0.0..=1.0)
    )]
    pub(super) p_uncond: f64,
    /// With --attributes, probability of leaving each part of the condition out by itself: the class, all attributes, and each
    /// of them, so that each can be guided by itself [default: 0.1].
    #[arg(
        long,
        value_name = "F",
        requires = "attributes",
        help_heading = "Optimisation",
        value_parser = number::real(0.0..=1.0)
    )]
    pub(super) p_part: Option<f64>,
    #[command(flatten, next_help_heading = "Optimisation")]
    pub(super) averages: AverageArgs,
    /// Log SNR at the noisy end [default: -20; -8.76, where σ/α is 80, with --schedule edm].
    #[arg(
        long,
        value_name = "F",
        allow_negative_numbers = true,
        help_heading = "Optimisation",
        value_parser = number::real(-80.0..=80.0)
    )]
    pub(super) lambda_min: Option<f64>,
    /// Log SNR at the clean end [default: 20; 12.4, where σ/α is 0.002, with --schedule edm].
    #[arg(
        long,
        value_name = "F",
        allow_negative_numbers = true,
        help_heading = "Optimisation", value_parser = number::real(-80.0..=80.0))]
    pub(super) lambda_max: Option<f64>,
    /// The schedule: continuous (λ drawn as in the CFG paper), linear (DDPM), cosine (IDDPM), flow (the straight path from
    /// picture to noise) or edm (log-normal noise levels).
    #[arg(long, value_name = "NAME", default_value = "continuous", help_heading = "Objective")]
    pub(super) schedule: TrainSchedule,
    #[command(flatten, next_help_heading = "Objective")]
    pub(super) steps_total: StepsTotalArgs,
    /// What the network predicts: eps, x0, v, flow, the velocity of a straight path, or edm, what EDM's preconditioning leaves to
    /// it [default: eps; flow of --schedule flow, edm of --schedule edm].
    #[arg(long, value_name = "eps|x0|v|flow|edm", help_heading = "Objective")]
    pub(super) predict: Option<Prediction>,
    /// The standard deviation of the data, for --predict edm [default: 0.5].
    #[arg(long, value_name = "F", help_heading = "Objective", value_parser = number::real(0.001..=1000.0))]
    pub(super) sigma_data: Option<f64>,
    /// Learn the variance of ancestral steps too (IDDPM).
    #[arg(long, help_heading = "Objective")]
    pub(super) learn_sigma: bool,
    /// The loss: simple (mean squared error), hybrid (plus 0.001 of the bound, for the variances; hybrid-unscaled as
    /// published code has it), vlb (the bound).
    #[arg(long, value_name = "NAME", default_value = "simple", help_heading = "Objective")]
    pub(super) loss: LossKind,
    /// How times are drawn: uniform, importance (by the size of their losses), low-discrepancy, logit-normal (of a flow).
    #[arg(long, value_name = "NAME", default_value = "uniform", help_heading = "Objective")]
    pub(super) t_sampler: TimeSampler,
    #[command(flatten, next_help_heading = "Optimisation")]
    pub(super) precision: PrecisionArgs,
    #[command(flatten)]
    pub(super) seed: SeedArgs,

    /// Images between pictures of samples (samples-IMAGES.png); 0 for none.
    #[arg(
        long,
        value_name = "IMAGES",
        value_parser = number::whole(0..=number::MOST_IMAGES),
        help_heading = "Output"
    )]
    pub(super) sample_every: Option<u64>,
    #[command(flatten)]
    pub(super) save_every: SaveArgs,
    #[command(flatten)]
    pub(super) start: start::StartArgs,
    #[command(flatten)]
    pub(super) from: start::FromArgs,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
    /// Print options, parameters, memory and FLOPs a step, and exit.
    #[arg(long, help_heading = "Output")]
    pub(super) dry_run: bool,
    /// After the training, print the GPU time of one step by kernel.
    #[arg(long, help_heading = "Output")]
    pub(super) profile: bool,
}
