//! `freeguide toy`.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use crate::diffusion::Guidance;
use crate::diffusion::toy::{Grid, ToyPoint, guided_mixture};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::{Panel, panels};
use crate::toy::{
    Measurement, ToyModel, ToySampler, ToySamplerOptions, ToyTraining, ToyTrainingOptions, measure,
};

use super::shared_args::ForceArgs;
use super::{DeviceArgs, interrupt, number, outputs, progress, toy_guiders};

/// The columns of the figure.
const WEIGHTS: [f64; 3] = [0.0, 1.0, 3.0];
/// Points drawn in a panel.
const DRAWN: usize = 1200;
/// Bins along a side of the density that is drawn.
const FINE: usize = 64;
/// Points of the network where a CPU plays the GPU, unless asked for more.
const SOFTWARE_SAMPLES: usize = 3000;
/// Points at a time, at most.
const BATCH: usize = 8192;

/// Shown first by `--help`.
const EXAMPLES: &str = "\
Examples:
  freeguide toy
  freeguide toy --guiders --out guiders.png";

/// Figure 2 of the CFG paper: guidance on three Gaussians in the plane, by their exact scores and by a small network.
#[derive(clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// Points of each panel to measure; fewer are drawn.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 30_000,
        value_parser = number::count(1..=number::MOST_COUNT)
    )]
    samples: usize,
    /// The same for the network [default: as --samples; at most 3000 on a software adapter].
    #[arg(long, value_name = "N", value_parser = number::count(1..=number::MOST_COUNT))]
    network_samples: Option<usize>,
    /// Denoising steps.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 256,
        value_parser = number::count(1..=number::MOST_STEPS)
    )]
    steps: usize,
    /// Exponent v of the reverse variance, from 0 (least noise) to 1 (most).
    #[arg(long, value_name = "F", default_value_t = 0.3, value_parser = number::real(0.0..=1.0))]
    v: f64,
    /// Gradient steps of the network.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3000,
        value_parser = number::count(0..=number::MOST_COUNT)
    )]
    train_steps: usize,
    /// Seed of the network, its data and all noise.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = number::seed())]
    seed: u64,
    /// Draw what each guider does to the points instead, one panel each.
    #[arg(long)]
    guiders: bool,
    /// The figure.
    #[arg(long, value_name = "FILE.png", default_value = "toy.png")]
    out: PathBuf,
    #[command(flatten)]
    force: ForceArgs,
    /// Print the measurements as JSON instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: &Args) -> Result<()> {
    outputs::prove([&args.out], args.force.force)?;
    if args.samples == 0 || args.network_samples == Some(0) {
        return Err(Error::Config("there must be at least 1 point to sample".into()));
    }
    let stop = interrupt::flag();
    let stopping = || if stop.load(Ordering::SeqCst) { Err(Error::Interrupted) } else { Ok(()) };
    let gpu = args.device.open()?;
    if args.guiders {
        return toy_guiders::run(&gpu, &args.out, (args.steps, args.v, args.seed), stopping);
    }
    let exact = Row::sample(&gpu, args, "exact score", ToyModel::Exact, args.samples, stopping)?;

    let options = ToyTrainingOptions { steps: args.train_steps, seed: args.seed, ..Default::default() };
    let bar = progress::bar("training", "steps", 0, args.train_steps as u64);
    let network = ToyTraining::new(&gpu, &options)?.run(|loss| {
        bar.inc(1);
        if let Some(loss) = loss {
            bar.set_message(format!("loss {loss:.3}"));
        }
        stopping()
    })?;
    bar.finish_and_clear();
    let most = if gpu.capabilities().kind == wgpu::DeviceType::Cpu { SOFTWARE_SAMPLES } else { usize::MAX };
    let samples = args.network_samples.unwrap_or(args.samples.min(most));
    let learnt = Row::sample(&gpu, args, "learnt network", ToyModel::Learnt(&network), samples, stopping)?;

    let rows = [exact, learnt];
    panels(&args.out, &rows.iter().flat_map(Row::panels).collect::<Vec<_>>(), WEIGHTS.len())?;
    if args.json {
        print_json(args, &rows)
    } else {
        print_table(&rows)
    }
    if !args.json {
        println!("wrote {}", args.out.display());
    }
    Ok(())
}

/// A row of the figure: one model at every weight.
struct Row {
    model: &'static str,
    columns: Vec<(Vec<ToyPoint>, Measurement)>,
}

impl Row {
    fn sample(
        gpu: &Gpu,
        args: &Args,
        model: &'static str,
        from: ToyModel<'_>,
        samples: usize,
        mut stopping: impl FnMut() -> Result<()>,
    ) -> Result<Row> {
        let batches = samples.div_ceil(BATCH);
        let bar = progress::bar("sampling", "steps", 0, (WEIGHTS.len() * batches * args.steps) as u64);
        let mut columns = Vec::new();
        for w in WEIGHTS {
            bar.set_message(format!("{model}, w = {w}"));
            let options = ToySamplerOptions {
                guidance: Guidance::from_weight(w)?,
                batch: samples.div_ceil(batches),
                steps: args.steps,
                variance_exponent: args.v,
            };
            let points = ToySampler::new(gpu, from, options)?.sample(samples, args.seed, || {
                bar.inc(1);
                stopping()
            })?;
            let found = measure(&points, w)?;
            columns.push((points, found));
        }
        bar.finish_and_clear();
        Ok(Row { model, columns })
    }

    fn panels(&self) -> impl Iterator<Item = Panel> {
        let grid = Grid::new(2.6, FINE).expect("a grid of positive width");
        let side = grid.half_width() as f32;
        self.columns.iter().map(move |(points, found)| {
            let w = found.guidance_weight;
            let density = guided_mixture(w, &grid).into_iter().map(|mass| mass as f32).collect();
            let drawn = points.iter().take(DRAWN);
            Panel {
                title: format!(
                    "w = {w}, {}: TV {:.3} (floor {:.3})",
                    self.model, found.total_variation, found.sampling_floor
                ),
                density: Some((density, FINE, FINE)),
                points: drawn.map(|p| (p.position[0] as f32, p.position[1] as f32, p.class as u32)).collect(),
                range: (-side, side, -side, side),
            }
        })
    }
}

fn print_table(rows: &[Row]) {
    println!(
        "points against p~(z|c), proportional to p(z|c) p(c|z)^w; means along the direction of each class"
    );
    println!("model            w   points  total variation  (floor)   mean of p~  of points");
    for row in rows {
        for (_, found) in &row.columns {
            println!(
                "{:<15}{:>3}{:>9}{:>17.3}{:>9.3}{:>13.3}{:>11.3}",
                row.model,
                found.guidance_weight,
                found.points,
                found.total_variation,
                found.sampling_floor,
                found.mean,
                found.sampled_mean
            );
        }
    }
    println!("the floor is what as many independent points of p~ itself would show");
    println!("at w > 0 the chain does not sample p~, with any number of steps and exact scores");
}

fn print_json(args: &Args, rows: &[Row]) {
    let models: serde_json::Map<_, _> = rows
        .iter()
        .map(|row| {
            let found: Vec<&Measurement> = row.columns.iter().map(|(_, found)| found).collect();
            (row.model.replace(' ', "_"), serde_json::json!(found))
        })
        .collect();
    let all = serde_json::json!({
        "steps": args.steps,
        "variance_exponent": args.v,
        "train_steps": args.train_steps,
        "seed": args.seed,
        "models": models,
    });
    println!("{}", serde_json::to_string_pretty(&all).expect("plain values"));
}
