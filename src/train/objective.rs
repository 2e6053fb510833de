//! What is learnt: the schedule, what the network predicts, the loss, and how times are drawn.

use serde::{Deserialize, Serialize};

use crate::diffusion::{
    BetaSchedule, ContinuousSchedule, DiscreteSchedule, FlowSchedule, Level, LossRow, Prediction, Process,
    TimeSampler, TrainDraws, Variance,
};
use crate::error::{Error, Result, brief};
use crate::model::SchedulerConfig;
use crate::ops::LossWeights;

use super::importance::Importance;

/// The schedule trained under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainSchedule {
    /// CFG section 2.
    #[default]
    Continuous,
    /// DDPM.
    Linear,
    /// IDDPM.
    Cosine,
    /// The straight path between picture and noise.
    Flow,
}

/// The loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// The mean squared error of what is predicted.
    #[default]
    Simple,
    /// The same plus 0.001·L_vlb, a sum over T steps: T/1000 times the bits of the drawn step (IDDPM, equation 16). The
    /// bits' gradient goes into the variances alone.
    Hybrid,
    /// The same with the bits of the drawn step weighed by 1, as published code does by default; equal at T = 1000.
    HybridUnscaled,
    /// L_vlb: T times the bits of the drawn step.
    Vlb,
    /// A classifier's: the cross-entropy of the class given z (ADM, section 4).
    CrossEntropy,
}

/// What is learnt. The default is CFG's: continuous time, the noise, mean squared error, uniform u.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objective {
    /// The schedule.
    pub schedule: TrainSchedule,
    /// T of a discrete schedule.
    pub steps_total: usize,
    /// What the network predicts.
    pub prediction: Prediction,
    /// Whether it predicts variances too, in as many channels again.
    pub learn_sigma: bool,
    /// The loss.
    pub loss: LossKind,
    /// How times are drawn.
    pub t_sampler: TimeSampler,
}

impl Default for Objective {
    fn default() -> Self {
        Objective {
            schedule: TrainSchedule::Continuous,
            steps_total: 1000,
            prediction: Prediction::Eps,
            learn_sigma: false,
            loss: LossKind::Simple,
            t_sampler: TimeSampler::Uniform,
        }
    }
}

impl Objective {
    /// Whether it is the default, which has a shorter training step and leaves no trace in files.
    pub fn is_default(&self) -> bool {
        *self == Objective::default()
    }

    /// The betas, for a discrete schedule.
    pub fn betas(&self) -> Option<BetaSchedule> {
        match self.schedule {
            TrainSchedule::Continuous | TrainSchedule::Flow => None,
            TrainSchedule::Linear => Some(BetaSchedule::Linear),
            TrainSchedule::Cosine => Some(BetaSchedule::Cosine),
        }
    }

    /// The variance of its model.
    pub fn variance(&self) -> Variance {
        if self.learn_sigma { Variance::LearnedRange } else { Variance::Large }
    }

    /// Whether what is trained is a classifier of noisy pictures.
    pub fn is_classifier(&self) -> bool {
        self.loss == LossKind::CrossEntropy
    }

    /// Channels of the output for pictures of `channels`.
    pub fn out_channels(&self, channels: usize) -> usize {
        if self.learn_sigma { 2 * channels } else { channels }
    }

