//! The variational bound of a network on data, in bits a dimension (DDPM, section 3; IDDPM, section 3).
//!
//! For each picture and each kept step t: z from the picture and fresh noise, one evaluation, and the bits that coding
//! z_{t-1} by the model's step costs; at t = 0 the discretised decoder; and the prior at T. Their sum bounds -log2 p(x).

use serde::Serialize;

use crate::data::Batch;
use crate::diffusion::{DiscreteSchedule, LevelSource, LossRow, Process, Respacing, Variance, prior_bits};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu, Plan, Storage};
use crate::model::{Conditions, Model};
use crate::nn::{Bank, Denoiser, Pass, Told};
use crate::ops::{self, Images, LossInputs, LossWeights};
use crate::sizes::{check_batch, product};
use crate::tensor::{Context, DType, Tensor};

/// How a bound is measured.
#[derive(Clone, Debug)]
pub struct NllOptions {
    /// Evaluations at a time.
    pub batch: usize,
    /// The steps of the process, all of them where nothing is said.
    pub respacing: Option<Respacing>,
    /// The variance of the model's steps, the model's own where nothing is said.
    pub variance: Option<Variance>,
    /// Whether the network is shown the pictures' classes; else its null class.
    pub conditional: bool,
    /// Of the noise.
    pub seed: u64,
}

/// What was measured: means over pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NllReport {
    /// Pictures.
    pub images: usize,
    /// Steps.
    pub steps: usize,
    /// The variance of the steps.
    pub variance: String,
    /// The bound: prior and all steps, in bits a dimension.
    pub total_bits: f64,
    /// Its standard error over pictures.
    pub total_bits_error: f64,
    /// The prior's part.
    pub prior_bits: f64,
    /// t of each step as the network was told, from clean to noisy.
    pub timesteps: Vec<usize>,
    /// Each step's part, in bits a dimension.
    pub step_bits: Vec<f64>,
    /// Mean squared error of the noise that the clipped x̂ stands for.
    pub mse: Vec<f64>,
    /// Mean squared error of the clipped x̂.
    pub x0_mse: Vec<f64>,
}

/// A recorded evaluation, and what was gathered so far.
pub struct Nll {
    gpu: Gpu,
    options: NllOptions,
    process: Process,
    variance: Variance,
    schedule: DiscreteSchedule,
    time_scale: f64,
    conditions: Conditions,
    null_label: u32,
    pixels: usize,
    plan: Plan,
    images: Buffer,
    scalars: Buffer,
    times: Buffer,
    index: Buffer,
    labels: Buffer,
    rows: Buffer,
    terms: Buffer,
    sums: Vec<[f64; 3]>,
    totals: Vec<f64>,
    prior: f64,
}

/// A tensor over the whole of a buffer.
fn over(buffer: &Buffer, shape: &[usize], dtype: DType) -> Tensor {
    Tensor::new(Storage::Buffer(buffer.clone()), 0, shape, dtype)
}

