//! `freeguide nll`.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use crate::data::{Crop, Loader, LoaderOptions};
use crate::diffusion::Respacing;
use crate::error::{Error, Result, shown};
use crate::io::{Series, line_plot, write_atomic};
use crate::model::check_same_classes;
use crate::sample::{Nll, NllOptions};

use super::data::{self, DataArgs};
use super::model_args::ModelArgs;
use super::shared_args::ForceArgs;
use super::{DeviceArgs, interrupt, number, outputs, progress, sample};

/// Shown first by `--help`.
const EXAMPLES: &str = "\
Examples:
  freeguide nll --model out/cosine --data digits --images 200
  freeguide nll --model out/cosine --data digits --respacing 100 --out nll-100.json";

/// Measure the variational bound of a model of discrete time on data, in bits per dimension.
#[derive(clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// The model: trained with --schedule cosine or linear.
    #[arg(long, value_name = "DIR|FILE")]
    model: PathBuf,
    #[command(flatten)]
    opening: ModelArgs,
    /// Pictures, as for `train`.
    #[arg(long, value_name = "digits|DIR|FILE.zip|IDX")]
    data: String,
    #[command(flatten)]
    reading: DataArgs,
    /// Pictures to measure, drawn without repetition by the seed [default: all].
    #[arg(long, value_name = "N", value_parser = number::count(1..=number::MOST_COUNT))]
    images: Option<usize>,
    /// Steps of the process: 25, 90,60,60,20,20, ddim25 [default: all of them].
    #[arg(long, value_name = "SPEC", help_heading = "Bound")]
    respacing: Option<Respacing>,
    /// Variance of the steps: small, large, learned [default: the model's].
    #[arg(long, value_name = "small|large|learned", help_heading = "Bound")]
    variance: Option<String>,
    /// Show the network no classes.
    #[arg(long, help_heading = "Bound")]
    unconditional: bool,
    /// Seed of the noise and of the choice of pictures.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = number::seed(), help_heading = "Bound")]
    seed: u64,
    /// Evaluations at a time. It never changes a number.
    #[arg(
        long,
        value_name = "N",
        value_parser = number::count(1..=number::MOST_BATCH),
        help_heading = "Device"
    )]
    batch: Option<usize>,
    /// Where the numbers go; a plot of each step goes beside them as .png.
    #[arg(long, value_name = "FILE.json", default_value = "nll.json")]
    out: PathBuf,
    #[command(flatten)]
    force: ForceArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: &Args) -> Result<()> {
    if args.out.extension().is_none_or(|extension| extension != "json") {
        return Err(Error::Config(format!("--out {}: expected a name ending in .json", shown(&args.out))));
    }
    let picture = args.out.with_extension("png");
    outputs::prove([&args.out, &picture], args.force.force)?;
    let stop = interrupt::flag();
    let gpu = args.device.open()?;
    let model = args.opening.model(&gpu, &args.model)?;
    let unet = &model.config.unet;
    let unlabelled = args.unconditional || unet.num_classes.is_none();
    let dataset = data::open(&args.data, &args.reading.options(Some(unet.sample_size), unlabelled))?;
    if dataset.channels != unet.in_channels {
        return Err(Error::Config(format!(
            "{} has pictures of {} channels, the model makes {}",
            args.data, dataset.channels, unet.in_channels
        )));
    }
    let conditional = !args.unconditional && unet.num_classes.is_some();
    if conditional {
        let names = (&*model.config.class_names, &*dataset.class_names);
        let note = check_same_classes(("the model", names.0), (&args.data, names.1), true)
            .map_err(|error| Error::Config(format!("{error}; or use --unconditional")))?;
        note.iter().for_each(|note| eprintln!("note: {note}"));
    }
    let count = args.images.unwrap_or(dataset.len()).min(dataset.len());
    let options =
        LoaderOptions { image_size: unet.sample_size, crop: Crop::Center, flip: false, seed: args.seed };
    let loader = Loader::new(dataset.clone(), options);
    let batch = args.batch.unwrap_or_else(|| sample::default_batch(&gpu));
    let variance = args.variance.as_deref().map(sample::variance).transpose()?;
    let respacing = args.respacing.clone();
    let mut nll =
        Nll::new(&gpu, &model, NllOptions { batch, respacing, variance, conditional, seed: args.seed })?;
    let bar = progress::bar("measuring", "evaluations", 0, nll.evaluations(count));
    // Few pictures at a time: the process has many steps.
    for first in (0..count).step_by(batch) {
        let pictures = loader.batch(first as u64, batch.min(count - first))?;
        nll.add(&pictures, || {
            bar.inc(1);
            if stop.load(Ordering::SeqCst) { Err(Error::Interrupted) } else { Ok(()) }
        })?;
    }
    bar.finish_and_clear();
    data::warn_of_damage(&dataset);

    let report = nll.report()?;
    let text = serde_json::to_string_pretty(&report).expect("numbers are always representable");
    write_atomic(&args.out, |writer| {
        writer.write_all(text.as_bytes()).and_then(|()| writer.write_all(b"\n")).map_err(Error::io(&args.out))
    })?;
    let line = |name: &str, values: &[f64]| -> Series {
        let points = report.timesteps.iter().zip(values).map(|(t, value)| (*t as f64, *value));
        (name.into(), points.collect())
    };
    let lines = [
        line("bits per dimension", &report.step_bits),
        line("mse of eps", &report.mse),
        line("mse of x0", &report.x0_mse),
    ];
    line_plot(&picture, &lines, "t", "bound and errors of each step", true)?;
    println!(
        "{:.4} ± {:.4} bits per dimension on {} pictures, {} steps, variance {} (prior {:.5}, decoder {:.4})",
        report.total_bits,
        report.total_bits_error,
        report.images,
        report.steps,
        report.variance,
        report.prior_bits,
        report.step_bits[0]
    );
    println!("wrote {} and {}", args.out.display(), picture.display());
    Ok(())
}
