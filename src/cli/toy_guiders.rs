//! `freeguide toy --guiders`: a sheet of what each guider does to three Gaussians.

use std::path::Path;

use crate::diffusion::toy::{CLASSES, Grid, ToyPoint, guided_mixture, sampled_mean_along, simulate_guided};
use crate::diffusion::{Guidance, Guiders};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::io::{Panel, small_panels};
use crate::toy::{ToySamplerOptions, sample_guided};

use super::progress;

/// Points of a panel.
const POINTS: usize = 600;
/// Bins along a side of the density behind them.
const FINE: usize = 64;
/// Panels in a row.
const COLUMNS: usize = 6;

/// (w, guiders): plain guidance first.
const SHOWN: &[(f64, &str)] = &[
    (0.0, ""),
    (3.0, ""),
    (3.0, "linear(0,3)"),
    (3.0, "cosine(3,0)"),
    (3.0, "power(0,3,power=3)"),
    (3.0, "piecewise(0:0 0.5:3 1:0)"),
    (3.0, "interval(lo=-1,hi=2)"),
    (3.0, "rescale(0.05)"),
    (0.0, "cfg++(0.5)"),
    (3.0, "apg(eta=0,beta=-0.5)"),
    (3.0, "zero-star(k=1)"),
    (1.0, "autoguidance(blurred)"),
    (1.0, "negative(0)"),
    (1.0, "also(0:1)"),
    (3.0, "annealing(t1=0.1,t2=0.9,s=1,psi=0)"),
    (3.0, "expression(eps_c + w * tanh(eps_c - eps_u))"),
    (0.0, "temperature(0.8)"),
    (0.0, "low-noise(0.6)"),
];

/// Draws the sheet; `(steps, v, seed)` are those of the command.
pub fn run(
    gpu: &Gpu,
    out: &Path,
    (steps, variance_exponent, seed): (usize, f64, u64),
    mut stopping: impl FnMut() -> Result<()>,
) -> Result<()> {
    let grid = Grid::new(2.6, FINE)?;
    let density: Vec<f32> = guided_mixture(0.0, &grid).into_iter().map(|mass| mass as f32).collect();
    let side = grid.half_width() as f32;
    let bar = progress::bar("sampling", "guiders", 0, SHOWN.len() as u64);
    let mut panels = Vec::new();
    println!("  w  mean along the class's direction, distance from the class's own centre");
    for (w, text) in SHOWN {
        let guiders: Guiders = text.parse()?;
        let points = if guiders.annealing().is_some() {
            // It changes a condition's embedding, which the exact scores on the device do not have.
            simulate_guided(&guiders, *w, steps, variance_exponent, POINTS, seed)?
        } else {
            let guidance = Guidance::from_weight(*w)?;
            let options = ToySamplerOptions { guidance, batch: POINTS, steps, variance_exponent };
            sample_guided(gpu, &guiders, &options, seed, &mut stopping)?
        };
        let (mean, spread) = told(&points);
        let name = if text.is_empty() { "plain guidance" } else { text };
        println!("{w:>3} {mean:>6.3} {spread:>6.3}  {name}");
        panels.push(Panel {
            title: format!("w = {w}, {name}"),
            density: Some((density.clone(), FINE, FINE)),
            points: points
                .iter()
                .map(|p| (p.position[0] as f32, p.position[1] as f32, p.class as u32))
                .collect(),
            range: (-side, side, -side, side),
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    small_panels(out, &panels, COLUMNS)?;
    println!("wrote {}", out.display());
    Ok(())
}

/// The mean along the class's direction, and the mean distance from the class's own centre, over all classes.
fn told(points: &[ToyPoint]) -> (f64, f64) {
    let of = |class| points.iter().filter(move |point| point.class == class).map(|point| point.position);
    let spread = |class: usize| {
        let count = of(class).count().max(1) as f64;
        let centre = [0, 1].map(|axis| of(class).map(|at| at[axis]).sum::<f64>() / count);
        of(class).map(|at| (at[0] - centre[0]).hypot(at[1] - centre[1])).sum::<f64>() / count
    };
    let mean = (0..CLASSES).map(|class| sampled_mean_along(class, of(class))).sum::<f64>() / CLASSES as f64;
    (mean, (0..CLASSES).map(spread).sum::<f64>() / CLASSES as f64)
}
