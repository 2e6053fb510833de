//! A recorded sampler: the networks of a host, its options, and buffers of its own.

#[cfg(not(target_arch = "wasm32"))]
use crate::data::Image;
use crate::diffusion::{Evaluations, Guidance, Process};
#[cfg(not(target_arch = "wasm32"))]
use crate::error::Error;
use crate::error::Result;
#[cfg(not(target_arch = "wasm32"))]
use crate::gpu::Profile;
use crate::gpu::{Gpu, Plan};
use crate::model::{Conditions, Model};
use crate::nn::{UNet, Weights};

#[cfg(not(target_arch = "wasm32"))]
use super::batches::Batches;
use super::checks::Settled;
use super::networks::{Fixed, Networks};
use super::options::{Request, SamplerOptions};
use super::slots::{Slots, write};
use super::step::StepRecorder;

/// A recorded sampler: start it, step it T times, read the pictures.
pub struct Sampler {
    gpu: Gpu,
    settled: Settled,
    slots: Slots,
    start: Plan,
    step: Plan,
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
    /// [`Error::Config`](crate::Error::Config) for no steps, v outside [0, 1], or a guided sampler of a network without a
    /// null class, as [`Conditions`] has it; whatever the device objects to.
    pub fn new(
        gpu: &Gpu,
        unet: &UNet,
        weights: &Weights,
        process: impl Into<Process>,
        options: SamplerOptions,
    ) -> Result<Sampler> {
        let networks = Networks { unet, weights, unconditional: None, guide: None, low_res: None };
        Self::with(gpu, networks, process, options)
    }

    /// Records the plans of several networks.
    ///
    /// # Errors
    /// As [`Sampler::new`]; [`Error::Config`](crate::Error::Config) when the unconditional network makes other pictures.
    pub fn with(
        gpu: &Gpu,
        networks: Networks<'_>,
        process: impl Into<Process>,
        options: SamplerOptions,
    ) -> Result<Sampler> {
        let settled = Settled::new(&networks, &process.into(), options)?;
        let slots = Slots::new(gpu, &networks, &settled)?;
        let fixed = Fixed::new(gpu, &networks, &settled)?;
        let recorder = StepRecorder {
            gpu,
            name: "sampler",
            evaluations: &fixed.evaluations(gpu, &settled, &slots)?,
            guide: networks.guide,
            walk: &settled.walk,
            slots: &slots,
            clip: settled.options.clip,
            fast: settled.options.fast,
        };
        let (start, step) = (recorder.start()?, recorder.step()?);
        Ok(Sampler { gpu: gpu.clone(), settled, slots, start, step })
    }

    /// Whether a guidance needs a guided sampler: w = 0 and w = -1 need one evaluation a step.
    pub fn needs_both(guidance: Guidance) -> bool {
        guidance.evaluations() == Evaluations::Both
    }

    /// What it was recorded for.
    pub fn options(&self) -> &SamplerOptions {
        &self.settled.options
    }

    /// Begins up to a batch of pictures.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) when there are more than fit, the guidance needs two evaluations and the
    /// sampler was recorded for one, or a class or the null class is asked for that the network was not taught.
    pub fn start(&self, requests: &[Request], guidance: Guidance) -> Result<()> {
        let n = self.settled.options.batch;
        let all = Request::fill(requests, n)?;
        let written = self.settled.written(requests, &all, guidance)?;
        let write = |slot, bytes: &[u8]| write(&self.gpu, slot, bytes);
        if let Some(rows) = &self.slots.rows {
            write(rows, bytemuck::cast_slice(&written.rows))?;
        }
        if let Some(told) = &self.slots.told {
            write(told, bytemuck::cast_slice(&vec![written.told; n]))?;
        }
        if let Some(wanted) = &self.slots.wanted {
            let classes: Vec<u32> = all.iter().map(|request| request.class.unwrap_or(u32::MAX)).collect();
            write(wanted, bytemuck::cast_slice(&classes))?;
        }
        let seeds: Vec<[u32; 2]> = all.iter().map(Request::seed_words).collect();
        write(&self.slots.seeds, bytemuck::cast_slice(&seeds))?;
        write(&self.slots.weight, bytemuck::bytes_of(&(guidance.weight() as f32)))?;
        write(&self.slots.counter, bytemuck::bytes_of(&0u32))?;
        self.start.run()
    }

    /// How often [`Sampler::step`] makes a picture: once for each evaluation.
    pub fn moves(&self) -> usize {
        self.settled.walk.len()
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
        let one = self.slots.z.shape()[1..].iter().product::<usize>();
        if z.len() != requests.len() * one {
            let what = format!("{} values are not {} latents of {one}", z.len(), requests.len());
            return Err(Error::shape("sampler", what));
        }
        let at = std::cell::Cell::new(0);
        let start = |batch: &[Request]| {
            self.start(batch, guidance)?;
            let first = at.replace(at.get() + batch.len() * one);
            write(&self.gpu, &self.slots.z, bytemuck::cast_slice(&z[first..][..batch.len() * one]))
        };
        self.batches().values(requests, start, || self.step(), on_step)
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn batches(&self) -> Batches<'_> {
        Batches { gpu: &self.gpu, z: &self.slots.z, steps: self.moves() }
    }
}

/// ((x + 1)·127.5), clamped to 0..255 and truncated, as the reference does.
pub fn to_u8(values: &[f32]) -> Vec<u8> {
    values.iter().map(|x| ((x + 1.0) * 127.5).clamp(0.0, 255.0) as u8).collect()
}
