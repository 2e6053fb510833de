//! `freeguide distill`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::data::Dataset;
use crate::diffusion::Prediction;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::model::{Model, ModelConfig, check_same_classes};
use crate::train::{Outcome, Preset, Start, Teacher, TrainOptions, Trainer};

use super::data::{self, DataArgs};
use super::model_args::ModelArgs;
use super::shared_args::{AverageArgs, BatchArgs, FlipArgs, PrecisionArgs, SaveArgs};
use super::{DeviceArgs, interrupt, number, outputs, ranges, start, train};

/// Shown first by `--help`.
const EXAMPLES: &str = "\
Examples:
  freeguide distill --teacher out/digits --out out/student
  freeguide distill --teacher out/digits --w 0:4 --halve 4 --out out/student";

/// Train a network that is told the guidance weight, so that guided pictures cost one evaluation a step; then halve its
/// steps. The same command again resumes.
#[derive(clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// The model to learn from: one that can be guided, or, with --halve, one that was distilled before.
    #[arg(long, value_name = "DIR|FILE")]
    teacher: PathBuf,
    #[command(flatten)]
    opening: ModelArgs,
    /// Where the student goes; those of halved steps go into its folders steps-N.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The guidance weights w that the student learns, the least and the largest. It is taught an eighth of the range beyond
    /// both, so that the ends are learnt as well as the middle.
    #[arg(
        long,
        value_name = "FROM:TO",
        default_value = "0:4",
        allow_hyphen_values = true,
        value_parser = number::checked(ranges::range)
    )]
    w: String,
    /// Then halve the steps again and again, down to so many.
    #[arg(long, value_name = "N", value_parser = number::count(1..=number::MOST_STEPS))]
    halve: Option<usize>,
    /// Pictures to learn on, as for `train` [default: the digits, of a teacher trained on them].
    #[arg(long, value_name = "digits|DIR|FILE.zip|IDX")]
    data: Option<String>,
    #[command(flatten)]
    reading: DataArgs,
    #[command(flatten)]
    flip: FlipArgs,
    /// What the student predicts: eps, x0 or v [default: what its teacher does; v with --halve].
    #[arg(long, value_name = "eps|x0|v")]
    predict: Option<Prediction>,

    /// Where the options below start from, as for `train`.
    #[arg(long, value_name = "NAME", help_heading = "Optimisation")]
    preset: Option<String>,
    #[command(flatten)]
    batch: BatchArgs,
    /// Images at a time on the device; must divide --batch.
    #[arg(
        long,
        value_name = "N",
        value_parser = number::count(1..=number::MOST_BATCH),
        help_heading = "Optimisation"
    )]
    microbatch: Option<usize>,
    /// Learning rate [default: half of the preset's].
    #[arg(
        long,
        value_name = "F",
        value_parser = number::real(1e-12..=number::MOST_FACTOR),
        help_heading = "Optimisation"
    )]
    lr: Option<f64>,
    /// Images to see in all, in each halving too.
    #[arg(
        long,
        value_name = "N",
        value_parser = number::whole(1..=number::MOST_IMAGES),
        help_heading = "Optimisation"
    )]
    images: Option<u64>,
    /// Probability of leaving a label out, so that the student can do without a class.
    #[arg(
        long,
        value_name = "F",
        default_value_t = 0.1,
        value_parser = number::real(0.0..=1.0),
        help_heading = "Optimisation"
    )]
    p_uncond: f64,
    #[command(flatten)]
    averages: AverageArgs,
    #[command(flatten, next_help_heading = "Device")]
    precision: PrecisionArgs,
    /// Seed of the order of images and all noise.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        value_parser = number::seed(),
        help_heading = "Optimisation"
    )]
    seed: u64,
    #[command(flatten)]
    save_every: SaveArgs,
    #[command(flatten)]
    start: start::StartArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

impl Args {
    /// How the student is trained; whom by is the teacher's to say.
    fn options(&self, dataset: &Dataset) -> Result<TrainOptions> {
        let mut options = Preset::or_usual(self.preset.as_deref(), dataset)?.options(dataset, self.seed);
        let o = &mut options;
        o.flip = self.flip.flip;
        if let Some(batch) = self.batch.batch {
            (o.batch, o.microbatch) = (batch, batch);
        }
        o.microbatch = self.microbatch.unwrap_or(o.microbatch);
        o.learning_rate = self.lr.unwrap_or(o.learning_rate / 2.0);
        o.images = self.images.unwrap_or(o.images);
        o.unconditional_probability = self.p_uncond;
        self.averages.set(o)?;
        o.precision = self.precision.read()?;
        o.save_every = self.save_every.save_every.unwrap_or(o.save_every);
        Ok(options)
    }

