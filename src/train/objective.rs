//! What is learnt: the schedule, what the network predicts, the loss, and how times are drawn.

use serde::{Deserialize, Serialize};

use crate::diffusion::sigma::check_sigma_data;
use crate::diffusion::{BetaSchedule, Prediction, Process, SigmaSchedule, TimeSampler, Variance};
use crate::error::{Error, Result, brief};
use crate::model::SchedulerConfig;
use crate::ops::LossWeights;

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
    /// EDM's noise levels.
    Edm,
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
            TrainSchedule::Continuous | TrainSchedule::Flow | TrainSchedule::Edm => None,
            TrainSchedule::Linear => Some(BetaSchedule::Linear),
            TrainSchedule::Cosine => Some(BetaSchedule::Cosine),
        }
    }

    /// λ at the noisy and at the clean end of a process of this schedule, where nobody says: EDM's, or CFG's ±20.
    pub fn default_log_snrs(&self) -> (f64, f64) {
        match self.schedule {
            TrainSchedule::Edm => {
                let levels = SigmaSchedule::default();
                (levels.log_snr_min(), levels.log_snr_max())
            }
            _ => (-20.0, 20.0),
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
            Prediction::Preconditioned { .. } if self.schedule != TrainSchedule::Edm => {
                return refuse(
                    "the prediction edm is preconditioned for EDM's noise levels: its schedule is edm",
                );
            }
            Prediction::Preconditioned { .. } if self.is_classifier() => {
                return refuse("a classifier predicts no picture that could be preconditioned");
            }
            Prediction::Preconditioned { sigma_data } => check_sigma_data(sigma_data)?,
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
            None if self.schedule == TrainSchedule::Edm => {
                SchedulerConfig::edm(log_snr_min, log_snr_max, self.prediction)
            }
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

impl std::str::FromStr for TrainSchedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "continuous" => Ok(TrainSchedule::Continuous),
            "linear" => Ok(TrainSchedule::Linear),
            "cosine" => Ok(TrainSchedule::Cosine),
            "flow" => Ok(TrainSchedule::Flow),
            "edm" => Ok(TrainSchedule::Edm),
            _ => Err(Error::Config(format!(
                "`{text}` is no schedule; there are continuous, linear, cosine, flow and edm",
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
}
