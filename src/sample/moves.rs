//! A sampler's moves as the table that its step kernel reads.

use crate::diffusion::{Prediction, Process, SamplerKind, StepRow, StepScalars, Variance};
use crate::error::Result;
use crate::ops;
use crate::tensor::{Context, Tensor};

use super::SamplerOptions;

/// The rows of the step kernel, of either kind.
pub(super) enum Moves {
    /// CFG's Algorithm 2 on predicted noise.
    Guided(Vec<StepScalars>),
    /// Anything else.
    Any { rows: Vec<StepRow>, variance: Variance, multistep: bool, gradient_in_step: bool },
}

impl Moves {
    pub fn new(process: &Process, options: &SamplerOptions, by_gradient: bool) -> Result<Self> {
        let kind = process.sampler(&options.method, options.steps);
        let (moves, variance) = process.moves(&options.method, options.steps, options.variance_exponent)?;
        let chain = process.chain(&options.method, options.steps, options.variance_exponent)?;
        match chain {
            Some(steps) if process.prediction == Prediction::Eps && !by_gradient => {
                Ok(Moves::Guided(steps.iter().map(|step| step.scalars()).collect()))
            }
            _ => {
                // In continuous time 1/α is 22,026 at the start: there only the form with the clip after it is sane.
                let in_step =
                    !process.is_continuous() && matches!(kind, SamplerKind::Ancestral | SamplerKind::Ddim);
                let row = |step| StepRow::new(step, process.prediction);
                let rows = moves.iter().map(row).collect::<Result<_>>()?;
                Ok(Moves::Any {
                    rows,
                    variance,
                    multistep: kind.is_multistep(),
                    gradient_in_step: by_gradient && in_step,
                })
            }
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Moves::Guided(rows) => rows.len(),
            Moves::Any { rows, .. } => rows.len(),
        }
    }

    pub fn table(&self, cx: &Context) -> Result<Tensor> {
        match self {
            Moves::Guided(rows) => ops::step_table(cx, rows),
            Moves::Any { rows, .. } => ops::move_table(cx, rows),
        }
    }
}
