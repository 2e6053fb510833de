//! Options that several commands have, each declared once: the same name, the same words, the same range.
//!
//! One that stands under another heading in each command has none here; the command gives it where it takes it in, by
//! `next_help_heading`, which holds for all that follows without a heading of its own.

use crate::error::Result;
use crate::ops::EmaWarmup;
use crate::shape::Extent;
use crate::tensor::Precision;
use crate::train::TrainOptions;

use super::{number, ranges};

/// Of what writes files.
#[derive(clap::Args, Clone, Debug)]
pub struct ForceArgs {
    /// Overwrite what is there.
    #[arg(long)]
    pub force: bool,
}

/// Of what evaluates a network.
#[derive(clap::Args, Clone, Debug)]
pub struct PrecisionArgs {
    /// Storage of activations: auto is f16 on cooperative matrices, f32 elsewhere.
    #[arg(long, value_name = "f32|f16|auto", default_value = "auto")]
    precision: String,
}

impl PrecisionArgs {
    /// What is asked for.
    pub fn read(&self) -> Result<Precision> {
        self.precision.parse()
    }
}

/// Of what trains on pictures of one size.
#[derive(clap::Args, Clone, Debug)]
pub struct ImageSizeArgs {
    /// Size of the pictures in pixels: the side of squares, or both, as in 96x64 [default: that of the data].
    #[arg(long, value_name = "N|HxW", value_parser = number::size(number::MOST_SIDE), help_heading = "Data")]
    pub image_size: Option<Extent>,
}

/// Of what trains on pictures.
#[derive(clap::Args, Clone, Debug)]
pub struct FlipArgs {
    /// Mirror half of the pictures left to right.
    #[arg(long, help_heading = "Data")]
    pub flip: bool,
}

/// Of what declares a network.
#[derive(clap::Args, Clone, Debug)]
pub struct AttentionArgs {
    /// Feature-map sizes with attention, or `none`.
    #[arg(
        long,
        value_name = "8,4",
        value_parser = number::list_or_none(number::count(1..=number::MOST_SIDE)),
        help_heading = "Network"
    )]
    attention: Option<String>,
}

impl AttentionArgs {
    /// Puts what is asked for into the options.
    pub fn set(&self, options: &mut TrainOptions) -> Result<()> {
        if let Some(text) = &self.attention {
            options.unet.attention_resolutions = ranges::sizes(text)?;
        }
        Ok(())
    }
}

/// Of a training whose batch its preset says little of.
#[derive(clap::Args, Clone, Debug)]
pub struct BatchArgs {
    /// Images a step.
    #[arg(
        long,
        value_name = "N",
        value_parser = number::count(1..=number::MOST_BATCH),
        help_heading = "Optimisation"
    )]
    pub batch: Option<usize>,
}

/// Of a training that begins with new weights.
#[derive(clap::Args, Clone, Debug)]
pub struct RateArgs {
    /// Learning rate.
    #[arg(
        long,
        value_name = "F",
        value_parser = number::real(1e-12..=number::MOST_FACTOR),
        help_heading = "Optimisation"
    )]
    pub lr: Option<f64>,
}

/// The same.
#[derive(clap::Args, Clone, Debug)]
pub struct ImagesArgs {
    /// Images to see in all.
    #[arg(
        long,
        value_name = "N",
        value_parser = number::whole(1..=number::MOST_IMAGES),
        help_heading = "Optimisation"
    )]
    pub images: Option<u64>,
}

/// The same.
#[derive(clap::Args, Clone, Debug)]
pub struct SeedArgs {
    /// Seed of the initial weights, the order of images and all noise.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        value_parser = number::seed(),
        help_heading = "Optimisation"
    )]
    pub seed: u64,
}

/// Of what is trained in discrete time.
#[derive(clap::Args, Clone, Debug)]
pub struct StepsTotalArgs {
    /// Steps T of a linear or cosine schedule.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1000,
        value_parser = number::count(1..=number::MOST_STEPS)
    )]
    pub steps_total: usize,
}

/// Of a training of a diffusion model.
#[derive(clap::Args, Clone, Debug)]
pub struct AverageArgs {
    /// Rates of the weights' moving averages; the first becomes the model.
    #[arg(
        long,
        value_name = "0.999,…",
        value_parser = number::list(number::below(0.0, 1.0)),
        help_heading = "Optimisation"
    )]
    ema: Option<String>,
    /// How the averages warm up: ramp, where the rate after t steps is at most (1 + t)/(10 + t), so that a training of any
    /// length ends with averages of its last tenth; or none.
    #[arg(long, value_name = "ramp|none", default_value = "ramp")]
    ema_warmup: EmaWarmup,
}

impl AverageArgs {
    /// Puts what is asked for into the options.
    pub fn set(&self, options: &mut TrainOptions) -> Result<()> {
        if let Some(text) = &self.ema {
            options.ema_rates = ranges::numbers(text)?;
        }
        options.ema_warmup = self.ema_warmup;
        Ok(())
    }
}

/// Of any training.
#[derive(clap::Args, Clone, Debug)]
pub struct SaveArgs {
    /// Images between saved states.
    #[arg(
        long,
        value_name = "IMAGES",
        value_parser = number::whole(1..=number::MOST_IMAGES),
        help_heading = "Output"
    )]
    pub save_every: Option<u64>,
}
