//! Guidance without an unconditional network: its score from those of all classes, p(c|z) accumulated along the chain.

use crate::data::Image;
use crate::diffusion::{ClassPosterior, Clip, Guidance, Prediction, StepCoefficients};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu, Plan, Profile};
use crate::model::{Conditions, Model};
use crate::nn::unet::Pass;
use crate::ops::{self, GuidedStep, Observed};
use crate::random::Stream;
use crate::tensor::{Context, DType};

use super::batches::Batches;
use super::options::{Request, SamplerOptions};
use super::slots::over;

/// Classes at most: each is an evaluation of the network in every step.
const MOST_CLASSES: usize = 64;

/// The ancestral sampler of a network of few classes, K evaluations a step.
pub struct FromClassesSampler {
    gpu: Gpu,
    options: SamplerOptions,
    shape: [usize; 4],
    conditions: Conditions,
    prior: Vec<f64>,
    start: Plan,
    step: Plan,
    z: Buffer,
    labels: Buffer,
    seeds: Buffer,
    guidance: Buffer,
    counter: Buffer,
    posterior: Buffer,
}

impl FromClassesSampler {
    /// Records the sampler. `prior` is that of the classes, even where none is given. `options.guided` and
    /// `options.two_pass` are not read.
    ///
    /// # Errors
    /// [`Error::Config`] for a network without classes or with too many, a sampler without ancestral noise, a dynamic
    /// clip, or a prior of other classes; whatever the device objects to.
    pub fn new(gpu: &Gpu, model: &Model, prior: Option<&[f64]>, options: SamplerOptions) -> Result<Self> {
        let config = model.unet.config();
        let (n, size) = (options.batch, config.sample_size);
        let shape = [n, size, size, config.in_channels];
        let refuse = |what: String| Err(Error::Config(what));
        crate::sizes::check_batch(n, shape[1], shape[3])?;
        let classes = config.num_classes.unwrap_or(0);
        if !(2..=MOST_CLASSES).contains(&classes) {
            return refuse(format!(
                "the unconditional score from classes takes 2 to {MOST_CLASSES} classes, an evaluation each; this network has {classes}"
            ));
        }
        Conditions::of(&model.config).check_every_class()?;
        let prior = prior.map_or_else(|| vec![1.0; classes], <[f64]>::to_vec);
        if prior.len() != classes {
            return refuse(format!("the prior has {} classes, the network {classes}", prior.len()));
        }
        let prior = ClassPosterior::new(&prior)?.probabilities();
        let process = model.config.process()?;
        let kind = process.sampler(&options.method, options.steps);
        let chain = process.chain(&options.method, options.steps, options.variance_exponent)?;
        let (Some(steps), Prediction::Eps) = (chain, process.prediction) else {
            let time = if process.is_continuous() { "continuous" } else { "discrete" };
            let fits = process.is_continuous() && process.prediction == Prediction::Eps;
            return refuse(format!(
                "the unconditional score from classes follows the noise of ancestral steps, and a network that predicts eps \
                 in continuous time; {}",
                match fits {
                    true => format!(
                        "the sampler {kind} has no such noise: use --sampler ancestral, or --uncond null"
                    ),
                    false => format!(
                        "this model predicts {} in {time} time: use --uncond null",
                        process.prediction
                    ),
                }
            ));
        };
        if matches!(options.clip, Clip::Dynamic { .. }) {
            return refuse("a dynamic threshold scales each class's prediction in its own way; use --clip static or none".into());
        }

        let bytes = shape.iter().product::<usize>() as u64 * 4;
        let z = gpu.buffer("z", bytes)?;
        let labels = gpu.buffer("labels", n as u64 * 4)?;
        let seeds = gpu.buffer("seeds", n as u64 * 8)?;
        let guidance = gpu.buffer("guidance weight", 4)?;
        let counter = gpu.buffer("step counter", 4)?;
        let posterior = gpu.buffer("class posterior", (n * 2 * classes * 4) as u64)?;
        let (z_tensor, seeds_tensor) = (over(&z, &shape, DType::F32), over(&seeds, &[n, 2], DType::U32));

        let mut cx = Context::new(gpu);
        let noise = ops::normal_noise(&mut cx, &seeds_tensor, 0, Stream::InitialNoise, shape)?;
        cx.copy_to(&noise, &z_tensor);
        let start = cx.finish("sampler start")?;

        let weights = model.weights().fixed_in(gpu, options.dtype)?;
        let mut cx = Context::new(gpu);
        cx.set_fast(options.fast);
        let rows: Vec<_> = steps.iter().map(StepCoefficients::scalars).collect();
        let rows = ops::step_table(&cx, &rows)?;
        let counter_tensor = over(&counter, &[1], DType::U32);
        // Nothing is learnt of the last step, which adds no noise.
        let variance: Vec<f32> = steps.iter().map(|step| step.noise_sd.powi(2) as f32).collect();
        let variance = cx.constant_f32("step variances", &[steps.len()], &variance)?;
        // Class by class, one batch: K·N samples.
        let times = cx.output("times", &[classes * n], DType::F32)?;
        ops::step_times(&mut cx, &rows, &counter_tensor, &times)?;
        let every: Vec<u32> = (0..classes as u32).flat_map(|class| std::iter::repeat_n(class, n)).collect();
        let every = cx.constant_u32("every class", &[classes * n], &every)?;
        let repeated = ops::repeat_batch(&mut cx, &z_tensor, classes)?;
        let pass = Pass::inference(options.dtype);
        let eps = model.unet.forward(&mut cx, &weights, &repeated, &times, Some(&every), &pass)?;
        let known = over(&posterior, &[n, 2, classes], DType::F32);
        let own = over(&labels, &[n], DType::U32);
        let pair = ops::mix_classes(&mut cx, &eps, &known, &own, config.in_channels)?;
        let before = cx.copy(&z_tensor)?;
        let step = GuidedStep {
            z: &z_tensor,
            eps: &pair,
            steps: &rows,
            counter: &counter_tensor,
            guidance: &over(&guidance, &[1], DType::F32),
            seeds: &seeds_tensor,
            clip: options.clip,
            preview: None,
        };
        ops::guided_step(&mut cx, step)?;
        let seen = Observed {
            eps: &eps,
            z: &before,
            next: &z_tensor,
            steps: &rows,
            counter: &counter_tensor,
            variance: &variance,
            clip: options.clip,
        };
        ops::observe_step(&mut cx, &known, seen)?;
        ops::advance(&mut cx, &counter_tensor)?;
        let step = cx.finish("sampler step from classes")?;
        let gpu = gpu.clone();
        Ok(FromClassesSampler {
            gpu,
            options,
            shape,
            conditions: Conditions::of(&model.config),
            prior,
            start,
            step,
            z,
            labels,
            seeds,
            guidance,
            counter,
            posterior,
        })
    }

