//! What `sweep` takes.

use std::path::PathBuf;

use crate::cli::drawing::DrawingArgs;
use crate::cli::features::FeatureArgs;
use crate::cli::model_args::ModelArgs;
use crate::cli::shared_args::{ForceArgs, PrecisionArgs};
use crate::cli::{DeviceArgs, number, ranges};

/// Shown first by `--help`.
const EXAMPLES: &str = "\
Examples:
  freeguide sweep --model out/digits --w 0:4:1
  freeguide sweep --model out/digits --w 0:4:1 --metrics fid --reference digits.npz --count 5000";

/// Sample models over a range of guidance weights: one grid and one table; with --metrics every point is measured, and FID
/// against inception score is drawn.
#[derive(clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// The model; several for a measured sweep over what they were trained with.
    #[arg(long, value_name = "DIR|FILE", required = true)]
    pub(super) model: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) opening: ModelArgs,
    /// Guidance weights FROM:TO:STEP, or a list.
    #[arg(
        long,
        value_name = "0:4:0.5",
        default_value = "0:4:1",
        allow_hyphen_values = true,
        value_parser = number::checked(ranges::weights)
    )]
    pub(super) w: String,
    /// Pictures of each class at each weight, the same seeds for all [default: 4]; with --metrics, pictures measured at each
    /// point [default: 50000].
    #[arg(long, value_name = "N", value_parser = number::whole(1..=number::MOST_COUNT as u64))]
    pub count: Option<u64>,
    /// Denoising steps, several for a measured sweep [default: the model's].
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        value_parser = number::count(1..=number::MOST_STEPS)
    )]
    pub steps: Vec<usize>,
    /// Measure each point: fid, sfid, is, kid, precision, recall, agreement, all. Goes on where it was interrupted.
    #[arg(long, value_name = "fid,is,…", default_value = "", help_heading = "Measures")]
    pub metrics: String,
    /// What to compare with: a file of `freeguide stats`, or data.
    #[arg(long, value_name = "STATS.npz|DATA", help_heading = "Measures")]
    pub reference: Option<String>,
    #[command(flatten)]
    pub features: FeatureArgs,
    #[command(flatten)]
    pub(super) drawing: DrawingArgs,
    /// Where sweep.png and sweep.csv go [default: the model's folder].
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    #[command(flatten)]
    pub force: ForceArgs,
    #[command(flatten, next_help_heading = "Device")]
    pub(super) precision: PrecisionArgs,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
}
