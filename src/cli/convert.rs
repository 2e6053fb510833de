//! `freeguide convert`.

use std::path::PathBuf;

use crate::error::{Error, Result, brief, shown};
use crate::model::{Format, convert, not_in_guided_diffusion};
use crate::nn::unet::QkvLayout;

use super::model_args::ModelArgs;
use super::outputs;
use super::shared_args::ForceArgs;

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
    /// What to write: freeguide, a folder of this program; safetensors, the same in one file; diffusers, a pipeline's folder;
    /// guided-diffusion, a file that it reads as the same network [default: by OUT's name, freeguide or safetensors].
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// The order of the qkv channels: new ([q, k, v][head]) or legacy ([head][q, k, v]) [default: as it is].
    #[arg(long, value_name = "new|legacy")]
    qkv_order: Option<String>,
    #[command(flatten)]
    opening: ModelArgs,
    #[command(flatten)]
    force: ForceArgs,
}

pub fn run(args: &Args) -> Result<()> {
    let is_file = args.out.extension().is_some_and(|extension| extension == "safetensors");
    let format = match (&args.format, is_file) {
        (Some(name), _) => name.parse()?,
        (None, true) => Format::Safetensors,
        (None, false) => Format::Freeguide,
    };
    if is_file != matches!(format, Format::Safetensors | Format::GuidedDiffusion) {
        let out = shown(&args.out);
        return Err(Error::Config(format!(
            "{out}: safetensors and guided-diffusion go to a .safetensors file, the other formats to a folder"
        )));
    }
    let order = match args.qkv_order.as_deref() {
        None => None,
        Some("new") => Some(QkvLayout::New),
        Some("legacy") => Some(QkvLayout::Legacy),
        Some(other) => {
            return Err(Error::Config(format!(
                "--qkv-order {other}: there are new and legacy",
                other = brief(other)
            )));
        }
    };
    outputs::prove(format.files(&args.out), args.force.force)?;
    let checkpoint = args.opening.checkpoint(&args.from)?;
    convert(&checkpoint, &args.out, format, order)?;
    if format == Format::Safetensors {
        let lacks = not_in_guided_diffusion(&checkpoint.config);
        if !lacks.is_empty() {
            eprintln!("for this program; guided-diffusion itself has no {}", lacks.join(", no "));
        }
    }
    println!("wrote {} ({} tensors)", args.out.display(), checkpoint.parameters()?.specs().len());
    Ok(())
}
