//! The toy learnt end to end: label dropout, noise, a small network on the tape, AdamW and an average (CFG,
//! Algorithm 1).
//!
//! The network predicts v = α eps - σ x, not eps: at the noisy end x̂ = (z - σ eps)/α multiplies what eps lacks by
//! 22026, and without a clip, which the toy has none of, the chain would not recover from its first step. With
//! eps = σ z + α v the error of v reaches x̂ at its own size.

use std::f64::consts::PI;

use crate::autograd::backprop;
use crate::diffusion::toy::{CLASSES, STANDARD_DEVIATION, class_mean};
use crate::diffusion::{ContinuousSchedule, TrainDraws};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu, Plan, Readback, Storage};
use crate::nn::{Arena, Mlp, MlpConfig};
use crate::ops::{self, AdamW, Controls, OptimizerArena, OptimizerState};
use crate::random::{Stream, normal, words};
use crate::tensor::{Context, DType, Tensor};

/// How the toy is learnt.
#[derive(Clone, Debug, PartialEq)]
pub struct ToyTrainingOptions {
    /// Gradient steps.
    pub steps: usize,
    /// Points a step.
    pub batch: usize,
    /// Hidden channels of the network.
    pub hidden: usize,
    /// The learning rate after its rise over the first hundredth of the steps; then it falls along a half cosine to 0.
    pub learning_rate: f64,
    /// The rate of the weights' moving average, which is what is sampled.
    pub ema_rate: f64,
    /// The probability of leaving a label out.
    pub unconditional_probability: f64,
    /// Of the initial weights and all draws.
    pub seed: u64,
}

impl Default for ToyTrainingOptions {
    fn default() -> Self {
        ToyTrainingOptions {
            steps: 2000,
            batch: 512,
            hidden: 128,
            learning_rate: 3e-3,
            ema_rate: 0.99,
            unconditional_probability: 0.1,
            seed: 0,
        }
    }
}

/// A network that predicts v of the toy, with its trained weights.
#[derive(Clone, Debug)]
pub struct ToyNetwork {
    mlp: Mlp,
    average: Arena,
}

impl ToyNetwork {
    /// The network.
    pub fn mlp(&self) -> &Mlp {
        &self.mlp
    }

    /// v at `points` `[N, 2]`, `times` `[N]` or `[1]` f32, `labels` `[N]` u32.
    pub fn velocity(
        &self,
        cx: &mut Context,
        points: &Tensor,
        times: &Tensor,
        labels: &Tensor,
    ) -> Result<Tensor> {
        let weights = self.average.weights(self.mlp.parameters(), 0);
        self.mlp.forward(cx, &weights, points, times, labels)
    }
}

/// A training: step it, look at its loss now and then, sample its network at any time.
pub struct ToyTraining {
    gpu: Gpu,
    options: ToyTrainingOptions,
    draws: TrainDraws,
    network: ToyNetwork,
    plan: Plan,
    loss: Buffer,
    points: Buffer,
    targets: Buffer,
    times: Buffer,
    labels: Buffer,
    hyper: Buffer,
    done: usize,
}

fn over(buffer: &Buffer, shape: &[usize], dtype: DType) -> Tensor {
    Tensor::new(Storage::Buffer(buffer.clone()), 0, shape, dtype)
}

