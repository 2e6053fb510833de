//! The ancestral sampler under a chain of guiders: as many evaluations a step as the chain asks for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::data::Image;
use crate::diffusion::guiders::{Against, Guiders, moments};
use crate::diffusion::{
    ContinuousSchedule, Guidance, LevelSource, Prediction, SamplerKind, StepCoefficients, ancestral_steps,
};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu, Plan, Profile};
use crate::model::Model;
use crate::nn::unet::Pass;
use crate::nn::{UNet, Weights};
use crate::ops::{self, GUIDER_ROW, Guided, GuidedStep};
use crate::random::Stream;
use crate::tensor::{Context, DType, Tensor};

#[cfg(not(target_arch = "wasm32"))]
use super::batches::Batches;
use super::sampler::{Request, SamplerOptions, over};

/// A recorded sampler with guiders. Steps without guidance are a plan of their own, of one evaluation.
pub struct GuidedSampler {
    gpu: Gpu,
    options: SamplerOptions,
    guiders: Guiders,
    steps: Vec<StepCoefficients>,
    shape: [usize; 4],
    null_label: u32,
    /// The labels of all evaluations but the first; none where a weaker network takes the second.
    other_labels: Vec<u32>,
    start: Plan,
    all: Plan,
    single: Plan,
    buffers: Buffers,
    /// Of the pictures under way: the next step, and which steps need all evaluations.
    at: AtomicUsize,
    needs_all: Mutex<Vec<bool>>,
}

/// What the host writes and the plans share.
struct Buffers {
    z: Buffer,
    labels: Buffer,
    seeds: Buffer,
    guidance: Buffer,
    counter: Buffer,
    table: Buffer,
    momentum: Buffer,
}

/// A network and its weights, as its plans use them.
struct Network<'a> {
    unet: &'a UNet,
    weights: Weights,
}

impl<'a> Network<'a> {
    fn of(gpu: &Gpu, model: &'a Model, dtype: DType) -> Result<Self> {
        let weights = model.weights();
        let weights = if dtype == DType::F16 { weights.with_fixed_halves(gpu)? } else { weights };
        Ok(Network { unet: &model.unet, weights })
    }
}

impl GuidedSampler {
    /// Records the sampler of `model` under `guiders`; `weak` is the network that autoguidance leads away from.
    /// `options.guided` is not read: the guiders say what is evaluated.
    ///
    /// # Errors
    /// [`Error::Config`] for a model that cannot be guided so, a class that it does not know, a weak network of another
    /// kind; whatever the device objects to.
    pub fn new(
        gpu: &Gpu,
        model: &Model,
        weak: Option<&Model>,
        guiders: Guiders,
        options: SamplerOptions,
    ) -> Result<GuidedSampler> {
        let config = model.unet.config();
        let (n, size) = (options.batch, config.sample_size);
        let shape = [n, size, size, config.in_channels];
        check(model, weak, &guiders, &options)?;
        let other_labels = match guiders.against() {
            Against::WeakModel(_) => Vec::new(),
            Against::Class(class) => vec![model.config.class(&class)?],
            Against::Null => vec![config.null_label()],
        };
        let more: Result<Vec<u32>> =
            guiders.more_conditions().iter().map(|(class, _)| model.config.class(class)).collect();
        let other_labels = [other_labels, more?].concat();
        let schedule = schedule(model, &options)?;
        let steps = ancestral_steps(&schedule, options.steps, options.variance_exponent)?;

        let bytes = shape.iter().product::<usize>() as u64 * 4;
        let labelled = (1 + other_labels.len()) * n;
        let buffers = Buffers {
            z: gpu.buffer("z", bytes)?,
            labels: gpu.buffer("labels", labelled as u64 * 4)?,
            seeds: gpu.buffer("seeds", n as u64 * 8)?,
            guidance: gpu.buffer("guidance weight", 4)?,
            counter: gpu.buffer("step counter", 4)?,
            table: gpu.buffer("guiders", (steps.len() * GUIDER_ROW * 4) as u64)?,
            momentum: gpu.buffer("momentum", bytes)?,
        };
        let z = over(&buffers.z, &shape, DType::F32);
        let seeds = over(&buffers.seeds, &[n, 2], DType::U32);

        // The start: z ~ N(0, I) at λmin.
        let mut cx = Context::new(gpu);
        let noise = ops::normal_noise(&mut cx, &seeds, 0, Stream::InitialNoise, shape)?;
        cx.copy_to(&noise, &z);
        let start = cx.finish("sampler start")?;

        let strong = Network::of(gpu, model, options.dtype)?;
        let weak = weak.map(|weak| Network::of(gpu, weak, options.dtype)).transpose()?;
        let record = |guided: bool| -> Result<Plan> {
            let mut cx = Context::new(gpu);
            let rows: Vec<_> = guiders.steps(&steps).0.iter().map(StepCoefficients::scalars).collect();
            let rows = ops::step_table(&cx, &rows)?;
            let counter = over(&buffers.counter, &[1], DType::U32);
            let table = over(&buffers.table, &[steps.len(), GUIDER_ROW], DType::F32);
            let guidance = over(&buffers.guidance, &[1], DType::F32);
            let others = if guided { &other_labels[..] } else { &[] };
            let inputs = Inputs { z: &z, rows: &rows, counter: &counter, labels: &buffers.labels, others };
            let weak = weak.as_ref().filter(|_| guided);
            let evaluated = evaluate(&mut cx, &strong, weak, &inputs, &options)?;
            let step = Guided { z: &z, eps: &evaluated, table: &table, counter: &counter };
            let eps = if !guided && guiders.eps_factor() != 1.0 {
                ops::scale(&mut cx, &evaluated, guiders.eps_factor() as f32)?
            } else if !guided {
                evaluated.clone()
            } else if ops::is_weight_alone(&guiders) {
                ops::step_weight(&mut cx, &table, &counter, &guidance)?;
                evaluated.clone()
            } else {
                let momentum = over(&buffers.momentum, &shape, DType::F32);
                ops::guided_eps(&mut cx, &guiders, step, Some(&momentum))?
            };
            let fused = GuidedStep {
                z: &z,
                eps: &eps,
                steps: &rows,
                counter: &counter,
                guidance: &guidance,
                seeds: &seeds,
                clip: options.clip,
                preview: None,
            };
            ops::guided_step(&mut cx, fused)?;
            if guided && guiders.renoises() {
                ops::renoise(&mut cx, step)?;
            }
            ops::advance(&mut cx, &counter)?;
            cx.finish("guided sampler step")
        };
        let (all, single) = (record(true)?, record(false)?);
        Ok(GuidedSampler {
            gpu: gpu.clone(),
            options,
            guiders,
            steps,
            shape,
            null_label: config.null_label(),
            other_labels,
            start,
            all,
            single,
            buffers,
            at: AtomicUsize::new(0),
            needs_all: Mutex::default(),
        })
    }

