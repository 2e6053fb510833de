//! Any sampler under a chain of guiders: as many evaluations a step as the chain asks for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

#[cfg(not(target_arch = "wasm32"))]
use crate::data::Image;
use crate::diffusion::guiders::{Against, Guiders, moments};
use crate::diffusion::{Evaluations, Guidance, StepCoefficients};
use crate::error::{Error, Result};
#[cfg(not(target_arch = "wasm32"))]
use crate::gpu::Profile;
use crate::gpu::{Gpu, Plan};
use crate::model::{Conditions, Model, check_same_classes};
use crate::ops::{self, GUIDER_ROW};
use crate::random::Stream;
use crate::tensor::{Context, DType, Tensor};

#[cfg(not(target_arch = "wasm32"))]
use super::batches::Batches;
use super::guided_step::{Buffers, GuidedMoves, Network, StepParts};
use super::options::{Request, SamplerOptions};
use super::slots::over;

/// A recorded sampler with guiders. Steps without guidance are a plan of their own, of one evaluation.
pub struct GuidedSampler {
    gpu: Gpu,
    options: SamplerOptions,
    guiders: Guiders,
    steps: Vec<StepCoefficients>,
    #[cfg_attr(target_arch = "wasm32", expect(dead_code, reason = "only what waits reads it"))]
    z: Tensor,
    null_label: u32,
    conditions: Conditions,
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
        let conditions = Conditions::of(&model.config);
        for label in other_labels.iter().filter(|label| **label != config.null_label()) {
            conditions.check_class(Some(*label))?;
        }
        let moves = GuidedMoves::new(model, &guiders, &options)?;

        let bytes = shape.iter().product::<usize>() as u64 * 4;
        let labelled = (1 + other_labels.len()) * n;
        let buffers = Buffers {
            z: gpu.buffer("z", bytes)?,
            labels: gpu.buffer("labels", labelled as u64 * 4)?,
            seeds: gpu.buffer("seeds", n as u64 * 8)?,
            guidance: gpu.buffer("guidance weight", 4)?,
            counter: gpu.buffer("step counter", 4)?,
            table: gpu.buffer("guiders", (moves.steps.len() * GUIDER_ROW * 4) as u64)?,
            momentum: gpu.buffer("momentum", bytes)?,
            previous: gpu.buffer("previous x", bytes)?,
        };

        // The start: z ~ N(0, I) at the noisiest level.
        let mut cx = Context::new(gpu);
        let seeds = over(&buffers.seeds, &[n, 2], DType::U32);
        let noise = ops::normal_noise(&mut cx, &seeds, 0, Stream::InitialNoise, shape)?;
        cx.copy_to(&noise, &over(&buffers.z, &shape, DType::F32));
        let start = cx.finish("sampler start")?;

        let parts = StepParts {
            gpu,
            strong: Network::of(gpu, model, options.dtype)?,
            weak: weak.map(|weak| Network::of(gpu, weak, options.dtype)).transpose()?,
            guiders: &guiders,
            moves: &moves,
            others: &other_labels,
            options: &options,
            shape,
            buffers: &buffers,
        };
        let (all, single) = (parts.record(true)?, parts.record(false)?);
        Ok(GuidedSampler {
            gpu: gpu.clone(),
            options,
            guiders,
            steps: moves.steps,
            z: over(&buffers.z, &shape, DType::F32),
            null_label: config.null_label(),
            conditions,
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
    /// [`Error::Config`] when there are more than fit, a class is asked for that the network was not taught, or a schedule gives a weight that is no number.
    pub fn start(&self, requests: &[Request], guidance: Guidance) -> Result<()> {
        let n = self.options.batch;
        let all = Request::fill(requests, n)?;
        let elsewhere = self.guiders.against() != Against::Null;
        self.conditions.check(requests.iter().map(|request| request.class), Evaluations::Both, elsewhere)?;
        let weights = self.guiders.weights(guidance.weight(), &moments(&self.steps));
        if let Some(step) = weights.iter().position(|weight| !(*weight as f32).is_finite()) {
            let what = format!("the guiders give step {step} the weight {}", weights[step]);
            return Err(Error::Config(what));
        }
        let table = ops::guider_table(&self.guiders, guidance.weight(), &self.steps);
        let own = all.iter().map(|request| request.class.unwrap_or(self.null_label));
        let others = self.other_labels.iter().flat_map(|label| std::iter::repeat_n(*label, n));
        let labels: Vec<u32> = own.chain(others).collect();
        let seeds: Vec<[u32; 2]> = all.iter().map(Request::seed_words).collect();
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

    /// How often [`GuidedSampler::step`] makes a picture: once for each move, of Heun's method twice for most steps.
    pub fn moves(&self) -> usize {
        self.steps.len()
    }

    /// Submits one denoising step; [`GuidedSampler::moves`] of them make the picture.
    pub fn step(&self) -> Result<()> {
        let at = self.at.fetch_add(1, Ordering::SeqCst);
        let all = self.needs_all.lock().unwrap_or_else(PoisonError::into_inner).get(at).copied();
        if all.unwrap_or(true) { self.all.run() } else { self.single.run() }
    }

    /// Runs a guided step with a timestamp around each kernel.
    #[cfg(not(target_arch = "wasm32"))]
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
        Batches { gpu: &self.gpu, z: &self.z, steps: self.moves() }
    }
}

fn check(model: &Model, weak: Option<&Model>, guiders: &Guiders, options: &SamplerOptions) -> Result<()> {
    let refuse = |what: String| Err(Error::Config(what));
    let config = model.unet.config();
    crate::sizes::check_batch(options.batch, config.sample_size, config.in_channels)?;
    let conditions = Conditions::of(&model.config);
    if guiders.annealing().is_some() && model.unet.config().num_classes.is_none() {
        return refuse("annealing changes the condition's embedding, and this network has no classes".into());
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
            let name = |model: &Model| model.path.display().to_string();
            let ours = (&*name(model), &*model.config.class_names);
            check_same_classes(ours, (&name(weak), &weak.config.class_names), false).map(drop)
        }
        (Against::Null | Against::Class(_), _) if conditions.classes() == 0 => {
            refuse("these guiders need classes, and the network has none".into())
        }
        (Against::Null, _) => conditions.check_null("guidance"),
        (Against::Class(_), _) => Ok(()),
    }
}
