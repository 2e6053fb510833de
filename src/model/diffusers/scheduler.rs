//! diffusers' `scheduler_config.json`: the process that a network was trained for, and how its pictures are drawn there.
//!
//! The class is known by its whole name. Its settings fall in two: those of the training (betas, what is predicted), which
//! are followed or refused, and those of sampling, which become our defaults where they mean the same here. What is not
//! followed is in a note, by name and value. Defaults are those of diffusers' classes, read off their sources at 0.42.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::diffusion::{Clip, SamplerKind, Spacing};
use crate::error::{Error, Result, brief};
use crate::model::SchedulerConfig;
use crate::model::config::{STEPS, SamplingDefaults};

/// A class of diffusers', its sampler and the defaults of its settings.
struct Class {
    name: &'static str,
    /// Ours; the process's own choice where there is none.
    sampler: Option<SamplerKind>,
    /// Whether ours is the same method, or the nearest there is.
    same: bool,
    spacing: &'static str,
    clip_sample: bool,
    set_alpha_to_one: bool,
    betas: (f64, f64, &'static str),
}

const DDPM_BETAS: (f64, f64, &str) = (1e-4, 0.02, "linear");
const LATENT_BETAS: (f64, f64, &str) = (0.00085, 0.012, "linear");

const fn chain(name: &'static str, sampler: Option<SamplerKind>) -> Class {
    Class {
        name,
        sampler,
        same: true,
        spacing: "leading",
        clip_sample: true,
        set_alpha_to_one: true,
        betas: DDPM_BETAS,
    }
}

const fn solver(name: &'static str, sampler: SamplerKind, same: bool) -> Class {
    let plain = chain(name, Some(sampler));
    Class { same, spacing: "linspace", clip_sample: false, ..plain }
}

const CLASSES: &[Class] = &[
    chain("DDPMScheduler", None),
    chain("DDPMParallelScheduler", None),
    chain("DDIMScheduler", Some(SamplerKind::Ddim)),
    chain("DDIMParallelScheduler", Some(SamplerKind::Ddim)),
    Class {
        same: false,
        clip_sample: false,
        set_alpha_to_one: false,
        ..chain("PNDMScheduler", Some(SamplerKind::Ddim))
    },
    Class {
        same: false,
        clip_sample: false,
        betas: (0.00085, 0.012, "scaled_linear"),
        ..chain("LCMScheduler", Some(SamplerKind::Ddim))
    },
    solver("EulerDiscreteScheduler", SamplerKind::Euler, true),
    solver("EulerAncestralDiscreteScheduler", SamplerKind::EulerAncestral, true),
    Class { betas: LATENT_BETAS, ..solver("HeunDiscreteScheduler", SamplerKind::Heun, true) },
    solver("DPMSolverMultistepScheduler", SamplerKind::Dpmpp2m, true),
    solver("DPMSolverSinglestepScheduler", SamplerKind::Dpmpp2m, false),
    Class { betas: LATENT_BETAS, ..solver("DPMSolverSDEScheduler", SamplerKind::Dpmpp2mSde, false) },
    Class { betas: LATENT_BETAS, ..solver("KDPM2DiscreteScheduler", SamplerKind::Heun, false) },
    Class {
        betas: LATENT_BETAS,
        ..solver("KDPM2AncestralDiscreteScheduler", SamplerKind::EulerAncestral, false)
    },
    solver("UniPCMultistepScheduler", SamplerKind::Dpmpp2m, false),
    solver("DEISMultistepScheduler", SamplerKind::Dpmpp2m, false),
    solver("LMSDiscreteScheduler", SamplerKind::Dpmpp2m, false),
];

/// Settings of a class's own method: where ours is another, the note on the method says it all.
const OF_THE_METHOD: &[&str] = &[
    "skip_prk_steps",
    "solver_order",
    "solver_type",
    "solver_p",
    "predict_x0",
    "disable_corrector",
    "original_inference_steps",
    "timestep_scaling",
    "noise_sampler_seed",
];

/// Further settings, and the values under which they say what is done here.
fn says_what_is_done(name: &str, value: &Value) -> bool {
    match name {
        // The last step goes to the picture, which is of order one whatever these say.
        "lower_order_final" | "euler_at_final" => true,
        "final_sigmas_type" => value == "zero",
        "interpolation_type" => value == "linear" || value == "log_linear",
        "timestep_type" => value == "discrete",
        "time_shift_type" => value == "exponential",
        "solver_order" => value == 2,
        "solver_type" => value == "midpoint",
        "flow_shift" => value == 1.0 || value == 1,
        // Infinity is read as nothing.
        _ => value.is_null() || value == false,
    }
}

/// The file. What is not in it has its class's default.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Scheduler {
    #[serde(rename = "_class_name")]
    pub class_name: String,
    pub num_train_timesteps: Option<usize>,
    pub beta_start: Option<f64>,
    pub beta_end: Option<f64>,
    pub beta_schedule: Option<String>,
    pub variance_type: Option<String>,
    pub prediction_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_betas: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rescale_betas_zero_snr: Option<bool>,
    pub clip_sample: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_sample_range: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thresholding: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_thresholding_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_max_value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_alpha_to_one: Option<bool>,
    pub timestep_spacing: Option<String>,
    pub steps_offset: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_karras_sigmas: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_exponential_sigmas: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm_type: Option<String>,
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

/// What a file says, in our words.
pub(super) struct Read {
    /// What the network was trained for.
    pub scheduler: SchedulerConfig,
    /// How its pictures are drawn when nothing else is asked for.
    pub sampling: SamplingDefaults,
    /// What was taken from the file, and what was not.
    pub notes: Vec<String>,
}

/// Reads a `scheduler_config.json` as it stands; [`Scheduler::ours`] says what it means.
///
/// # Errors
/// When it cannot be read or is no such file.
pub(super) fn parse(path: &Path) -> Result<Scheduler> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&without_infinities(&text)).map_err(|error| Error::format(path, error.to_string()))
}

