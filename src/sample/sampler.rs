//! The guided ancestral sampler (CFG, Algorithm 2).

#[cfg(not(target_arch = "wasm32"))]
use crate::data::Image;
use crate::diffusion::{Evaluations, Guidance, Process};
use crate::error::{Error, Result};
#[cfg(not(target_arch = "wasm32"))]
use crate::gpu::Profile;
use crate::gpu::{Buffer, Gpu, Plan, Storage};
use crate::model::{Conditions, Model};
use crate::nn::unet::{Inputs, Pass};
use crate::nn::{UNet, Weights};
use crate::ops::{self, GuidedStep, SamplerStep, StepNoise};
use crate::random::Stream;
use crate::sizes::check_batch;
use crate::tensor::{Context, DType, Tensor};

#[cfg(not(target_arch = "wasm32"))]
use super::batches::Batches;
use super::guide::{Guide, GuideInput, log_likelihood_gradient};
use super::moves::Moves;
use super::networks::{Networks, check_low_res, check_pair};
use super::options::{Request, SamplerOptions};

/// A recorded sampler: start it, step it T times, read the pictures.
pub struct Sampler {
    gpu: Gpu,
    options: SamplerOptions,
    #[cfg_attr(target_arch = "wasm32", expect(dead_code, reason = "only what waits reads it"))]
    shape: [usize; 4],
    null_label: u32,
    has_classes: bool,
    conditions: Conditions,
    /// Whether something else than the null class is the unconditional half.
    unconditional_elsewhere: bool,
    /// Whether something guides by a gradient, and the classes that it knows, where it is for classes.
    by_gradient: bool,
    guided_classes: Option<usize>,
    /// The weights that a distilled network was trained for, and where it reads one.
    distilled: Option<([f64; 2], Buffer)>,
    start: Plan,
    step: Plan,
    moves: usize,
    #[cfg_attr(target_arch = "wasm32", expect(dead_code, reason = "only what waits reads it"))]
    z: Buffer,
    labels: Buffer,
    wanted: Buffer,
    seeds: Buffer,
    guidance: Buffer,
    counter: Buffer,
}

/// A tensor over the whole of a buffer.
pub(super) fn over(buffer: &Buffer, shape: &[usize], dtype: DType) -> Tensor {
    Tensor::new(Storage::Buffer(buffer.clone()), 0, shape, dtype)
}

impl Sampler {
    /// The sampler of a model.
    ///
    /// # Errors
    /// As [`Sampler::new`].
    pub fn of(gpu: &Gpu, model: &Model, options: SamplerOptions) -> Result<Sampler> {
        let options = SamplerOptions { conditions: Some(Conditions::of(&model.config)), ..options };
        Self::new(gpu, &model.unet, &model.weights(), &model.config.process()?, options)
    }

    /// Records the plans of a network.
    ///
    /// # Errors
    /// [`Error::Config`] for no steps, v outside [0, 1], or a guided sampler of a network without a null class, as
    /// [`Conditions`] has it;
    /// whatever the device objects to.
    pub fn new(
        gpu: &Gpu,
        unet: &UNet,
        weights: &Weights,
        process: impl Into<Process>,
        options: SamplerOptions,
    ) -> Result<Sampler> {
        Self::with(
            gpu,
            Networks { unet, weights, unconditional: None, guide: None, low_res: None },
            process,
            options,
        )
    }

