//! The gradient-noise scale: how large a batch has to be until its gradient is more signal than noise.
//!
//! From the squared norms of a small batch's gradient and of a large one's that contains it, unbiased:
//!
//!   |G|² = (B |G_B|² - b |G_b|²)/(B - b),  S = (|G_b|² - |G_B|²)/(1/b - 1/B),  scale = S/|G|².
//!
//! Source: McCandlish et al., arXiv 1812.06162, appendix A.1; IDDPM, figure 7. The small batch is the first microbatch
//! of a step, so a training in microbatches measures it on the way. A single step's numbers are noise themselves:
//! means over many steps are divided.

use crate::error::Result;
use crate::gpu::{Buffer, Gpu, Plan, Readback};
use crate::ops::{self, OptimizerState};
use crate::tensor::{Context, Tensor};

use super::log::StepRecord;
use super::options::TrainOptions;
use super::state::TrainState;

/// Points of a curve.
const WINDOWS: usize = 25;

/// The plan that takes the norm of the first microbatch's gradient.
pub struct MicroNorm {
    gpu: Gpu,
    plan: Plan,
    squares: Buffer,
    /// Microbatches in a batch: gradients are those of the batch's mean.
    parts: f64,
}

/// A norm on its way.
pub struct PendingNorm {
    squares: Readback,
    parts: f64,
}

impl MicroNorm {
    /// Records it, where a step has several microbatches.
    pub fn record(gpu: &Gpu, options: &TrainOptions, state: &TrainState) -> Result<Option<MicroNorm>> {
        if options.batch == options.microbatch {
            return Ok(None);
        }
        let mut cx = Context::new(gpu);
        let gradients = state.optimised.gradients.flat();
        let squares = ops::grad_squares(&mut cx, &gradients.iter().collect::<Vec<&Tensor>>())?;
        cx.keep(&squares);
        let plan = cx.finish("norm of a microbatch's gradient")?;
        let squares = plan.kept(squares.storage()).cloned().expect("the squares were kept");
        let parts = options.batch as f64 / options.microbatch as f64;
        Ok(Some(MicroNorm { gpu: gpu.clone(), plan, squares, parts }))
    }

    /// Submits it, right after the first microbatch.
    pub fn measure(&self) -> Result<PendingNorm> {
        self.plan.run()?;
        Ok(PendingNorm {
            squares: self.gpu.read_later(&self.squares, 0..self.squares.bytes())?,
            parts: self.parts,
        })
    }
}

impl PendingNorm {
    /// Waits for the norm; `state` is the optimiser's after the step. Nothing where the step overflowed.
    pub fn wait(self, state: &OptimizerState) -> Result<Option<f32>> {
        let squares: Vec<f32> = bytemuck::pod_collect_to_vec(&self.squares.wait()?);
        let sum: f64 = squares.into_iter().map(f64::from).sum();
        // The step's own loss scale: the one in the state is already the next step's.
        let scale = f64::from(state.clip_factor) / f64::from(state.gradient_factor);
        let norm = (sum.sqrt() * self.parts / scale) as f32;
        Ok(norm.is_finite().then_some(norm))
    }
}

/// (images seen, scale in images) in windows over a training's records; windows where the noise leaves no signal to be
/// told apart from it are left out. Empty for a training without microbatches.
pub fn gradient_noise_scale(records: &[StepRecord], batch: usize, microbatch: usize) -> Vec<(f64, f64)> {
    let (large, small) = (batch as f64, microbatch as f64);
    let window = records.len().div_ceil(WINDOWS).max(1);
    let of = |records: &[StepRecord]| -> Option<(f64, f64)> {
        let norms = records.iter().filter(|record| !record.skipped);
        let norms =
            norms.filter_map(|record| Some([f64::from(record.micro_norm?), f64::from(record.grad_norm)]));
        let (mut count, mut sums) = (0.0, [0.0; 2]);
        for [micro, whole] in norms {
            count += 1.0;
            sums = [sums[0] + micro * micro, sums[1] + whole * whole];
        }
        let [micro, whole] = sums.map(|sum| sum / count);
        let signal = (large * whole - small * micro) / (large - small);
        let noise = (micro - whole) / (1.0 / small - 1.0 / large);
        let scale = noise / signal;
        (signal > 0.0 && scale > 0.0).then(|| (records[records.len() - 1].images as f64, scale))
    };
    records.chunks(window).filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Stream, fill_normal};

    /// Gradients of a known signal and noise: tr Σ = 300, |G|² = 4, so a scale of 75.
    #[test]
    fn the_scale_of_known_gradients_is_found() {
        let (dims, batch, microbatch) = (100, 16, 4);
        let signal = (4.0 / dims as f64).sqrt();
        let record = |step: u64| {
            let noise = fill_normal(3, step, Stream::TrainingNoise, dims * batch);
            let norm = |images: usize| -> f32 {
                let component = |d: usize| -> f64 {
                    let mean: f64 =
                        (0..images).map(|i| f64::from(noise[i * dims + d])).sum::<f64>() / images as f64;
                    signal + 3f64.sqrt() * mean
                };
                (0..dims).map(|d| component(d).powi(2)).sum::<f64>().sqrt() as f32
            };
            let images = (step + 1) * batch as u64;
            StepRecord {
                micro_norm: Some(norm(microbatch)),
                grad_norm: norm(batch),
                ..StepRecord::at(images)
            }
        };
        let records: Vec<StepRecord> = (0..500).map(record).collect();
        let found = gradient_noise_scale(&records, batch, microbatch);
        assert_eq!((found.len(), found[24].0), (WINDOWS, 8000.0));
        let mean = found.iter().map(|(_, scale)| scale).sum::<f64>() / found.len() as f64;
        assert!((mean / 75.0 - 1.0).abs() < 0.1, "{mean}");
        let without: Vec<StepRecord> =
            records.iter().map(|r| StepRecord { micro_norm: None, ..*r }).collect();
        assert!(gradient_noise_scale(&without, batch, batch).is_empty());
    }
}