    /// What it was recorded for.
    pub fn options(&self) -> &SamplerOptions {
        &self.options
    }

    /// Begins up to a batch of pictures.
    ///
    /// # Errors
    /// [`Error::Config`] when there are more than fit, or for a class that is not there.
    pub fn start(&self, requests: &[Request], guidance: Guidance) -> Result<()> {
        let n = self.options.batch;
        let all = Request::fill(requests, n)?;
        // The unconditional half is that of all classes: no null class is asked for.
        for class in requests.iter().filter_map(|request| request.class) {
            self.conditions.check_class(Some(class))?;
        }
        // A class past the last takes the unconditional prediction for both.
        let labels: Vec<u32> = all.iter().map(|request| request.class.unwrap_or(u32::MAX)).collect();
        let seeds: Vec<[u32; 2]> = all.iter().map(Request::seed_words).collect();
        self.gpu.write(&self.labels, 0, bytemuck::cast_slice(&labels))?;
        self.gpu.write(&self.seeds, 0, bytemuck::cast_slice(&seeds))?;
        self.gpu.write(&self.guidance, 0, bytemuck::bytes_of(&(guidance.weight() as f32)))?;
        self.gpu.write(&self.counter, 0, bytemuck::bytes_of(&0u32))?;
        self.gpu.write(&self.posterior, 0, bytemuck::cast_slice(&ops::prior_rows(&self.prior, n)))?;
        self.start.run()
    }

    /// Submits one denoising step; T of them make the picture.
    pub fn step(&self) -> Result<()> {
        self.step.run()
    }

    /// p(c|z) of the first `count` pictures as they are now, `[count, K]`. Waits for the device.
    pub fn posterior(&self, count: usize) -> Result<Vec<Vec<f32>>> {
        let classes = self.prior.len();
        let bytes = self.gpu.read(&self.posterior, 0..(count * 2 * classes * 4) as u64)?;
        let rows: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        Ok(rows.chunks(2 * classes).map(|row| row[classes..].to_vec()).collect())
    }

    /// Runs a step with a timestamp around each kernel.
    pub fn profile_step(&self) -> Result<Profile> {
        self.step.profile()
    }

    /// Makes pictures, any number of them, batch by batch; `on_step` is told of every step and may stop it with an error.
    pub fn sample(
        &self,
        requests: &[Request],
        guidance: Guidance,
        on_step: impl FnMut() -> Result<()>,
    ) -> Result<Vec<Image>> {
        let z = over(&self.z, &self.shape, DType::F32);
        let batches = Batches { gpu: &self.gpu, z: &z, steps: self.options.steps };
        batches.sample(requests, |batch| self.start(batch, guidance), || self.step(), on_step)
    }
}
