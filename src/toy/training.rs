//! The toy learnt end to end: label dropout, noise, a small network on the tape, AdamW and an average (CFG,
//! Algorithm 1).
//!
//! The network predicts v = α eps - σ x, not eps: at the noisy end x̂ = (z - σ eps)/α multiplies what eps lacks by
//! 22026, and without a clip, which the toy has none of, the chain would not recover from its first step. With
//! eps = σ z + α v the error of v reaches x̂ at its own size.

use crate::diffusion::toy::{CLASSES, STANDARD_DEVIATION, class_mean};
use crate::diffusion::{ContinuousSchedule, TrainDraws};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu, Readback};
use crate::nn::{
    Arena, Lesson, Loss, Mlp, MlpConfig, Optimised, RecordedStep, StepRates, StepSettings, Weights,
    half_cosine,
};
use crate::ops::{self, AdamW};
use crate::random::{Stream, normal, words};
use crate::sizes::MOST_BATCH;
use crate::tensor::{Context, DType, Tensor};

/// Channels of the network's time embedding.
const TIME_CHANNELS: usize = 16;
/// The share of the steps over which the learning rate rises.
const RISE: f64 = 0.01;
/// The largest norm of the gradient.
const GRAD_CLIP: f64 = 1.0;

/// What the network is told of 1000·2θ/π: from 0 to 10, so that the embedding's waves are as slow as v changes.
pub(super) fn network_time(time_embedding: f64) -> f64 {
    0.01 * time_embedding
}

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
            steps: 3000,
            batch: 256,
            hidden: 64,
            learning_rate: 0.01,
            ema_rate: 0.99,
            unconditional_probability: 0.2,
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

    /// The average of its weights, as it is and will become with further steps.
    pub fn weights(&self) -> Weights {
        self.average.weights(self.mlp.parameters(), 0)
    }
}

/// A training: step it, look at its loss now and then, sample its network at any time.
pub struct ToyTraining {
    gpu: Gpu,
    options: ToyTrainingOptions,
    draws: TrainDraws,
    network: ToyNetwork,
    optimised: Optimised,
    recorded: RecordedStep,
    inputs: Inputs,
    done: usize,
}

/// What the host writes of each point.
struct Inputs {
    /// z, `[N, 2]` f32.
    points: Buffer,
    /// v, `[N, 2]` f32.
    targets: Buffer,
    /// `[N]` f32.
    times: Buffer,
    /// `[N]` u32.
    labels: Buffer,
}

impl Inputs {
    fn new(gpu: &Gpu, points: usize) -> Result<Inputs> {
        let of = |label: &str, words: usize| gpu.buffer(label, (points * words * 4) as u64);
        Ok(Inputs {
            points: of("z", 2)?,
            targets: of("v", 2)?,
            times: of("times", 1)?,
            labels: of("labels", 1)?,
        })
    }
}

/// v_θ(z, c) and its mean squared error.
struct Velocities<'a> {
    mlp: &'a Mlp,
    inputs: &'a Inputs,
    points: usize,
}

impl Lesson for Velocities<'_> {
    fn record(&self, cx: &mut Context, weights: &Weights) -> Result<Loss> {
        let Velocities { mlp, inputs, points: n } = *self;
        let [z, v] =
            [&inputs.points, &inputs.targets].map(|buffer| Tensor::over(buffer, &[n, 2], DType::F32));
        let times = Tensor::over(&inputs.times, &[n], DType::F32);
        let labels = Tensor::over(&inputs.labels, &[n], DType::U32);
        let predicted = mlp.forward(cx, weights, &z, &times, &labels)?;
        let value = ops::mse(cx, &predicted, &v)?;
        Ok(Loss { read: vec![value.clone()], value })
    }
}

