//! Parameters under training, and the step that trains them: a [`Lesson`] makes the loss, [`Optimised`] does the rest.
//!
//! A step has two halves: gradients (the lesson, backward, added to an arena) and update (their norm, AdamW, averages; the
//! gradients become zero). They are one plan, or two where gradients are summed before they are applied: the first is
//! replayed for each part of the batch, and whatever else adds to the gradients stands between the two.

use std::f64::consts::PI;

use crate::autograd::backprop_from;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu, Plan};
use crate::ops::{AdamW, Controls, OptimizerArena, OptimizerState};
use crate::tensor::{Context, DType, Tensor};

use super::arena::Arena;
use super::parameters::Parameters;
use super::weights::Weights;

/// What a training teaches: a network on the tape, and how far off it is.
pub trait Lesson {
    /// Records the network with `weights`, which are tracked, and its loss.
    ///
    /// # Errors
    /// Whatever operations return.
    fn record(&self, cx: &mut Context, weights: &Weights) -> Result<Loss>;
}

/// The loss of a lesson.
#[derive(Clone, Debug)]
pub struct Loss {
    /// `[1]` f32: a mean over the batch, or over all of it the part that this recording has.
    pub value: Tensor,
    /// What a host reads when the step has run, in this order.
    pub read: Vec<Tensor>,
}

/// How a step is recorded.
#[derive(Clone, Copy, Debug)]
pub struct StepSettings<'a> {
    /// What is trained, as the plans are called by.
    pub name: &'a str,
    /// The storage type of activations. In f16 the loss's gradient is scaled, or it would underflow.
    pub dtype: DType,
    /// Whether gradients are summed over several runs before they are applied.
    pub in_parts: bool,
    /// The optimiser.
    pub adam: AdamW,
    /// The rate of each average.
    pub ema_rates: &'a [f64],
}

/// A recorded step.
pub struct RecordedStep {
    /// The gradients, and the update too where there is no plan of its own for it.
    pub gradients: Plan,
    /// The update, of a step in parts.
    pub update: Option<Plan>,
    /// What [`Loss::read`] lies in when `gradients` has run.
    pub read: Vec<Buffer>,
}

/// What the host sets for each step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepRates {
    /// The learning rate.
    pub learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// The largest norm of the gradient; 0 for none.
    pub grad_clip: f64,
}

/// The parameters of a network with their gradients, moments and averages, all in arenas of one packing.
#[derive(Clone, Debug)]
pub struct Optimised {
    specs: Parameters,
    /// The values trained.
    pub parameters: Arena,
    /// Their gradients; zero between steps.
    pub gradients: Arena,
    /// AdamW's first moment.
    pub first_moment: Arena,
    /// AdamW's second moment.
    pub second_moment: Arena,
    /// One copy for each averaging rate.
    pub averages: Arena,
    /// What the optimiser keeps on the device: count of good steps, running powers of β, loss scale.
    pub state: Buffer,
    /// What the loss's gradient is multiplied by: one f32, the optimiser's to change.
    pub loss_scale: Buffer,
    /// [`StepRates`] in f32.
    rates: Buffer,
    copies: usize,
}

impl Optimised {
    /// Zeros all over, with `averages` averages, one at least, at the optimiser's `state`.
    ///
    /// # Errors
    /// As [`Parameters::arena`].
    pub fn zeros(gpu: &Gpu, specs: &Parameters, averages: usize, state: &OptimizerState) -> Result<Self> {
        Ok(Optimised {
            specs: specs.clone(),
            parameters: specs.arena(gpu, "parameters", 1)?,
            gradients: specs.arena(gpu, "gradients", 1)?,
            first_moment: specs.arena(gpu, "first moment", 1)?,
            second_moment: specs.arena(gpu, "second moment", 1)?,
            averages: specs.arena(gpu, "averages", averages)?,
            state: gpu.buffer_with("optimizer state", bytemuck::bytes_of(state))?,
            loss_scale: gpu.buffer_with("loss scale", bytemuck::bytes_of(&state.loss_scale))?,
            rates: gpu.buffer("learning rate, weight decay, clip", 16)?,
            copies: averages,
        })
    }

    /// A network's own initial values, in the averages too, before the first step in f32.
    ///
    /// # Errors
    /// As [`Parameters::arena`].
    pub fn new(gpu: &Gpu, specs: &Parameters, averages: usize, seed: u64) -> Result<Self> {
        let optimised = Self::zeros(gpu, specs, averages, &OptimizerState::new(false))?;
        optimised.begin_with(gpu, &specs.initial_values(seed))?;
        Ok(optimised)
    }