    /// Records the plans of several networks.
    ///
    /// # Errors
    /// As [`Sampler::new`]; [`Error::Config`] when the unconditional network makes other pictures.
    pub fn with(
        gpu: &Gpu,
        networks: Networks<'_>,
        process: impl Into<Process>,
        options: SamplerOptions,
    ) -> Result<Sampler> {
        let Networks { unet, weights, unconditional, guide, low_res } = networks;
        let config = unet.config();
        // A distilled network is told w, and its one evaluation is guided.
        let options = SamplerOptions { guided: options.guided && config.guidance_range.is_none(), ..options };
        check_low_res(config, low_res.map(|(buffer, side)| (buffer.bytes(), side)), &options)?;
        let (n, size, channels) = (options.batch, config.sample_size, config.in_channels);
        check_batch(n, size, channels)?;
        let has_classes = config.num_classes.is_some();
        if let Some((other, _)) = unconditional {
            check_pair(config, other.config())?;
        }
        // Options of another model say nothing of this network.
        let known = options.conditions.as_ref().filter(|c| c.classes() == config.num_classes.unwrap_or(0));
        let conditions = known.cloned().unwrap_or_else(|| Conditions::of_network(config));
        match unconditional {
            None if options.guided && !has_classes => conditions.check_guidance("guidance")?,
            None if options.guided => conditions.check_null("guidance")?,
            Some((other, _)) => {
                Conditions::of_network(other.config()).check_null("the unconditional half")?
            }
            None => {}
        }
        let (by_gradient, guided_classes) = (guide.is_some(), guide.and_then(Guide::classes));
        let unconditional_elsewhere = unconditional.is_some();
        let shape = [n, size, size, channels];
        let moves = Moves::new(&process.into(), &options, guide.is_some())?;
        let evaluated = if options.guided { 2 * n } else { n };
        let z = gpu.buffer("z", (shape.iter().product::<usize>() * 4) as u64)?;
        let labels = gpu.buffer("labels", (evaluated * 4) as u64)?;
        let wanted = gpu.buffer("classes wanted", (n * 4) as u64)?;
        let seeds = gpu.buffer("seeds", (n * 8) as u64)?;
        let guidance = gpu.buffer("guidance weight", 4)?;
        let counter = gpu.buffer("step counter", 4)?;
        let distilled = match config.guidance_range {
            Some(range) => Some((range, gpu.buffer("guidance weights", (n * 4) as u64)?)),
            None => None,
        };
        let told = distilled.as_ref().map(|(_, buffer)| over(buffer, &[n], DType::F32));
        let z_tensor = over(&z, &shape, DType::F32);
        let seeds_tensor = over(&seeds, &[n, 2], DType::U32);

        // The start: z ~ N(0, I) at λmin.
        let mut cx = Context::new(gpu);
        let noise = ops::normal_noise(&mut cx, &seeds_tensor, 0, Stream::InitialNoise, shape)?;
        cx.copy_to(&noise, &z_tensor);
        let start = cx.finish("sampler start")?;

        // One step: eps of both conditions, then combine, clip, mean and noise in one kernel.
        let mut cx = if guide.is_some() { Context::with_tape(gpu) } else { Context::new(gpu) };
        cx.set_fast(options.fast);
        let weights = &weights.fixed_in(gpu, options.dtype)?;
        let steps = moves.table(&cx)?;
        let counter_tensor = over(&counter, &[1], DType::U32);
        let gradient = match guide {
            None => None,
            Some(guide) => {
                let times = cx.output("times", &[n], DType::F32)?;
                ops::step_times(&mut cx, &steps, &counter_tensor, &times)?;
                let labels = over(&wanted, &[n], DType::U32);
                Some(log_likelihood_gradient(&mut cx, &z_tensor, |cx, z| {
                    guide.value(cx, &GuideInput { z, times: &times, labels: &labels })
                })?)
            }
        };
        let pass = Pass::inference(options.dtype);
        let eps = if options.guided && !options.two_pass && unconditional.is_none() {
            let times = cx.output("times", &[n], DType::F32)?;
            ops::step_times(&mut cx, &steps, &counter_tensor, &times)?;
            let both = over(&labels, &[2 * n], DType::U32);
            let inputs = Inputs { conditions: 2, ..Inputs::of(&z_tensor, &times, Some(&both)) };
            unet.evaluate(&mut cx, weights, inputs, &pass)?
        } else {
            let times = cx.output("times", &[n], DType::F32)?;
            ops::step_times(&mut cx, &steps, &counter_tensor, &times)?;
            let first = has_classes.then(|| over(&labels, &[n], DType::U32));
            let input = match low_res {
                None => z_tensor.clone(),
                Some((buffer, side)) => {
                    let low = over(buffer, &[n, side, side, config.low_res_channels], DType::F32);
                    unet.with_low_res(&mut cx, &z_tensor, &low)?
                }
            };
            let inputs = Inputs { guidance: told.as_ref(), ..Inputs::of(&input, &times, first.as_ref()) };
            let eps = unet.evaluate(&mut cx, weights, inputs, &pass)?;
            if options.guided {
                // A binding starts at a multiple of 256 bytes, so the null labels are a tensor of their own.
                let (other, weights) = match unconditional {
                    Some((other, own)) => (other, &own.fixed_in(gpu, options.dtype)?),
                    None => (unet, weights),
                };
                let null = match other.config().num_classes {
                    Some(_) => {
                        let labels = vec![other.config().null_label(); n];
                        Some(cx.constant_u32("null labels", &[n], &labels)?)
                    }
                    None => None,
                };
                let without = other.forward(&mut cx, weights, &z_tensor, &times, null.as_ref(), &pass)?;
                ops::stack_batch(&mut cx, &eps, &without)?
            } else {
                eps
            }
        };
        let guidance_tensor = over(&guidance, &[1], DType::F32);
        match &moves {
            Moves::Guided(_) => {
                let step = GuidedStep {
                    z: &z_tensor,
                    eps: &eps,
                    steps: &steps,
                    counter: &counter_tensor,
                    guidance: &guidance_tensor,
                    seeds: &seeds_tensor,
                    clip: options.clip,
                    preview: None,
                };
                ops::guided_step(&mut cx, step)?;
            }
            Moves::Any { variance, multistep, gradient_in_step, .. } => {
                // The continuous form shifts the output, the others the mean.
                let mut gradient = gradient;
                if let Some(shift) = gradient.take_if(|_| !gradient_in_step) {
                    ops::guide_output(&mut cx, &eps, &shift, &steps, &counter_tensor)?;
                }
                // Zero before the first move: what lies there is multiplied by zero.
                let previous = match multistep {
                    true => {
                        Some(cx.constant_f32("previous x", &shape, &vec![0.0; shape.iter().product()])?)
                    }
                    false => None,
                };
                let step = SamplerStep {
                    z: &z_tensor,
                    out: &eps,
                    steps: &steps,
                    counter: &counter_tensor,
                    guidance: &guidance_tensor,
                    noise: StepNoise::Seeds(&seeds_tensor),
                    variance: *variance,
                    clip: options.clip,
                    gradient: gradient.as_ref(),
                    previous: previous.as_ref(),
                };
                ops::sampler_step(&mut cx, step)?;
            }
        }
        ops::advance(&mut cx, &counter_tensor)?;
        let step = cx.finish("sampler step")?;
        let (gpu, null_label) = (gpu.clone(), config.null_label());
        Ok(Sampler {
            gpu,
            options,
            shape,
            null_label,
            has_classes,
            conditions,
            unconditional_elsewhere,
            by_gradient,
            guided_classes,
            distilled,
            start,
            step,
            moves: moves.len(),
            z,
            labels,
            wanted,
            seeds,
            guidance,
            counter,
        })
    }