    /// What it was recorded for.
    pub fn options(&self) -> &SamplerOptions {
        &self.options
    }

    /// The guiders.
    pub fn guiders(&self) -> &Guiders {
        &self.guiders
    }

    /// Evaluations of the network that a picture takes with this weight.
    pub fn evaluations(&self, guidance: Guidance) -> usize {
        let weights = self.guiders.weights(guidance.weight(), &moments(&self.steps));
        weights.iter().map(|weight| self.guiders.evaluations(*weight)).sum()
    }

    /// Begins up to a batch of pictures.
    ///
    /// # Errors
    /// [`Error::Config`] when there are more than fit, or a schedule gives a weight that is no number.
    pub fn start(&self, requests: &[Request], guidance: Guidance) -> Result<()> {
        let n = self.options.batch;
        if requests.len() > n {
            return Err(Error::Config(format!("{} pictures in a sampler for {n}", requests.len())));
        }
        let weights = self.guiders.weights(guidance.weight(), &moments(&self.steps));
        if let Some(step) = weights.iter().position(|weight| !(*weight as f32).is_finite()) {
            let what = format!("the guiders give step {step} the weight {}", weights[step]);
            return Err(Error::Config(what));
        }
        let table = ops::guider_table(&self.guiders, guidance.weight(), &self.steps);
        let filler = Request { class: None, seed: 0 };
        let all: Vec<Request> =
            (0..n).map(|i| requests.get(i).or(requests.first()).copied().unwrap_or(filler)).collect();
        let own = all.iter().map(|request| request.class.unwrap_or(self.null_label));
        let others = self.other_labels.iter().flat_map(|label| std::iter::repeat_n(*label, n));
        let labels: Vec<u32> = own.chain(others).collect();
        let seeds: Vec<[u32; 2]> =
            all.iter().map(|request| [request.seed as u32, (request.seed >> 32) as u32]).collect();
        let buffers = &self.buffers;
        self.gpu.write(&buffers.labels, 0, bytemuck::cast_slice(&labels))?;
        self.gpu.write(&buffers.seeds, 0, bytemuck::cast_slice(&seeds))?;
        self.gpu.write(&buffers.table, 0, bytemuck::cast_slice(&table))?;
        self.gpu.write(&buffers.guidance, 0, bytemuck::bytes_of(&0f32))?;
        self.gpu.write(&buffers.counter, 0, bytemuck::bytes_of(&0u32))?;
        *self.needs_all.lock().unwrap_or_else(PoisonError::into_inner) =
            weights.iter().map(|weight| self.guiders.needs_all(*weight)).collect();
        self.at.store(0, Ordering::SeqCst);
        self.start.run()
    }

    /// Submits one denoising step; T of them make the picture.
    pub fn step(&self) -> Result<()> {
        let at = self.at.fetch_add(1, Ordering::SeqCst);
        let all = self.needs_all.lock().unwrap_or_else(PoisonError::into_inner).get(at).copied();
        if all.unwrap_or(true) { self.all.run() } else { self.single.run() }
    }

