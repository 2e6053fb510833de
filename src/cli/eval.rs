//! `freeguide eval`.

use std::path::{Path, PathBuf};

use crate::diffusion::Guidance;
use crate::error::{Error, Result};
use crate::eval::{
    Collected, Measures, PictureSource, Report, SampledPictures, Store, agreement, class_map, in_numbers_of,
    measure,
};
use crate::gpu::Gpu;
use crate::io::WorkFolder;
use crate::model::Model;
use crate::tensor::Precision;

use super::drawing::{Drawing, DrawingArgs};
use super::features::{Compared, FeatureArgs, Given, PARTS, collected, compared, or_nothing};
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
    or_nothing(&work, || measure_and_keep(args, precision, drawing, guidance, &work))
}

/// Measures, and keeps the report in the work folder before it is told.
fn measure_and_keep(
    args: &Args,
    precision: Precision,
    drawing: Drawing,
    guidance: Guidance,
    work: &Path,
) -> Result<()> {
    // Before anything that takes its time.
    let given = args.samples.as_ref().map(|samples| Given::open(samples, args.count)).transpose()?;
    let gpu = args.device.open()?;
    let precision = precision.checked_on(gpu.capabilities())?;
    let (measured, work) = match (&args.model, given) {
        (Some(path), _) => {
            let model = args.opening.model_in(&gpu, path, precision.dtype())?;
            drawing.check(&model, guidance)?;
            let size = model.unet.config().sample_size;
            let compared = compared(&gpu, &args.reference, &args.features, Some(size), work)?;
            let work = WorkFolder::open(work)?;
            let draw =
                Draw { guidance, drawing, steps: args.steps, precision, count: args.count.unwrap_or(50_000) };
            (measured_model(&gpu, &model, &draw, &compared, &work, Measures::ALL)?, work)
        }
        (None, Some(given)) => {
            // Data is brought to the size of what it is compared with, where that is known.
            let compared = compared(&gpu, &args.reference, &args.features, None, work)?;
            let work = WorkFolder::open(work)?;
            let (parts, names) = (work.path().join(PARTS), given.class_names());
            let (collected, pictures) = given.with(|source| {
                let collected = collected("measuring", source, &*compared.network, &parts)?;
                Ok((collected, source.identity()))
            })?;
            // For people, the name too, which tells nothing of the contents.
            let pictures = format!("{}: {pictures}", args.samples.as_deref().unwrap_or_default());
            let whose = ("the pictures", names.as_deref());
            (Measured { report: report(collected, whose, &compared, Measures::ALL)?, pictures }, work)
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

/// Measures what was collected of pictures whose classes have these names: an empty list where they are numbers, nothing
/// where there are no classes. Labels are held against those of the network and of the reference by name.
fn report(
    mut collected: Collected,
    (whose, names): (&str, Option<&[String]>),
    compared: &Compared,
    measures: Measures,
) -> Result<Report> {
    let (network, mut notes, mut agreed) = (&*compared.network, Vec::new(), None);
    if names.is_none() {
        collected.labels = None;
    }
    if let (Some(names), Some(labels)) = (names, collected.labels.take()) {
        if network.knows_the_labels() {
            // Files of an earlier version have no names.
            let numbers: Vec<String> = (0..network.sizes().classes).map(|label| label.to_string()).collect();
            let theirs = if network.class_names().is_empty() { &numbers } else { network.class_names() };
            match class_map((whose, names), ("the network of the features", theirs)) {
                Ok(map) => agreed = agreement(&in_numbers_of(&map, &labels), &collected.taken_for),
                Err(why) => notes.push(format!("class agreement is not measured: {why}")),
            }
        }
        collected.labels = match &compared.class_names {
            None => {
                if compared.reference.labels.is_some() && measures.classes {
                    notes.push(
                        "the recall of a class holds labels against the reference's by their numbers: a file has no names of \
                         classes"
                            .into(),
                    );
                }
                Some(labels)
            }
            Some(theirs) => match class_map((whose, names), ("the reference", theirs)) {
                Ok(map) => Some(in_numbers_of(&map, &labels)),
                Err(why) => {
                    if measures.classes {
                        notes.push(format!("the recall of each class is not measured: {why}"));
                    }
                    None
                }
            },
        };
    }
    let mut report = measure(&collected, network.identity(), &compared.reference, false, measures)?;
    report.agreement = agreed;
    report.notes.extend(notes);
    Ok(report)
}

/// In a work folder, a line for each report.
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
    let names = config.num_classes.map(|_| &*model.config.class_names);
    let report = report(collected, ("the model's pictures", names), compared, measures)?;
    Ok(Measured { report, pictures: source.identity() })
}

/// The folder X.eval beside a file or folder X; within a folder of pictures it would be taken for a class.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".eval");
    path.with_file_name(name)
}
