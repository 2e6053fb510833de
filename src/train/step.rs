//! The training step as plans: CFG Algorithm 1, then AdamW and the moving averages.
//!
//! With one microbatch everything is one plan and one submission a step. With several, a plan that adds to the
//! gradients is replayed for each, and a second plan applies them. What is taught is in `lesson.rs`, the halves of a step in
//! `nn/optimised.rs`.

mod pending;

use std::collections::VecDeque;

use crate::data::Batch;
use crate::diffusion::ContinuousSchedule;
use crate::error::Result;
use crate::gpu::{Gpu, Plan, Profile, Readback};
use crate::nn::{Optimised, RecordedStep, StepRates, StepSettings, UNet};
use crate::ops::{AdamW, OptimizerState};
use crate::sizes;
use crate::tensor::Context;

use super::draws::Draws;
use super::importance::Importance;
use super::inputs::HostBuffers;
use super::lesson::lesson;
use super::noise_scale::MicroNorm;
use super::options::TrainOptions;
use super::state::TrainState;
use super::trained::Trained;

pub use pending::PendingStep;

/// What a step costs, before anything runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepCost {
    /// Parameters, gradients, moments and averages.
    pub state_bytes: u64,
    /// Everything a step computes on the way.
    pub activation_bytes: u64,
    /// Multiplications and additions of convolutions, linear maps and attention, forward and backward.
    pub flops: f64,
}

impl StepCost {
    /// All of a device's memory that a training takes.
    pub fn bytes(&self) -> u64 {
        self.state_bytes.saturating_add(self.activation_bytes)
    }
}

/// A recorded training step.
pub struct TrainStep {
    gpu: Gpu,
    draws: Draws,
    options: TrainOptions,
    inputs: HostBuffers,
    optimised: Optimised,
    /// One plan for all, or one for each microbatch and one to apply the gradients; to read each sample's loss and, of a
    /// classifier, its terms.
    recorded: RecordedStep,
    /// The gradient's norm after the first of several microbatches.
    micro_norm: Option<MicroNorm>,
}

impl TrainStep {
    /// The optimiser's own state before the first step: f16 gradients begin with a scaled loss.
    pub fn initial_optimizer_state(options: &TrainOptions) -> OptimizerState {
        TrainState::initial_optimizer(options)
    }