    /// Refuses what cannot be trained.
    ///
    /// # Errors
    /// [`Error::Config`] with the option to change.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::Config(what.to_owned()));
        let flow = self.schedule == TrainSchedule::Flow;
        if self.t_sampler == TimeSampler::LogitNormal && !flow {
            return refuse("--t-sampler logit-normal is for times of a straight path: give --schedule flow");
        }
        match self.prediction {
            Prediction::Flow { .. } if !flow => {
                return refuse("--predict flow is the velocity of a straight path: give --schedule flow");
            }
            Prediction::V if flow => {
                return refuse("--predict v counts on α² + σ² = 1; --schedule flow takes flow, x0 or eps");
            }
            _ => {}
        }
        let Some(betas) = self.betas() else {
            return match self {
                _ if self.learn_sigma || !matches!(self.loss, LossKind::Simple | LossKind::CrossEntropy) => {
                    refuse(
                        "--learn-sigma and the losses hybrid and vlb are about the steps of a discrete process: give \
                     --schedule cosine or linear",
                    )
                }
                _ if self.t_sampler == TimeSampler::Importance => refuse(
                    "--t-sampler importance remembers losses of each step of a discrete process: give --schedule cosine \
                     or linear",
                ),
                _ if self.steps_total != Objective::default().steps_total => refuse(
                    "--steps-total is the number of steps of a discrete process: give --schedule cosine or linear",
                ),
                _ => Ok(()),
            };
        };
        betas.betas(self.steps_total)?;
        match (self.learn_sigma, self.loss) {
            (true, LossKind::Simple | LossKind::CrossEntropy) => refuse(
                "--learn-sigma learns nothing about variances from --loss simple: give --loss hybrid or vlb",
            ),
            (false, LossKind::Hybrid | LossKind::HybridUnscaled) => {
                refuse("--loss hybrid trains variances: give --learn-sigma with it")
            }
            _ if self.prediction == Prediction::PreviousX => refuse("--predict takes eps, x0 or v"),
            _ => Ok(()),
        }
    }

    /// The weights of the terms, for a mean over `batch` samples.
    pub fn weights(&self, batch: usize) -> LossWeights {
        let steps = self.steps_total as f32;
        let (mse, bits) = match self.loss {
            LossKind::Simple => (1.0, 0.0),
            LossKind::Hybrid => (1.0, steps / 1000.0),
            LossKind::HybridUnscaled => (1.0, 1.0),
            // A classifier's loss has no terms to weigh.
            LossKind::Vlb | LossKind::CrossEntropy => (0.0, steps),
        };
        LossWeights {
            mse,
            bits,
            scale: 1.0 / batch as f32,
            frozen_mean: self.loss != LossKind::Vlb,
            variance: self.variance(),
            clip: false,
        }
    }

    /// What a model of it is sampled by.
    pub fn scheduler(&self, log_snr_min: f64, log_snr_max: f64) -> SchedulerConfig {
        match self.betas() {
            None if self.schedule == TrainSchedule::Flow => SchedulerConfig {
                prediction_type: self.prediction.config_name().into(),
                ..SchedulerConfig::flow(log_snr_min, log_snr_max)
            },
            None => SchedulerConfig {
                prediction_type: self.prediction.config_name().into(),
                ..SchedulerConfig::continuous(log_snr_min, log_snr_max)
            },
            Some(betas) => {
                SchedulerConfig::discrete(betas, self.steps_total, self.prediction, self.variance())
            }
        }
    }

    /// As [`Objective::scheduler`], for samplers.
    ///
    /// # Errors
    /// As [`SchedulerConfig::process`].
    pub fn process(&self, log_snr_min: f64, log_snr_max: f64) -> Result<Process> {
        self.scheduler(log_snr_min, log_snr_max).process()
    }
}

/// What was drawn for one training image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// α.
    pub alpha: f64,
    /// σ.
    pub sigma: f64,
    /// u in [0, 1), from which the others follow.
    pub u: f64,
    /// λ.
    pub log_snr: f64,
    /// What the network is told.
    pub time: f64,
    /// t of a discrete process.
    pub t: usize,
    /// Which quarter of the process it is in, from clean (0) to noisy (3).
    pub quarter: usize,
    /// Whether the null condition takes the place of the label.
    pub drop_label: bool,
    /// The loss's numbers.
    pub row: LossRow,
}

/// The draws of a training run.
pub struct Draws {
    labels: TrainDraws,
    continuous: ContinuousSchedule,
    discrete: Option<DiscreteSchedule>,
    flow: Option<FlowSchedule>,
    objective: Objective,
    seed: u64,
}