impl ToyTraining {
    /// Records the training step.
    ///
    /// # Errors
    /// [`Error::Config`] for no points a step, a network without extent, or rates and probabilities outside [0, 1].
    pub fn new(gpu: &Gpu, options: &ToyTrainingOptions) -> Result<ToyTraining> {
        let n = options.batch;
        if n == 0 {
            return Err(Error::Config("a training step of 0 points".into()));
        }
        let hidden = options.hidden;
        let mlp = Mlp::new(&MlpConfig { width: 2, layers: 3, hidden, time_channels: 64, classes: CLASSES })?;
        let [params, gradients, first, second, average] =
            ["parameters", "gradients", "first moment", "second moment", "average"]
                .map(|label| mlp.parameters().arena(gpu, label, 1));
        let (params, gradients, first, second, average) = (params?, gradients?, first?, second?, average?);
        let values = mlp.parameters().initial_values(options.seed);
        params.write(gpu, 0, &values)?;
        average.write(gpu, 0, &values)?;
        let points = gpu.buffer("z", (n * 8) as u64)?;
        let targets = gpu.buffer("v", (n * 8) as u64)?;
        let times = gpu.buffer("times", (n * 4) as u64)?;
        let labels = gpu.buffer("labels", (n * 4) as u64)?;
        let hyper = gpu.buffer("learning rate, weight decay, clip", 16)?;

        // v_θ(z, c), its loss and its gradients.
        let mut cx = Context::with_tape(gpu);
        let weights = params.weights(mlp.parameters(), 0);
        weights.track(&mut cx, &gradients.weights(mlp.parameters(), 0));
        let (z, v) = (over(&points, &[n, 2], DType::F32), over(&targets, &[n, 2], DType::F32));
        let (at, conditions) = (over(&times, &[n], DType::F32), over(&labels, &[n], DType::U32));
        let predicted = mlp.forward(&mut cx, &weights, &z, &at, &conditions)?;
        let loss = ops::mse(&mut cx, &predicted, &v)?;
        cx.keep(&loss);
        backprop(&mut cx, &loss)?;

        // AdamW and the average.
        let mut controls = Controls::new(&cx, &OptimizerState::new(false), false)?;
        controls.hyper = over(&hyper, &[4], DType::F32);
        let flat = [&params, &gradients, &first, &second, &average].map(Arena::flat);
        let arena = |i: usize| OptimizerArena {
            params: &flat[0][i],
            grads: &flat[1][i],
            first_moments: &flat[2][i],
            second_moments: &flat[3][i],
            ema: Some(&flat[4][i]),
        };
        let arenas: Vec<_> = (0..flat[0].len()).map(arena).collect();
        AdamW::default().step(&mut cx, &arenas, &controls, &[options.ema_rate])?;
        let plan = cx.finish("toy training step")?;
        let loss = plan.kept(loss.storage()).cloned().expect("the loss was kept");
        let schedule = ContinuousSchedule::default();
        let draws = TrainDraws::new(schedule, options.seed, options.unconditional_probability)?;
        let (gpu, options, network) = (gpu.clone(), options.clone(), ToyNetwork { mlp, average });
        Ok(ToyTraining {
            gpu,
            options,
            draws,
            network,
            plan,
            loss,
            points,
            targets,
            times,
            labels,
            hyper,
            done: 0,
        })
    }

    /// Steps taken.
    pub fn steps_done(&self) -> usize {
        self.done
    }

    /// Submits one step. Does not wait.
    pub fn step(&mut self) -> Result<()> {
        let n = self.options.batch;
        let first = self.done as u64 * n as u64;
        let (mut points, mut targets) = (Vec::with_capacity(n), Vec::with_capacity(n));
        let (mut times, mut labels) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for index in first..first + n as u64 {
            let draw = self.draws.sample(index);
            let (class, x, eps) = data(self.options.seed, index);
            points.push([0, 1].map(|i| (draw.alpha * x[i] + draw.sigma * eps[i]) as f32));
            targets.push([0, 1].map(|i| (draw.alpha * eps[i] - draw.sigma * x[i]) as f32));
            times.push(draw.time_embedding as f32);
            labels.push(if draw.drop_label { self.network.mlp.null_label() } else { class });
        }
        let hyper = [self.learning_rate() as f32, 0.0, 1.0, 0.0];
        self.gpu.write(&self.hyper, 0, bytemuck::cast_slice(&hyper))?;
        self.gpu.write(&self.points, 0, bytemuck::cast_slice(&points))?;
        self.gpu.write(&self.targets, 0, bytemuck::cast_slice(&targets))?;
        self.gpu.write(&self.times, 0, bytemuck::cast_slice(&times))?;
        self.gpu.write(&self.labels, 0, bytemuck::cast_slice(&labels))?;
        self.plan.run()?;
        self.done += 1;
        Ok(())
    }