impl Nll {
    /// Records the evaluation of a model.
    ///
    /// # Errors
    /// [`Error::Config`] for a model of continuous time, a respacing that does not fit, or learned variances of a model
    /// without; whatever the device objects to.
    pub fn new(gpu: &Gpu, model: &Model, options: NllOptions) -> Result<Nll> {
        let process = model.config.process()?;
        let LevelSource::Discrete(whole, time_scale) = &process.levels else {
            return Err(Error::Config(
                "the bound is that of a discrete process; this model was trained in continuous time (train with \
                 --schedule cosine or linear)"
                    .into(),
            ));
        };
        let schedule = match &options.respacing {
            Some(respacing) => whole.respaced(respacing)?,
            None => whole.clone(),
        };
        let variance = options.variance.unwrap_or(process.variance);
        if variance.is_learned() && !process.variance.is_learned() {
            return Err(Error::Config(
                "this network has learnt no variances; use --variance small or large".into(),
            ));
        }
        let conditions = Conditions::of(&model.config);
        if !options.conditional {
            conditions.check_null("a bound without classes")?;
        }
        let config = model.unet.config();
        let (n, sample) = (options.batch, model.unet.about().sample);
        check_batch(n, sample)?;
        let (shape, pixels) = (sample.nhwc(n), sample.len());
        let images = gpu.buffer("images", (n * pixels).next_multiple_of(4) as u64)?;
        let scalars = gpu.buffer("sample scalars", (n * 16) as u64)?;
        let times = gpu.buffer("times", (n * 4) as u64)?;
        let index = gpu.buffer("noise indices", (n * 8) as u64)?;
        let labels = gpu.buffer("labels", (n * 4) as u64)?;
        let rows = gpu.buffer("loss rows", (n * size_of::<LossRow>()) as u64)?;

        let mut cx = Context::new(gpu);
        let bytes = over(&images, &[(n * pixels).div_ceil(4)], DType::U32);
        let noise_index = over(&index, &[n, 2], DType::U32);
        let scalars_ = over(&scalars, &[n, 4], DType::F32);
        let noised = Images { bytes: &bytes, scalars: &scalars_, image_index: &noise_index, shape };
        let (z, eps) = ops::noised(&mut cx, noised, options.seed)?;
        let x = ops::pixels(&mut cx, &bytes, shape)?;
        let shown = config.num_classes.map(|_| over(&labels, &[n], DType::U32));
        let at = over(&times, &[n], DType::F32);
        let pass = Pass::inference(DType::F32);
        let none = match model.unet.about().takes.vector {
            Some(vector) => {
                let rows = cx.constant_u32("no vectors", &[n], &vec![u32::MAX; n])?;
                let values = vec![0.0; vector.width];
                Some((rows, cx.constant_f32("no vector", &[1, vector.width], &values)?))
            }
            None => None,
        };
        let vector = none.as_ref().map(|(rows, values)| Bank { rows, values });
        let told = Told { class: shown.as_ref(), vector, ..Told::default() };
        let out = model.unet.record(&mut cx, &model.weights(), &z, &at, told, &pass)?;
        let rows_ = over(&rows, &[n, 16], DType::F32);
        let inputs = LossInputs { out: &out, x: &x, z: &z, eps: &eps, rows: &rows_ };
        let weights =
            LossWeights { mse: 0.0, bits: 1.0, scale: 1.0, frozen_mean: false, variance, clip: true };
        let losses = ops::diffusion_loss(&mut cx, inputs, weights)?;
        cx.keep(&losses.terms);
        let plan = cx.finish("bound")?;
        let terms = plan.kept(losses.terms.storage()).cloned().expect("the terms were kept");
        let sums = vec![[0.0; 3]; schedule.len()];
        let (time_scale, null_label) = (*time_scale, config.null_label());
        Ok(Nll {
            gpu: gpu.clone(),
            options,
            process,
            variance,
            schedule,
            time_scale,
            conditions,
            null_label,
            pixels,
            plan,
            images,
            scalars,
            times,
            index,
            labels,
            rows,
            terms,
            sums,
            totals: Vec::new(),
            prior: 0.0,
        })
    }

    /// Evaluations that `images` pictures take.
    pub fn evaluations(&self, images: usize) -> u64 {
        (images as u64).saturating_mul(self.schedule.len() as u64).div_ceil(self.options.batch as u64)
    }