    /// Whether a guidance needs a guided sampler: w = 0 and w = -1 need one evaluation a step.
    pub fn needs_both(guidance: Guidance) -> bool {
        guidance.evaluations() == Evaluations::Both
    }

    /// What it was recorded for.
    pub fn options(&self) -> &SamplerOptions {
        &self.options
    }

    /// Begins up to a batch of pictures.
    ///
    /// # Errors
    /// [`Error::Config`] when there are more than fit, the guidance needs two evaluations and the sampler was recorded for
    /// one, or a class or the null class is asked for that the network was not taught.
    pub fn start(&self, requests: &[Request], guidance: Guidance) -> Result<()> {
        let n = self.options.batch;
        let all = Request::fill(requests, n)?;
        self.check(requests, guidance)?;
        if self.distilled.is_none() && Self::needs_both(guidance) && !self.options.guided {
            let w = guidance.weight();
            return Err(Error::Config(format!(
                "w = {w} needs a guided sampler; this one evaluates once a step"
            )));
        }
        let unconditional = guidance.evaluations() == Evaluations::Unconditional;
        if let Some(([low, high], buffer)) = &self.distilled {
            // Without a class the guided picture is the unconditional one, whatever w.
            let w = if unconditional { *low } else { guidance.weight() };
            if !(*low..=*high).contains(&w) {
                return Err(Error::Config(format!(
                    "w = {w}: this distilled network was trained for w from {low} to {high}"
                )));
            }
            self.gpu.write(buffer, 0, bytemuck::cast_slice(&vec![w as f32; n]))?;
        }
        let label = |request: &Request| match request.class {
            Some(class) if !unconditional => class,
            _ => self.null_label,
        };
        if self.has_classes {
            let mut labels: Vec<u32> = all.iter().map(label).collect();
            if self.options.guided {
                labels.resize(2 * n, self.null_label);
            }
            self.gpu.write(&self.labels, 0, bytemuck::cast_slice(&labels))?;
        }
        let wanted: Vec<u32> = all.iter().map(|request| request.class.unwrap_or(u32::MAX)).collect();
        self.gpu.write(&self.wanted, 0, bytemuck::cast_slice(&wanted))?;
        let seeds: Vec<[u32; 2]> = all.iter().map(Request::seed_words).collect();
        self.gpu.write(&self.seeds, 0, bytemuck::cast_slice(&seeds))?;
        self.gpu.write(&self.guidance, 0, bytemuck::bytes_of(&(guidance.weight() as f32)))?;
        self.gpu.write(&self.counter, 0, bytemuck::bytes_of(&0u32))?;
        self.start.run()
    }