    /// The rate of the step to come.
    fn learning_rate(&self) -> f64 {
        let (done, steps) = (self.done as f64, self.options.steps.max(1) as f64);
        let rise = ((done + 1.0) / (steps / 100.0)).min(1.0);
        let fall = 0.5 + 0.5 * (PI * (done / steps).min(1.0)).cos();
        self.options.learning_rate * rise * fall
    }

    /// The last step's mean squared error of v, on its way to the host.
    pub fn loss(&self) -> Result<Readback> {
        self.gpu.read_later(&self.loss, 0..4)
    }

    /// The network with the average of its weights as it is now and will become with further steps.
    pub fn network(&self) -> &ToyNetwork {
        &self.network
    }

    /// Takes all steps; `on_step` is told of every step and, now and then, the loss, and may stop it with an error.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run(mut self, mut on_step: impl FnMut(Option<f32>) -> Result<()>) -> Result<ToyNetwork> {
        const EVERY: usize = 20;
        let mut pending: Option<Readback> = None;
        while self.done < self.options.steps {
            self.step()?;
            let mut loss = None;
            if self.done.is_multiple_of(EVERY) {
                // Waits for an older step, so that the host does not run far ahead.
                if let Some(older) = pending.replace(self.loss()?) {
                    loss = Some(bytemuck::pod_read_unaligned(&older.wait()?));
                }
            }
            on_step(loss)?;
        }
        Ok(self.network)
    }
}

/// Data point `index` of the run `seed` and the noise that goes with it: (class, x, eps), from the four words of one
/// block. Classes in turn.
fn data(seed: u64, index: u64) -> (u32, [f64; 2], [f64; 2]) {
    let class = (index % CLASSES as u64) as usize;
    let [x0, x1, e0, e1] = words(seed, 0, index, Stream::TrainingNoise).map(|word| f64::from(normal(word)));
    let mean = class_mean(class);
    let x = [mean[0] + STANDARD_DEVIATION * x0, mean[1] + STANDARD_DEVIATION * x1];
    (class as u32, x, [e0, e1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::Guidance;
    use crate::diffusion::toy::sample_data;
    use crate::testing::gpu;
    use crate::toy::{ToyModel, ToySampler, ToySamplerOptions, measure};

    /// Measured: see the printed lines.
    #[test]
    fn learns_to_sample_and_to_be_guided() {
        let options = ToyTrainingOptions { steps: 400, batch: 256, hidden: 64, ..Default::default() };
        let begun = std::time::Instant::now();
        let mut losses = Vec::new();
        let training = ToyTraining::new(gpu(), &options).unwrap();
        let network = training
            .run(|loss| {
                losses.extend(loss);
                Ok(())
            })
            .unwrap();
        eprintln!("{losses:?} {:?}", begun.elapsed());
        for w in [0.0, 1.0, 3.0] {
            let begun = std::time::Instant::now();
            let guidance = Guidance::from_weight(w).unwrap();
            let options = ToySamplerOptions { guidance, batch: 3000, steps: 64, variance_exponent: 0.3 };
            let sampler = ToySampler::new(gpu(), ToyModel::Learnt(&network), options).unwrap();
            let found = measure(&sampler.sample(3000, 1, || Ok(())).unwrap(), w).unwrap();
            eprintln!("{found:?} {:?}", begun.elapsed());
        }
    }

    #[test]
    fn data_are_those_of_the_toy() {
        for (index, point) in sample_data(7, 5).iter().enumerate() {
            let (class, x, _) = data(5, index as u64);
            assert_eq!((class as usize, x), (point.class, point.position));
        }
    }
}