/// Python writes `-Infinity` and `NaN` where JSON has no such number; here they are `null`.
fn without_infinities(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    // Every second piece between quotes is a string; one that ends in a backslash goes on after its quote.
    let mut inside = false;
    for piece in text.split_inclusive('"') {
        if inside {
            plain += piece;
        } else {
            let named = ["-Infinity", "Infinity", "NaN"];
            plain += &named.iter().fold(piece.to_owned(), |piece, name| piece.replace(name, "null"));
        }
        let backslashes = piece.trim_end_matches('"').chars().rev().take_while(|c| *c == '\\').count();
        let escaped = inside && backslashes % 2 == 1;
        inside = inside == escaped;
    }
    plain
}

impl Scheduler {
    /// Our schedule and defaults.
    ///
    /// # Errors
    /// What is not known here, by the name of its setting.
    pub fn ours(&self) -> Result<Read, String> {
        let Some(class) = CLASSES.iter().find(|class| class.name == self.class_name) else {
            let known: Vec<&str> = CLASSES.iter().map(|class| class.name).collect();
            return Err(format!(
                "the scheduler {:?} is not read; there are {}",
                brief(&self.class_name),
                known.join(", ")
            ));
        };
        let scheduler = self.training(class)?;
        let mut left = Vec::new();
        let sampling = self.sampling(class, &scheduler, &mut left)?;
        for (name, value) in &self.others {
            let of_the_method = !class.same && OF_THE_METHOD.contains(&name.as_str());
            if !name.starts_with('_') && !of_the_method && !says_what_is_done(name, value) {
                left.push(format!("{} {}", brief(name), brief(&value.to_string())));
            }
        }
        let sampler = sampling.sampler.as_deref().unwrap_or("ancestral (ddim below 50 steps)");
        let mut notes = vec![format!(
            "sampled as its {} says: {sampler}, spacing {}, clip {}",
            class.name,
            sampling.spacing.as_deref().unwrap_or("of the sampler"),
            sampling.clip
        )];
        if !class.same {
            notes.push(format!("{}'s own method is not here; {sampler} is the nearest to it", class.name));
        }
        if !left.is_empty() {
            notes.push(format!("settings of its scheduler that are not followed: {}", left.join(", ")));
        }
        Ok(Read { scheduler, sampling, notes })
    }

