//! diffusers' `scheduler_config.json` and our schedule.

use serde::{Deserialize, Serialize};

use crate::model::SchedulerConfig;

/// The settings that say what a network was trained for; those of sampling are ours to choose.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Scheduler {
    #[serde(rename = "_class_name")]
    pub class_name: String,
    pub num_train_timesteps: usize,
    pub beta_start: f64,
    pub beta_end: f64,
    pub beta_schedule: String,
    pub variance_type: Option<String>,
    pub prediction_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_betas: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rescale_betas_zero_snr: bool,
}

impl Default for Scheduler {
    fn default() -> Self {
        Scheduler {
            class_name: "DDPMScheduler".into(),
            num_train_timesteps: 1000,
            beta_start: 1e-4,
            beta_end: 0.02,
            beta_schedule: "linear".into(),
            variance_type: None,
            prediction_type: "epsilon".into(),
            trained_betas: None,
            rescale_betas_zero_snr: false,
        }
    }
}

impl Scheduler {
    /// Our schedule.
    ///
    /// # Errors
    /// What is not known here, by the name of its setting.
    pub fn ours(&self) -> Result<SchedulerConfig, String> {
        if !self.class_name.starts_with("DDPM") && !self.class_name.starts_with("DDIM") {
            return Err(format!("the scheduler {:?} is not read; DDPM's and DDIM's are", self.class_name));
        }
        if self.trained_betas.is_some() || self.rescale_betas_zero_snr {
            return Err("`trained_betas` and `rescale_betas_zero_snr` are not supported".into());
        }
        let scale = 1000.0 / self.num_train_timesteps.max(1) as f64;
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b;
        let schedule = match self.beta_schedule.as_str() {
            "linear" if close(self.beta_start, 1e-4 * scale) && close(self.beta_end, 0.02 * scale) => {
                "linear"
            }
            "squaredcos_cap_v2" => "cosine",
            other => {
                return Err(format!(
                    "`beta_schedule` {other:?} from {} to {} in {} steps is not supported; \"linear\" from {} to {} and \
                     \"squaredcos_cap_v2\" are",
                    self.beta_start,
                    self.beta_end,
                    self.num_train_timesteps,
                    1e-4 * scale,
                    0.02 * scale
                ));
            }
        };
        let variance = match self.variance_type.as_deref().unwrap_or("fixed_small") {
            "fixed_small" | "fixed_small_log" => "fixed_small",
            "fixed_large" | "fixed_large_log" => "fixed_large",
            kind @ ("learned" | "learned_range") => kind,
            other => return Err(format!("`variance_type` is {other:?}, which is not known")),
        };
        if !matches!(self.prediction_type.as_str(), "epsilon" | "sample" | "v_prediction") {
            return Err(format!("`prediction_type` is {:?}, which is not known", self.prediction_type));
        }
        Ok(SchedulerConfig {
            beta_schedule: schedule.into(),
            prediction_type: self.prediction_type.clone(),
            num_train_timesteps: Some(self.num_train_timesteps),
            variance_type: Some(variance.into()),
            ..SchedulerConfig::continuous(0.0, 0.0)
        })
    }

    /// diffusers' settings of our schedule; `None` where it has none like it.
    pub fn of(config: &SchedulerConfig) -> Option<Scheduler> {
        let steps = config.num_train_timesteps?;
        let scale = 1000.0 / steps.max(1) as f64;
        let beta_schedule = match config.beta_schedule.as_str() {
            "linear" => "linear",
            "cosine" => "squaredcos_cap_v2",
            _ => return None,
        };
        (!config.rescale_timesteps).then(|| Scheduler {
            num_train_timesteps: steps,
            beta_start: 1e-4 * scale,
            beta_end: 0.02 * scale,
            beta_schedule: beta_schedule.into(),
            variance_type: config.variance_type.clone(),
            prediction_type: config.prediction_type.clone(),
            ..Scheduler::default()
        })
    }
}