    /// Measures more pictures; `on_run` is told of every evaluation and may stop it with an error. Waits for the device.
    ///
    /// # Errors
    /// [`Error::Config`] for a class that the network was not taught; what the device objects to.
    pub fn add(&mut self, batch: &Batch, mut on_run: impl FnMut() -> Result<()>) -> Result<()> {
        let steps = self.schedule.len();
        let count = batch.labels.len();
        if self.options.conditional && self.conditions.classes() > 0 {
            batch.labels.iter().try_for_each(|label| self.conditions.check_class(Some(*label)))?;
        }
        let mut bits = vec![0.0; count];
        let all = product("evaluations of the pictures at a time", &[count, steps])?;
        for first in (0..all).step_by(self.options.batch) {
            let chunk: Vec<(usize, usize)> =
                (first..(first + self.options.batch).min(all)).map(|at| (at / steps, at % steps)).collect();
            self.write(batch, &chunk)?;
            self.plan.run()?;
            let terms = self.gpu.read(&self.terms, 0..(chunk.len() * 16) as u64)?;
            let terms: Vec<[f32; 4]> = bytemuck::pod_collect_to_vec(&terms);
            for ((i, t), [_, _, own, away]) in chunk.iter().zip(terms) {
                let (own, away) = (f64::from(own), f64::from(away));
                if !own.is_finite() {
                    return Err(Error::Device(format!("the bound of picture {i} at step {t} is {own}")));
                }
                let to_eps = (self.schedule.alpha(*t) / self.schedule.sigma(*t)).powi(2);
                bits[*i] += own;
                let sums = &mut self.sums[*t];
                *sums = [sums[0] + own, sums[1] + to_eps * away, sums[2] + away];
            }
            on_run()?;
        }
        for (i, bits) in bits.into_iter().enumerate() {
            let x = batch.images[i * self.pixels..][..self.pixels].iter();
            let x: Vec<f64> = x.map(|&byte| f64::from(byte) / 127.5 - 1.0).collect();
            let prior = prior_bits(&self.schedule, &x);
            self.prior += prior;
            self.totals.push(prior + bits);
        }
        Ok(())
    }

    /// Writes the inputs of the evaluations (picture, step).
    fn write(&self, batch: &Batch, chunk: &[(usize, usize)]) -> Result<()> {
        let (schedule, steps) = (&self.schedule, self.schedule.len() as u64);
        let mut images = Vec::with_capacity(chunk.len() * self.pixels);
        let (mut scalars, mut times, mut index) = (Vec::new(), Vec::new(), Vec::new());
        let (mut labels, mut rows) = (Vec::new(), Vec::new());
        for &(i, t) in chunk {
            images.extend_from_slice(&batch.images[i * self.pixels..][..self.pixels]);
            scalars.push([schedule.alpha(t) as f32, schedule.sigma(t) as f32, 0.0, 0.0]);
            times.push((schedule.timestep(t) * self.time_scale) as f32);
            // Noise of its own for each picture and step.
            let noise = (batch.first_image + i as u64) * steps + t as u64;
            index.push([noise as u32, (noise >> 32) as u32]);
            labels.push(if self.options.conditional { batch.labels[i] } else { self.null_label });
            rows.push(LossRow::discrete(schedule, t, self.process.prediction, self.variance, 1.0));
        }
        images.resize(images.len().next_multiple_of(4), 0);
        self.gpu.write(&self.images, 0, &images)?;
        self.gpu.write(&self.scalars, 0, bytemuck::cast_slice(&scalars))?;
        self.gpu.write(&self.times, 0, bytemuck::cast_slice(&times))?;
        self.gpu.write(&self.index, 0, bytemuck::cast_slice(&index))?;
        self.gpu.write(&self.labels, 0, bytemuck::cast_slice(&labels))?;
        self.gpu.write(&self.rows, 0, bytemuck::cast_slice(&rows))
    }

    /// The means so far.
    ///
    /// # Errors
    /// [`Error::Config`] before the first picture.
    pub fn report(&self) -> Result<NllReport> {
        let images = self.totals.len();
        if images == 0 {
            return Err(Error::Config("no picture was measured".into()));
        }
        let count = images as f64;
        let total = self.totals.iter().sum::<f64>() / count;
        let variance =
            self.totals.iter().map(|bits| (bits - total).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
        let mean = |which: usize| self.sums.iter().map(|sums| sums[which] / count).collect();
        Ok(NllReport {
            images,
            steps: self.schedule.len(),
            variance: self.variance.config_name().into(),
            total_bits: total,
            total_bits_error: (variance / count).sqrt(),
            prior_bits: self.prior / count,
            timesteps: (0..self.schedule.len()).map(|t| self.schedule.timestep(t).round() as usize).collect(),
            step_bits: mean(0),
            mse: mean(1),
            x0_mse: mean(2),
        })
    }
}
