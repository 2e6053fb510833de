//! The one recorder of a denoising step. Plain data in, plans out: nothing is allocated or decided in the loop.
//!
//! The beats: level (the time of the move), evaluations, combination, the step's kernel, counter + 1.

use crate::diffusion::Clip;
use crate::error::Result;
use crate::gpu::{Gpu, Plan};
use crate::ops::{self, GuidedStep, SamplerStep, StepNoise};
use crate::random::Stream;
use crate::tensor::{Context, DType, Tensor};

use super::denoiser::{Denoiser, Shown};
use super::guide::{Guide, GuideInput, log_likelihood_gradient};
use super::slots::Slots;
use super::walk::{Form, Walk};

/// One recording of a network in a step. Its outputs come behind those of the evaluations before it.
pub(crate) struct Evaluation<'a> {
    pub of: &'a dyn Denoiser,
    /// `[K·N]` u32 where there are classes.
    pub rows: Option<Tensor>,
    /// K: with 1 for each condition they run in turn, with more together.
    pub conditions: usize,
}

/// Records the plans of a sampler.
pub(crate) struct StepRecorder<'a> {
    pub gpu: &'a Gpu,
    /// What the plans are called by.
    pub name: &'a str,
    /// Conditional predictions, and where a step combines halves, the unconditional ones.
    pub evaluations: &'a [Evaluation<'a>],
    /// What guides by a gradient.
    pub guide: Option<&'a dyn Guide>,
    pub walk: &'a Walk,
    pub slots: &'a Slots,
    pub clip: Clip,
    pub fast: bool,
}

impl StepRecorder<'_> {
    /// The start: z ~ N(0, I) at the noisiest level.
    pub fn start(&self) -> Result<Plan> {
        let Slots { z, seeds, .. } = self.slots;
        let mut cx = Context::new(self.gpu);
        let noise = ops::normal_noise(&mut cx, seeds, 0, Stream::InitialNoise, z.nhwc("start")?)?;
        cx.copy_to(&noise, z);
        cx.finish(&format!("{} start", self.name))
    }

    /// One move.
    pub fn step(&self) -> Result<Plan> {
        let mut cx = match self.guide {
            Some(_) => Context::with_tape(self.gpu),
            None => Context::new(self.gpu),
        };
        cx.set_fast(self.fast);
        let gradient = self.gradient(&mut cx)?;
        let out = self.evaluate(&mut cx)?;
        self.advance(&mut cx, &out, gradient)?;
        ops::advance(&mut cx, &self.slots.counter)?;
        cx.finish(&format!("{} step", self.name))
    }

    /// `[N]` f32: what networks are told of the level.
    fn times(&self, cx: &mut Context) -> Result<Tensor> {
        let Slots { z, moves, counter, .. } = self.slots;
        let times = cx.output("times", &z.shape()[..1], DType::F32)?;
        ops::step_times(cx, moves, counter, &times)?;
        Ok(times)
    }

    /// What guides by a gradient, `[N, H, W, C]`.
    fn gradient(&self, cx: &mut Context) -> Result<Option<Tensor>> {
        let (Some(guide), Slots { z, wanted: Some(labels), .. }) = (self.guide, self.slots) else {
            return Ok(None);
        };
        let times = self.times(cx)?;
        let value =
            |cx: &mut Context, z: &Tensor| guide.value(cx, &GuideInput { z, times: &times, labels });
        log_likelihood_gradient(cx, z, value).map(Some)
    }

    /// All evaluations, one behind the other along the batch.
    fn evaluate(&self, cx: &mut Context) -> Result<Tensor> {
        let Slots { z, moves, counter, told, small, .. } = self.slots;
        let told_time = self.evaluations.iter().any(|evaluation| evaluation.of.takes_time());
        let times = if told_time { Some(self.times(cx)?) } else { None };
        let mut all: Option<Tensor> = None;
        for (index, Evaluation { of, rows, conditions }) in self.evaluations.iter().enumerate() {
            let shown = Shown {
                z,
                times: times.as_ref(),
                moves,
                counter,
                rows: rows.as_ref(),
                conditions: *conditions,
                // A distilled network is the first and only one.
                told: told.as_ref().filter(|_| index == 0),
                small: small.as_ref(),
            };
            let one = of.record(cx, &shown)?;
            all = Some(match all {
                None => one,
                Some(before) => ops::stack_batch(cx, &before, &one)?,
            });
        }
        all.ok_or_else(|| crate::error::Error::shape("step", "a step of no evaluation"))
    }

    /// The step's kernel: combine, clip, mean and noise, z in place.
    fn advance(&self, cx: &mut Context, out: &Tensor, mut gradient: Option<Tensor>) -> Result<()> {
        let Slots { z, seeds, counter, weight, moves, previous, noise, .. } = self.slots;
        match self.walk.form {
            Form::Ancestral => ops::guided_step(
                cx,
                GuidedStep {
                    z,
                    eps: out,
                    steps: moves,
                    counter,
                    guidance: weight,
                    seeds,
                    clip: self.clip,
                    preview: None,
                },
            ),
            Form::Moves { variance, multistep, gradient_in_step } => {
                // The continuous form shifts the output, the others the mean.
                if let Some(shift) = gradient.take_if(|_| !gradient_in_step) {
                    ops::guide_output(cx, out, &shift, moves, counter)?;
                }
                let step = SamplerStep {
                    z,
                    out,
                    steps: moves,
                    counter,
                    guidance: weight,
                    noise: noise.as_ref().map_or(StepNoise::Seeds(seeds), StepNoise::Given),
                    variance,
                    clip: self.clip,
                    gradient: gradient.as_ref(),
                    previous: previous.as_ref().filter(|_| multistep),
                };
                ops::sampler_step(cx, step)
            }
        }
    }
}
