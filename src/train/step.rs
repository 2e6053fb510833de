//! The training step as plans: CFG Algorithm 1, then AdamW and the moving averages.
//!
//! With one microbatch everything is one plan and one submission a step. With several, a plan that adds to the
//! gradients is replayed for each, and a second plan applies them.

mod pending;

use std::collections::VecDeque;

use crate::autograd::backprop_from;
use crate::data::Batch;
use crate::diffusion::{ContinuousSchedule, LossRow};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu, Plan, Profile, Readback};
use crate::nn::{Dropout, Pass, Told, UNet};
use crate::ops::{self, AdamW, Controls, Images, LossInputs, OptimizerArena, OptimizerState};
use crate::sizes;
use crate::tensor::{Context, DType, Tensor};

use super::distill::{Lesson, Lessons};
use super::importance::Importance;
use super::noise_scale::MicroNorm;
use super::objective::{Draw, Draws};
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

/// What the host writes before each microbatch.
struct HostBuffers {
    images: Buffer,
    scalars: Buffer,
    times: Buffer,
    image_index: Buffer,
    labels: Buffer,
    /// Each sample's numbers of the loss; the default's are the same for all.
    rows: Option<Buffer>,
    /// Of a distillation.
    lessons: Option<Lessons>,
}

/// A recorded training step.
pub struct TrainStep {
    gpu: Gpu,
    draws: Draws,
    options: TrainOptions,
    inputs: HostBuffers,
    hyper: Buffer,
    optimizer: Buffer,
    losses: Buffer,
    /// A classifier's terms of each sample.
    terms: Option<Buffer>,
    /// One plan for all, or one for each microbatch and one to apply the gradients.
    accumulate: Plan,
    apply: Option<Plan>,
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
        let hyper = gpu.buffer("learning rate, weight decay, clip", 16)?;
        let mut cx = Context::with_tape(gpu);
        let (losses, terms) = record_gradients(&mut cx, network, options, state, &inputs)?;
        let (accumulate, apply, kept) = if options.batch == options.microbatch {
            record_update(&mut cx, options, state, &hyper)?;
            let plan = cx.finish("training step")?;
            let kept = plan.kept(losses.storage()).cloned();
            (plan, None, kept)
        } else {
            let plan = cx.finish("training gradients")?;
            let kept = plan.kept(losses.storage()).cloned();
            let mut cx = Context::new(gpu);
            record_update(&mut cx, options, state, &hyper)?;
            (plan, Some(cx.finish("training update")?), kept)
        };
        let schedule = ContinuousSchedule::new(options.log_snr_min, options.log_snr_max)?;
        Ok(TrainStep {
            gpu: gpu.clone(),
            draws: Draws::new(options.objective, schedule, options.seed, options.unconditional_probability)?,
            options: options.clone(),
            inputs,
            hyper,
            optimizer: state.optimizer.clone(),
            losses: kept.expect("the losses were kept"),
            terms: terms.and_then(|terms| accumulate.kept(terms.storage()).cloned()),
            accumulate,
            apply,
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
        let hyper = [learning_rate, options.weight_decay, options.grad_clip, 0.0].map(|x| x as f32);
        self.gpu.write(&self.hyper, 0, bytemuck::cast_slice(&hyper))?;
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
            if let Some(lessons) = &self.inputs.lessons {
                draws.iter_mut().for_each(|draw| *draw = lessons.redraw(*draw));
            }
            times.extend(draws.iter().map(|draw| draw.t));
            quarters.extend(draws.iter().map(|draw| draw.quarter));
            if let Some(weights) = &mut weights {
                weights.extend(draws.iter().map(|draw| f64::from(draw.row.weight)));
            }
            self.inputs.write(&self.gpu, &draws, options, images, &batch.labels[at..at + micro], first)?;
            // A submission of its own: of two writes before one submission only the last is seen.
            self.accumulate.run()?;
            if let (0, Some(norm)) = (at, &self.micro_norm) {
                micro_norm = Some(norm.measure()?);
            }
            losses.push_back(self.gpu.read_later(&self.losses, 0..(micro * 4) as u64)?);
            if let Some(buffer) = &self.terms {
                terms.push(self.gpu.read_later(buffer, 0..(micro * 16) as u64)?);
            }
        }
        if let Some(apply) = &self.apply {
            apply.run()?;
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
            optimizer: self.gpu.read_later(&self.optimizer, 0..bytes)?,
        }))
    }

    /// The plan of the step, or of a microbatch's gradients.
    pub fn plan(&self) -> &Plan {
        &self.accumulate
    }

    /// What a step of `options` would cost; nothing runs, and no memory of the device is taken.
    ///
    /// # Errors
    /// [`Error::Limit`] naming what exceeds the device.
    pub fn cost<'a>(gpu: &Gpu, network: impl Into<Trained<'a>>, options: &TrainOptions) -> Result<StepCost> {
        let (gpu, network) = (&gpu.estimating(), network.into());
        let state = TrainState::without_values(gpu, network.parameters(), options)?;
        let inputs = HostBuffers::new(gpu, network, options)?;
        let mut cx = Context::with_tape(gpu);
        record_gradients(&mut cx, network, options, &state, &inputs)?;
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
        let size = options.unet.sample_size;
        let images = vec![127; options.batch * size * size * options.unet.in_channels];
        step.run(&Batch { images, labels: vec![0; options.batch], first_image: 0, left_out: Vec::new() })?
            .wait()?;
        step.accumulate.profile()
    }
}

