//! Figure 2 of the paper, computed on the CPU in f64: quick enough to follow a slider.

use freeguide::diffusion::toy::{CLASSES, MixtureAt, Point, ToyPoint, simulate};
use freeguide::toy::measure;
use wasm_bindgen::prelude::*;

/// The exponent of the reverse variance, as in `freeguide toy`.
const VARIANCE_EXPONENT: f64 = 0.3;

/// Points of the guided chain with exact scores: x, y, class of each, one after the other. Point i is of class i % 3, and
/// the same noise makes it under every w.
#[wasm_bindgen]
pub fn toy_points(w: f64, steps: usize, count: usize, seed: u32) -> Result<Vec<f32>, JsError> {
    let points = simulate(w, steps, VARIANCE_EXPONENT, count, seed.into())?;
    let numbers = |p: &ToyPoint| [p.position[0] as f32, p.position[1] as f32, p.class as f32];
    Ok(points.iter().flat_map(numbers).collect())
}

/// p̃(z|c), proportional to p(z|c) p(c|z)^w, averaged over the classes, in the middle of each of `side` by `side` cells over
/// [-`half_width`, `half_width`]²; rows from below. Per unit of area.
#[wasm_bindgen]
pub fn toy_density(w: f64, half_width: f64, side: usize) -> Vec<f32> {
    let data = MixtureAt::data();
    let width = 2.0 * half_width / side as f64;
    let centre = |cell: usize| (cell as f64 + 0.5) * width - half_width;
    let mut mixture = vec![0.0; side * side];
    for class in 0..CLASSES {
        let density = |at| data.guided_density(point(at, side, centre), class, w);
        let densities: Vec<f64> = (0..side * side).map(density).collect();
        let total = densities.iter().sum::<f64>() * width * width * CLASSES as f64;
        mixture.iter_mut().zip(densities).for_each(|(sum, density)| *sum += density / total);
    }
    mixture.into_iter().map(|density| density as f32).collect()
}

fn point(at: usize, side: usize, centre: impl Fn(usize) -> f64) -> Point {
    [centre(at % side), centre(at / side)]
}

/// What points of the guided chain and p̃ have to say about each other.
#[wasm_bindgen]
pub struct ToyMeasure {
    /// The points' mean along the direction of their class.
    pub sampled_mean: f64,
    /// That of p̃.
    pub mean: f64,
    /// The total variation between the points' histogram and p̃.
    pub total_variation: f64,
    /// What as many independent points of p̃ would show.
    pub floor: f64,
}

/// Measures `count` points of the guided chain.
#[wasm_bindgen]
pub fn toy_measure(w: f64, steps: usize, count: usize, seed: u32) -> Result<ToyMeasure, JsError> {
    let found = measure(&simulate(w, steps, VARIANCE_EXPONENT, count, seed.into())?, w)?;
    Ok(ToyMeasure {
        sampled_mean: found.sampled_mean,
        mean: found.mean,
        total_variation: found.total_variation,
        floor: found.sampling_floor,
    })
}
