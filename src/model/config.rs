//! `config.json`: all a sampler needs to know of a model beside its weights.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::data::{Attribute, vector_of, vector_width};
use crate::diffusion::{
    BetaSchedule, Clip, ContinuousSchedule, DiscreteSchedule, FlowSchedule, LevelSource, Method, Prediction,
    Process, SamplerKind, SigmaSchedule, Variance, zero_terminal_snr,
};
use crate::error::{Error, Result, brief};
use crate::nn::UNetConfig;
use crate::ops::EmaWarmup;

use super::architecture::Kind;
use super::class_names::class_called;
use super::trained_rows::TrainedRows;

/// The noise schedule a network was trained under.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedulerConfig {
    /// `continuous` (CFG section 2), `flow` (a straight path), `edm` (EDM's noise levels), or the discrete `linear` (DDPM), `cosine` (IDDPM),
    /// `scaled_linear` (latent diffusion) or `sigmoid`.
    pub beta_schedule: String,
    /// What the network predicts: `epsilon` (the noise), `sample`, `v_prediction`, `flow_prediction` or `preconditioned` (EDM's).
    pub prediction_type: String,
    /// The standard deviation of the data of a preconditioned network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigma_data: Option<f64>,
    /// λ at the noisy end; 0 where the schedule is discrete.
    #[serde(default)]
    pub log_snr_min: f64,
    /// λ at the clean end; 0 where the schedule is discrete.
    #[serde(default)]
    pub log_snr_max: f64,
    /// Steps T of a discrete schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_train_timesteps: Option<usize>,
    /// The first β, where it is not the schedule's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta_start: Option<f64>,
    /// The last β, where it is not the schedule's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta_end: Option<f64>,
    /// Every β, instead of a schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained_betas: Option<Vec<f64>>,
    /// Whether β are rescaled so that the last level is noise alone (arXiv 2305.08891).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rescale_betas_zero_snr: bool,
    /// The reverse variance of a discrete schedule: `fixed_small`, `fixed_large`, `learned` or `learned_range`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variance_type: Option<String>,
    /// Whether the network is told t·1000/T instead of t.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rescale_timesteps: bool,
}

impl SchedulerConfig {
    /// The scheduler of continuous time, noise being predicted.
    pub fn continuous(log_snr_min: f64, log_snr_max: f64) -> Self {
        SchedulerConfig {
            beta_schedule: "continuous".into(),
            prediction_type: Prediction::Eps.config_name().into(),
            sigma_data: None,
            log_snr_min,
            log_snr_max,
            num_train_timesteps: None,
            beta_start: None,
            beta_end: None,
            trained_betas: None,
            rescale_betas_zero_snr: false,
            variance_type: None,
            rescale_timesteps: false,
        }
    }

    /// The scheduler of a straight path between picture and noise, the velocity being predicted.
    pub fn flow(log_snr_min: f64, log_snr_max: f64) -> Self {
        SchedulerConfig {
            beta_schedule: FLOW.into(),
            prediction_type: Prediction::FLOW.config_name().into(),
            ..Self::continuous(log_snr_min, log_snr_max)
        }
    }

    /// The scheduler of EDM's noise levels.
    pub fn edm(log_snr_min: f64, log_snr_max: f64, prediction: Prediction) -> Self {
        SchedulerConfig {
            beta_schedule: EDM.into(),
            prediction_type: prediction.config_name().into(),
            sigma_data: match prediction {
                Prediction::Preconditioned { sigma_data } => Some(sigma_data),
                _ => None,
            },
            ..Self::continuous(log_snr_min, log_snr_max)
        }
    }

    /// The scheduler of a discrete process.
    pub fn discrete(
        schedule: BetaSchedule,
        steps_total: usize,
        prediction: Prediction,
        variance: Variance,
    ) -> Self {
        SchedulerConfig {
            beta_schedule: schedule.to_string(),
            prediction_type: prediction.config_name().into(),
            num_train_timesteps: Some(steps_total),
            variance_type: Some(variance.config_name().into()),
            ..Self::continuous(0.0, 0.0)
        }
    }