impl HostBuffers {
    fn new(gpu: &Gpu, network: Trained<'_>, options: &TrainOptions) -> Result<Self> {
        let n = options.microbatch as u64;
        let (size, channels) = (options.unet.sample_size, options.unet.in_channels);
        let pixels = sizes::bytes("the pixels of a batch", &[options.microbatch, size, size, channels], 1)?;
        Ok(HostBuffers {
            images: gpu.buffer("images", pixels.next_multiple_of(4))?,
            scalars: gpu.buffer("sample scalars", n * 16)?,
            times: gpu.buffer("times", n * 4)?,
            image_index: gpu.buffer("image indices", n * 8)?,
            labels: gpu.buffer("labels", n * 4)?,
            rows: match options.objective.is_default() || options.distillation.is_some() {
                true => None,
                false => Some(gpu.buffer("loss rows", n * size_of::<LossRow>() as u64)?),
            },
            lessons: match network {
                Trained::Student(_, teacher) => Some(Lessons::new(gpu, options, teacher)?),
                _ => None,
            },
        })
    }

    /// The decisions of Algorithm 1 for images `first..`: λ and the label drops, in f64 on the host.
    fn write(
        &self,
        gpu: &Gpu,
        draws: &[Draw],
        options: &TrainOptions,
        images: &[u8],
        labels: &[u32],
        first: u64,
    ) -> Result<()> {
        let (mut scalars, mut times) = (Vec::new(), Vec::new());
        let (mut indices, mut shown) = (Vec::new(), Vec::new());
        for (i, label) in labels.iter().enumerate() {
            let index = first + i as u64;
            let draw = &draws[i];
            scalars.push([draw.alpha, draw.sigma, draw.log_snr, draw.time].map(|x| x as f32));
            times.push(draw.time as f32);
            indices.push([index as u32, (index >> 32) as u32]);
            shown.push(if draw.drop_label { options.unet.null_label() } else { *label });
        }
        if let Some(rows) = &self.rows {
            let all: Vec<LossRow> = draws.iter().map(|draw| draw.row).collect();
            gpu.write(rows, 0, bytemuck::cast_slice(&all))?;
        }
        if let Some(lessons) = &self.lessons {
            lessons.write(gpu, draws, &shown, first)?;
        }
        gpu.write(&self.images, 0, images)?;
        gpu.write(&self.scalars, 0, bytemuck::cast_slice(&scalars))?;
        gpu.write(&self.times, 0, bytemuck::cast_slice(&times))?;
        gpu.write(&self.image_index, 0, bytemuck::cast_slice(&indices))?;
        gpu.write(&self.labels, 0, bytemuck::cast_slice(&shown))
    }
}

