//! `freeguide plot`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::data::transform::prepare;
use crate::data::{CropOffset, Dataset, Image};
use crate::diffusion::{BetaSchedule, DiscreteSchedule};
use crate::error::{Error, Result};
use crate::eval::from_csv;
use crate::io::{Series, line_plot, loss_plot};
use crate::random::{Stream, fill_normal};
use crate::sample::to_u8;
use crate::shape::Extent;
use crate::train::{gradient_noise_scale, records};

use super::notes::note;
use super::shared_args::ForceArgs;
use super::{data, measured_sweep, number, outputs, pictures};

/// Shown first by `--help`.
const EXAMPLES: &str = "\
Examples:
  freeguide plot
  freeguide plot --nll cosine.json,linear.json --trainings out/small-batches --out plots";

/// Draw the diagnostics of the IDDPM paper: variances, schedules, noised pictures, bounds that `nll` measured, and the
/// gradient-noise scale of trainings; and measured sweeps together.
#[derive(clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// Where the pictures go.
    #[arg(long, value_name = "DIR", default_value = "plots")]
    out: PathBuf,
    /// Pictures to noise, as for `train`.
    #[arg(
        long,
        value_name = "digits|DIR|FILE.zip|IDX",
        default_value = "digits",
        help_heading = "Schedules"
    )]
    data: String,
    /// Size of the noised pictures in pixels: the side of squares, or both, as in 96x64 [default: that of the data].
    #[arg(long, value_name = "N|HxW", value_parser = number::size(MOST_SIDE), help_heading = "Schedules")]
    image_size: Option<Extent>,
    /// Which picture of the data is noised.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        value_parser = number::count(0..=usize::MAX),
        help_heading = "Schedules"
    )]
    image: usize,
    /// Steps T of the schedules.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1000,
        value_parser = number::count(2..=number::MOST_STEPS),
        help_heading = "Schedules"
    )]
    steps_total: usize,
    /// Numbers that `nll` wrote, to be drawn together.
    #[arg(long, value_name = "FILE.json,…", value_delimiter = ',', help_heading = "Measured")]
    nll: Vec<PathBuf>,
    /// Trainings whose gradient-noise scale to draw: trained with --microbatch below --batch.
    #[arg(long, value_name = "DIR,…", value_delimiter = ',', help_heading = "Measured")]
    trainings: Vec<PathBuf>,
    /// Measured sweeps to draw and tabulate together: what `sweep --metrics` wrote, of one reference and its features.
    #[arg(long, value_name = "SWEEP.csv,…", value_delimiter = ',', help_heading = "Measured")]
    sweeps: Vec<PathBuf>,
    #[command(flatten)]
    force: ForceArgs,
}

/// What is drawn of a measured bound.
#[derive(Deserialize)]
struct Bound {
    timesteps: Vec<usize>,
    step_bits: Vec<f64>,
}

/// The largest side of the noised pictures: a row of them is still a picture that viewers open.
const MOST_SIDE: usize = 1024;

/// Both schedules.
const SCHEDULES: [BetaSchedule; 2] = [BetaSchedule::Linear, BetaSchedule::Cosine];
/// Columns of the noised pictures.
const COLUMNS: usize = 12;