impl ToyTraining {
    /// Records the training step.
    ///
    /// # Errors
    /// [`Error::Config`] for no points a step, a network without extent, or rates and probabilities outside [0, 1].
    pub fn new(gpu: &Gpu, options: &ToyTrainingOptions) -> Result<ToyTraining> {
        let n = options.batch;
        if n == 0 || n > MOST_BATCH {
            return Err(Error::Config(format!(
                "a training step of {n} points is not one of 1 to {MOST_BATCH}"
            )));
        }
        let hidden = options.hidden;
        let mlp = Mlp::new(&MlpConfig {
            width: 2,
            layers: 3,
            hidden,
            time_channels: TIME_CHANNELS,
            classes: CLASSES,
        })?;
        let optimised = Optimised::new(gpu, mlp.parameters(), 1, options.seed)?;
        let inputs = Inputs::new(gpu, n)?;
        let settings = StepSettings {
            name: "toy training",
            dtype: DType::F32,
            in_parts: false,
            adam: AdamW::default(),
            ema_rates: &[options.ema_rate],
        };
        let lesson = Velocities { mlp: &mlp, inputs: &inputs, points: n };
        let recorded = optimised.record(gpu, &lesson, settings)?;
        let schedule = ContinuousSchedule::default();
        let draws = TrainDraws::new(schedule, options.seed, options.unconditional_probability)?;
        let network = ToyNetwork { mlp, average: optimised.averages.clone() };
        let (gpu, options) = (gpu.clone(), options.clone());
        Ok(ToyTraining { gpu, options, draws, network, optimised, recorded, inputs, done: 0 })
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
            times.push(network_time(draw.time_embedding) as f32);
            labels.push(if draw.drop_label { self.network.mlp.null_label() } else { class });
        }
        let ToyTrainingOptions { learning_rate, steps, .. } = self.options;
        let learning_rate = half_cosine(learning_rate, self.done, steps, RISE);
        let rates = StepRates { learning_rate, weight_decay: 0.0, grad_clip: GRAD_CLIP };
        self.optimised.set_rates(&self.gpu, rates)?;
        self.gpu.write(&self.inputs.points, 0, bytemuck::cast_slice(&points))?;
        self.gpu.write(&self.inputs.targets, 0, bytemuck::cast_slice(&targets))?;
        self.gpu.write(&self.inputs.times, 0, bytemuck::cast_slice(&times))?;
        self.gpu.write(&self.inputs.labels, 0, bytemuck::cast_slice(&labels))?;
        self.recorded.gradients.run()?;
        self.done += 1;
        Ok(())
    }

    /// The last step's mean squared error of v, on its way to the host.
    pub fn loss(&self) -> Result<Readback> {
        self.gpu.read_later(&self.recorded.read[0], 0..4)
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
    use crate::toy::{Measurement, ToyModel, ToySampler, ToySamplerOptions, measure};

    fn sampled(network: &ToyNetwork, w: f64) -> Measurement {
        let guidance = Guidance::from_weight(w).unwrap();
        let options = ToySamplerOptions { guidance, batch: 1500, steps: 32, variance_exponent: 0.3 };
        let sampler = ToySampler::new(gpu(), ToyModel::Learnt(network), options).unwrap();
        measure(&sampler.sample(3000, 1, || Ok(())).unwrap(), w).unwrap()
    }

    /// A third of the default's steps: enough for the data, and for guidance to move the classes apart. How far it is
    /// from p̃ at w > 0 takes longer to learn, because guidance multiplies errors by 1 + 2w.
    #[test]
    fn learns_to_sample_and_to_be_guided() {
        let options = ToyTrainingOptions { steps: 1000, ..Default::default() };
        let mut losses = Vec::new();
        let training = ToyTraining::new(gpu(), &options).unwrap();
        let network = training
            .run(|loss| {
                losses.extend(loss);
                Ok(())
            })
            .unwrap();
        assert!(losses.len() > 40 && losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
        let [plain, guided, strong] = [0.0, 1.0, 3.0].map(|w| sampled(&network, w));
        // Measured: 0.105, with a floor of 0.108 for as many points of the data; means 0.990, 1.292 and 1.387.
        assert!(plain.total_variation < plain.sampling_floor + 0.02, "{plain:?}");
        assert!((plain.sampled_mean - 1.0).abs() < 0.04, "{plain:?}");
        assert!(guided.sampled_mean > plain.sampled_mean + 0.15, "{plain:?} {guided:?}");
        assert!(strong.sampled_mean > guided.sampled_mean + 0.02, "{guided:?} {strong:?}");
    }

    #[test]
    fn data_are_those_of_the_toy() {
        for (index, point) in sample_data(7, 5).iter().enumerate() {
            let (class, x, _) = data(5, index as u64);
            assert_eq!((class as usize, x), (point.class, point.position));
        }
    }

    #[test]
    fn senseless_options_are_errors_and_an_error_stops() {
        let options = ToyTrainingOptions { hidden: 8, batch: 4, ..Default::default() };
        for bad in [
            ToyTrainingOptions { batch: 0, ..options.clone() },
            ToyTrainingOptions { hidden: 0, ..options.clone() },
            ToyTrainingOptions { ema_rate: 1.5, ..options.clone() },
            ToyTrainingOptions { unconditional_probability: -0.1, ..options.clone() },
        ] {
            assert!(ToyTraining::new(gpu(), &bad).is_err(), "{bad:?}");
        }
        let mut steps = 0;
        let stopped = ToyTraining::new(gpu(), &options).unwrap().run(|_| {
            steps += 1;
            if steps == 3 { Err(Error::Interrupted) } else { Ok(()) }
        });
        assert!(matches!(stopped, Err(Error::Interrupted)) && steps == 3);
    }
}
