//! `freeguide train`.

mod args;
mod network;
mod options;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::data::{DataOptions, Dataset};
use crate::diffusion::Guidance;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::nn::UNet;
use crate::train::{Event, Outcome, Start, TrainOptions, TrainStep, Trainer};

use super::data::{self};
use super::notes::{self, note};
use super::sheets::Sheets;
use super::{interrupt, number, outputs, pictures, progress};
pub use args::Args;

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
