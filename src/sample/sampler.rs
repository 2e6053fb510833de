//! A recorded sampler: the networks of a host, its options, and buffers of its own.

use std::sync::atomic::AtomicU64;

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
use crate::nn::{Denoiser, Weights};
use crate::ops;
use crate::shape::Shape;

#[cfg(not(target_arch = "wasm32"))]
use super::batches::Batches;
use super::checks::check_weaker;
use super::networks::{Fixed, Networks};
use super::options::{Request, SamplerOptions};
use super::run::Run;
use super::settled::Settled;
#[cfg(not(target_arch = "wasm32"))]
use super::slots::buffer;
use super::slots::{Slots, write};
use super::step::{Combine, StepRecorder, Which};

/// A recorded sampler: start it, step the [`Run`] until it is finished, read the pictures.
pub struct Sampler {
    gpu: Gpu,
    settled: Settled,
    slots: Slots,
    /// What is made of tokens, once for a batch of pictures.
    prepare: Vec<Plan>,
    start: Plan,
    pub(super) all: Plan,
    /// Of guiders, steps that need no more than the condition's evaluation.
    pub(super) first: Option<Plan>,
    /// How often a batch of pictures was begun.
    pub(super) runs: AtomicU64,
}

impl Sampler {
    /// The sampler of a model.
    ///
    /// # Errors
    /// As [`Sampler::with`].
    pub fn of(gpu: &Gpu, model: &Model, options: SamplerOptions) -> Result<Sampler> {
        Self::beside(gpu, model, None, options)
    }

    /// The sampler of a model beside the weaker one that its guiders lead away from.
    ///
    /// # Errors
    /// As [`Sampler::with`]; [`Error::Config`](crate::Error::Config) when the two models are not alike in what they draw.
    pub fn beside(
        gpu: &Gpu,
        model: &Model,
        weaker: Option<&Model>,
        options: SamplerOptions,
    ) -> Result<Sampler> {
        let options = SamplerOptions { conditions: Some(Conditions::of(&model.config)), ..options };
        let weights = model.weights();
        weaker.map_or(Ok(()), |weaker| check_weaker(model, weaker))?;
        let other = weaker.map(|weaker| (&weaker.unet as &dyn Denoiser, weaker.weights()));
        let weaker = other.as_ref().map(|(network, weights)| (*network, weights));
        let networks = Networks { weaker, ..Networks::of(&model.unet, &weights) };
        Self::with(gpu, networks, &model.config.process()?, options)
    }

    /// The sampler of a network.
    ///
    /// # Errors
    /// As [`Sampler::with`].
    pub fn new(
        gpu: &Gpu,
        network: &dyn Denoiser,
        weights: &Weights,
        process: impl Into<Process>,
        options: SamplerOptions,
    ) -> Result<Sampler> {
        Self::with(gpu, Networks::of(network, weights), process, options)
    }

    /// Records the plans of several networks.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for no steps, v outside [0, 1], a guided sampler of a network without a null
    /// class, as [`Conditions`] has it, and all else that does not go together; whatever the device objects to.
    pub fn with(
        gpu: &Gpu,
        networks: Networks<'_>,
        process: impl Into<Process>,
        options: SamplerOptions,
    ) -> Result<Sampler> {
        let settled = Settled::new(&networks, &process.into(), options)?;
        let slots = Slots::new(gpu, &networks, &settled)?;
        let mut fixed = Fixed::new(gpu, &networks, &settled, &slots)?;
        let prepare = std::mem::take(&mut fixed.prepare);
        let recorder = StepRecorder {
            gpu,
            name: "sampler",
            evaluations: &fixed.evaluations(gpu, &settled, &slots)?,
            mixed: settled.mixed,
            combine: settled.combine(),
            guide: networks.guide,
            walk: &settled.walk,
            slots: &slots,
            clip: settled.options.clip,
            fast: settled.options.fast,
        };
        let (start, all) = (recorder.start()?, recorder.step(Which::All)?);
        let first = match settled.combine() {
            Combine::Guiders(_) => Some(recorder.step(Which::First)?),
            Combine::InStep | Combine::Posterior => None,
        };
        Ok(Sampler { gpu: gpu.clone(), settled, slots, prepare, start, all, first, runs: AtomicU64::new(0) })
    }

    /// Whether a guidance needs a guided sampler: w = 0 and w = -1 need one evaluation a step.
    pub fn needs_both(guidance: Guidance) -> bool {
        guidance.evaluations() == Evaluations::Both
    }

    /// What it was recorded for.
    pub fn options(&self) -> &SamplerOptions {
        &self.settled.options
    }

    /// Evaluations of the network that a picture takes with this guidance.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) when guiders give a weight that is no number.
    pub fn evaluations(&self, guidance: Guidance) -> Result<usize> {
        let (needs_all, _) = self.settled.of_guiders(&self.settled.walk, guidance)?;
        let guiders = &self.settled.options.guiders;
        let once = match (self.settled.combine(), &self.settled.prior) {
            (Combine::Guiders(_), _) => 2 + guiders.more_conditions().len(),
            (_, Some(prior)) => prior.len(),
            _ => 1 + usize::from(self.settled.options.guided),
        };
        let of = |step: usize| if needs_all.get(step).copied().unwrap_or(true) { once } else { 1 };
        Ok((0..self.moves()).map(of).sum())
    }