    /// The process that samplers walk.
    ///
    /// # Errors
    /// [`Error::Config`] for a schedule, prediction or variance this version does not know, or a discrete one without T.
    pub fn process(&self) -> Result<Process> {
        let prediction = match (Prediction::from_config_name(&self.prediction_type)?, self.sigma_data) {
            (Prediction::Preconditioned { .. }, Some(sigma_data)) => {
                Prediction::Preconditioned { sigma_data }
            }
            (prediction, None) => prediction,
            (prediction, Some(_)) => {
                return Err(Error::Config(format!(
                    "`sigma_data` is of the prediction preconditioned, and this network predicts {prediction}"
                )));
            }
        };
        let continuous = match self.beta_schedule.as_str() {
            "continuous" => {
                let schedule = ContinuousSchedule::new(self.log_snr_min, self.log_snr_max)?;
                Some(LevelSource::Continuous(schedule))
            }
            FLOW => Some(LevelSource::Flow(FlowSchedule::new(self.log_snr_min, self.log_snr_max)?)),
            EDM => Some(LevelSource::Sigma(SigmaSchedule::new(self.log_snr_min, self.log_snr_max)?)),
            _ => None,
        };
        if let Some(levels) = continuous {
            let process = Process { levels, prediction, variance: Variance::Small };
            return process.check().map(|()| process);
        }
        let steps = self.num_train_timesteps.ok_or_else(|| {
            Error::Config(format!(
                "the {} schedule needs `num_train_timesteps`, the number of its steps",
                brief(&self.beta_schedule)
            ))
        });
        let betas = self.betas(steps)?;
        let steps = betas.len();
        let scale = if self.rescale_timesteps { 1000.0 / steps as f64 } else { 1.0 };
        let variance =
            self.variance_type.as_deref().map_or(Ok(Variance::Large), Variance::from_config_name)?;
        let levels = LevelSource::Discrete(DiscreteSchedule::from_betas(betas)?, scale);
        if self.rescale_betas_zero_snr && prediction == Prediction::Eps {
            return Err(Error::Config(
                "`rescale_betas_zero_snr` and the prediction epsilon do not go together: the first level is noise alone, and \
                 x̂ = (z - σ eps)/α says nothing of the picture there. Such a network predicts v (`v_prediction`)"
                    .into(),
            ));
        }
        let process = Process { levels, prediction, variance };
        process.check().map(|()| process)
    }

    /// β of each step of a discrete process.
    fn betas(&self, steps: Result<usize>) -> Result<Vec<f64>> {
        let schedule: BetaSchedule = self.beta_schedule.parse().map_err(|_| {
            Error::Config(format!(
                "schedule {:?} is not known here; there are continuous, flow, edm, linear, cosine, scaled_linear and sigmoid",
                brief(&self.beta_schedule)
            ))
        })?;
        let steps = steps?;
        let betas = match (&self.trained_betas, self.beta_start, self.beta_end) {
            (Some(betas), ..) if betas.len() != steps => {
                return Err(Error::Config(format!(
                    "`trained_betas` has {} numbers, and `num_train_timesteps` is {steps}",
                    betas.len()
                )));
            }
            (Some(betas), ..) => betas.clone(),
            (None, None, None) => schedule.betas(steps)?,
            (None, Some(first), Some(last)) => schedule.between((first, last), steps)?,
            _ => {
                return Err(Error::Config(
                    "`beta_start` and `beta_end` are the two ends of a schedule: give both or neither".into(),
                ));
            }
        };
        // What is rescaled must be a process already.
        let betas = DiscreteSchedule::from_betas(betas)?.betas().to_vec();
        Ok(if self.rescale_betas_zero_snr { zero_terminal_snr(&betas) } else { betas })
    }

    /// Whether its β are not those that its name and T tell alone.
    pub fn has_own_betas(&self) -> bool {
        self.beta_start.is_some()
            || self.beta_end.is_some()
            || self.trained_betas.is_some()
            || self.rescale_betas_zero_snr
    }
}

/// What files call the schedule of a straight path.
const FLOW: &str = "flow";
/// What they call EDM's noise levels.
const EDM: &str = "edm";

/// Steps of sampling where a model's files name none: those of guided-diffusion's published samples.
pub(super) const STEPS: usize = 250;

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
    /// The sampler by name, where it is not the process's own choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampler: Option<String>,
    /// The spacing of levels by name, where it is not the sampler's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spacing: Option<String>,
}

/// A model's configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// `FreeguideUNet` or `FreeguideClassifier`: tells this file from others of the same name.
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
    /// The probability with which each part of a condition of several was dropped by itself.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub part_dropout: f64,
    /// What the numbers of the network's vector say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<Attribute>,
    /// Images seen in training.
    pub images_seen: u64,
    /// The rate of the average these weights are, if they are one.
    pub ema_rate: Option<f64>,
    /// How that average warmed up, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema_warmup: Option<EmaWarmup>,
    /// The share of the initial weights that it still holds, from 0 to 1, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema_initial_share: Option<f64>,
    /// The rows of the class embedding that the training reached, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained_rows: Option<TrainedRows>,
    /// A hash of the weights that the training began with, where it began with a model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_from: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(probability: &f64) -> bool {
    *probability == 0.0
}

/// What `config.json` calls the networks.
pub(super) const UNET: &str = "FreeguideUNet";
pub(super) const CLASSIFIER: &str = "FreeguideClassifier";