impl Draws {
    /// The draws of the run `seed`.
    ///
    /// # Errors
    /// [`Error::Config`] for a schedule or a probability that makes no sense.
    pub fn new(
        objective: Objective,
        continuous: ContinuousSchedule,
        seed: u64,
        unconditional_probability: f64,
    ) -> Result<Self> {
        let discrete = objective.betas().map(|betas| DiscreteSchedule::new(betas, objective.steps_total));
        let labels = TrainDraws::new(continuous, seed, unconditional_probability)?;
        let flow = (objective.schedule == TrainSchedule::Flow)
            .then(|| FlowSchedule::new(continuous.log_snr_min(), continuous.log_snr_max()));
        let (discrete, flow) = (discrete.transpose()?, flow.transpose()?);
        Ok(Draws { labels, continuous, discrete, flow, objective, seed })
    }

    /// All that is drawn for an image; `importance` where the objective samples times by it.
    pub fn draw(&self, image_index: u64, importance: Option<&mut Importance>) -> Draw {
        let Objective { prediction, t_sampler, .. } = self.objective;
        let drop_label = self.labels.drop_label(image_index);
        let u = t_sampler.u(self.seed, image_index);
        if let Some(schedule) = &self.discrete {
            let (t, weight) = match importance {
                Some(importance) => importance.draw(u),
                None => ((u * schedule.len() as f64) as usize, 1.0),
            };
            return Draw {
                alpha: schedule.alpha(t),
                sigma: schedule.sigma(t),
                u,
                log_snr: schedule.log_snr(t),
                time: schedule.timestep(t),
                t,
                quarter: 4 * t / schedule.len(),
                drop_label,
                row: LossRow::discrete(schedule, t, prediction, self.objective.variance(), weight),
            };
        }
        if let Some(path) = &self.flow {
            let level = Level::flow(path.time(u));
            return Draw {
                alpha: level.alpha,
                sigma: level.sigma,
                u,
                log_snr: level.log_snr(),
                time: level.time,
                t: 0,
                quarter: (4.0 * u) as usize,
                drop_label,
                row: LossRow::continuous(level.alpha, level.sigma, prediction, 1.0),
            };
        }
        let (alpha, sigma) = (self.continuous.alpha(u), self.continuous.sigma(u));
        Draw {
            alpha,
            sigma,
            u,
            log_snr: self.continuous.log_snr(u),
            time: self.continuous.time_embedding(u),
            t: 0,
            quarter: (4.0 * u) as usize,
            drop_label,
            row: LossRow::continuous(alpha, sigma, prediction, 1.0),
        }
    }
}

impl std::str::FromStr for TrainSchedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "continuous" => Ok(TrainSchedule::Continuous),
            "linear" => Ok(TrainSchedule::Linear),
            "cosine" => Ok(TrainSchedule::Cosine),
            "flow" => Ok(TrainSchedule::Flow),
            _ => Err(Error::Config(format!(
                "`{text}` is no schedule; there are continuous, linear, cosine and flow",
                text = brief(text)
            ))),
        }
    }
}

