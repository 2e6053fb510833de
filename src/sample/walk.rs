//! A sampler's moves as the rows that a step's kernel reads, and as guiders see them.

use crate::diffusion::guiders::steps_of;
use crate::diffusion::{
    Guiders, Level, Move, Prediction, Process, SamplerKind, StepCoefficients, StepRow, StepScalars, Variance,
};
use crate::error::{Error, Result};
use crate::ops;

use super::SamplerOptions;
use super::step::Which;

/// Words of a row, of either kernel.
pub(crate) const ROW: usize = size_of::<StepRow>() / 4;

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
    /// What becomes eps before guiders see it.
    pub convert: Option<Prediction>,
    /// Whether the network sees z times a factor of each move.
    pub scales_input: bool,
    /// The sampler's own numbers, before guiders changed them.
    pub steps: Vec<StepCoefficients>,
    rows: Rows,
    /// What the combined eps is multiplied by.
    eps_factor: f32,
}

#[derive(Clone, Debug)]
enum Rows {
    Ancestral(Vec<StepScalars>),
    Moves(Vec<StepRow>),
}

impl Walk {
    /// The moves of a process as the options' guiders change them; `by_gradient` says that something guides by one.
    ///
    /// # Errors
    /// As [`Process::moves`]; [`Error::Config`] where the guiders mean nothing to the sampler or the network.
    pub fn new(process: &Process, options: &SamplerOptions, by_gradient: bool) -> Result<Self> {
        let SamplerOptions { method, steps, variance_exponent, guiders, .. } = options;
        let kind = process.sampler(method, *steps);
        let (moves, variance) = process.moves(method, *steps, *variance_exponent)?;
        guiders.check_sampler(kind, &moves)?;
        match process.chain(method, *steps, *variance_exponent)? {
            Some(chain) if process.prediction == Prediction::Eps && !by_gradient => {
                return Ok(Walk::ancestral(chain, guiders));
            }
            _ => {}
        }
        if process.prediction == Prediction::PreviousX && !guiders.is_empty() {
            let what = "guiders change an eps, and a network that predicts the previous x has none at one noise level";
            return Err(Error::Config(what.into()));
        }
        // Weights alone mix predictions of any kind as they mix eps: their factors sum to 1.
        let as_it_is = ops::is_weight_alone(guiders) && !guiders.renoises();
        let convert = (!as_it_is && process.prediction != Prediction::Eps).then_some(process.prediction);
        let prediction = if convert.is_some() { Prediction::Eps } else { process.prediction };
        // In continuous time 1/α is 22,026 at the start: there only the form with the clip after it is sane.
        let in_step = !process.is_continuous() && matches!(kind, SamplerKind::Ancestral | SamplerKind::Ddim);
        let row = |step: &Move| -> Result<StepRow> {
            let row = StepRow::new(step, prediction)?;
            let Level { alpha, sigma, .. } = step.level;
            Ok(match process.prediction.scales_input() {
                true => row.with_input(process.prediction.input_factor(alpha, sigma)),
                false => row,
            })
        };
        let rows = guiders.moves(&moves).iter().map(row).collect::<Result<_>>()?;
        let (multistep, gradient_in_step) = (kind.is_multistep(), by_gradient && in_step);
        Ok(Walk {
            form: Form::Moves { variance, multistep, gradient_in_step },
            convert,
            scales_input: process.prediction.scales_input(),
            steps: steps_of(&moves),
            rows: Rows::Moves(rows),
            eps_factor: guiders.eps_factor() as f32,
        })
    }

    /// The steps of CFG's Algorithm 2 on predicted noise, as guiders change them.
    pub fn ancestral(chain: Vec<StepCoefficients>, guiders: &Guiders) -> Self {
        let (changed, _) = guiders.steps(&chain);
        let rows = Rows::Ancestral(changed.iter().map(StepCoefficients::scalars).collect());
        let eps_factor = guiders.eps_factor() as f32;
        Walk { form: Form::Ancestral, convert: None, scales_input: false, steps: chain, rows, eps_factor }
    }

    /// How often the network is evaluated.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether the plan of the first evaluation alone walks rows of its own: of one evaluation nothing is combined, so its
    /// factor stands in the row, where that has a place for it.
    pub fn has_rows_of_first(&self) -> bool {
        self.eps_factor != 1.0 && matches!(self.rows, Rows::Moves(_))
    }

    /// The factor of eps that is still to be applied to the first evaluation alone.
    pub fn factor_of_first(&self) -> Option<f32> {
        (self.eps_factor != 1.0 && self.form == Form::Ancestral).then_some(self.eps_factor)
    }

    /// The rows as the kernel reads them, `[T, 12]` words.
    pub fn rows(&self, which: Which) -> Vec<u32> {
        match &self.rows {
            Rows::Ancestral(rows) => bytemuck::cast_slice(rows).to_vec(),
            Rows::Moves(rows) if which == Which::All => bytemuck::cast_slice(rows).to_vec(),
            Rows::Moves(rows) => {
                let scaled = |row: &StepRow| StepRow { x_out: row.x_out * self.eps_factor, ..*row };
                bytemuck::cast_slice(&rows.iter().map(scaled).collect::<Vec<_>>()).to_vec()
            }
        }
    }
}