impl ModelConfig {
    /// The process that samplers walk.
    ///
    /// # Errors
    /// As [`SchedulerConfig::process`]; and when variances are learnt and there are no channels for them.
    pub fn process(&self) -> Result<Process> {
        let process = self.scheduler.process()?;
        let (inputs, outputs) = (self.unet.in_channels, self.unet.out_channels);
        if process.variance.is_learned() && outputs < 2 || outputs % 2 != 0 && process.variance.is_learned() {
            return Err(Error::Config(format!(
                "variances are said to be learned, but the network has {outputs} output channels for {inputs}"
            )));
        }
        Ok(process)
    }

    /// The default sampler.
    ///
    /// # Errors
    /// [`Error::Config`] for one that this version does not know.
    pub fn method(&self) -> Result<Method> {
        let kind = self.sampling.sampler.as_deref().map(str::parse).transpose()?;
        let spacing = self.sampling.spacing.as_deref().map(str::parse).transpose()?;
        Ok(Method { kind, spacing, ..Method::default() })
    }

    /// What is asked for, and the default sampler and spacing where nothing is: the sampler unless steps are named, the
    /// spacing for samplers of its own kind, a chain's steps or a solver's levels.
    ///
    /// # Errors
    /// As [`ModelConfig::method`].
    pub fn method_for(&self, asked: Method) -> Result<Method> {
        let own = self.method()?;
        let named = asked.respacing.is_some();
        let kind = asked.kind.or(own.kind.filter(|_| !named));
        let solver = |kind: Option<SamplerKind>| kind.is_some_and(SamplerKind::is_solver);
        let fits = !named && kind != Some(SamplerKind::Halving) && solver(kind) == solver(own.kind);
        let spacing = asked.spacing.or(own.spacing.filter(|_| fits));
        Ok(Method { kind, spacing, ..asked })
    }

    /// The default number of steps, at most those that a discrete process has.
    pub fn default_steps(&self) -> usize {
        self.sampling.steps.min(self.scheduler.num_train_timesteps.unwrap_or(usize::MAX))
    }

    /// The default clip.
    pub fn clip(&self) -> Result<Clip> {
        self.sampling.clip.parse()
    }

    /// What the network is for.
    pub fn kind(&self) -> Kind {
        if self.class_name == CLASSIFIER { Kind::Classifier } else { Kind::UNet }
    }

    /// The label of a class given by its number, its name, or one of several names between commas.
    ///
    /// # Errors
    /// [`Error::Config`] listing the classes, or those that share the name.
    pub fn class(&self, wanted: &str) -> Result<u32> {
        class_called(&self.class_names, wanted)
    }

    /// The vector that says `NAME=VALUE,…` of its attributes; what is not named is not told.
    ///
    /// # Errors
    /// [`Error::Config`] for an attribute that there is not, and a value that it does not have.
    pub fn vector(&self, text: &str) -> Result<Vec<f32>> {
        vector_of(&self.attributes, text)
    }

    /// The rows that count as trained, as [`was_trained`](Self::was_trained) has them one by one.
    pub fn known_rows(&self) -> TrainedRows {
        self.trained_rows.clone().unwrap_or_else(|| TrainedRows {
            null: self.was_trained(None),
            classes: self.was_trained(Some(0)),
            without_pictures: Vec::new(),
        })
    }

    /// Whether the row of a class, or of the null class for `None`, was trained. What no file tells of counts as trained:
    /// models of other programs, and classes of models that an older version wrote.
    pub fn was_trained(&self, class: Option<u32>) -> bool {
        if self.unet.num_classes.is_none() {
            return true;
        }
        match (&self.trained_rows, class) {
            (Some(rows), class) => rows.has(class),
            // An older version's model; those of other programs say nothing of the images that they have seen.
            (None, _) if self.images_seen == 0 => true,
            (None, None) => self.unconditional_probability > 0.0,
            (None, Some(_)) => self.unconditional_probability < 1.0,
        }
    }
}

/// Reads this program's `config.json`.
pub(super) fn read_config(path: &Path) -> Result<ModelConfig> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    parse_config(path, &text)
}

/// The configuration in the text of a `config.json`, which errors call `path`.
pub(super) fn parse_config(path: &Path, text: &str) -> Result<ModelConfig> {
    let config: ModelConfig =
        serde_json::from_str(text).map_err(|error| Error::format(path, error.to_string()))?;
    if config.class_name != UNET && config.class_name != CLASSIFIER {
        let what =
            format!("`_class_name` is {:?}, expected {UNET:?} or {CLASSIFIER:?}", brief(&config.class_name));
        return Err(Error::format(path, what));
    }
    config.unet.check().map_err(|error| Error::format(path, error.to_string()))?;
    let said = vector_width(&config.attributes);
    if !config.attributes.is_empty() && said != config.unet.vector_width {
        let what =
            format!("`attributes` are {said} numbers, and `vector_width` is {}", config.unet.vector_width);
        return Err(Error::format(path, what));
    }
    Ok(config)
}