impl std::str::FromStr for LossKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "simple" => Ok(LossKind::Simple),
            "hybrid" => Ok(LossKind::Hybrid),
            "hybrid-unscaled" => Ok(LossKind::HybridUnscaled),
            "vlb" => Ok(LossKind::Vlb),
            _ => Err(Error::Config(format!(
                "`{text}` is no loss; there are simple, hybrid, hybrid-unscaled and vlb",
                text = brief(text)
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_trained_is_refused_with_the_way_out() {
        let discrete = Objective { schedule: TrainSchedule::Cosine, ..Objective::default() };
        let error = |objective: Objective| objective.check().unwrap_err().to_string();
        let continuous = Objective::default();
        continuous.check().unwrap();
        discrete.check().unwrap();
        assert!(error(Objective { learn_sigma: true, ..continuous }).contains("--schedule"));
        assert!(error(Objective { loss: LossKind::Vlb, ..continuous }).contains("--schedule"));
        assert!(error(Objective { t_sampler: TimeSampler::Importance, ..continuous }).contains("importance"));
        assert!(error(Objective { learn_sigma: true, ..discrete }).contains("--loss hybrid"));
        assert!(error(Objective { loss: LossKind::Hybrid, ..discrete }).contains("--learn-sigma"));
        assert!(error(Objective { steps_total: 0, ..discrete }).contains("0"));
        Objective { learn_sigma: true, loss: LossKind::Hybrid, ..discrete }.check().unwrap();
        assert!("lsimple".parse::<LossKind>().is_err() && "sigmoid".parse::<TrainSchedule>().is_err());
    }

    /// The default's draws are those of the module of continuous time, bit for bit.
    #[test]
    fn the_default_draws_are_unchanged() {
        let schedule = ContinuousSchedule::default();
        let draws = Draws::new(Objective::default(), schedule, 5, 0.3).unwrap();
        let before = TrainDraws::new(schedule, 5, 0.3).unwrap();
        for image in 0..1000 {
            let (new, old) = (draws.draw(image, None), before.sample(image));
            assert_eq!((new.alpha, new.sigma, new.log_snr), (old.alpha, old.sigma, old.log_snr));
            assert_eq!((new.time, new.drop_label), (old.time_embedding, old.drop_label));
        }
    }

    #[test]
    fn times_of_a_straight_path_are_told_and_its_target_is_the_velocity() {
        let flow = Objective {
            schedule: TrainSchedule::Flow,
            prediction: Prediction::FLOW,
            t_sampler: TimeSampler::LogitNormal,
            ..Objective::default()
        };
        flow.check().unwrap();
        let draws = Draws::new(flow, ContinuousSchedule::default(), 1, 0.1).unwrap();
        let mut quarters = [0u32; 4];
        for image in 0..4000 {
            let draw = draws.draw(image, None);
            assert!((draw.alpha + draw.sigma - 1.0).abs() < 1e-15);
            assert!((draw.time - 1000.0 * draw.sigma).abs() < 1e-9);
            assert_eq!((draw.row.target_x, draw.row.target_z, draw.row.target_eps), (-1.0, 0.0, 1.0));
            quarters[draw.quarter] += 1;
        }
        // A standard normal number lies within ±log 3 with probability 0.728; the standard deviation is 28.
        assert!((quarters[1] + quarters[2]).abs_diff(2912) < 140, "{quarters:?}");
        let process = flow.process(-20.0, 20.0).unwrap();
        assert_eq!(process.prediction, Prediction::FLOW);
        let error = |objective: Objective| objective.check().unwrap_err().to_string();
        assert!(error(Objective { schedule: TrainSchedule::Continuous, ..flow }).contains("logit-normal"));
        let uniform = Objective { t_sampler: TimeSampler::Uniform, ..flow };
        assert!(error(Objective { schedule: TrainSchedule::Cosine, ..uniform }).contains("--schedule flow"));
        assert!(error(Objective { prediction: Prediction::V, ..flow }).contains("α² + σ² = 1"));
    }

    #[test]
    fn discrete_times_are_uniform_integers() {
        let objective =
            Objective { schedule: TrainSchedule::Linear, steps_total: 40, ..Objective::default() };
        let draws = Draws::new(objective, ContinuousSchedule::default(), 1, 0.1).unwrap();
        let mut counts = [0u32; 40];
        for image in 0..40_000 {
            let draw = draws.draw(image, None);
            assert_eq!(draw.time, draw.t as f64);
            assert!((draw.alpha.hypot(draw.sigma) - 1.0).abs() < 1e-14 && draw.row.weight == 1.0);
            counts[draw.t] += 1;
        }
        // Binomial(40000, 1/40): a standard deviation of 31; five of them.
        assert!(counts.iter().all(|count| count.abs_diff(1000) < 156), "{counts:?}");
    }
}
