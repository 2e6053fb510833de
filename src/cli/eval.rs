//! `freeguide eval`.

use std::path::{Path, PathBuf};

use crate::diffusion::Guidance;
use crate::error::{Error, Result};
use crate::eval::{Collected, Measures, Report, SampledPictures, measure};
use crate::gpu::Gpu;
use crate::model::Model;
use crate::tensor::Precision;

use super::DeviceArgs;
use super::drawing::{Drawing, DrawingArgs};
use super::features::{Compared, FeatureArgs, collected, compared, with_pictures};
use super::number;

/// Shown first by `--help`.
const EXAMPLES: &str = "\
Examples:
  freeguide eval --model out/digits --reference digits --count 1000
  freeguide eval --samples samples.npz --reference digits.npz --json";

/// Measure pictures, or what a model draws: FID, sFID, inception score, KID, precision, recall.
#[derive(clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// The model whose pictures to measure; they are drawn as they are needed.
    #[arg(long, value_name = "DIR|FILE", conflicts_with = "samples", required_unless_present = "samples")]
    model: Option<PathBuf>,
    /// Pictures that are there: a .npz of samples (arr_0, arr_1), or data as `train` takes it.
    #[arg(long, value_name = "X.npz|DIR")]
    samples: Option<String>,
    /// What to compare with: a file of `freeguide stats` or of a published evaluator, or data.
    #[arg(long, value_name = "STATS.npz|DATA")]
    reference: String,
    #[command(flatten)]
    features: FeatureArgs,
    /// Pictures to measure [default: 50000 of a model, all of samples].
    #[arg(long, value_name = "N", value_parser = number::count(2..=number::MOST_COUNT))]
    count: Option<usize>,
    /// Guidance weight w of the CFG paper, for a model's pictures.
    #[arg(
        long,
        value_name = "F",
        default_value_t = 0.0,
        allow_negative_numbers = true,
        value_parser = number::real(-number::MOST_WEIGHT..=number::MOST_WEIGHT),
        help_heading = "Sampler"
    )]
    w: f64,
    /// Denoising steps [default: the model's].
    #[arg(
        long,
        value_name = "N",
        value_parser = number::count(1..=number::MOST_STEPS),
        help_heading = "Sampler"
    )]
    steps: Option<usize>,
    #[command(flatten)]
    drawing: DrawingArgs,
    /// Storage of activations: f32, f16 or auto.
    #[arg(long, value_name = "f32|f16|auto", default_value = "auto", help_heading = "Device")]
    precision: String,
    /// Tell the numbers as JSON.
    #[arg(long)]
    json: bool,
    /// Where features are kept until all is measured, so that an interrupted run goes on [default: beside the pictures].
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: &Args) -> Result<()> {
    let precision: Precision = args.precision.parse()?;
    let drawing = args.drawing.read()?;
    let guidance = Guidance::from_weight(args.w)?;
    if args.count.is_some_and(|count| count < 2) {
        return Err(Error::Config("--count must be at least 2: one picture has no spread".into()));
    }
    let gpu = args.device.open()?;
    let precision = precision.checked_on(gpu.capabilities())?;
    let report = match (&args.model, &args.samples) {
        (Some(path), _) => {
            let model = Model::load(&gpu, path)?;
            let inside = path.is_dir().then(|| path.join("eval"));
            let work = args.work.clone().or(inside).unwrap_or_else(|| beside(path));
            let size = model.unet.config().sample_size;
            let compared = compared(&gpu, &args.reference, &args.features, Some(size), &work)?;
            let draw =
                Draw { guidance, drawing, steps: args.steps, precision, count: args.count.unwrap_or(50_000) };
            measured_model(&gpu, &model, &draw, &compared, &work, Measures::ALL)?
        }
        (None, Some(samples)) => {
            let work = args.work.clone().unwrap_or_else(|| beside(Path::new(samples)));
            // Data is brought to the size of what it is compared with, where that is known.
            let compared = compared(&gpu, &args.reference, &args.features, None, &work)?;
            let parts = work.join("pictures");
            let (collected, identity) = with_pictures(samples, None, args.count, |source| {
                let identity = compared.network.identity().to_owned();
                Ok((collected("measuring", source, &*compared.network, &parts)?, identity))
            })?;
            let labelled = compared.network.knows_the_labels();
            let report = measure(&collected, &identity, &compared.reference, labelled, Measures::ALL)?;
            std::fs::remove_dir_all(&parts).map_err(Error::io(&parts))?;
            report
        }
        (None, None) => return Err(Error::Config("give --model or --samples".into())),
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report).expect("a report has only names and numbers"));
    } else {
        print!("{report}");
    }
    Ok(())
}

/// How a model's pictures are drawn.
pub struct Draw {
    pub guidance: Guidance,
    pub drawing: Drawing,
    pub steps: Option<usize>,
    pub precision: Precision,
    pub count: usize,
}

/// Draws and measures a model's pictures. What was collected is deleted when all is done.
pub fn measured_model(
    gpu: &Gpu,
    model: &Model,
    draw: &Draw,
    compared: &Compared,
    work: &Path,
    measures: Measures,
) -> Result<Report> {
    let config = model.unet.config();
    let dtype = draw.precision.dtype();
    let drawer = draw.drawing.drawer(gpu, model, draw.guidance, draw.steps, dtype, draw.count)?;
    let options = drawer.options();
    let classes = config.num_classes;
    let identity = format!(
        "{} at {} images, w = {}{}, {} steps, v = {}, clip {}, {:?}",
        model.path.display(),
        model.config.images_seen,
        draw.guidance.weight(),
        draw.drawing.note(),
        options.steps,
        options.variance_exponent,
        options.clip,
        options.dtype,
    );
    let parts = work.join("pictures");
    let stop = super::interrupt::flag();
    let sample = |requests: &[_]| {
        drawer.sample(requests, draw.guidance, || {
            if stop.load(std::sync::atomic::Ordering::SeqCst) { Err(Error::Interrupted) } else { Ok(()) }
        })
    };
    let classes = classes.map(|classes| classes as u32);
    let mut source = SampledPictures::new(draw.count, classes, &identity, Box::new(sample));
    let collected: Collected = collected("drawing", &mut source, &*compared.network, &parts)?;
    let same_classes = Some(compared.network.sizes().classes) == config.num_classes;
    let report =
        measure(&collected, compared.network.identity(), &compared.reference, same_classes, measures)?;
    std::fs::remove_dir_all(&parts).map_err(Error::io(&parts))?;
    Ok(report)
}

/// The folder X.eval beside a file or folder X; within a folder of pictures it would be taken for a class.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".eval");
    path.with_file_name(name)
}
