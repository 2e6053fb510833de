//! A sampler's moves as the rows that a step's kernel reads.

use crate::diffusion::{
    Prediction, Process, SamplerKind, StepCoefficients, StepRow, StepScalars, Variance,
};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::tensor::{DType, Tensor};

use super::SamplerOptions;
use super::slots::filled;

/// Words of a row, of either kernel.
const ROW: usize = size_of::<StepRow>() / 4;

/// Which kernel walks the rows, and how it is recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Form {
    /// CFG's Algorithm 2 on predicted noise: `guided_step`.
    Ancestral,
    /// Anything else: `sampler_step`.
    Moves {
        variance: Variance,
        /// Whether a move needs the x̂ of the move before.
        multistep: bool,
        /// Whether a gradient shifts the mean; else it shifts the output.
        gradient_in_step: bool,
    },
}

/// The moves, one for each evaluation of the network.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    pub form: Form,
    rows: Rows,
}

#[derive(Clone, Debug)]
enum Rows {
    Ancestral(Vec<StepScalars>),
    Moves(Vec<StepRow>),
}

impl Walk {
    /// The moves of a process; `by_gradient` says that something guides by one.
    ///
    /// # Errors
    /// As [`Process::moves`].
    pub fn new(process: &Process, options: &SamplerOptions, by_gradient: bool) -> Result<Self> {
        let SamplerOptions { method, steps, variance_exponent, .. } = options;
        let kind = process.sampler(method, *steps);
        let (moves, variance) = process.moves(method, *steps, *variance_exponent)?;
        let chain = process.chain(method, *steps, *variance_exponent)?;
        match chain {
            Some(chain) if process.prediction == Prediction::Eps && !by_gradient => {
                return Ok(Walk::ancestral(&chain));
            }
            _ => {}
        }
        // In continuous time 1/α is 22,026 at the start: there only the form with the clip after it is sane.
        let in_step = !process.is_continuous() && matches!(kind, SamplerKind::Ancestral | SamplerKind::Ddim);
        let rows = moves.iter().map(|step| StepRow::new(step, process.prediction)).collect::<Result<_>>()?;
        let (multistep, gradient_in_step) = (kind.is_multistep(), by_gradient && in_step);
        Ok(Walk { form: Form::Moves { variance, multistep, gradient_in_step }, rows: Rows::Moves(rows) })
    }

    /// The steps of CFG's Algorithm 2 on predicted noise.
    pub fn ancestral(chain: &[StepCoefficients]) -> Self {
        let rows = Rows::Ancestral(chain.iter().map(StepCoefficients::scalars).collect());
        Walk { form: Form::Ancestral, rows }
    }

    /// How often the network is evaluated.
    pub fn len(&self) -> usize {
        match &self.rows {
            Rows::Ancestral(rows) => rows.len(),
            Rows::Moves(rows) => rows.len(),
        }
    }

    /// The rows as the kernel reads them, on the device: `[T, 12]`.
    pub fn table(&self, gpu: &Gpu) -> Result<Tensor> {
        let bytes = match &self.rows {
            Rows::Ancestral(rows) => bytemuck::cast_slice(rows),
            Rows::Moves(rows) => bytemuck::cast_slice(rows),
        };
        filled(gpu, "moves", &[self.len(), ROW], DType::U32, bytes)
    }
}