    /// Begins up to a batch of pictures, in place of those under way.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) when there are more than fit, the guidance needs two evaluations and the
    /// sampler was recorded for one, guiders give a weight that is no number, or a class or the null class is asked for that
    /// the network was not taught, or a vector that does not fit it.
    pub fn start(&self, requests: &[Request], guidance: Guidance) -> Result<Run<'_>> {
        let n = self.settled.options.batch;
        let all = Request::fill(requests, n)?;
        let written = self.settled.written(requests, &all, guidance)?;
        let slots = &self.slots;
        let write = |slot, bytes: &[u8]| write(&self.gpu, slot, bytes);
        if let Some(rows) = &slots.rows {
            write(rows, bytemuck::cast_slice(&written.rows))?;
        }
        if let Some(tokens) = &slots.tokens {
            write(tokens, bytemuck::cast_slice(&written.tokens))?;
            self.prepare.iter().try_for_each(Plan::run)?;
        }
        if let Some(vectors) = &slots.vectors {
            write(vectors, bytemuck::cast_slice(&written.vectors))?;
        }
        if let Some(told) = &slots.told {
            write(told, bytemuck::cast_slice(&vec![written.told; n]))?;
        }
        if let Some(table) = &slots.guiders {
            write(table, bytemuck::cast_slice(&written.guiders))?;
        }
        if let Some(wanted) = &slots.wanted {
            // Past the last class, one takes the unconditional prediction for both halves.
            let classes: Vec<u32> =
                all.iter().map(|request| request.condition.class.unwrap_or(u32::MAX)).collect();
            write(wanted, bytemuck::cast_slice(&classes))?;
        }
        if let (Some(posterior), Some(prior)) = (&slots.posterior, &self.settled.prior) {
            write(&posterior.known, bytemuck::cast_slice(&ops::prior_rows(prior, n)))?;
        }
        let seeds: Vec<[u32; 2]> = all.iter().map(Request::seed_words).collect();
        write(&slots.seeds, bytemuck::cast_slice(&seeds))?;
        write(&slots.weight, bytemuck::bytes_of(&written.weight))?;
        write(&slots.counter, bytemuck::bytes_of(&0u32))?;
        self.start.run()?;
        Ok(Run::new(self, written.needs_all))
    }

    /// What it makes: channels over the extent that was asked for.
    pub fn shape(&self) -> Shape {
        self.settled.shape
    }

    /// How many moves make a picture: once for each move, of Heun's method twice for most steps.
    pub fn moves(&self) -> usize {
        self.settled.walk.len()
    }

    /// The plan of one step with all evaluations, to encode elsewhere or to time.
    pub fn step_plan(&self) -> &Plan {
        &self.all
    }

    /// Of guiders, the plan of a step that needs no more than the condition's evaluation.
    pub fn single_step_plan(&self) -> Option<&Plan> {
        self.first.as_ref()
    }

    /// Runs a step with all evaluations and a timestamp around each kernel.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn profile_step(&self) -> Result<Profile> {
        self.all.profile()
    }

    /// The first `count` pictures, `[count, H, W, C]`, as they are now. Waits for the device.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(&self, count: usize) -> Result<Vec<f32>> {
        self.batches().read(count)
    }

    /// p(c given z) of the first `count` pictures as they are now, `[count, K]`, where the unconditional half
    /// [comes from the classes](super::Uncond::FromClasses). Waits for the device.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) for a sampler that keeps none.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn posterior(&self, count: usize) -> Result<Vec<Vec<f32>>> {
        let (Some(posterior), Some(prior)) = (&self.slots.posterior, &self.settled.prior) else {
            let what = "this sampler keeps no p(class): `uncond from-classes` does";
            return Err(Error::Config(what.into()));
        };
        let classes = prior.len();
        let bytes = self.gpu.read(buffer(&posterior.known)?, 0..(count * 2 * classes * 4) as u64)?;
        let rows: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        Ok(rows.chunks(2 * classes).map(|row| row[classes..].to_vec()).collect())
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
        self.batches().sample(requests, |batch| self.start(batch, guidance), on_step)
    }

    /// As [`Sampler::sample`], as numbers `[N, H, W, C]` of any number of channels, of lines `[N, 1, L, C]`.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn values(
        &self,
        requests: &[Request],
        guidance: Guidance,
        on_step: impl FnMut() -> Result<()>,
    ) -> Result<Vec<f32>> {
        self.batches().values(requests, |batch| self.start(batch, guidance), on_step)
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
            let run = self.start(batch, guidance)?;
            let first = at.replace(at.get() + batch.len() * one);
            write(&self.gpu, &self.slots.z, bytemuck::cast_slice(&z[first..][..batch.len() * one]))?;
            Ok(run)
        };
        self.batches().values(requests, start, on_step)
    }

    #[cfg(not(target_arch = "wasm32"))]
    fn batches(&self) -> Batches<'_> {
        Batches { gpu: &self.gpu, z: &self.slots.z }
    }
}
