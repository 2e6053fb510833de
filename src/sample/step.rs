//! The one recorder of a denoising step. Plain data in, plans out: nothing is allocated or decided in the loop.
//!
//! The beats: level (the time of the move), evaluations, combination, the step's kernel, what is done to its result,
//! counter + 1.

use crate::diffusion::{Clip, Guiders};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Plan};
use crate::nn::{Bank, Moves, Told};
use crate::ops::{self, AnnealCondition, Guided, GuidedStep, Observed, SamplerStep, StepNoise};
use crate::random::Stream;
use crate::tensor::{Context, DType, Tensor};

use super::guide::{Guide, GuideInput, log_likelihood_gradient};
use super::network::Network;
use super::slots::{Slots, first};
use super::walk::{Form, Walk};

/// One recording of a network in a step. Its outputs come behind those of the evaluations before it.
pub(crate) struct Evaluation<'a> {
    pub of: &'a Network<'a>,
    /// `[K·N]` u32 where there are classes.
    pub rows: Option<Tensor>,
    /// `[K·N]` u32 where there are tokens: rows of the slot `tokens`.
    pub token_rows: Option<Tensor>,
    /// `[K·N]` u32 where there are vectors: rows of the slot `vectors`.
    pub vector_rows: Option<Tensor>,
    /// K: the conditions that it evaluates together.
    pub conditions: usize,
}

/// What becomes of the evaluations.
#[derive(Clone, Copy)]
pub(crate) enum Combine<'a> {
    /// What the step's kernel makes of them itself: one as it is, or two halves under w.
    InStep,
    /// What guiders make of them: each step's own weight for the step's kernel, or an eps̃ of their own.
    Guiders(&'a Guiders),
    /// All classes: the one that was asked for, and the sum under p(c given z), which the step then brings up to date.
    Posterior,
}

/// Which evaluations a plan has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    /// The condition's alone.
    First,
}

