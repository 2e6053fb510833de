//! `freeguide sweep --metrics`: every point measured, the curve and the table of the CFG paper.

use std::path::Path;

use crate::diffusion::Guidance;
use crate::error::{Error, Result};
use crate::eval::{Measures, Point, from_csv, series, to_csv, to_table};
use crate::gpu::Gpu;
use crate::io::{Curve, curve_plot, write_atomic};
use crate::model::Model;
use crate::tensor::Precision;

use super::drawing::Drawing;
use super::eval::{Draw, measured_model};
use super::features::compared;
use super::sweep::Args;

/// The names that `--metrics` takes.
const METRICS: [&str; 8] = ["fid", "sfid", "is", "kid", "precision", "recall", "agreement", "all"];

/// What `--metrics` asks for beyond what comes by itself.
pub fn measures(text: &str) -> Result<Measures> {
    let named: Vec<&str> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if let Some(unknown) = named.iter().find(|name| !METRICS.contains(name)) {
        let known = METRICS.join(", ");
        return Err(Error::Config(format!("--metrics: there is no {unknown:?}; there are {known}")));
    }
    let any = |names: &[&str]| named.iter().any(|name| *name == "all" || names.contains(name));
    Ok(Measures { kernel: any(&["kid"]), manifold: any(&["precision", "recall"]), classes: false })
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
    let work = folder.join("sweep.work");
    let size = models[0].1.unet.config().sample_size;
    let compared = compared(gpu, reference, &args.features, Some(size), &work)?;
    let csv = folder.join("sweep.csv");
    settle(
        &folder.join("sweep.txt"),
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
                let report = measured_model(gpu, model, &draw, &compared, &work, measures)?;
                // They are the same at every point.
                if points.is_empty() {
                    report.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
                    report.notes.iter().for_each(|note| eprintln!("note: {note}"));
                }
                let p = model.config.unconditional_probability;
                points.push(Point::new(name, p, steps, guidance.weight(), &report));
                let text = to_csv(&points);
                write_atomic(&csv, |writer| writer.write_all(text.as_bytes()).map_err(Error::io(&csv)))?;
            }
        }
    }
    let (plot, table) = (folder.join("sweep-curve.png"), folder.join("sweep.md"));
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

/// A sweep goes on only as it began: what its points have in common stands in a file beside them.
fn settle(note: &Path, csv: &Path, args: &Args, what: &str) -> Result<()> {
    let known = std::fs::read_to_string(note).ok();
    if args.force && csv.exists() {
        std::fs::remove_file(csv).map_err(Error::io(csv))?;
    } else if csv.exists() && known.as_deref() != Some(what) {
        return Err(Error::Config(format!(
            "{} was measured otherwise:\n  there: {}\n  asked: {}\n--force measures all anew, --out takes another folder",
            csv.display(),
            known.as_deref().unwrap_or("no measured sweep").trim(),
            what.trim()
        )));
    }
    write_atomic(note, |writer| writer.write_all(what.as_bytes()).map_err(Error::io(note)))
}