    /// Begins with these values, in the kernels' order.
    pub fn begin_with(&self, gpu: &Gpu, values: &[Vec<f32>]) -> Result<()> {
        self.parameters.write(gpu, 0, values)?;
        (0..self.copies).try_for_each(|copy| self.averages.write(gpu, copy, values))
    }

    /// Records a step.
    ///
    /// # Errors
    /// What the lesson returns; [`Error::Config`] for rates that are not in [0, 1] or not as many as there are averages.
    pub fn record(&self, gpu: &Gpu, lesson: &dyn Lesson, settings: StepSettings<'_>) -> Result<RecordedStep> {
        let name = settings.name;
        let mut cx = Context::with_tape(gpu);
        let told = self.record_gradients(&mut cx, lesson, settings.dtype)?;
        let (gradients, update) = if settings.in_parts {
            let gradients = cx.finish(&format!("{name} gradients"))?;
            let mut cx = Context::new(gpu);
            self.record_update(&mut cx, settings)?;
            (gradients, Some(cx.finish(&format!("{name} update"))?))
        } else {
            self.record_update(&mut cx, settings)?;
            (cx.finish(&format!("{name} step"))?, None)
        };
        let kept = |tensor: &Tensor| {
            let missing = || Error::shape("training step", "what a host reads is no value of its own");
            gradients.kept(tensor.storage()).cloned().ok_or_else(missing)
        };
        let read = told.iter().map(kept).collect::<Result<_>>()?;
        Ok(RecordedStep { gradients, update, read })
    }

    /// Records the first half: the lesson, and its gradients added to those that are there. Returns what a host reads.
    ///
    /// # Errors
    /// What the lesson returns.
    pub fn record_gradients(
        &self,
        cx: &mut Context,
        lesson: &dyn Lesson,
        dtype: DType,
    ) -> Result<Vec<Tensor>> {
        let mut weights = self.parameters.weights(&self.specs, 0);
        if dtype == DType::F16 {
            weights = weights.with_halves(cx)?;
        }
        weights.track(cx, &self.gradients.weights(&self.specs, 0));
        let loss = lesson.record(cx, &weights)?;
        loss.read.iter().for_each(|tensor| cx.keep(tensor));
        // The loss is not multiplied by its scale, its gradient is: f16 gradients would underflow.
        let scale = Tensor::over(&self.loss_scale, loss.value.shape(), DType::F32);
        backprop_from(cx, &loss.value, &scale)?;
        Ok(loss.read)
    }

    /// Records the second half: gradient norm, AdamW and the averages.
    fn record_update(&self, cx: &mut Context, settings: StepSettings<'_>) -> Result<()> {
        let StepSettings { dtype, adam, ema_rates, .. } = settings;
        if ema_rates.len() != self.copies {
            let (rates, copies) = (ema_rates.len(), self.copies);
            return Err(Error::Config(format!("{rates} rates were given for {copies} averages")));
        }
        let controls = Controls {
            hyper: Tensor::over(&self.rates, &[4], DType::F32),
            state: Tensor::over(&self.state, &[OptimizerState::WORDS], DType::U32),
            scale: Tensor::over(&self.loss_scale, &[1], DType::F32),
            loss_scaling: dtype == DType::F16,
        };
        let [params, grads, first, second, averages] =
            [&self.parameters, &self.gradients, &self.first_moment, &self.second_moment, &self.averages]
                .map(Arena::flat);
        let arenas: Vec<OptimizerArena<'_>> = (0..params.len())
            .map(|i| OptimizerArena {
                params: &params[i],
                grads: &grads[i],
                first_moments: &first[i],
                second_moments: &second[i],
                ema: Some(&averages[i]),
            })
            .collect();
        adam.step(cx, &arenas, &controls, ema_rates)
    }

    /// Sets the numbers of the next step.
    pub fn set_rates(&self, gpu: &Gpu, rates: StepRates) -> Result<()> {
        let StepRates { learning_rate, weight_decay, grad_clip } = rates;
        let words = [learning_rate, weight_decay, grad_clip, 0.0].map(|x| x as f32);
        gpu.write(&self.rates, 0, bytemuck::cast_slice(&words))
    }
}