    /// Refuses what the network, or what guides it, was not taught.
    fn check(&self, requests: &[Request], guidance: Guidance) -> Result<()> {
        let classes = requests.iter().map(|request| request.class);
        if let Some(known) = self.guided_classes
            && let Some(class) = classes.clone().flatten().find(|class| *class as usize >= known)
        {
            return Err(Error::Config(format!(
                "there is no class {class}; the classifier knows 0 to {}",
                known - 1
            )));
        }
        // The classes of a network without any are those of what guides it.
        if !self.has_classes && self.by_gradient {
            return Ok(());
        }
        self.conditions.check(classes, guidance.evaluations(), self.unconditional_elsewhere)
    }

    /// How often [`Sampler::step`] makes a picture: once for each evaluation.
    pub fn moves(&self) -> usize {
        self.moves
    }

    /// Submits one denoising step; [`Sampler::moves`] of them make the picture.
    pub fn step(&self) -> Result<()> {
        self.step.run()
    }

    /// The plan of one step, to encode elsewhere or to time.
    pub fn step_plan(&self) -> &Plan {
        &self.step
    }

    /// Runs a step with a timestamp around each kernel.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn profile_step(&self) -> Result<Profile> {
        self.step.profile()
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

    /// As [`Sampler::sample`], from latents of one's own, `[N, H, W, C]`, instead of noise: where the sampler's first step
    /// begins. [`SamplerKind::DdimReverse`](crate::diffusion::SamplerKind::DdimReverse) begins with pictures in -1..1 and
    /// ends with latents. Returns what it comes to.
    ///
    /// # Errors
    /// [`Error::Shape`] when `z` is not one latent for each request; as [`Sampler::start`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn sample_from(
        &self,
        z: &[f32],
        requests: &[Request],
        guidance: Guidance,
        on_step: impl FnMut() -> Result<()>,
    ) -> Result<Vec<f32>> {
        let one = self.shape[1..].iter().product::<usize>();
        if z.len() != requests.len() * one {
            let what = format!("{} values are not {} latents of {one}", z.len(), requests.len());
            return Err(Error::shape("sampler", what));
        }
        let at = std::cell::Cell::new(0);
        let start = |batch: &[Request]| {
            self.start(batch, guidance)?;
            let first = at.replace(at.get() + batch.len() * one);
            self.gpu.write(&self.z, 0, bytemuck::cast_slice(&z[first..][..batch.len() * one]))
        };
        self.batches().values(requests, start, || self.step(), on_step)
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn batches(&self) -> Batches<'_> {
        Batches { gpu: &self.gpu, z: &self.z, shape: self.shape, steps: self.moves }
    }
}
