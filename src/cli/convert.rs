//! `freeguide convert`.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::model::{Checkpoint, Format, convert};
use crate::nn::unet::QkvLayout;

use super::pictures;

/// Shown first by `--help`.
const EXAMPLES: &str = "\
Examples:
  freeguide convert 64x64_diffusion.pt out/imagenet64
  freeguide convert out/digits digits.safetensors --format guided-diffusion";

/// Write a model as another kind of checkpoint; the numbers stay as they are, bit for bit.
#[derive(clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// A model's folder, a diffusers folder, a .safetensors file, or a .pt file of guided-diffusion.
    #[arg(value_name = "IN")]
    from: PathBuf,
    /// A .safetensors file under guided-diffusion's names, or a folder.
    #[arg(value_name = "OUT.safetensors|DIR")]
    out: PathBuf,
    /// What to write: freeguide, diffusers or guided-diffusion [default: by OUT's name, a folder of this program].
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// The order of the qkv channels: new ([q, k, v][head]) or legacy ([head][q, k, v]) [default: as it is].
    #[arg(long, value_name = "new|legacy")]
    qkv_order: Option<String>,
    /// A JSON file of guided-diffusion's flags, for a .pt file that is not published.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Overwrite what is there.
    #[arg(long)]
    force: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let is_file = args.out.extension().is_some_and(|extension| extension == "safetensors");
    let format = match (&args.format, is_file) {
        (Some(name), _) => name.parse()?,
        (None, true) => Format::GuidedDiffusion,
        (None, false) => Format::Freeguide,
    };
    if is_file != (format == Format::GuidedDiffusion) {
        let out = args.out.display();
        return Err(Error::Config(format!(
            "{out}: guided-diffusion's names go to a .safetensors file, the other formats to a folder"
        )));
    }
    let order = match args.qkv_order.as_deref() {
        None => None,
        Some("new") => Some(QkvLayout::New),
        Some("legacy") => Some(QkvLayout::Legacy),
        Some(other) => {
            return Err(Error::Config(format!("--qkv-order {other}: there are new and legacy")));
        }
    };
    let marker = match format {
        Format::GuidedDiffusion => args.out.clone(),
        Format::Freeguide => args.out.join("model.safetensors"),
        Format::Diffusers => args.out.join("model_index.json"),
    };
    pictures::check_free(&marker, args.force)?;
    let checkpoint = Checkpoint::open(&args.from, args.config.as_deref())?;
    checkpoint.notes.iter().for_each(|note| eprintln!("model: {note}"));
    convert(&checkpoint, &args.out, format, order)?;
    println!("wrote {} ({} tensors)", args.out.display(), checkpoint.parameters()?.specs().len());
    Ok(())
}