/// Records the plans of a sampler.
pub(crate) struct StepRecorder<'a> {
    pub gpu: &'a Gpu,
    /// What the plans are called by.
    pub name: &'a str,
    /// Conditional predictions first, then what stands for no condition, then further conditions.
    pub evaluations: &'a [Evaluation<'a>],
    /// How many conditions become one, by the slot `mix`: the first of an evaluation.
    pub mixed: usize,
    pub combine: Combine<'a>,
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
    pub fn step(&self, which: Which) -> Result<Plan> {
        let mut cx = match self.guide {
            Some(_) => Context::with_tape(self.gpu),
            None => Context::new(self.gpu),
        };
        cx.set_fast(self.fast);
        let gradient = self.gradient(&mut cx)?;
        let out = self.evaluate(&mut cx, which)?;
        let combined = self.combined(&mut cx, &out, which)?;
        let before = match self.combine {
            Combine::Posterior => Some(cx.copy(&self.slots.z)?),
            _ => None,
        };
        self.advance(&mut cx, &combined, which, gradient)?;
        self.afterwards(&mut cx, &out, before, which)?;
        ops::advance(&mut cx, &self.slots.counter)?;
        cx.finish(&format!("{} step{}", self.name, if which == Which::First { ", first alone" } else { "" }))
    }

    /// The rows that a plan walks.
    fn moves(&self, which: Which) -> &Tensor {
        let own = self.slots.moves_of_first.as_ref().filter(|_| which == Which::First);
        own.unwrap_or(&self.slots.moves)
    }

    /// `[N]` f32: what networks are told of the level.
    fn times(&self, cx: &mut Context, which: Which) -> Result<Tensor> {
        let Slots { z, counter, .. } = self.slots;
        let times = cx.output("times", &z.shape()[..1], DType::F32)?;
        ops::step_times(cx, self.moves(which), counter, &times)?;
        Ok(times)
    }

    /// z as networks see it, where that is another.
    fn input(&self, cx: &mut Context, which: Which) -> Result<Option<Tensor>> {
        if !self.walk.scales_input {
            return Ok(None);
        }
        let Slots { z, counter, .. } = self.slots;
        let factors = cx.output("input scales", &z.shape()[..1], DType::F32)?;
        ops::step_inputs(cx, self.moves(which), counter, &factors)?;
        ops::scale_per_sample(cx, z, &factors).map(Some)
    }

    /// What guides by a gradient, `[N, H, W, C]`.
    fn gradient(&self, cx: &mut Context) -> Result<Option<Tensor>> {
        let Some(guide) = self.guide else { return Ok(None) };
        let (z, labels) = (&self.slots.z, slot(&self.slots.wanted, "classes wanted")?);
        let times = self.times(cx, Which::All)?;
        let value = |cx: &mut Context, z: &Tensor| guide.value(cx, &GuideInput { z, times: &times, labels });
        log_likelihood_gradient(cx, z, value).map(Some)
    }

    /// All evaluations, one behind the other along the batch.
    fn evaluate(&self, cx: &mut Context, which: Which) -> Result<Tensor> {
        let z = &self.slots.z;
        let samples = z.shape()[0];
        let evaluations = match which {
            Which::All => self.evaluations,
            Which::First => &self.evaluations[..1],
        };
        let times = match evaluations.iter().all(|evaluation| evaluation.of.about().takes.moves) {
            true => Tensor::new(z.storage().clone(), z.offset(), &[0], DType::F32),
            false => self.times(cx, which)?,
        };
        let input = self.input(cx, which)?;
        let mut all: Option<Tensor> = None;
        for evaluation in evaluations {
            let conditions = if which == Which::First { self.mixed } else { evaluation.conditions };
            let rows = evaluation.rows.as_ref().map(|rows| first(rows, conditions * samples));
            let vector_rows = evaluation.vector_rows.as_ref();
            let vector_rows = vector_rows.map(|rows| first(rows, conditions * samples));
            let token_rows = evaluation.token_rows.as_ref();
            let token_rows = token_rows.map(|rows| first(rows, conditions * samples));
            let tokens = token_rows.as_ref().zip(self.slots.tokens.as_ref());
            let vector = vector_rows.as_ref().zip(self.slots.vectors.as_ref());
            let told = Told {
                conditions,
                class: rows.as_ref(),
                tokens: tokens.map(|(rows, values)| Bank { rows, values }),
                vector: vector.map(|(rows, values)| Bank { rows, values }),
                ..self.told(evaluation.of, which)
            };
            let mut one = evaluation.of.record(cx, input.as_ref().unwrap_or(z), &times, told)?;
            if self.mixed > 1 && conditions >= self.mixed {
                one = ops::mix_conditions(cx, &one, slot(&self.slots.mix, "mix")?, samples)?;
            }
            all = Some(match all {
                None => one,
                Some(before) => ops::stack_batch(cx, &before, &one)?,
            });
        }
        all.ok_or_else(|| Error::shape("step", "a step of no evaluation"))
    }

    /// What a network is told of all conditions alike.
    fn told(&self, network: &Network<'_>, which: Which) -> Told<'_> {
        let Slots { counter, seeds, told, small, annealing, .. } = self.slots;
        let takes = &network.about().takes;
        let annealed = self.guiders().and_then(Guiders::annealing).zip(annealing.as_ref());
        Told {
            guidance: told.as_ref(),
            picture: small.as_ref(),
            annealing: annealed.map(|(annealing, table)| AnnealCondition {
                annealing,
                table,
                counter,
                seeds,
                null_label: takes.null_row(),
            }),
            moves: takes.moves.then(|| Moves { rows: self.moves(which), counter }),
            ..Told::default()
        }
    }

    fn guiders(&self) -> Option<&Guiders> {
        match self.combine {
            Combine::Guiders(guiders) => Some(guiders),
            _ => None,
        }
    }

    /// What guiders see of a step whose evaluations are `eps`.
    fn seen<'a>(&'a self, eps: &'a Tensor) -> Result<Guided<'a>> {
        let Slots { z, counter, guiders, .. } = self.slots;
        Ok(Guided { z, eps, table: slot(guiders, "guiders")?, counter })
    }

    /// The guiders' expression, where the step's kernel can put it in the place of its own rule: two predictions, and no threshold of
    /// what becomes of them.
    fn rule(&self, out: &Tensor, which: Which) -> Option<String> {
        let pair = out.shape()[0] == 2 * self.slots.z.shape()[0];
        let known = which == Which::All && pair && !matches!(self.clip, Clip::Dynamic { .. });
        self.guiders().filter(|_| known).and_then(ops::expression_of)
    }

    /// What the step's kernel takes of the evaluations `out`.
    fn combined(&self, cx: &mut Context, out: &Tensor, which: Which) -> Result<Tensor> {
        let Slots { z, counter, weight, momentum, posterior, wanted, .. } = self.slots;
        match self.combine {
            Combine::InStep => Ok(out.clone()),
            Combine::Posterior => {
                let known = &slot(posterior, "class posterior")?.known;
                ops::mix_classes(cx, out, known, slot(wanted, "classes wanted")?, z.shape()[3])
            }
            Combine::Guiders(guiders) => {
                let step = self.seen(out)?;
                if let Some(prediction) = self.walk.convert {
                    ops::outputs_to_eps(cx, prediction, step)?;
                }
                match (which, self.walk.factor_of_first()) {
                    (Which::First, Some(factor)) => ops::scale(cx, out, factor),
                    (Which::First, None) => Ok(out.clone()),
                    (Which::All, _) if ops::is_weight_alone(guiders) => {
                        ops::step_weight(cx, step.table, counter, weight)?;
                        Ok(out.clone())
                    }
                    (Which::All, _) if self.rule(out, which).is_some() => Ok(out.clone()),
                    (Which::All, _) => {
                        let eps = ops::guided_eps(cx, guiders, step, momentum.as_ref())?;
                        match self.walk.form {
                            // A learned variance lies behind the predictions, so the guided ones go there.
                            Form::Moves { variance, .. } if variance.is_learned() => {
                                ops::put_guided(cx, out, &eps)
                            }
                            _ => Ok(eps),
                        }
                    }
                }
            }
        }
    }

    /// The step's kernel: two halves under w, clip, mean and noise, z in place.
    fn advance(
        &self,
        cx: &mut Context,
        out: &Tensor,
        which: Which,
        mut gradient: Option<Tensor>,
    ) -> Result<()> {
        let Slots { z, seeds, counter, weight, preview, previous, noise, .. } = self.slots;
        let (steps, clip) = (self.moves(which), self.clip);
        let rule = self.rule(out, which);
        let guidance = match rule {
            Some(_) => slot(&self.slots.guiders, "guiders")?,
            None => weight,
        };
        match self.walk.form {
            Form::Ancestral => {
                let preview = preview.as_ref();
                let step = GuidedStep { z, eps: out, steps, counter, guidance, seeds, clip, preview };
                match rule {
                    Some(text) => ops::guided_step_by(cx, step, &text),
                    None => ops::guided_step(cx, step),
                }
            }
            Form::Moves { variance, gradient_in_step, .. } => {
                // The continuous form shifts the output, the others the mean.
                if let Some(shift) = gradient.take_if(|_| !gradient_in_step) {
                    ops::guide_output(cx, out, &shift, steps, counter)?;
                }
                let step = SamplerStep {
                    z,
                    out,
                    steps,
                    counter,
                    guidance,
                    noise: noise.as_ref().map_or(StepNoise::Seeds(seeds), StepNoise::Given),
                    variance,
                    clip,
                    gradient: gradient.as_ref(),
                    previous: previous.as_ref(),
                };
                match rule {
                    Some(text) => ops::sampler_step_by(cx, step, &text),
                    None => ops::sampler_step(cx, step),
                }
            }
        }
    }

    /// What follows the step's kernel, before the counter goes on.
    fn afterwards(&self, cx: &mut Context, out: &Tensor, before: Option<Tensor>, which: Which) -> Result<()> {
        let Slots { z, counter, posterior, moves, .. } = self.slots;
        match (self.combine, before) {
            (Combine::Guiders(guiders), _) if which == Which::All && guiders.renoises() => {
                ops::renoise(cx, self.seen(out)?)
            }
            (Combine::Posterior, Some(before)) => {
                let posterior = slot(posterior, "class posterior")?;
                let (variance, clip) = (&posterior.variance, self.clip);
                let seen = Observed { eps: out, z: &before, next: z, steps: moves, counter, variance, clip };
                ops::observe_step(cx, &posterior.known, seen)
            }
            _ => Ok(()),
        }
    }
}

/// A slot that a step of this kind needs.
fn slot<'a, T>(slot: &'a Option<T>, name: &str) -> Result<&'a T> {
    slot.as_ref().ok_or_else(|| Error::shape("step", format!("there is no slot for {name}")))
}
