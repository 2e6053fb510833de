//! `freeguide train-classifier`.

use std::path::{Path, PathBuf};

use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::io::{Series, line_plot};
use crate::nn::unet::NullClass;
use crate::train::{
    LossKind, Objective, Outcome, Preset, Start, StepRecord, TrainOptions, TrainSchedule, Trainer,
};

use super::data::{self, DataArgs};
use super::shared_args::{
    AttentionArgs, BatchArgs, FlipArgs, ImageSizeArgs, ImagesArgs, RateArgs, SaveArgs, SeedArgs,
    StepsTotalArgs,
};
use super::{DeviceArgs, number, outputs, ranges, start, train};

/// Shown first by `--help`.
const EXAMPLES: &str = "\
Examples:
  freeguide train-classifier --data digits --out out/classifier
  freeguide sample --model out/digits --classifier out/classifier --class 7";

/// Train a classifier of noisy pictures, to guide samplers with. The same command again resumes.
#[derive(clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// Pictures and their labels, as for `train`.
    #[arg(long, value_name = "digits|DIR|FILE.zip|IDX")]
    data: String,
    #[command(flatten)]
    reading: DataArgs,
    /// Where the classifier, the log and the states go.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    image_size: ImageSizeArgs,
    #[command(flatten)]
    flip: FlipArgs,
    /// The schedule of the noise, that of the model to be guided: continuous, linear, cosine, flow or edm.
    #[arg(long, value_name = "NAME", default_value = "continuous", help_heading = "Noise")]
    schedule: TrainSchedule,
    #[command(flatten, next_help_heading = "Noise")]
    steps_total: StepsTotalArgs,
    /// Channels of the first level [default: half of `train`'s].
    #[arg(
        long,
        value_name = "N",
        value_parser = number::count(1..=number::MOST_SIDE),
        help_heading = "Network"
    )]
    channels: Option<usize>,
    /// Width of each level, as multiples of --channels.
    #[arg(
        long,
        value_name = "1,2,…",
        value_parser = number::list(number::real(0.001..=16.0)),
        help_heading = "Network"
    )]
    channel_mult: Option<String>,
    #[command(flatten)]
    attention: AttentionArgs,
    #[command(flatten)]
    batch: BatchArgs,
    #[command(flatten)]
    lr: RateArgs,
    /// Decoupled weight decay (ADM: 0.05 to 0.2).
    #[arg(
        long,
        value_name = "F",
        default_value_t = 0.05,
        value_parser = number::real(0.0..=number::MOST_FACTOR),
        help_heading = "Optimisation"
    )]
    weight_decay: f64,
    #[command(flatten)]
    images: ImagesArgs,
    #[command(flatten)]
    seed: SeedArgs,
    #[command(flatten)]
    save_every: SaveArgs,
    #[command(flatten)]
    start: start::StartArgs,
    #[command(flatten)]
    from: start::FromArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

impl Args {
    fn options(&self, dataset: &Dataset) -> Result<TrainOptions> {
        let preset = Preset::named(if dataset.name == "digits" { "digits" } else { "custom" })?;
        let mut options = preset.options(dataset, self.seed.seed);
        let o = &mut options;
        if o.class_names.len() < 2 {
            return Err(Error::Config(format!(
                "{} has no classes to tell apart; a classifier needs two at least",
                self.data
            )));
        }
        o.flip = self.flip.flip;
        o.unet.num_classes = None;
        o.unet.null_class = NullClass::Absent;
        o.unet.out_channels = o.class_names.len();
        let groups = o.unet.norm_num_groups;
        let half = (o.unet.model_channels / 2).next_multiple_of(groups);
        o.unet.model_channels = self.channels.unwrap_or(half);
        if let Some(text) = &self.channel_mult {
            o.unet.channel_mult = ranges::numbers(text)?;
            let sizes = o.unet.sizes();
            o.unet.attention_resolutions.retain(|size| sizes.contains(size));
        }
        self.attention.set(o)?;
        if let Some(batch) = self.batch.batch {
            (o.batch, o.microbatch) = (batch, batch);
        }
        o.learning_rate = self.lr.lr.unwrap_or(o.learning_rate);
        o.weight_decay = self.weight_decay;
        o.images = self.images.images.unwrap_or(o.images);
        o.save_every = self.save_every.save_every.unwrap_or(o.save_every);
        o.sample_every = 0;
        // Every picture keeps its label: it is what is learnt.
        o.unconditional_probability = 0.0;
        o.objective = Objective {
            schedule: self.schedule,
            steps_total: self.steps_total.steps_total,
            loss: LossKind::CrossEntropy,
            ..Objective::default()
        };
        (o.log_snr_min, o.log_snr_max) = o.objective.default_log_snrs();
        options.check()?;
        Ok(options)
    }
}

pub fn run(args: &Args) -> Result<()> {
    outputs::prove_training(&args.out, &["loss.png", ACCURACY])?;
    let dataset = data::open(&args.data, &args.reading.options(args.image_size.image_size, false))?;
    let options = args.options(&dataset)?;
    let gpu = args.device.open()?;
    let start = Start { init_from: args.from.weights()?, ..args.start.start() };
    let outcome = train::train(&gpu, dataset.clone(), &options, &args.out, &start)?;
    if outcome == Outcome::Finished {
        let trainer = Trainer::open(&gpu, dataset, &options, &args.out)?;
        accuracy(trainer.records(), &args.out)?;
    }
    train::finish(outcome, &args.out)
}

/// In a training's folder, its accuracy by noise.
const ACCURACY: &str = "accuracy.png";

/// The quarters of the process.
const QUARTERS: [&str; 4] = ["clean quarter", "second", "third", "noisy quarter"];

/// Draws and prints the accuracy by noise.
fn accuracy(records: &[StepRecord], dir: &Path) -> Result<()> {
    // Windows of a fiftieth of the training: a step alone has few pictures of each quarter.
    let window = (records.len() / 50).max(1);
    let share = |records: &[StepRecord], quarter: usize| {
        let sum = |of: fn(&StepRecord) -> Option<[u32; 4]>| -> u32 {
            records.iter().filter_map(of).map(|counts| counts[quarter]).sum()
        };
        let (hits, all) = (sum(|record| record.hits), sum(|record| record.of));
        (all > 0).then(|| f64::from(hits) / f64::from(all))
    };
    let lines: Vec<Series> = QUARTERS
        .iter()
        .enumerate()
        .map(|(quarter, name)| {
            let point =
                |records: &[StepRecord]| Some((records.last()?.images as f64, share(records, quarter)?));
            ((*name).to_owned(), records.chunks(window).filter_map(point).collect())
        })
        .collect();
    line_plot(dir.join(ACCURACY), &lines, "images", "accuracy by noise", false)?;
    let last = &records[records.len() - (records.len() / 10).max(1)..];
    let text: Vec<String> = (0..4)
        .filter_map(|quarter| Some(format!("{} {:.1} %", QUARTERS[quarter], 100.0 * share(last, quarter)?)))
        .collect();
    println!("accuracy over the last tenth of the training: {}", text.join(", "));
    Ok(())
}
