//! `freeguide eval`.

use std::path::{Path, PathBuf};

use crate::diffusion::Guidance;
use crate::error::{Error, Result};
use crate::eval::{Collected, Measures, PictureSource, Report, SampledPictures, Store, measure};
use crate::gpu::Gpu;
use crate::io::WorkFolder;
use crate::model::{Model, check_same_classes};
use crate::tensor::Precision;

use super::drawing::{Drawing, DrawingArgs};
use super::features::{Compared, FeatureArgs, collected, compared, with_pictures};
use super::model_args::ModelArgs;
use super::{DeviceArgs, number, terminal};

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
    #[command(flatten)]
    opening: ModelArgs,
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
    /// Where features are kept until all is measured, so that an interrupted run goes on, and each report in reports.jsonl: an
    /// empty folder, or one of this program's [default: beside the pictures].
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: &Args) -> Result<()> {
    let precision: Precision = args.precision.parse()?;
    let drawing = args.drawing.read()?;
    let guidance = Guidance::from_weight(args.w)?;
    if args.w != 0.0 {
        drawing.check_weights_are_read()?;
    }
    if args.count.is_some_and(|count| count < 2) {
        return Err(Error::Config("--count must be at least 2: one picture has no spread".into()));
    }
    let work = args.work();
    WorkFolder::prove(&work)?;
    let gpu = args.device.open()?;
    let precision = precision.checked_on(gpu.capabilities())?;
    let (measured, work) = match (&args.model, &args.samples) {
        (Some(path), _) => {
            let model = args.opening.model(&gpu, path)?;
            drawing.check(&model, guidance)?;
            let size = model.unet.config().sample_size;
            let compared = compared(&gpu, &args.reference, &args.features, Some(size), &work)?;
            let work = WorkFolder::open(&work)?;
            let draw =
                Draw { guidance, drawing, steps: args.steps, precision, count: args.count.unwrap_or(50_000) };
            (measured_model(&gpu, &model, &draw, &compared, &work, Measures::ALL)?, work)
        }
        (None, Some(samples)) => {
            // Data is brought to the size of what it is compared with, where that is known.
            let compared = compared(&gpu, &args.reference, &args.features, None, &work)?;
            let work = WorkFolder::open(&work)?;
            let parts = work.path().join(PARTS);
            let (collected, pictures) = with_pictures(samples, None, args.count, |source| {
                let collected = collected("measuring", source, &*compared.network, &parts)?;
                Ok((collected, source.identity()))
            })?;
            let labelled = compared.network.knows_the_labels();
            let network = compared.network.identity();
            let report = measure(&collected, network, &compared.reference, labelled, Measures::ALL)?;
            (Measured { report, pictures }, work)
        }
        (None, None) => return Err(Error::Config("give --model or --samples".into())),
    };
    // Kept first, then told, then tidied up: whatever fails, the numbers or the features are still there.
    let Measured { report, pictures } = measured;
    let kept = serde_json::json!({ "pictures": pictures, "reference": args.reference, "report": report });
    work.append(REPORTS, &kept.to_string())?;
    if args.json {
        // What is read by a program is seen by a person too.
        report.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
        println!("{}", serde_json::to_string_pretty(&report).expect("a report has only names and numbers"));
    } else {
        print!("{report}");
    }
    if terminal::is_open() {
        Store::discard(&work.path().join(PARTS))?;
    }
    eprintln!("kept in {}", work.path().join(REPORTS).display());
    Ok(())
}

/// In a work folder, the features of the pictures that are measured.
pub const PARTS: &str = "pictures";
/// And a line for each report.
const REPORTS: &str = "reports.jsonl";

impl Args {
    /// The work folder that is asked for, or the usual one.
    fn work(&self) -> PathBuf {
        let usual = || match (&self.model, &self.samples) {
            (Some(model), _) if model.is_dir() => model.join("eval"),
            (Some(model), _) => beside(model),
            (None, samples) => beside(Path::new(samples.as_deref().unwrap_or_default())),
        };
        self.work.clone().unwrap_or_else(usual)
    }
}

/// What was measured, and of which pictures in words.
pub struct Measured {
    pub report: Report,
    pub pictures: String,
}

/// How a model's pictures are drawn.
pub struct Draw {
    pub guidance: Guidance,
    pub drawing: Drawing,
    pub steps: Option<usize>,
    pub precision: Precision,
    pub count: usize,
}

/// Draws and measures a model's pictures. What was collected stays in [`PARTS`] until the caller has kept the report.
pub fn measured_model(
    gpu: &Gpu,
    model: &Model,
    draw: &Draw,
    compared: &Compared,
    work: &WorkFolder,
    measures: Measures,
) -> Result<Measured> {
    let config = model.unet.config();
    let dtype = draw.precision.dtype();
    let (sampler, weaker) = draw.drawing.sampler(gpu, model, draw.guidance, draw.steps, dtype, draw.count)?;
    let options = sampler.options();
    let classes = config.num_classes;
    // All that decides the pictures: what the weights and their configuration hold, not where they lie.
    let configuration = serde_json::to_vec(&model.config).expect("a configuration is plain values");
    let identity = format!(
        "{} (weights {:08x}, configuration {:08x}), w = {}{}{}, {} steps, v = {}, clip {}, {:?}, freeguide {}",
        model.name,
        model.checksum(),
        crc32fast::hash(&configuration),
        draw.guidance.weight(),
        draw.drawing.note(),
        weaker.map_or_else(String::new, |weaker| format!(" (weaker weights {weaker:08x})")),
        options.steps,
        options.variance_exponent,
        options.clip,
        options.dtype,
        env!("CARGO_PKG_VERSION"),
    );
    let parts = work.path().join(PARTS);
    let stop = super::interrupt::flag();
    let sample = |requests: &[_]| {
        sampler.sample(requests, draw.guidance, || {
            if stop.load(std::sync::atomic::Ordering::SeqCst) { Err(Error::Interrupted) } else { Ok(()) }
        })
    };
    let classes = classes.map(|classes| classes as u32);
    let mut source = SampledPictures::new(draw.count, classes, &identity, Box::new(sample));
    let collected: Collected = collected("drawing", &mut source, &*compared.network, &parts)?;
    // By name: numbers of two lists say nothing of each other.
    let (ours, theirs) = (&*model.config.class_names, compared.network.class_names());
    let same = check_same_classes(("the model", ours), ("the network of the features", theirs), false);
    let same_classes = config.num_classes.is_some() && matches!(same, Ok(None));
    let report =
        measure(&collected, compared.network.identity(), &compared.reference, same_classes, measures)?;
    Ok(Measured { report, pictures: source.identity() })
}

/// The folder X.eval beside a file or folder X; within a folder of pictures it would be taken for a class.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".eval");
    path.with_file_name(name)
}
