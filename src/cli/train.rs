//! `freeguide train`.

mod network;
mod options;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::data::{DataOptions, Dataset};
use crate::diffusion::{Guidance, Prediction, TimeSampler};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::nn::UNet;
use crate::shape::Extent;
use crate::train::{Event, LossKind, Outcome, Start, TrainOptions, TrainSchedule, TrainStep, Trainer};

use super::data::{self, DataArgs};
use super::notes::{self, note};
use super::shared_args::{
    AttentionArgs, AverageArgs, FlipArgs, ImageSizeArgs, ImagesArgs, PrecisionArgs, RateArgs, SaveArgs,
    SeedArgs, StepsTotalArgs,
};
use super::sheets::Sheets;
use super::{DeviceArgs, interrupt, number, outputs, pictures, progress, start};
use network::VariationArgs;

/// Shown first by `--help`.
const EXAMPLES: &str = "\
Examples:
  freeguide train --data digits --out out/digits
  freeguide train --data pictures/ --image-size 64 --out out/pictures --dry-run
  freeguide train --data cifar10.zip --preset cifar10 --flip --out out/cifar10";

/// Train a class-conditional model with label dropout. The same command again resumes.
#[derive(clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// Pictures and their labels: `digits`, a folder or .zip (with dataset.json, metadata.csv or metadata.jsonl, with class
    /// sub-folders, or of class_name.png files), or an IDX images file (its labels beside it).
    #[arg(long, value_name = "digits|DIR|FILE.zip|IDX")]
    data: String,
    /// Take no labels of the data: train a network without a class condition.
    #[arg(long, conflicts_with = "label", help_heading = "Data")]
    unlabelled: bool,
    #[command(flatten)]
    reading: DataArgs,
    /// What the network is told of a picture beside its class, as a vector: columns of the data's metadata.csv or
    /// metadata.jsonl, of numbers or names; of the digits thickness and slant. With `class` among them the class is a part of
    /// the vector and not of a table.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', help_heading = "Data")]
    attributes: Vec<String>,
    /// Where the model, the log and the states go.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where all other options start from: digits, custom, cifar10, imagenet64 [default: digits for the digits, else
    /// custom].
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    #[command(flatten)]
    image_size: ImageSizeArgs,
    /// Where pictures of other proportions are cropped: center or random; none stretches them to size instead.
    #[arg(long, value_name = "center|random|none", default_value = "center", help_heading = "Data")]
    crop: String,
    #[command(flatten)]
    flip: FlipArgs,
    /// Train an upsampler, from pictures of this size to pictures of --image-size.
    #[arg(long, value_name = "N|HxW", value_parser = number::size(number::MOST_SIDE), help_heading = "Data")]
    upsample_from: Option<Extent>,

    /// Channels of the first level.
    #[arg(
        long,
        value_name = "N",
        help_heading = "Network",
        value_parser = number::count(1..=number::MOST_SIDE)
    )]
    channels: Option<usize>,
    /// Width of each level, as multiples of --channels; as many levels as numbers.
    #[arg(
        long,
        value_name = "1,2,…",
        help_heading = "Network",
        value_parser = number::list(number::real(0.001..=16.0))
    )]
    channel_mult: Option<String>,
    /// Residual blocks a level.
    #[arg(long, value_name = "N", help_heading = "Network", value_parser = number::count(1..=64))]
    res_blocks: Option<usize>,
    #[command(flatten)]
    attention: AttentionArgs,
    #[command(flatten)]
    variations: VariationArgs,
    /// Groups of the group norms; must divide every level's width.
    #[arg(
        long,
        value_name = "N",
        help_heading = "Network",
        value_parser = number::count(1..=number::MOST_SIDE)
    )]
    norm_groups: Option<usize>,
    /// The first block that is told the class, as input_blocks.2, middle_block or output_blocks.3: what is before it runs
    /// once for both halves of guidance.
    #[arg(long, value_name = "BLOCK", help_heading = "Network")]
    condition_from: Option<String>,
    /// Dropout in residual blocks.
    #[arg(long, value_name = "F", help_heading = "Network", value_parser = number::below(0.0, 1.0))]
    dropout: Option<f64>,

    /// Images a step [default: the preset's, on small sets a sixteenth of the pictures, from 8].
    #[arg(
        long,
        value_name = "N",
        help_heading = "Optimisation",
        value_parser = number::count(1..=number::MOST_BATCH)
    )]
    batch: Option<usize>,
    /// Images at a time on the device, to save memory; must divide --batch.
    #[arg(
        long,
        value_name = "N",
        help_heading = "Optimisation",
        value_parser = number::count(1..=number::MOST_BATCH)
    )]
    microbatch: Option<usize>,
    #[command(flatten)]
    lr: RateArgs,
    /// Images over which the learning rate rises from zero [default: the preset's, at most six passes].
    #[arg(
        long,
        value_name = "IMAGES",
        help_heading = "Optimisation",
        value_parser = number::whole(0..=number::MOST_IMAGES)
    )]
    warmup: Option<u64>,
    /// Decoupled weight decay.
    #[arg(
        long,
        value_name = "F",
        help_heading = "Optimisation",
        value_parser = number::real(0.0..=number::MOST_FACTOR)
    )]
    weight_decay: Option<f64>,
    /// Largest norm of the gradient; 0 for none.
    #[arg(long, value_name = "F", help_heading = "Optimisation", value_parser = number::real(0.0..=1e9))]
    grad_clip: Option<f64>,
    #[command(flatten)]
    images: ImagesArgs,
    /// The same as passes over the data.
    #[arg(
        long,
        value_name = "N",
        help_heading = "Optimisation",
        conflicts_with = "images",
        value_parser = number::whole(1..=number::MOST_IMAGES)
    )]
    epochs: Option<u64>,
    /// Probability of leaving a label out, so that one network learns both models.
    #[arg(
        long,
        value_name = "F",
        default_value_t = 0.1,
        help_heading = "Optimisation",
        value_parser = number::real(0.0..=1.0)
    )]
    p_uncond: f64,
    /// With --attributes, probability of leaving each part of the condition out by itself: the class, all attributes, and each
    /// of them, so that each can be guided by itself [default: 0.1].
    #[arg(
        long,
        value_name = "F",
        requires = "attributes",
        help_heading = "Optimisation",
        value_parser = number::real(0.0..=1.0)
    )]
    p_part: Option<f64>,
    #[command(flatten, next_help_heading = "Optimisation")]
    averages: AverageArgs,
    /// Log SNR at the noisy end [default: -20; -8.76, where σ/α is 80, with --schedule edm].
    #[arg(
        long,
        value_name = "F",
        allow_negative_numbers = true,
        help_heading = "Optimisation",
        value_parser = number::real(-80.0..=80.0)
    )]
    lambda_min: Option<f64>,
    /// Log SNR at the clean end [default: 20; 12.4, where σ/α is 0.002, with --schedule edm].
    #[arg(
        long,
        value_name = "F",
        allow_negative_numbers = true,
        help_heading = "Optimisation", value_parser = number::real(-80.0..=80.0))]
    lambda_max: Option<f64>,
    /// The schedule: continuous (λ drawn as in the CFG paper), linear (DDPM), cosine (IDDPM), flow (the straight path from
    /// picture to noise) or edm (log-normal noise levels).
    #[arg(long, value_name = "NAME", default_value = "continuous", help_heading = "Objective")]
    schedule: TrainSchedule,
    #[command(flatten, next_help_heading = "Objective")]
    steps_total: StepsTotalArgs,
    /// What the network predicts: eps, x0, v, flow, the velocity of a straight path, or edm, what EDM's preconditioning leaves to
    /// it [default: eps; flow of --schedule flow, edm of --schedule edm].
    #[arg(long, value_name = "eps|x0|v|flow|edm", help_heading = "Objective")]
    predict: Option<Prediction>,
    /// The standard deviation of the data, for --predict edm [default: 0.5].
    #[arg(long, value_name = "F", help_heading = "Objective", value_parser = number::real(0.001..=1000.0))]
    sigma_data: Option<f64>,
    /// Learn the variance of ancestral steps too (IDDPM).
    #[arg(long, help_heading = "Objective")]
    learn_sigma: bool,
    /// The loss: simple (mean squared error), hybrid (plus 0.001 of the bound, for the variances; hybrid-unscaled as
    /// published code has it), vlb (the bound).
    #[arg(long, value_name = "NAME", default_value = "simple", help_heading = "Objective")]
    loss: LossKind,
    /// How times are drawn: uniform, importance (by the size of their losses), low-discrepancy, logit-normal (of a flow).
    #[arg(long, value_name = "NAME", default_value = "uniform", help_heading = "Objective")]
    t_sampler: TimeSampler,
    #[command(flatten, next_help_heading = "Optimisation")]
    precision: PrecisionArgs,
    #[command(flatten)]
    seed: SeedArgs,

    /// Images between pictures of samples (samples-IMAGES.png); 0 for none.
    #[arg(
        long,
        value_name = "IMAGES",
        value_parser = number::whole(0..=number::MOST_IMAGES),
        help_heading = "Output"
    )]
    sample_every: Option<u64>,
    #[command(flatten)]
    save_every: SaveArgs,
    #[command(flatten)]
    start: start::StartArgs,
    #[command(flatten)]
    from: start::FromArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print options, parameters, memory and FLOPs a step, and exit.
    #[arg(long, help_heading = "Output")]
    dry_run: bool,
    /// After the training, print the GPU time of one step by kernel.
    #[arg(long, help_heading = "Output")]
    profile: bool,
}