    /// Records the step of `options` on `state`.
    pub fn record<'a>(
        gpu: &Gpu,
        network: impl Into<Trained<'a>>,
        options: &TrainOptions,
        state: &TrainState,
    ) -> Result<TrainStep> {
        let network = network.into();
        network.check(&options.unet)?;
        let inputs = HostBuffers::new(gpu, network, options)?;
        let settings = StepSettings {
            name: "training",
            dtype: options.dtype(),
            in_parts: options.batch != options.microbatch,
            adam: AdamW { ema_warmup: options.ema_warmup, ..AdamW::default() },
            ema_rates: &options.ema_rates,
        };
        let recorded = state.optimised.record(gpu, &*lesson(network, options, &inputs)?, settings)?;
        let schedule = ContinuousSchedule::new(options.log_snr_min, options.log_snr_max)?;
        Ok(TrainStep {
            gpu: gpu.clone(),
            draws: Draws::new(options.objective, schedule, options.seed, options.dropout())?,
            options: options.clone(),
            inputs,
            optimised: state.optimised.clone(),
            recorded,
            micro_norm: MicroNorm::record(gpu, options, state)?,
        })
    }

    /// Submits the step of a batch.
    pub fn run(&self, batch: &Batch) -> Result<PendingStep> {
        self.run_with(batch, None)
    }

    /// The same, times being drawn by importance.
    pub fn run_with(&self, batch: &Batch, importance: Option<&mut Importance>) -> Result<PendingStep> {
        self.run_until(batch, importance, || false).map(|step| step.expect("nothing stops it"))
    }

    /// The same, unless `stop` says so between two microbatches; then nothing of it counts but what it has added to the
    /// gradients and learnt of importance, which are the caller's to undo.
    pub fn run_until(
        &self,
        batch: &Batch,
        mut importance: Option<&mut Importance>,
        mut stop: impl FnMut() -> bool,
    ) -> Result<Option<PendingStep>> {
        if let Some(importance) = &mut importance {
            importance.begin_step(batch.first_image, self.options.batch);
        }
        let options = &self.options;
        let micro = options.microbatch;
        let pixels = batch.images.len() / options.batch;
        let learning_rate = options.learning_rate_at(batch.first_image);
        let TrainOptions { weight_decay, grad_clip, .. } = *options;
        self.optimised.set_rates(&self.gpu, StepRates { learning_rate, weight_decay, grad_clip })?;
        let RecordedStep { gradients, update, read } = &self.recorded;
        let (mut losses, mut arrived) = (VecDeque::new(), Vec::new());
        let (mut terms, mut micro_norm) = (Vec::new(), None);
        let (mut times, mut quarters) = (Vec::with_capacity(options.batch), Vec::new());
        let mut weights = importance.is_some().then(Vec::new);
        for at in (0..options.batch).step_by(micro) {
            // What was submitted cannot be taken back, so no more than one is ahead of the device.
            while losses.len() > 1 {
                let first: Readback = losses.pop_front().expect("there is more than one");
                arrived.extend(bytemuck::pod_collect_to_vec::<u8, f32>(&first.wait()?));
            }
            if at > 0 && stop() {
                return Ok(None);
            }
            let images = &batch.images[at * pixels..(at + micro) * pixels];
            let first = batch.first_image + at as u64;
            let mut draws: Vec<_> = (first..first + micro as u64)
                .map(|index| self.draws.draw(index, importance.as_deref_mut()))
                .collect();
            if let Some(teaching) = &self.inputs.teaching {
                draws.iter_mut().for_each(|draw| *draw = teaching.redraw(*draw));
            }
            times.extend(draws.iter().map(|draw| draw.t));
            quarters.extend(draws.iter().map(|draw| draw.quarter));
            if let Some(weights) = &mut weights {
                weights.extend(draws.iter().map(|draw| f64::from(draw.row.weight)));
            }
            self.inputs.write(&self.gpu, &draws, options, images, &batch.labels[at..at + micro], first)?;
            if let Some(vectors) = &self.inputs.vectors {
                let width = options.unet.vector_width;
                let told = batch.vectors.get(at * width..(at + micro) * width).unwrap_or_default();
                vectors.write(&self.gpu, told, &draws, first)?;
            }
            // A submission of its own: of two writes before one submission only the last is seen.
            gradients.run()?;
            if let (0, Some(norm)) = (at, &self.micro_norm) {
                micro_norm = Some(norm.measure()?);
            }
            losses.push_back(self.gpu.read_later(&read[0], 0..(micro * 4) as u64)?);
            if let Some(buffer) = read.get(1) {
                terms.push(self.gpu.read_later(buffer, 0..(micro * 16) as u64)?);
            }
        }
        if let Some(update) = update {
            update.run()?;
        }
        let bytes = size_of::<OptimizerState>() as u64;
        Ok(Some(PendingStep {
            images: batch.first_image + options.batch as u64,
            learning_rate,
            times,
            weights,
            quarters,
            terms,
            losses,
            parts: options.batch / micro,
            arrived,
            micro_norm,
            optimizer: self.gpu.read_later(&self.optimised.state, 0..bytes)?,
        }))
    }

    /// The plan of the step, or of a microbatch's gradients.
    pub fn plan(&self) -> &Plan {
        &self.recorded.gradients
    }

    /// What a step of `options` would cost; nothing runs, and no memory of the device is taken.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) naming what exceeds the device.
    pub fn cost<'a>(gpu: &Gpu, network: impl Into<Trained<'a>>, options: &TrainOptions) -> Result<StepCost> {
        let (gpu, network) = (&gpu.estimating(), network.into());
        let state = TrainState::without_values(gpu, network.parameters(), options)?;
        let inputs = HostBuffers::new(gpu, network, options)?;
        let mut cx = Context::with_tape(gpu);
        let lesson = lesson(network, options, &inputs)?;
        state.optimised.record_gradients(&mut cx, &*lesson, options.dtype())?;
        let micro_steps = (options.batch / options.microbatch) as f64;
        // In f32 parameters, gradients, moments and averages.
        let copies = 4 + options.ema_rates.len();
        Ok(StepCost {
            state_bytes: sizes::bytes("the parameters", &[network.parameters().count(), copies], 4)?,
            activation_bytes: cx.transient_bytes(),
            flops: cx.flops() * micro_steps,
        })
    }

    /// The GPU time of one step by kernel, on noise instead of data.
    pub fn profile(gpu: &Gpu, unet: &UNet, options: &TrainOptions) -> Result<Profile> {
        let first = Self::initial_optimizer_state(options);
        let state = TrainState::new(gpu, unet.parameters(), options.ema_rates.len(), options.seed, &first)?;
        let step = Self::record(gpu, unet, options, &state)?;
        let images = vec![127; options.batch * options.unet.shape().len()];
        let labels = vec![0; options.batch];
        let vectors = vec![0.0; options.batch * options.unet.vector_width];
        step.run(&Batch { images, labels, vectors, ..Batch::default() })?.wait()?;
        step.recorded.gradients.profile()
    }
}