/// Records noise, forward, loss and backward; returns the losses of each sample, and a classifier's terms.
fn record_gradients(
    cx: &mut Context,
    network: Trained<'_>,
    options: &TrainOptions,
    state: &TrainState,
    inputs: &HostBuffers,
) -> Result<(Tensor, Option<Tensor>)> {
    let (n, size, channels) = (options.microbatch, options.unet.sample_size, options.unet.in_channels);
    let shape = [n, size, size, channels];
    let dtype = options.dtype();
    let mut weights = state.parameters.weights(network.parameters(), 0);
    if dtype == DType::F16 {
        weights = weights.with_halves(cx)?;
    }
    weights.track(cx, &state.gradients.weights(network.parameters(), 0));

    // Algorithm 1, lines 2 to 5: (x, c), λ, ε, z = αx + σε. What is random per sample came from the host.
    let image_index = Tensor::over(&inputs.image_index, &[n, 2], DType::U32);
    let bytes = Tensor::over(&inputs.images, &[shape.iter().product::<usize>().div_ceil(4)], DType::U32);
    let scalars = Tensor::over(&inputs.scalars, &[n, 4], DType::F32);
    let images = Images { bytes: &bytes, scalars: &scalars, image_index: &image_index, shape };
    let (z, eps) = ops::noised(cx, images, options.seed)?;

    // ε_θ(z, c) and the loss (CFG eq. 5), a mean over the whole batch.
    let times = Tensor::over(&inputs.times, &[n], DType::F32);
    let labels = options.unet.num_classes.map(|_| Tensor::over(&inputs.labels, &[n], DType::U32));
    let dropout = Dropout { seed: options.seed, image_index };
    let pass = Pass { dtype, dropout: Some(&dropout) };
    let denoiser = match network {
        Trained::Denoiser(denoiser) => denoiser,
        Trained::Student(student, teacher) => {
            let Some(lessons) = &inputs.lessons else {
                return Err(Error::Config("a student's options must say what it is taught".into()));
            };
            let lesson = Lesson { student, teacher, z: &z, time: &times, labels: labels.as_ref() };
            let (predicted, target) = lesson.record(cx, lessons, &weights, &pass)?;
            let (loss, per_sample) =
                ops::mse_per_sample(cx, &predicted, &target, 1.0 / options.batch as f32)?;
            cx.keep(&per_sample);
            backprop_from(cx, &loss, &Tensor::over(&state.loss_scale, loss.shape(), DType::F32))?;
            return Ok((per_sample, None));
        }
        Trained::Classifier(classifier) => {
            let logits = classifier.forward(cx, &weights, &z, &times, &pass)?;
            let labels = Tensor::over(&inputs.labels, &[n], DType::U32);
            let found = ops::cross_entropy(cx, &logits, &labels, 1.0 / options.batch as f32)?;
            cx.keep(&found.per_sample);
            cx.keep(&found.terms);
            backprop_from(cx, &found.loss, &Tensor::over(&state.loss_scale, found.loss.shape(), DType::F32))?;
            return Ok((found.per_sample, Some(found.terms)));
        }
    };
    // An upsampler sees the same picture small: the mean over each of its pixels' areas.
    let small = match options.upsample_from {
        None => None,
        Some(small) => {
            let mut low = ops::pixels(cx, &bytes, shape)?;
            while low.shape()[1] > small {
                low = ops::average_pool2(cx, &low)?;
            }
            Some(low)
        }
    };
    let told = Told { class: labels.as_ref(), picture: small.as_ref(), ..Told::default() };
    let predicted = denoiser.record(cx, &weights, &z, &times, told, &pass)?;
    let (loss, per_sample) = match &inputs.rows {
        None => ops::mse_per_sample(cx, &predicted, &eps, 1.0 / options.batch as f32)?,
        Some(rows) => {
            let x = ops::pixels(cx, &bytes, shape)?;
            let rows = Tensor::over(rows, &[n, 16], DType::F32);
            let inputs = LossInputs { out: &predicted, x: &x, z: &z, eps: &eps, rows: &rows };
            let losses = ops::diffusion_loss(cx, inputs, options.objective.weights(options.batch))?;
            (losses.loss, losses.totals)
        }
    };
    cx.keep(&per_sample);
    // The loss is not multiplied by its scale, its gradient is: f16 gradients would underflow.
    backprop_from(cx, &loss, &Tensor::over(&state.loss_scale, loss.shape(), DType::F32))?;
    Ok((per_sample, None))
}

/// Records gradient norm, AdamW and the averages.
fn record_update(cx: &mut Context, options: &TrainOptions, state: &TrainState, hyper: &Buffer) -> Result<()> {
    let controls = Controls {
        hyper: Tensor::over(hyper, &[4], DType::F32),
        state: Tensor::over(&state.optimizer, &[OptimizerState::WORDS], DType::U32),
        scale: Tensor::over(&state.loss_scale, &[1], DType::F32),
        loss_scaling: options.dtype() == DType::F16,
    };
    let [params, grads, first, second, averages] =
        [&state.parameters, &state.gradients, &state.first_moment, &state.second_moment, &state.averages]
            .map(|arena| arena.flat());
    let arenas: Vec<OptimizerArena<'_>> = (0..params.len())
        .map(|i| OptimizerArena {
            params: &params[i],
            grads: &grads[i],
            first_moments: &first[i],
            second_moments: &second[i],
            ema: Some(&averages[i]),
        })
        .collect();
    let adam = AdamW { ema_warmup: options.ema_warmup, ..AdamW::default() };
    adam.step(cx, &arenas, &controls, &options.ema_rates)
}
