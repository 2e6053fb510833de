//! `freeguide stats`.

use std::path::PathBuf;

use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::eval::{DataPictures, Reference};

use super::features::{FeatureArgs, classifier_beside, collected};
use super::{DeviceArgs, number, pictures};

/// Shown first by `--help`.
const EXAMPLES: &str = "\
Examples:
  freeguide stats digits --out digits.npz
  freeguide stats pictures/ --image-size 64 --features inception.safetensors --out pictures.npz";

/// Write the statistics of a data set that pictures are compared with.
#[derive(clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// The data, as `train` takes it.
    #[arg(value_name = "DATA")]
    data: String,
    /// The file to write: mu, sigma, mu_s, sigma_s, features, labels.
    #[arg(long, value_name = "STATS.npz")]
    out: PathBuf,
    /// The side in pixels to bring pictures to [default: their own].
    #[arg(long, value_name = "N", value_parser = number::count(1..=number::MOST_SIDE))]
    image_size: Option<usize>,
    #[command(flatten)]
    features: FeatureArgs,
    /// Overwrite what is there.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: &Args) -> Result<()> {
    if args.out.extension().is_none_or(|extension| extension != "npz") {
        return Err(Error::Config(format!("--out {}: statistics are a .npz", args.out.display())));
    }
    pictures::check_free(&args.out, args.force)?;
    let data = Dataset::open(&args.data, args.image_size)?;
    let gpu = args.device.open()?;
    let network = args.features.network(&gpu, Some(&data), &classifier_beside(&args.out))?;
    let parts = args.out.with_extension("parts");
    let collected = collected("measuring", &mut DataPictures::new(&data, None), &*network, &parts)?;
    Reference::of(&collected, network.identity())?.save(&args.out)?;
    std::fs::remove_dir_all(&parts).map_err(Error::io(&parts))?;
    println!("wrote {} ({} pictures)", args.out.display(), data.len());
    Ok(())
}
