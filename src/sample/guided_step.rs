//! The step of a guided sampler: evaluations of the network, what guiders make of them, and the sampler's own kernel.

use crate::diffusion::guiders::{moments, steps_of};
use crate::diffusion::{Guiders, Prediction, StepCoefficients, StepRow, Variance};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu, Plan};
use crate::model::Model;
use crate::nn::unet::{Inputs, Pass};
use crate::nn::{UNet, Weights};
use crate::ops::{self, AnnealCondition, GUIDER_ROW, Guided, GuidedStep, SamplerStep, StepNoise};
use crate::tensor::{Context, DType, Tensor};

use super::options::SamplerOptions;
use super::slots::over;

/// What the host writes and the plans share.
pub(super) struct Buffers {
    pub z: Buffer,
    pub labels: Buffer,
    pub seeds: Buffer,
    pub guidance: Buffer,
    pub counter: Buffer,
    pub table: Buffer,
    /// APG's.
    pub momentum: Buffer,
    /// The x̂ of the move before, for samplers that need it.
    pub previous: Buffer,
}

/// A network and its weights, as its plans use them.
pub(super) struct Network<'a> {
    unet: &'a UNet,
    weights: Weights,
}

impl<'a> Network<'a> {
    pub fn of(gpu: &Gpu, model: &'a Model, dtype: DType) -> Result<Self> {
        Ok(Network { unet: &model.unet, weights: model.weights().fixed_in(gpu, dtype)? })
    }
}

/// A sampler's moves under guiders.
pub(super) struct GuidedMoves {
    /// The sampler's own numbers, a row for each evaluation.
    pub steps: Vec<StepCoefficients>,
    rows: Rows,
    /// What becomes eps before guiders see it.
    convert: Option<Prediction>,
}

enum Rows {
    /// CFG's Algorithm 2 on predicted noise has a kernel of its own.
    Ancestral(Vec<StepCoefficients>),
    Any {
        rows: Vec<StepRow>,
        variance: Variance,
        multistep: bool,
    },
}

impl GuidedMoves {
    /// # Errors
    /// [`Error::Config`] where guiders or options mean nothing to the sampler or the network.
    pub fn new(model: &Model, guiders: &Guiders, options: &SamplerOptions) -> Result<Self> {
        let process = model.config.process()?;
        let kind = process.sampler(&options.method, options.steps);
        let (moves, variance) = process.moves(&options.method, options.steps, options.variance_exponent)?;
        guiders.check_sampler(kind, &moves)?;
        let chain = process.chain(&options.method, options.steps, options.variance_exponent)?;
        if let (Some(steps), Prediction::Eps) = (chain, process.prediction) {
            let (rows, _) = guiders.steps(&steps);
            return Ok(GuidedMoves { steps, rows: Rows::Ancestral(rows), convert: None });
        }
        if process.prediction == Prediction::PreviousX {
            let what = "guiders change an eps, and a network that predicts the previous x has none at one noise level";
            return Err(Error::Config(what.into()));
        }
        // Weights alone mix predictions of any kind as they mix eps: their factors sum to 1.
        let as_it_is = ops::is_weight_alone(guiders) && !guiders.renoises();
        let convert = (!as_it_is && process.prediction != Prediction::Eps).then_some(process.prediction);
        let prediction = if convert.is_some() { Prediction::Eps } else { process.prediction };
        let rows =
            guiders.moves(&moves).iter().map(|step| StepRow::new(step, prediction)).collect::<Result<_>>()?;
        let rows = Rows::Any { rows, variance, multistep: kind.is_multistep() };
        Ok(GuidedMoves { steps: steps_of(&moves), rows, convert })
    }
}

/// What a step is recorded of.
pub(super) struct StepParts<'a> {
    pub gpu: &'a Gpu,
    pub strong: Network<'a>,
    pub weak: Option<Network<'a>>,
    pub guiders: &'a Guiders,
    pub moves: &'a GuidedMoves,
    /// Labels of the evaluations after the first.
    pub others: &'a [u32],
    pub options: &'a SamplerOptions,
    /// `[N, H, W, C]`.
    pub shape: [usize; 4],
    pub buffers: &'a Buffers,
}

