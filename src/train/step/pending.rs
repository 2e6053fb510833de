//! What a step says of itself, when it has run.

use std::collections::VecDeque;

use crate::error::Result;
use crate::gpu::Readback;
use crate::ops::OptimizerState;
use crate::train::log::StepRecord;
use crate::train::noise_scale::PendingNorm;

/// A step on its way: its numbers arrive later.
pub struct PendingStep {
    pub(super) images: u64,
    pub(super) learning_rate: f64,
    pub(super) times: Vec<usize>,
    /// Of each sample, where times are drawn by importance.
    pub(super) weights: Option<Vec<f64>>,
    pub(super) quarters: Vec<usize>,
    pub(super) terms: Vec<Readback>,
    pub(super) losses: VecDeque<Readback>,
    /// Microbatches.
    pub(super) parts: usize,
    /// Losses of the first microbatches, which have arrived.
    pub(super) arrived: Vec<f32>,
    pub(super) micro_norm: Option<PendingNorm>,
    pub(super) optimizer: Readback,
}

impl PendingStep {
    /// Waits for the step's numbers.
    pub fn wait(self) -> Result<StepRecord> {
        Ok(self.wait_for_losses()?.0)
    }

    /// Waits for the step's numbers, and each sample's (t, loss).
    pub fn wait_for_losses(self) -> Result<(StepRecord, Vec<(usize, f64)>)> {
        let mut each = self.arrived;
        for losses in self.losses {
            each.extend(bytemuck::pod_collect_to_vec::<u8, f32>(&losses.wait()?));
        }
        let count = each.len();
        let part = (count / self.parts).max(1);
        let sum: f64 = each.chunks(part).map(|part| part.iter().map(|&x| f64::from(x)).sum::<f64>()).sum();
        let mean = (sum / count as f64) as f32;
        let weighted = self.weights.map(|weights| {
            let terms = weights.iter().zip(&each).map(|(weight, loss)| weight * f64::from(*loss));
            (terms.sum::<f64>() / count as f64) as f32
        });
        let losses = self.times.into_iter().zip(each.into_iter().map(f64::from)).collect();
        let (mut hits, mut of) = ([0; 4], [0; 4]);
        let classifies = !self.terms.is_empty();
        let mut quarters = self.quarters.into_iter();
        for terms in self.terms {
            let terms: Vec<[f32; 4]> = bytemuck::pod_collect_to_vec(&terms.wait()?);
            for ([_, hit, ..], quarter) in terms.into_iter().zip(&mut quarters) {
                hits[quarter] += hit as u32;
                of[quarter] += 1;
            }
        }
        let state: OptimizerState = bytemuck::pod_read_unaligned(&self.optimizer.wait()?);
        let record = StepRecord {
            images: self.images,
            loss: weighted.unwrap_or(mean),
            unweighted_loss: weighted.and(Some(mean).filter(|mean| mean.is_finite())),
            grad_norm: state.gradient_norm,
            micro_norm: self.micro_norm.map(|norm| norm.wait(&state)).transpose()?.flatten(),
            learning_rate: self.learning_rate as f32,
            hits: classifies.then_some(hits),
            of: classifies.then_some(of),
            skipped: state.skip != 0,
        };
        Ok((record, losses))
    }
}