    /// What the network was trained for.
    fn training(&self, class: &Class) -> Result<SchedulerConfig, String> {
        let steps = self.num_train_timesteps.unwrap_or(1000);
        let scale = 1000.0 / steps.max(1) as f64;
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b;
        let (first, last) =
            (self.beta_start.unwrap_or(class.betas.0), self.beta_end.unwrap_or(class.betas.1));
        let given = self.trained_betas.is_some();
        let (schedule, ends) = match self.beta_schedule.as_deref().unwrap_or(class.betas.2) {
            // Not looked at where every β is given.
            _ if given => ("linear", None),
            "linear" if close(first, 1e-4 * scale) && close(last, 0.02 * scale) => ("linear", None),
            "squaredcos_cap_v2" => ("cosine", None),
            name @ ("linear" | "scaled_linear" | "sigmoid") => (name, Some((first, last))),
            other => {
                return Err(format!(
                    "`beta_schedule` {other:?} is not known; \"linear\", \"scaled_linear\", \"sigmoid\" and \
                     \"squaredcos_cap_v2\" are",
                    other = brief(other)
                ));
            }
        };
        let variance = match self.variance_type.as_deref().unwrap_or("fixed_small") {
            "fixed_small" | "fixed_small_log" => "fixed_small",
            "fixed_large" | "fixed_large_log" => "fixed_large",
            kind @ ("learned" | "learned_range") => kind,
            other => {
                return Err(format!(
                    "`variance_type` is {other:?}, which is not known",
                    other = brief(other)
                ));
            }
        };
        let prediction = self.prediction_type.as_deref().unwrap_or("epsilon");
        if !matches!(prediction, "epsilon" | "sample" | "v_prediction") {
            return Err(format!(
                "`prediction_type` is {prediction:?}, which is not known",
                prediction = brief(prediction)
            ));
        }
        let config = SchedulerConfig {
            beta_schedule: schedule.into(),
            prediction_type: prediction.into(),
            num_train_timesteps: Some(steps),
            beta_start: ends.map(|(first, _)| first),
            beta_end: ends.map(|(_, last)| last),
            trained_betas: self.trained_betas.clone(),
            rescale_betas_zero_snr: self.rescale_betas_zero_snr.unwrap_or(false),
            variance_type: Some(variance.into()),
            ..SchedulerConfig::continuous(0.0, 0.0)
        };
        config.process().map_err(|error| error.to_string())?;
        Ok(config)
    }

