//! `freeguide stats`.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result, shown};
use crate::eval::{DataPictures, NpzPictures, Reference, Store};
use crate::io::{WorkFolder, prove_writable};
use crate::shape::Extent;

use super::features::{FeatureArgs, classifier_beside, collected, is_arrays, or_nothing};
use super::shared_args::ForceArgs;
use super::{DeviceArgs, data, number, outputs};

/// Shown first by `--help`.
const EXAMPLES: &str = "\
Examples:
  freeguide stats digits --out digits.npz
  freeguide stats pictures/ --image-size 64 --features inception.safetensors --out pictures.npz";

/// Write the statistics of a data set that pictures are compared with.
#[derive(clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// The data, as `train` takes it, or a .npz of pictures (arr_0, arr_1).
    #[arg(value_name = "DATA")]
    data: String,
    /// The file to write: mu, sigma, mu_s, sigma_s, features, labels.
    #[arg(long, value_name = "STATS.npz")]
    out: PathBuf,
    /// The size in pixels to bring pictures to: the side of squares, or both, as in 96x64 [default: their own].
    #[arg(long, value_name = "N|HxW", value_parser = number::size(number::MOST_MEASURED))]
    image_size: Option<Extent>,
    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    force: ForceArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: &Args) -> Result<()> {
    if args.out.extension().is_none_or(|extension| extension != "npz") {
        return Err(Error::Config(format!("--out {}: statistics are a .npz", shown(&args.out))));
    }
    let (parts, classifier) = (args.out.with_extension("parts"), classifier_beside(&args.out));
    outputs::prove([&args.out], args.force.force)?;
    WorkFolder::prove(&parts)?;
    prove_writable(&classifier)?;
    let path = Path::new(&args.data);
    if is_arrays(path) && args.image_size.is_some() {
        return Err(Error::Config(
            "--image-size: the pictures of a .npz are measured in their own size".into(),
        ));
    }
    let reading = args.features.reading(args.image_size);
    let data = (!is_arrays(path)).then(|| data::open(&args.data, &reading)).transpose()?;
    let gpu = args.device.open()?;
    let network = args.features.network(&gpu, data.as_deref(), &classifier)?;
    let collected = or_nothing(&parts, || match &data {
        Some(data) => collected("measuring", &mut DataPictures::new(data, None), &*network, &parts),
        None => collected("measuring", &mut NpzPictures::open(path, None)?, &*network, &parts),
    })?;
    Reference::of(&collected, network.identity())?.save(&args.out)?;
    Store::discard(&parts)?;
    data.iter().for_each(|data| data::warn_of_damage(data));
    println!("wrote {} ({} pictures)", args.out.display(), collected.taken_for.len());
    Ok(())
}