pub fn run(args: &Args) -> Result<()> {
    if !args.dry_run {
        outputs::prove_training(&args.out, &["loss.png"])?;
    }
    let reading = DataOptions {
        attributes: args.attributes.clone(),
        ..args.reading.options(args.image_size.image_size, args.unlabelled)
    };
    let dataset = data::open(&args.data, &reading)?;
    let options = args.options(&dataset)?;
    let first_weights = args.from.weights()?;
    let gpu = args.device.open()?;
    if args.dry_run {
        return options::dry_run(&gpu, &options.settle_precision(gpu.capabilities(), &args.out)?);
    }
    let start = Start { init_from: first_weights, ..args.start.start() };
    let outcome = train(&gpu, dataset, &options, &args.out, &start)?;
    if args.profile && outcome == Outcome::Finished {
        let options = options.settle_precision(gpu.capabilities(), &args.out)?;
        let unet = UNet::new(&options.unet)?;
        println!("{}", TrainStep::profile(&gpu, &unet, &options)?);
    }
    finish(outcome, &args.out)
}

/// Trains with a progress bar and, where asked for, pictures on the way.
pub fn train(
    gpu: &Gpu,
    dataset: Arc<Dataset>,
    options: &TrainOptions,
    dir: &Path,
    start: &Start,
) -> Result<Outcome> {
    drive(gpu, Trainer::open_as(gpu, dataset, options, dir, start)?, dir)
}

