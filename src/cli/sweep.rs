//! `freeguide sweep`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use crate::diffusion::Guidance;
use crate::error::{Error, Result};
use crate::io::write_atomic;
use crate::model::Model;

use super::sheets::Sheets;
use super::{DeviceArgs, interrupt, pictures, progress, ranges};

/// Sample a model over a range of guidance weights: one grid and one table.
#[derive(clap::Args)]
pub struct Args {
    /// The model.
    #[arg(long, value_name = "DIR|FILE")]
    model: PathBuf,
    /// Guidance weights FROM:TO:STEP, or a list.
    #[arg(long, value_name = "0:4:0.5", default_value = "0:4:1", allow_hyphen_values = true)]
    w: String,
    /// Pictures of each class at each weight, the same seeds for all.
    #[arg(long, value_name = "N", default_value_t = 4)]
    count: u64,
    /// Denoising steps [default: the model's].
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Storage of activations: auto is f16 on cooperative matrices, f32 elsewhere.
    #[arg(long, value_name = "f32|f16|auto", default_value = "auto")]
    precision: String,
    /// Where sweep.png and sweep.csv go [default: the model's folder].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Overwrite what is there.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: &Args) -> Result<()> {
    let weights = ranges::weights(&args.w)?;
    let guidance: Vec<Guidance> = weights.iter().map(|w| Guidance::from_weight(*w)).collect::<Result<_>>()?;
    if args.count == 0 {
        return Err(Error::Config("--count must be at least 1".into()));
    }
    let folder = match &args.out {
        Some(out) => out.clone(),
        None if args.model.is_dir() => args.model.clone(),
        None => args.model.parent().unwrap_or(std::path::Path::new(".")).to_owned(),
    };
    let (png, csv) = (folder.join("sweep.png"), folder.join("sweep.csv"));
    pictures::check_free(&png, args.force)?;
    pictures::check_free(&csv, args.force)?;
    let stop = interrupt::flag();
    let gpu = args.device.open()?;
    let mut model = Model::load(&gpu, &args.model)?;
    if let Some(steps) = args.steps {
        model.config.sampling.steps = steps;
    }
    if model.config.class_names.is_empty() {
        return Err(Error::Config("a sweep over guidance needs a model with classes".into()));
    }
    let sheets = Sheets::new(&gpu, &model.unet, &model.weights(), &model.config, args.precision.parse()?)?;
    let bar = progress::bar("sampling", "steps", 0, sheets.steps(&guidance, args.count as usize));
    let rows = sheets.pictures(&guidance, args.count, |guidance| {
        bar.inc(1);
        bar.set_message(format!("w = {}", guidance.weight()));
        if stop.load(Ordering::SeqCst) { Err(Error::Interrupted) } else { Ok(()) }
    })?;
    bar.finish_and_clear();

    let columns: Vec<String> = weights.iter().map(|w| format!("w = {w}")).collect();
    let sheet = pictures::sheet(&rows, &model.config.class_names, &columns)?;
    pictures::save(
        &png,
        &sheet,
        &[("Software".into(), "freeguide sweep".into()), ("w".into(), args.w.clone())],
    )?;

    // One line a weight. What measures quality is added as further columns.
    let mut table = String::from("w,guidance_scale,steps,pictures,mean,contrast\n");
    for (column, guidance) in guidance.iter().enumerate() {
        let pixels: Vec<f64> = rows
            .iter()
            .flat_map(|row| &row[column])
            .flat_map(|image| image.pixels.iter().map(|&p| f64::from(p)))
            .collect();
        let mean = pixels.iter().sum::<f64>() / pixels.len() as f64;
        let variance = pixels.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / pixels.len() as f64;
        let pictures = rows.len() as u64 * args.count;
        let (w, scale, steps) = (guidance.weight(), guidance.scale(), model.config.sampling.steps);
        writeln!(table, "{w},{scale},{steps},{pictures},{mean:.3},{:.3}", variance.sqrt()).expect("a string");
    }
    write_atomic(&csv, |writer| writer.write_all(table.as_bytes()).map_err(Error::io(&csv)))?;
    println!("wrote {} and {}", png.display(), csv.display());
    Ok(())
}