    /// How pictures are drawn; what of it is not done here goes to `left`.
    fn sampling(
        &self,
        class: &Class,
        scheduler: &SchedulerConfig,
        left: &mut Vec<String>,
    ) -> Result<SamplingDefaults, String> {
        let sampler = match self.algorithm_type.as_deref() {
            Some("sde-dpmsolver++") if class.sampler == Some(SamplerKind::Dpmpp2m) => {
                Some(SamplerKind::Dpmpp2mSde)
            }
            Some(other) if class.same && other != "dpmsolver++" => {
                left.push(format!("algorithm_type {}", brief(other)));
                class.sampler
            }
            _ => class.sampler,
        };
        let clip_sample = self.clip_sample.unwrap_or(class.clip_sample);
        let quantile = self.dynamic_thresholding_ratio.unwrap_or(0.995);
        let most = self.sample_max_value.unwrap_or(1.0);
        let clip = match self.thresholding {
            // A threshold that may not exceed 1 is the range of pictures.
            Some(true) if most <= 1.0 => Clip::Static,
            Some(true) => {
                left.push(format!("sample_max_value {most} (a threshold is not limited)"));
                Clip::dynamic(quantile).map_err(|error| error.to_string())?
            }
            _ if clip_sample => Clip::Static,
            _ => Clip::None,
        };
        match self.clip_sample_range {
            Some(range) if range != 1.0 && clip_sample && self.thresholding != Some(true) => {
                left.push(format!("clip_sample_range {range} (the range is 1)"));
            }
            _ => {}
        }
        if !self.set_alpha_to_one.unwrap_or(class.set_alpha_to_one) {
            left.push("set_alpha_to_one false (the last step goes to the picture)".into());
        }
        let offset = self.steps_offset.unwrap_or(0);
        let spacing = match self.timestep_spacing.as_deref().unwrap_or(class.spacing) {
            _ if self.use_karras_sigmas == Some(true) => Spacing::Karras,
            _ if self.use_exponential_sigmas == Some(true) => Spacing::Exponential,
            "leading" => Spacing::Leading(offset),
            "linspace" => Spacing::Uniform,
            "trailing" => Spacing::Trailing,
            other => {
                return Err(format!(
                    "`timestep_spacing` is {other:?}, which is not known",
                    other = brief(other)
                ));
            }
        };
        Ok(SamplingDefaults {
            steps: STEPS.min(scheduler.num_train_timesteps.unwrap_or(STEPS)).max(1),
            variance_exponent: 0.0,
            clip: clip.to_string(),
            sampler: sampler.map(|kind| kind.to_string()),
            spacing: Some(spacing.to_string()),
        })
    }

    /// diffusers' settings of our schedule; `None` where it has none like it.
    pub fn of(config: &SchedulerConfig, sampling: &SamplingDefaults) -> Option<Scheduler> {
        let steps = config.num_train_timesteps?;
        let scale = 1000.0 / steps.max(1) as f64;
        let beta_schedule = match config.beta_schedule.as_str() {
            name @ ("linear" | "scaled_linear" | "sigmoid") => name,
            "cosine" => "squaredcos_cap_v2",
            _ => return None,
        };
        let (first, last) = match config.beta_schedule.as_str() {
            "scaled_linear" => (LATENT_BETAS.0, LATENT_BETAS.1),
            "sigmoid" => (DDPM_BETAS.0, DDPM_BETAS.1),
            _ => (1e-4 * scale, 0.02 * scale),
        };
        // A chain's steps lie evenly here when nothing is said.
        let spacing = sampling.spacing.as_deref().unwrap_or("uniform").parse::<Spacing>().ok()?;
        let (spacing, offset) = match spacing {
            Spacing::Leading(offset) => ("leading", offset),
            Spacing::Trailing => ("trailing", 0),
            _ => ("linspace", 0),
        };
        let clip = sampling.clip.parse::<Clip>().ok()?;
        let (quantile, most) = match clip {
            Clip::Dynamic { quantile } => (Some(quantile), Some(100.0)),
            _ => (None, None),
        };
        (!config.rescale_timesteps).then(|| Scheduler {
            class_name: "DDPMScheduler".into(),
            num_train_timesteps: Some(steps),
            beta_start: config.beta_start.or(Some(first)),
            beta_end: config.beta_end.or(Some(last)),
            trained_betas: config.trained_betas.clone(),
            rescale_betas_zero_snr: config.rescale_betas_zero_snr.then_some(true),
            beta_schedule: Some(beta_schedule.into()),
            variance_type: config.variance_type.clone(),
            prediction_type: Some(config.prediction_type.clone()),
            clip_sample: Some(clip == Clip::Static),
            thresholding: quantile.map(|_| true),
            dynamic_thresholding_ratio: quantile,
            sample_max_value: most,
            timestep_spacing: Some(spacing.into()),
            steps_offset: Some(offset),
            ..Scheduler::default()
        })
    }
}

#[cfg(test)]
mod tests;
