//! `freeguide sweep --metrics`: every point measured, the curve and the table of the CFG paper.

use std::path::{Path, PathBuf};

use crate::diffusion::Guidance;
use crate::error::{Error, Result, brief};
use crate::eval::{Measures, Point, Store, from_csv, series, to_csv, to_table};
use crate::gpu::Gpu;
use crate::io::{Curve, WorkFolder, curve_plot, write_atomic};
use crate::model::Model;
use crate::tensor::Precision;

use super::drawing::Drawing;
use super::eval::{Draw, Measured, measured_model};
use super::features::{PARTS, compared, or_nothing};
use super::sweep::Args;
use super::{notes, outputs};

/// The names that `--metrics` takes.
const METRICS: [&str; 8] = ["fid", "sfid", "is", "kid", "precision", "recall", "agreement", "all"];

/// What `--metrics` asks for beyond what comes by itself.
pub fn measures(text: &str) -> Result<Measures> {
    let named: Vec<&str> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if let Some(unknown) = named.iter().find(|name| !METRICS.contains(name)) {
        let known = METRICS.join(", ");
        return Err(Error::Config(format!(
            "--metrics: there is no {unknown:?}; there are {known}",
            unknown = brief(unknown)
        )));
    }
    let any = |names: &[&str]| named.iter().any(|name| *name == "all" || names.contains(name));
    Ok(Measures { kernel: any(&["kid"]), manifold: any(&["precision", "recall"]), classes: false })
}

/// In a folder of results, what is measured with.
const WORK: &str = "sweep.work";
/// What the points have in common, the points, the curve and the table.
const NOTE: &str = "sweep.txt";
const FILES: [&str; 3] = ["sweep.csv", "sweep-curve.png", "sweep.md"];

/// Refuses what could not be written in `folder`, `grids` included, and what a measured sweep has not put there.
pub fn prove(folder: &Path, grids: &[PathBuf], force: bool) -> Result<()> {
    WorkFolder::prove(&folder.join(WORK))?;
    let goes_on = folder.join(FILES[0]).exists() && folder.join(NOTE).exists();
    let files = FILES.map(|name| folder.join(name));
    outputs::prove(files.iter().chain(grids), force || goes_on)?;
    // The note comes before the first point; one that this did not write does not begin so.
    let note = folder.join(NOTE);
    let known = std::fs::read_to_string(&note).is_ok_and(|text| text.starts_with("reference "));
    outputs::prove([&note], force || known)
}

/// Measures every model at every number of steps and every weight; what `sweep.csv` in `folder` has already is not done
/// again.
pub fn run(
    args: &Args,
    gpu: &Gpu,
    models: &[(String, Model)],
    drawing: &Drawing,
    guidance: &[Guidance],
    precision: Precision,
    folder: &Path,
) -> Result<()> {
    let measures = measures(&args.metrics)?;
    let Some(reference) = &args.reference else {
        return Err(Error::Config("--metrics needs --reference STATS.npz or DATA to compare with".into()));
    };
    let count = args.count.unwrap_or(50_000) as usize;
    if count < 2 {
        return Err(Error::Config("--count must be at least 2: one picture has no spread".into()));
    }
    let size = models[0].1.unet.config().sample_size;
    let work = folder.join(WORK);
    let compared = or_nothing(&work, || compared(gpu, reference, &args.features, Some(size), &work))?;
    let work = WorkFolder::open(&work)?;
    let [csv, plot, table] = FILES.map(|name| folder.join(name));
    settle(
        &folder.join(NOTE),
        &csv,
        args,
        &format!(
            "reference {reference} ({}), {}, {count} pictures a point, metrics {}, {:?}{}\n",
            compared.contents,
            compared.network.identity(),
            args.metrics,
            precision.dtype(),
            drawing.note(),
        ),
        models,
    )?;
    let mut points = match std::fs::read_to_string(&csv) {
        Ok(text) => from_csv(&text).map_err(|error| Error::format(&csv, error.to_string()))?,
        Err(_) => Vec::new(),
    };
    for (name, model) in models {
        let steps =
            if args.steps.is_empty() { vec![model.config.default_steps()] } else { args.steps.clone() };
        for steps in steps {
            for guidance in guidance {
                let known = |point: &Point| {
                    point.model == *name && point.steps == steps && point.weight == guidance.weight()
                };
                if points.iter().any(known) {
                    continue;
                }
                eprintln!("{name}, T = {steps}, w = {}", guidance.weight());
                let draw = Draw {
                    guidance: *guidance,
                    drawing: drawing.clone(),
                    steps: Some(steps),
                    precision,
                    count,
                };
                let Measured { report, .. } = measured_model(gpu, model, &draw, &compared, &work, measures)?;
                // They are the same at every point.
                if points.is_empty() {
                    report.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
                    report.notes.iter().for_each(|note| eprintln!("note: {note}"));
                }
                let p = model.config.unconditional_probability;
                points.push(Point::new(name, p, steps, guidance.weight(), &report));
                let text = to_csv(&points);
                write_atomic(&csv, |writer| writer.write_all(text.as_bytes()).map_err(Error::io(&csv)))?;
                Store::discard(&work.path().join(PARTS))?;
            }
        }
    }
    let text = draw(&points, &plot, &table)?;
    print!("{text}");
    println!("wrote {}, {} and {}", csv.display(), plot.display(), table.display());
    Ok(())
}

/// The curves of FID against inception score, and the table, which is returned too.
pub fn draw(points: &[Point], plot: &Path, table: &Path) -> Result<String> {
    let curve = |(name, points): (String, Vec<&Point>)| {
        let mut points: Vec<_> =
            points.iter().map(|point| (point.inception_score(), point.fid(), point.weight)).collect();
        points.sort_by(|a, b| a.2.total_cmp(&b.2));
        Curve { name, points }
    };
    let curves: Vec<Curve> = series(points).into_iter().map(curve).collect();
    curve_plot(plot, &curves, "inception score", "FID", "w")?;
    let text = to_table(points);
    write_atomic(table, |writer| writer.write_all(text.as_bytes()).map_err(Error::io(table)))?;
    Ok(text)
}

/// A sweep goes on only as it began: what its points have in common stands in a file beside them, and which model each name
/// is of.
fn settle(note: &Path, csv: &Path, args: &Args, what: &str, models: &[(String, Model)]) -> Result<()> {
    let known = std::fs::read_to_string(note).unwrap_or_default();
    let mut lines: Vec<String> = known.lines().skip(1).map(str::to_owned).collect();
    if args.force.force || !csv.exists() {
        lines.clear();
    } else if known.lines().next() != what.lines().next() {
        return Err(Error::Config(format!(
            "{} was measured otherwise:\n  there: {}\n  asked: {}\n--force measures all anew, --out takes another folder",
            csv.display(),
            known.lines().next().unwrap_or("no measured sweep"),
            what.trim()
        )));
    }
    for (name, model) in models {
        let start = format!("model {name}: ");
        let line = start.clone() + &notes::weights(model.checksum());
        match lines.iter().find(|line| line.starts_with(&start)) {
            Some(other) if *other != line => {
                return Err(Error::Config(format!(
                    "{} has points of another model called {name}; --force measures all anew, --out takes another folder",
                    csv.display()
                )));
            }
            Some(_) => {}
            None => lines.push(line),
        }
    }
    if args.force.force && csv.exists() {
        std::fs::remove_file(csv).map_err(Error::io(csv))?;
    }
    let text = format!("{}\n{}\n", what.trim(), lines.join("\n"));
    write_atomic(note, |writer| writer.write_all(text.as_bytes()).map_err(Error::io(note)))
}
