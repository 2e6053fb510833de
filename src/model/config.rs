//! `config.json`: all a sampler needs to know of a model beside its weights.

use serde::{Deserialize, Serialize};

use crate::diffusion::{Clip, ContinuousSchedule};
use crate::error::{Error, Result};
use crate::nn::UNetConfig;

/// The noise schedule a network was trained under.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedulerConfig {
    /// `continuous`: CFG section 2.
    pub beta_schedule: String,
    /// `epsilon`: the network predicts the noise.
    pub prediction_type: String,
    /// λ at the noisy end.
    pub log_snr_min: f64,
    /// λ at the clean end.
    pub log_snr_max: f64,
}

/// What `sample` uses when nothing else is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingDefaults {
    /// Steps T.
    pub steps: usize,
    /// The exponent v of the reverse variance.
    pub variance_exponent: f64,
    /// What is done to x̂: `none`, `static` or `dynamic`.
    pub clip: String,
}

/// A model's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Always `FreeguideUNet`: tells this file from others of the same name.
    #[serde(rename = "_class_name")]
    pub class_name: String,
    /// The architecture.
    pub unet: UNetConfig,
    /// The schedule.
    pub scheduler: SchedulerConfig,
    /// Defaults of sampling.
    pub sampling: SamplingDefaults,
    /// The classes' names, in the order of their labels; empty for an unconditional network.
    pub class_names: Vec<String>,
    /// The data it was trained on.
    pub data: String,
    /// The probability with which labels were dropped.
    pub unconditional_probability: f64,
    /// Images seen in training.
    pub images_seen: u64,
    /// The rate of the average these weights are, if they are one.
    pub ema_rate: Option<f64>,
}

/// The only architecture there is so far.
pub(super) const CLASS_NAME: &str = "FreeguideUNet";

impl ModelConfig {
    /// The schedule.
    ///
    /// # Errors
    /// [`Error::Config`] for a schedule or prediction this version does not know.
    pub fn schedule(&self) -> Result<ContinuousSchedule> {
        let scheduler = &self.scheduler;
        if scheduler.beta_schedule != "continuous" || scheduler.prediction_type != "epsilon" {
            return Err(Error::Config(format!(
                "schedule {:?} with prediction {:?} is not known here; this version samples `continuous` with `epsilon`",
                scheduler.beta_schedule, scheduler.prediction_type
            )));
        }
        ContinuousSchedule::new(scheduler.log_snr_min, scheduler.log_snr_max)
    }

    /// The default clip.
    pub fn clip(&self) -> Result<Clip> {
        self.sampling.clip.parse()
    }

    /// The label of a class given by its number or name.
    ///
    /// # Errors
    /// [`Error::Config`] listing the classes.
    pub fn class(&self, wanted: &str) -> Result<u32> {
        if let Some(label) = self.class_names.iter().position(|name| name == wanted) {
            return Ok(label as u32);
        }
        match wanted.parse::<u32>() {
            Ok(label) if (label as usize) < self.class_names.len() => Ok(label),
            _ => Err(Error::Config(format!(
                "there is no class {wanted:?}; there are {} classes: {}",
                self.class_names.len(),
                self.class_names.join(", ")
            ))),
        }
    }

    /// Whether guidance is possible: there is a class, and a way to leave it out.
    pub fn can_guide(&self) -> bool {
        self.unet.num_classes.is_some() && self.unet.null_class != crate::nn::unet::NullClass::Absent
    }
}
