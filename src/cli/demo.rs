//! `freeguide demo`.

use std::path::PathBuf;

use crate::error::{Error, Result};

use super::model_args::ModelArgs;
use super::number;

/// `examples/egui.rs`, which shows how a program of one's own does the same.
#[cfg(feature = "demo")]
#[path = "../../examples/egui.rs"]
mod window;

/// Shown first by `--help`.
const EXAMPLES: &str = "\
Examples:
  freeguide demo
  freeguide demo --model out/digits --class 3 --w 4";

/// Open a window in which pictures form while class and guidance change. Needs a build with --features demo.
#[derive(clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// The model: a training's folder, a .safetensors file, or a .pt file of guided-diffusion [default: embedded digits].
    #[arg(long, value_name = "DIR|FILE")]
    model: Option<PathBuf>,
    #[command(flatten)]
    opening: ModelArgs,
    /// The class to begin with, by number or name [default: 7, or the model's last].
    #[arg(long, value_name = "N|name")]
    class: Option<String>,
    /// The guidance weight w to begin with.
    #[arg(
        long,
        value_name = "F",
        default_value_t = 2.0,
        allow_negative_numbers = true,
        value_parser = number::real(-number::MOST_WEIGHT..=number::MOST_WEIGHT)
    )]
    w: f64,
    /// The seed to begin with.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = number::seed())]
    seed: u64,
    /// Denoising steps [default: the model's].
    #[arg(long, value_name = "N", value_parser = number::count(1..=1024))]
    steps: Option<usize>,
    /// Milliseconds of GPU time of each frame that go into the picture.
    #[arg(long, value_name = "MS", default_value_t = 8.0, value_parser = number::real(0.1..=1000.0))]
    budget: f64,
}

#[cfg(feature = "demo")]
pub fn run(args: &Args) -> Result<()> {
    let options = window::Options {
        model: args.model.clone(),
        choice: args.opening.choice(),
        class: args.class.clone(),
        weight: args.w,
        seed: args.seed,
        steps: args.steps,
        budget_ms: args.budget,
    };
    window::open(options).map_err(|error| match error {
        // What the program itself found wrong, as it would say it elsewhere.
        eframe::Error::AppCreation(error) => match error.downcast::<Error>() {
            Ok(error) => *error,
            Err(error) => Error::Config(format!("no window: {error}")),
        },
        error => Error::Config(format!("no window: {error}")),
    })
}

#[cfg(not(feature = "demo"))]
pub fn run(_: &Args) -> Result<()> {
    Err(Error::Config(
        "this program was built without its window; build it with: cargo run --release --features demo -- demo"
            .into(),
    ))
}