pub fn run(args: &Args) -> Result<()> {
    let path = |name: &str| args.out.join(name);
    let [ratio, alphas, strips] = ["posterior-ratio.png", "alpha-bar.png", "noised-strips.png"].map(path);
    let [bound, noise, curves, table] =
        ["bound.png", "gradient-noise.png", "sweeps.png", "sweeps.md"].map(path);
    let asked = [
        (true, &[&ratio, &alphas, &strips][..]),
        (!args.nll.is_empty(), &[&bound]),
        (!args.trainings.is_empty(), &[&noise]),
        (!args.sweeps.is_empty(), &[&curves, &table]),
    ];
    outputs::prove(asked.iter().filter(|(asked, _)| *asked).flat_map(|(_, paths)| *paths), args.force.force)?;

    let dataset = Dataset::open_with(&args.data, &data::trusting(args.image_size))?;
    let decoded = dataset.decode(args.image)?;

    // IDDPM, figure 1: the small variance against the large one.
    let lines = [100, 1000, 4000].map(|steps| -> Result<Series> {
        let schedule = DiscreteSchedule::new(BetaSchedule::Cosine, steps)?;
        let point = |t: usize| (t as f64 / steps as f64, schedule.posterior_variance(t) / schedule.beta(t));
        Ok((format!("cosine, T = {steps}"), (1..steps).map(point).collect()))
    });
    let lines = lines.into_iter().collect::<Result<Vec<_>>>()?;
    line_plot(&ratio, &lines, "t/T", "posterior variance / beta", true)?;

    // Figure 5: what is left of the picture.
    let processes =
        SCHEDULES.iter().map(|s| DiscreteSchedule::new(*s, args.steps_total)).collect::<Result<Vec<_>>>()?;
    let line = |(name, schedule): (&BetaSchedule, &DiscreteSchedule)| -> Series {
        let point = |t: usize| (t as f64 / schedule.len() as f64, schedule.alpha_cumprod(t));
        (name.to_string(), (0..schedule.len()).map(point).collect())
    };
    let lines: Vec<Series> = SCHEDULES.iter().zip(&processes).map(line).collect();
    line_plot(&alphas, &lines, "t/T", "cumulative product of 1 - beta", false)?;

    // Figure 3: the same picture and noise under both schedules.
    let image = prepare(&decoded, dataset.image_size(), CropOffset::CENTER, false);
    let rows: Vec<Vec<Vec<Image>>> =
        processes.iter().map(|process| strip(&image, process)).collect::<Result<_>>()?;
    let names: Vec<String> = SCHEDULES.iter().map(BetaSchedule::to_string).collect();
    let sheet = pictures::sheet(&rows, &names, &[])?;
    let notes = [
        note("Software", format!("freeguide {}", env!("CARGO_PKG_VERSION"))),
        note("data", &dataset.name),
        note("image", args.image),
        note("image_size", dataset.image_size()),
        note("steps_total", args.steps_total),
    ];
    pictures::save(&strips, &sheet, &notes)?;
    for written in [&ratio, &alphas, &strips] {
        println!("wrote {}", written.display());
    }

    // Figure 2: where the bound comes from.
    if !args.nll.is_empty() {
        let read = |file: &PathBuf| -> Result<Series> {
            let text = std::fs::read_to_string(file).map_err(Error::io(file))?;
            let found: Bound =
                serde_json::from_str(&text).map_err(|error| Error::format(file, error.to_string()))?;
            let points = found.timesteps.iter().zip(&found.step_bits).map(|(t, bits)| (*t as f64, *bits));
            Ok((file.with_extension("").display().to_string(), points.collect()))
        };
        let lines = args.nll.iter().map(read).collect::<Result<Vec<_>>>()?;
        line_plot(&bound, &lines, "t", "bits per dimension of each step", true)?;
        println!("wrote {}", bound.display());
    }

    // Figure 7: how large a batch the losses ask for.
    if !args.trainings.is_empty() {
        let lines = args.trainings.iter().map(|dir| gradient_noise(dir)).collect::<Result<Vec<_>>>()?;
        loss_plot(&noise, &lines, "images", "gradient-noise scale, in images", true)?;
        println!("wrote {}", noise.display());
    }
    // CFG, figures 4 and 5, tables 1 and 2.
    if !args.sweeps.is_empty() {
        let mut points = Vec::new();
        for file in &args.sweeps {
            let text = std::fs::read_to_string(file).map_err(Error::io(file))?;
            points.extend(from_csv(&text).map_err(|error| Error::format(file, error.to_string()))?);
        }
        print!("{}", measured_sweep::draw(&points, &curves, &table)?);
        println!("wrote {} and {}", curves.display(), table.display());
    }
    Ok(())
}

/// The gradient-noise scale along a training.
fn gradient_noise(dir: &Path) -> Result<Series> {
    /// What is needed of `train.json`.
    #[derive(Deserialize)]
    struct Sizes {
        batch: usize,
        microbatch: usize,
    }
    let path = dir.join("train.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let sizes: Sizes =
        serde_json::from_str(&text).map_err(|error| Error::format(&path, error.to_string()))?;
    let points = gradient_noise_scale(&records(dir)?, sizes.batch, sizes.microbatch);
    if points.is_empty() {
        return Err(Error::Config(format!(
            "{}: there is no gradient-noise scale in this training; it is measured where --microbatch is smaller than \
             --batch",
            dir.display()
        )));
    }
    Ok((dir.display().to_string(), points))
}

/// A picture at evenly spaced t, one cell each.
fn strip(image: &Image, process: &DiscreteSchedule) -> Result<Vec<Vec<Image>>> {
    let noise = fill_normal(0, 0, Stream::TrainingNoise, image.pixels.len());
    let at = |column: usize| {
        let t = (process.len() - 1) * column / (COLUMNS - 1);
        let (alpha, sigma) = (process.alpha(t), process.sigma(t));
        let pixel = |(&byte, &eps): (&u8, &f32)| {
            (alpha * (f64::from(byte) / 127.5 - 1.0) + sigma * f64::from(eps)) as f32
        };
        let values: Vec<f32> = image.pixels.iter().zip(&noise).map(pixel).collect();
        Ok(vec![Image::new(image.width, image.height, image.channels, to_u8(&values))?])
    };
    (0..COLUMNS).map(at).collect()
}
