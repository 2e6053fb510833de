//! `freeguide sweep`.

mod args;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use crate::data::Image;
use crate::diffusion::Guidance;
use crate::error::{Error, Result};
use crate::eval::in_table;
use crate::gpu::Gpu;
use crate::io::{distinct_file_names, write_atomic};
use crate::model::Model;
use crate::sample::Sampler;

use super::drawing::Drawing;
use super::sheets::Sheets;
use super::{interrupt, measured_sweep, notes, outputs, pictures, progress, ranges};
pub use args::Args;

/// Pictures of each class in the grid of a measured sweep.
const IN_GRID: u64 = 4;

pub fn run(args: &Args) -> Result<()> {
    let weights = ranges::weights(&args.w)?;
    let guidance: Vec<Guidance> = weights.iter().map(|w| Guidance::from_weight(*w)).collect::<Result<_>>()?;
    let measured = !args.metrics.is_empty();
    measured_sweep::measures(&args.metrics)?;
    let drawing = args.drawing.read()?;
    if guidance.len() > 1 {
        drawing.check_weights_are_read()?;
    }
    if args.count == Some(0) || args.steps.contains(&0) {
        return Err(Error::Config("--count and --steps must be at least 1".into()));
    }
    if !measured && args.model.len() * args.steps.len().max(1) > 1 {
        let what = "several models or numbers of steps are for a measured sweep; add --metrics";
        return Err(Error::Config(what.into()));
    }
    if !measured && args.reference.is_some() {
        let what = "--reference is what a measured sweep is compared with; add --metrics";
        return Err(Error::Config(what.into()));
    }
    if !measured && args.features.is_given() {
        let what = "--features, --resize, --label, --unlabelled and --strict-data are of a measured sweep; add --metrics";
        return Err(Error::Config(what.into()));
    }
    let folder = folder(args);
    let names = names(&args.model)?;
    let grids = grids(&names, &folder);
    if measured {
        measured_sweep::prove(&folder, &grids, args.force.force)?;
    } else {
        outputs::prove([folder.join("sweep.png"), folder.join("sweep.csv")], args.force.force)?;
    }
    let gpu = args.device.open()?;
    let precision = args.precision.read()?.checked_on(gpu.capabilities())?;
    let mut models = Vec::new();
    for (path, name) in args.model.iter().zip(names) {
        let model = args.opening.model_in(&gpu, path, precision.dtype())?;
        guidance.iter().try_for_each(|guidance| drawing.check(&model, *guidance))?;
        if model.config.class_names.is_empty() {
            return Err(Error::Config("a sweep over guidance needs a model with classes".into()));
        }
        models.push((name, model));
    }
    if measured {
        measured_sweep::run(args, &gpu, &models, &drawing, &guidance, precision, &folder)?;
        for (((_, model), named), png) in models.iter().zip(&args.model).zip(&grids) {
            // A grid for each model, at the first number of steps; its pictures are the same whenever they are drawn.
            grid(args, &gpu, (named, model), &drawing, &guidance, IN_GRID, png)?;
        }
        return Ok(());
    }
    let (png, csv) = (folder.join("sweep.png"), folder.join("sweep.csv"));
    let count = args.count.unwrap_or(IN_GRID);
    let model = &models[0].1;
    let rows = grid(args, &gpu, (&args.model[0], model), &drawing, &guidance, count, &png)?;

    // One line a weight.
    let mut table = String::from("w,guidance_scale,steps,pictures,mean,contrast\n");
    for (column, guidance) in guidance.iter().enumerate() {
        let pixels: Vec<f64> = rows
            .iter()
            .flat_map(|row| &row[column])
            .flat_map(|image| image.pixels.iter().map(|&p| f64::from(p)))
            .collect();
        let mean = pixels.iter().sum::<f64>() / pixels.len() as f64;
        let variance = pixels.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / pixels.len() as f64;
        let pictures = rows.len() as u64 * count;
        let steps = args.steps.first().copied().unwrap_or(model.config.default_steps());
        let (w, scale) = (guidance.weight(), guidance.scale());
        writeln!(table, "{w},{scale},{steps},{pictures},{mean:.3},{:.3}", variance.sqrt()).expect("a string");
    }
    write_atomic(&csv, |writer| writer.write_all(table.as_bytes()).map_err(Error::io(&csv)))?;
    println!("wrote {} and {}", png.display(), csv.display());
    Ok(())
}

/// What each model is called in the results: its own name, or all of its path where another has the same name.
fn names(models: &[PathBuf]) -> Result<Vec<String>> {
    let own = |path: &PathBuf| in_table(&notes::file_name(path));
    let name = |path: &PathBuf| match models.iter().filter(|other| own(other) == own(path)).count() {
        1 => own(path),
        _ => in_table(&path.display().to_string()),
    };
    let names: Vec<String> = models.iter().map(name).collect();
    match names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        Some((_, twice)) => Err(Error::Config(format!("two of the models are called {twice}"))),
        None => Ok(names),
    }
}

/// The file of each model's grid.
fn grids(names: &[String], folder: &Path) -> Vec<PathBuf> {
    let parts = distinct_file_names(names, &["curve"]);
    match &parts[..] {
        [_] => vec![folder.join("sweep.png")],
        parts => parts.iter().map(|part| folder.join(format!("sweep-{part}.png"))).collect(),
    }
}

/// Where the results go.
fn folder(args: &Args) -> PathBuf {
    match (&args.out, &args.model[..]) {
        (Some(out), _) => out.clone(),
        (None, [first, ..]) if first.is_dir() => first.clone(),
        (None, [first, ..]) => first.parent().unwrap_or(Path::new(".")).to_owned(),
        (None, []) => PathBuf::from("."),
    }
}

/// Draws and writes the grid of the same seeds at every weight, and gives its pictures.
fn grid(
    args: &Args,
    gpu: &Gpu,
    (named, model): (&Path, &Model),
    drawing: &Drawing,
    guidance: &[Guidance],
    count: u64,
    png: &Path,
) -> Result<Vec<Vec<Vec<Image>>>> {
    let dtype = args.precision.read()?.checked_on(gpu.capabilities())?.dtype();
    let (classes, size) = (model.config.class_names.len(), model.config.unet.sample_size);
    pictures::check_sheet(classes, guidance.len(), count as usize, size)?;
    let (steps, pictures) = (args.steps.first().copied(), classes * count as usize);
    let sampler = |w| drawing.sampler(gpu, model, Guidance::from_weight(w)?, steps, dtype, pictures);
    let both = guidance.iter().any(|guidance| Sampler::needs_both(*guidance));
    let guided = both.then(|| sampler(1.0)).transpose()?.map(|(sampler, _)| sampler);
    let sheets = Sheets::of(&model.config, sampler(0.0)?, guided);
    let stop = interrupt::flag();
    let bar = progress::bar("sampling", "steps", 0, sheets.steps(guidance, count as usize));
    let notes = [notes::program(gpu), notes::of_model("model", named, model), sheets.notes(guidance, count)?];
    let notes = notes.concat();
    let rows = sheets.pictures(guidance, count, |guidance| {
        bar.inc(1);
        bar.set_message(format!("w = {}", guidance.weight()));
        if stop.load(Ordering::SeqCst) { Err(Error::Interrupted) } else { Ok(()) }
    })?;
    bar.finish_and_clear();
    let columns: Vec<String> = guidance.iter().map(|guidance| format!("w = {}", guidance.weight())).collect();
    let sheet = pictures::sheet(&rows, &model.config.class_names, &columns)?;
    pictures::save(png, &sheet, &notes)?;
    Ok(rows)
}
