//! `freeguide quickstart`.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use crate::diffusion::Guidance;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::tensor::Precision;
use crate::train::{Outcome, Preset, Start};

use super::sheets::Sheets;
use super::{DeviceArgs, data, interrupt, notes, outputs, pictures, progress, train};

/// Shown first by `--help`.
const EXAMPLES: &str = "\
Examples:
  freeguide quickstart
  freeguide quickstart --out out/first --device llvmpipe";

/// Train a guided model on the embedded handwritten digits and draw samples: minutes on two CPU cores, seconds on a GPU.
#[derive(clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// Where the model and the pictures go.
    #[arg(long, value_name = "DIR", default_value = "out/quickstart")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
}

/// The columns of `samples.png`.
const WEIGHTS: [f64; 5] = [-1.0, 0.0, 1.0, 2.0, 4.0];
/// Pictures in each of its cells.
const SEEDS: u64 = 4;

pub fn run(args: &Args) -> Result<()> {
    let path = args.out.join("samples.png");
    outputs::prove_training(&args.out, &["loss.png", "samples.png"])?;
    let stop = interrupt::flag();
    let gpu = args.device.open()?;
    let dataset = data::open("digits", &data::trusting(None))?;
    let options = Preset::named("digits")?.options(&dataset, 0);
    if train::train(&gpu, dataset, &options, &args.out, &Start::default())? == Outcome::Stopped {
        return train::finish(Outcome::Stopped, &args.out);
    }

    let model = Model::load(&gpu, &args.out)?;
    let guidance: Vec<Guidance> = WEIGHTS.into_iter().map(Guidance::from_weight).collect::<Result<_>>()?;
    let sheets = Sheets::new(&gpu, &model.unet, &model.weights(), &model.config, Precision::Auto)?;
    let bar = progress::bar("sampling", "steps", 0, sheets.steps(&guidance, SEEDS as usize));
    let sheet = sheets.guided_sheet(&guidance, SEEDS, |guidance| {
        bar.inc(1);
        bar.set_message(format!("w = {}", guidance.weight()));
        if stop.load(Ordering::SeqCst) { Err(Error::Interrupted) } else { Ok(()) }
    })?;
    bar.finish_and_clear();
    let notes =
        [notes::program(&gpu), notes::of_model("model", &args.out, &model), sheets.notes(&guidance, SEEDS)?];
    pictures::save(&path, &sheet, &notes.concat())?;
    println!("a row for each digit, w = -1, 0, 1, 2, 4 from left to right: {}", path.display());
    println!("the loss: {}", args.out.join("loss.png").display());
    println!("the model, for `freeguide sample --model {}`: model.safetensors", args.out.display());
    Ok(())
}