    /// The data set, as the teacher sees pictures.
    fn dataset(&self, teacher: &ModelConfig) -> Result<Arc<Dataset>> {
        let spec = match &self.data {
            Some(spec) => spec,
            None if teacher.data == "digits" => "digits",
            None => {
                let what = format!("the teacher was trained on {:?}; give it as --data", teacher.data);
                return Err(Error::Config(what));
            }
        };
        // A teacher without classes looks at no labels.
        let reading =
            self.reading.options(Some(teacher.unet.sample_size), teacher.unet.num_classes.is_none());
        let dataset = data::open(spec, &reading)?;
        let (classes, channels) = (dataset.num_classes(), dataset.channels);
        if teacher.unet.num_classes.is_some() {
            let names = (&*teacher.class_names, &*dataset.class_names);
            let note = check_same_classes(("the teacher", names.0), (spec, names.1), true)?;
            note.iter().for_each(|note| eprintln!("note: {note}"));
        }
        if channels != teacher.unet.in_channels {
            return Err(Error::Config(format!(
                "{spec} has {classes} classes and {channels} channels, the teacher {} and {}",
                teacher.unet.num_classes.unwrap_or(0),
                teacher.unet.in_channels
            )));
        }
        Ok(dataset)
    }
}

/// The numbers of steps on the way from `from` to `to`, each half of the one before.
fn halvings(from: usize, to: usize, exactly: bool) -> Result<Vec<usize>> {
    let down = |steps: &usize| steps.is_multiple_of(2).then_some(steps / 2).filter(|half| *half >= to.max(1));
    // The largest number of steps that the teacher has and that halves down to what is asked for.
    let ways = (1..usize::BITS).filter_map(|k| to.checked_mul(1 << k)).filter(|steps| *steps <= from);
    let first = ways.max().filter(|first| to > 0 && (!exactly || *first == from));
    let Some(first) = first else {
        return Err(Error::Config(format!(
            "--halve {to}: the teacher makes {from} steps, which halve to {}, {}, …",
            from / 2,
            from / 4
        )));
    };
    Ok(std::iter::successors(down(&first), down).collect())
}

pub fn run(args: &Args) -> Result<()> {
    let range = ranges::range(&args.w)?;
    outputs::prove_training(&args.out, &["loss.png"])?;
    let gpu = args.device.open()?;
    let teacher = args.opening.model(&gpu, &args.teacher)?;
    let dataset = args.dataset(&teacher.config)?;
    let mut options = args.options(&dataset)?;
    options.class_names = teacher.config.class_names.clone();
    let known = teacher.config.unet.guidance_range.is_some();
    let steps = match args.halve {
        Some(to) => {
            let exactly = teacher.config.sampling.sampler.as_deref() == Some("halving");
            halvings(teacher.config.default_steps(), to, exactly)?
        }
        None => Vec::new(),
    };

    let start = args.start.start();
    let mut before = None;
    if !known || steps.is_empty() {
        let default = args.halve.map(|_| Prediction::V);
        let teacher = Teacher::new(teacher)?;
        if let Some(average) = teacher.average() {
            eprintln!("teacher: {}, its weights of the average {average}", teacher.model().name);
        }
        let options = teacher.teach(options.clone(), range, None, args.predict.or(default))?;
        if student(&gpu, &dataset, &options, teacher, &args.out, &start)? == Outcome::Stopped {
            return train::finish(Outcome::Stopped, &args.out);
        }
        before = Some(args.out.clone());
    }
    for steps in steps {
        // Asked to stop at the end of a student, with others to come.
        if interrupt::flag().load(Ordering::SeqCst) {
            return train::finish(Outcome::Stopped, before.as_deref().unwrap_or(&args.out));
        }
        let dir = args.out.join(format!("steps-{steps}"));
        eprintln!("{} steps in {steps}: {}", 2 * steps, dir.display());
        let teacher = Teacher::new(match &before {
            Some(dir) => Model::load(&gpu, dir)?,
            None => args.opening.model(&gpu, &args.teacher)?,
        })?;
        let options = teacher.teach(options.clone(), range, Some(steps), args.predict)?;
        if student(&gpu, &dataset, &options, teacher, &dir, &start)? == Outcome::Stopped {
            return train::finish(Outcome::Stopped, &dir);
        }
        before = Some(dir);
    }
    train::finish(Outcome::Finished, before.as_deref().unwrap_or(&args.out))
}

/// Trains or goes on training a student.
fn student(
    gpu: &Gpu,
    dataset: &Arc<Dataset>,
    options: &TrainOptions,
    teacher: Teacher,
    dir: &Path,
    start: &Start,
) -> Result<Outcome> {
    let trainer = Trainer::distill_as(gpu, dataset.clone(), options, teacher, dir, start)?;
    train::drive(gpu, trainer, dir)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Args, halvings};

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn weights_may_be_negative() {
        let line = ["distill", "--teacher", "t", "--out", "s", "--w", "-0.5:4"];
        assert_eq!(
            Command::try_parse_from(line).ok().map(|command| command.args.w),
            Some("-0.5:4".to_owned())
        );
    }

    #[test]
    fn steps_halve_down_to_what_is_asked_for() {
        assert_eq!(halvings(64, 4, false).unwrap(), [32, 16, 8, 4]);
        assert_eq!(halvings(100, 4, false).unwrap(), [32, 16, 8, 4]);
        assert_eq!(halvings(8, 4, true).unwrap(), [4]);
        assert_eq!(halvings(2, 1, true).unwrap(), [1]);
        for (from, to, exactly) in [(64, 0, false), (7, 4, false), (24, 4, true), (4, 4, true)] {
            assert!(halvings(from, to, exactly).is_err(), "{from} {to}");
        }
    }
}
