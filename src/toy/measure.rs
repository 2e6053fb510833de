//! How far sampled points are from the density p̃(z|c) ∝ p(z|c) p(c|z)^w.

use crate::diffusion::toy::{
    CLASSES, Grid, ToyPoint, guided_mixture, mean_along, sampled_mean_along, total_variation,
};
use crate::error::Result;

/// What points and p̃ of one guidance weight have to say about each other.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Measurement {
    /// w.
    pub guidance_weight: f64,
    /// Points measured.
    pub points: usize,
    /// The total variation between the points' histogram and p̃.
    pub total_variation: f64,
    /// What as many independent points of p̃ itself would show.
    pub sampling_floor: f64,
    /// The mean along the direction of a class under p̃, the same for all classes.
    pub mean: f64,
    /// The points' mean along their class's direction, averaged over the classes.
    pub sampled_mean: f64,
}

/// Compares `points` with p̃ of `guidance_weight` on the default [`Grid`].
///
/// # Errors
/// None that a caller can cause.
pub fn measure(points: &[ToyPoint], guidance_weight: f64) -> Result<Measurement> {
    let grid = Grid::default();
    let masses = guided_mixture(guidance_weight, &grid);
    let of_class =
        |class| points.iter().filter(move |point| point.class == class).map(|point| point.position);
    let means = (0..CLASSES).map(|class| sampled_mean_along(class, of_class(class)));
    Ok(Measurement {
        guidance_weight,
        points: points.len(),
        total_variation: total_variation(points.iter().map(|point| point.position), &masses, &grid)?,
        sampling_floor: Grid::sampling_floor(&masses, points.len()),
        // A wider square than that of the histogram, whose edge cuts tails off.
        mean: mean_along(0, guidance_weight, &Grid::new(4.0, 32)?),
        sampled_mean: means.sum::<f64>() / CLASSES as f64,
    })
}