    /// Runs a guided step with a timestamp around each kernel.
    pub fn profile_step(&self) -> Result<Profile> {
        self.all.profile()
    }

    /// The first `count` pictures, `[count, H, W, C]`, as they are now. Waits for the device.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(&self, count: usize) -> Result<Vec<f32>> {
        self.batches().read(count)
    }

    /// Makes pictures, any number of them, batch by batch; `on_step` is told of every step and may stop it with an
    /// error.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn sample(
        &self,
        requests: &[Request],
        guidance: Guidance,
        on_step: impl FnMut() -> Result<()>,
    ) -> Result<Vec<Image>> {
        self.batches().sample(requests, |batch| self.start(batch, guidance), || self.step(), on_step)
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn batches(&self) -> Batches<'_> {
        Batches { gpu: &self.gpu, z: &self.buffers.z, shape: self.shape, steps: self.options.steps }
    }
}

/// What the evaluations of a step read.
struct Inputs<'a> {
    z: &'a Tensor,
    rows: &'a Tensor,
    counter: &'a Tensor,
    labels: &'a Buffer,
    /// Labels of the evaluations after the first.
    others: &'a [u32],
}

/// All evaluations of a step, one behind the other along the batch.
fn evaluate(
    cx: &mut Context,
    strong: &Network<'_>,
    weak: Option<&Network<'_>>,
    inputs: &Inputs<'_>,
    options: &SamplerOptions,
) -> Result<Tensor> {
    let Inputs { z, rows, counter, labels, others } = inputs;
    let (n, count) = (options.batch, 1 + others.len());
    let classes = strong.unet.config().num_classes.is_some();
    let pass = Pass::inference(options.dtype);
    let together = if weak.is_some() || options.two_pass { 1 } else { count };
    let times = cx.output("times", &[together * n], DType::F32)?;
    ops::step_times(cx, rows, counter, &times)?;
    let own = classes.then(|| over(labels, &[together * n], DType::U32));
    if together == count && weak.is_none() {
        let repeated = if count > 1 { ops::repeat_batch(cx, z, count)? } else { (*z).clone() };
        return strong.unet.forward(cx, &strong.weights, &repeated, &times, own.as_ref(), &pass);
    }
    let mut eps = strong.unet.forward(cx, &strong.weights, z, &times, own.as_ref(), &pass)?;
    if let Some(weak) = weak {
        let other = weak.unet.forward(cx, &weak.weights, z, &times, own.as_ref(), &pass)?;
        eps = ops::stack_batch(cx, &eps, &other)?;
    }
    for label in *others {
        let label = cx.constant_u32("labels", &[n], &vec![*label; n])?;
        let other = strong.unet.forward(cx, &strong.weights, z, &times, Some(&label), &pass)?;
        eps = ops::stack_batch(cx, &eps, &other)?;
    }
    Ok(eps)
}

/// The schedule of the one sampler that guiders run in so far.
fn schedule(model: &Model, options: &SamplerOptions) -> Result<ContinuousSchedule> {
    let process = model.config.process()?;
    let kind = process.sampler(&options.method, options.steps);
    match (&process.levels, &process.prediction, kind) {
        (LevelSource::Continuous(schedule), Prediction::Eps, SamplerKind::Ancestral) => Ok(*schedule),
        _ => Err(Error::Config(format!(
            "guiders run in the ancestral sampler of networks that predict eps in continuous time; this is {kind} of {:?}",
            process.prediction
        ))),
    }
}

fn check(model: &Model, weak: Option<&Model>, guiders: &Guiders, options: &SamplerOptions) -> Result<()> {
    let refuse = |what: String| Err(Error::Config(what));
    if options.batch == 0 {
        return refuse("a batch of 0 pictures".into());
    }
    if guiders.annealing().is_some() {
        return refuse(
            "annealing changes the condition's embedding, which this sampler does not reach".into(),
        );
    }
    match (guiders.against(), weak) {
        (Against::WeakModel(path), None) => {
            refuse(format!("autoguidance needs its weaker model {path} loaded"))
        }
        (Against::WeakModel(_), Some(weak)) => {
            let shape = |model: &Model| {
                let config = model.unet.config();
                (config.sample_size, config.in_channels, config.out_channels, config.num_classes)
            };
            if shape(model) != shape(weak) || model.config.scheduler != weak.config.scheduler {
                let (path, weak) = (model.path.display(), weak.path.display());
                return refuse(format!(
                    "{weak} cannot guide {path}: size, channels, classes and schedule of both must be alike"
                ));
            }
            Ok(())
        }
        _ if !model.config.can_guide() => refuse(
            "these guiders need a network trained with label dropout; this one has no null class".into(),
        ),
        _ => Ok(()),
    }
}