/// Pictures in a cell of the sheets on the way.
const IN_CELL: u64 = 4;

/// The same of an opened training.
pub fn drive(gpu: &Gpu, mut trainer: Trainer, dir: &Path) -> Result<Outcome> {
    let stop = interrupt::flag();
    for note in &trainer.found().notes {
        eprintln!("note: {note}");
    }
    for warning in &trainer.found().warnings {
        eprintln!("warning: {warning}");
    }
    let total = trainer.total_images();
    if trainer.images() >= total {
        eprintln!("{} images were seen already: nothing is left to train", trainer.images());
    } else if trainer.images() > 0 {
        eprintln!("going on after {} images", trainer.images());
    } else {
        let (parameters, precision) = (trainer.parameters().count(), trainer.options().precision);
        eprintln!("training {parameters} parameters on {total} images, activations in {precision}");
    }
    let bar = progress::bar("training", "images", trainer.images(), total);
    let mut smooth: Option<f32> = None;
    let outcome = trainer.run(
        || stop.load(Ordering::SeqCst),
        |trainer, event| {
            match event {
                Event::Step(record) => {
                    let average = smooth.map_or(record.loss, |s| s + 0.05 * (record.loss - s));
                    smooth = Some(average);
                    bar.set_position(record.images);
                    bar.set_message(format!("loss {average:.4}"));
                }
                Event::Saved(_) => {}
                Event::Warning(what) => bar.say(&format!("warning: {what}")),
                Event::Samples(images) => {
                    let config = trainer.config(trainer.options().ema_rates[0]);
                    let precision = trainer.options().precision;
                    let Some(unet) = trainer.unet() else { return Ok(()) };
                    let sheets = Sheets::new(gpu, unet, &trainer.average(), &config, precision)?;
                    // What the training teaches: classes, classes under guidance, or no class.
                    let weights = match trainer.options().unconditional_probability {
                        _ if config.unet.num_classes.is_none() => vec![-1.0],
                        0.0 => vec![0.0],
                        1.0 => vec![-1.0],
                        _ => vec![0.0, 2.0],
                    };
                    let guidance: Vec<Guidance> =
                        weights.into_iter().map(Guidance::from_weight).collect::<Result<_>>()?;
                    let sheet = sheets.guided_sheet(&guidance, IN_CELL, |_| Ok(()))?;
                    let options = trainer.options();
                    let mut notes = notes::program(gpu);
                    notes.push(note("data", &config.data));
                    notes.push(note("training_seed", options.seed));
                    notes.push(note("images", images));
                    notes.push(note("average", options.ema_rates[0]));
                    notes.extend(sheets.notes(&guidance, IN_CELL)?);
                    pictures::save(&dir.join(format!("samples-{images:012}.png")), &sheet, &notes)?;
                }
            }
            Ok(())
        },
    )?;
    bar.finish_and_clear();
    for average in trainer.averages() {
        eprintln!("{average}");
        average.warning().iter().for_each(|warning| eprintln!("warning: {warning}"));
    }
    data::warn_of_damage(trainer.dataset());
    Ok(outcome)
}

/// Says how it ended.
pub fn finish(outcome: Outcome, dir: &Path) -> Result<()> {
    match outcome {
        Outcome::Finished => {
            println!("wrote {}", dir.join("model.safetensors").display());
            Ok(())
        }
        Outcome::Stopped => {
            eprintln!("stopped; what was trained is saved, and the same command goes on from it");
            Err(Error::Interrupted)
        }
    }
}