/// The learning rate of step `step` of `steps`, counted from 0: it rises linearly to `peak` over the share `rise` of the steps
/// and falls along a half cosine to 0.
pub fn half_cosine(peak: f64, step: usize, steps: usize, rise: f64) -> f64 {
    let (step, steps) = (step as f64, steps.max(1) as f64);
    let risen = ((step + 1.0) / (rise * steps).max(1.0)).min(1.0);
    let left = 0.5 * (1.0 + (PI * (step / steps).min(1.0)).cos());
    peak * risen * left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Init, Layout};
    use crate::ops;
    use crate::testing::gpu;

    /// The mean of p over its elements: gradients of 1/n each.
    struct Mean;

    impl Lesson for Mean {
        fn record(&self, cx: &mut Context, weights: &Weights) -> Result<Loss> {
            let p = weights.iter().next().expect("there is one parameter");
            let zero = cx.constant_f32("zero", p.shape(), &vec![0.0; p.len()])?;
            let value = ops::mse(cx, p, &zero)?;
            Ok(Loss { read: vec![value.clone()], value })
        }
    }

    fn trained(in_parts: bool) -> (Vec<f32>, f32) {
        let mut specs = Parameters::default();
        specs.declare("p", &[6], Layout::Plain, Init::One);
        let optimised = Optimised::new(gpu(), &specs, 1, 3).unwrap();
        let settings = StepSettings {
            name: "test",
            dtype: DType::F32,
            in_parts,
            adam: AdamW::default(),
            ema_rates: &[0.5],
        };
        let step = optimised.record(gpu(), &Mean, settings).unwrap();
        assert_eq!(step.update.is_some(), in_parts);
        let rates = StepRates { learning_rate: 0.125, weight_decay: 0.0, grad_clip: 0.0 };
        optimised.set_rates(gpu(), rates).unwrap();
        step.gradients.run().unwrap();
        if let Some(update) = &step.update {
            // Twice the gradient: Adam's first step is of the learning rate's size whatever its length.
            step.gradients.run().unwrap();
            update.run().unwrap();
        }
        let loss: f32 = bytemuck::pod_read_unaligned(&gpu().read(&step.read[0], 0..4).unwrap());
        assert_eq!(optimised.gradients.read(gpu(), &specs, 0).unwrap(), [vec![0.0; 6]]);
        let state = gpu().read(&optimised.state, 0..size_of::<OptimizerState>() as u64).unwrap();
        let state: OptimizerState = bytemuck::pod_read_unaligned(&state);
        let norm = (6.0f32 * (2.0f32 / 6.0).powi(2)).sqrt() * if in_parts { 2.0 } else { 1.0 };
        assert!((state.gradient_norm / norm - 1.0).abs() < 1e-5, "{}", state.gradient_norm);
        (optimised.parameters.read(gpu(), &specs, 0).unwrap().remove(0), loss)
    }

    #[test]
    fn a_step_is_gradients_then_update_in_one_plan_or_two() {
        for in_parts in [false, true] {
            let (values, loss) = trained(in_parts);
            assert_eq!(loss, 1.0);
            assert!(values.iter().all(|value| (value - 0.875).abs() < 1e-5), "{values:?}");
        }
    }

    #[test]
    fn rates_are_as_many_as_averages() {
        let mut specs = Parameters::default();
        specs.declare("p", &[6], Layout::Plain, Init::One);
        let optimised = Optimised::new(gpu(), &specs, 2, 3).unwrap();
        let (adam, dtype) = (AdamW::default(), DType::F32);
        let settings = StepSettings { name: "test", dtype, in_parts: false, adam, ema_rates: &[0.5] };
        let refused = optimised.record(gpu(), &Mean, settings).err();
        let error = refused.expect("one rate is missing").to_string();
        assert!(error.contains("1 rates") && error.contains("2 averages"), "{error}");
    }

    #[test]
    fn the_learning_rate_rises_and_falls() {
        let rate = |step| half_cosine(2.0, step, 100, 0.1);
        assert!((rate(0) - 0.2).abs() < 1e-12 && rate(9) > 1.9 && (rate(50) - 1.0).abs() < 1e-12);
        assert!(rate(99) < 1e-3 && rate(100) < 1e-12 && rate(120) < 1e-12);
        assert_eq!(half_cosine(2.0, 0, 3, 0.02), 2.0);
    }
}