impl StepParts<'_> {
    /// Records a step: with all evaluations, or with the first alone.
    pub fn record(&self, guided: bool) -> Result<Plan> {
        let StepParts { guiders, moves, buffers, shape, options, .. } = self;
        let mut cx = Context::new(self.gpu);
        cx.set_fast(options.fast);
        let n = options.batch;
        let (z, counter) = (over(&buffers.z, shape, DType::F32), over(&buffers.counter, &[1], DType::U32));
        let rows = match &moves.rows {
            Rows::Ancestral(rows) => {
                ops::step_table(&cx, &rows.iter().map(StepCoefficients::scalars).collect::<Vec<_>>())?
            }
            Rows::Any { rows, .. } => {
                // Of one evaluation nothing is combined, so its factor stands in the row.
                let factor = if guided { 1.0 } else { guiders.eps_factor() as f32 };
                let scaled = rows.iter().map(|row| StepRow { x_out: row.x_out * factor, ..*row });
                ops::move_table(&cx, &scaled.collect::<Vec<_>>())?
            }
        };
        let table = over(&buffers.table, &[moves.steps.len(), GUIDER_ROW], DType::F32);
        let guidance = over(&buffers.guidance, &[1], DType::F32);
        let seeds = over(&buffers.seeds, &[n, 2], DType::U32);

        let out = self.evaluate(&mut cx, &z, &rows, &counter, guided)?;
        let step = Guided { z: &z, eps: &out, table: &table, counter: &counter };
        if let Some(prediction) = moves.convert {
            ops::outputs_to_eps(&mut cx, prediction, step)?;
        }
        let eps = if guided && ops::is_weight_alone(guiders) {
            ops::step_weight(&mut cx, &table, &counter, &guidance)?;
            None
        } else if guided {
            let momentum = over(&buffers.momentum, shape, DType::F32);
            Some(ops::guided_eps(&mut cx, guiders, step, Some(&momentum))?)
        } else if guiders.eps_factor() != 1.0 && matches!(moves.rows, Rows::Ancestral(_)) {
            Some(ops::scale(&mut cx, &out, guiders.eps_factor() as f32)?)
        } else {
            None
        };
        match &moves.rows {
            Rows::Ancestral(_) => {
                let eps = eps.as_ref().unwrap_or(&out);
                let fused = GuidedStep {
                    z: &z,
                    eps,
                    steps: &rows,
                    counter: &counter,
                    guidance: &guidance,
                    seeds: &seeds,
                    clip: options.clip,
                    preview: None,
                };
                ops::guided_step(&mut cx, fused)?;
            }
            Rows::Any { variance, multistep, .. } => {
                // A learned variance lies behind the predictions, so the guided ones go there.
                let chosen = match eps {
                    Some(eps) if variance.is_learned() => ops::put_guided(&mut cx, &out, &eps)?,
                    Some(eps) => eps,
                    None => out.clone(),
                };
                let previous = multistep.then(|| over(&buffers.previous, shape, DType::F32));
                let walked = SamplerStep {
                    z: &z,
                    out: &chosen,
                    steps: &rows,
                    counter: &counter,
                    guidance: &guidance,
                    noise: StepNoise::Seeds(&seeds),
                    variance: *variance,
                    clip: options.clip,
                    gradient: None,
                    previous: previous.as_ref(),
                };
                ops::sampler_step(&mut cx, walked)?;
            }
        }
        if guided && guiders.renoises() {
            ops::renoise(&mut cx, step)?;
        }
        ops::advance(&mut cx, &counter)?;
        cx.finish("guided sampler step")
    }

    /// The evaluations of a step, one behind the other along the batch.
    fn evaluate(
        &self,
        cx: &mut Context,
        z: &Tensor,
        rows: &Tensor,
        counter: &Tensor,
        guided: bool,
    ) -> Result<Tensor> {
        let StepParts { strong, options, buffers, .. } = self;
        let (others, weak) = if guided { (self.others, self.weak.as_ref()) } else { (&[][..], None) };
        let (n, count) = (options.batch, 1 + others.len());
        let classes = strong.unet.config().num_classes.is_some();
        let pass = Pass::inference(options.dtype);
        let times = cx.output("times", &[n], DType::F32)?;
        ops::step_times(cx, rows, counter, &times)?;
        let seeds = over(&buffers.seeds, &[n, 2], DType::U32);
        let annealing = self.guiders.annealing();
        let noise = match &annealing {
            Some(annealing) => Some(ops::annealing_table(cx, annealing, &moments(&self.moves.steps))?),
            None => None,
        };
        let evaluate = |cx: &mut Context, network: &Network<'_>, labels: Option<&Tensor>, conditions| {
            let null_label = network.unet.config().null_label();
            let anneal =
                |(annealing, table)| AnnealCondition { annealing, table, counter, seeds: &seeds, null_label };
            let annealing = annealing.zip(noise.as_ref()).map(anneal);
            let inputs = Inputs { conditions, annealing, ..Inputs::of(z, &times, labels) };
            network.unet.evaluate(cx, &network.weights, inputs, &pass)
        };
        let together = weak.is_none() && !options.two_pass;
        let at_once = if together { count } else { 1 };
        let own = classes.then(|| over(&buffers.labels, &[at_once * n], DType::U32));
        let mut eps = evaluate(cx, strong, own.as_ref(), at_once)?;
        if together {
            return Ok(eps);
        }
        if let Some(weak) = weak {
            let other = evaluate(cx, weak, own.as_ref(), 1)?;
            eps = ops::stack_batch(cx, &eps, &other)?;
        }
        for label in others {
            let label = cx.constant_u32("labels", &[n], &vec![*label; n])?;
            let other = evaluate(cx, strong, Some(&label), 1)?;
            eps = ops::stack_batch(cx, &eps, &other)?;
        }
        Ok(eps)
    }
}
