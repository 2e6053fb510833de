//! What a student is taught instead of the noise: its teacher's guided output, or two of its teacher's steps in one.
//!
//! Meng et al., arXiv 2210.03142 (one evaluation for two, at a guidance weight that the network is told); Salimans & Ho,
//! arXiv 2202.00512 (half the steps, again and again). Formulas: `diffusion/distillation.rs`.

mod teaching;

use crate::data::fingerprint::Fingerprint;
use crate::diffusion::Prediction;
use crate::error::{Error, Result};
use crate::model::{Average, Conditions, Model, ModelConfig};
use crate::nn::Parameters;

use super::objective::{Objective, TrainSchedule};
use super::options::{Distillation, TrainOptions};
pub(super) use teaching::Teaching;

/// A model that teaches.
pub struct Teacher {
    model: Model,
    fingerprint: String,
}

impl Teacher {
    /// Takes a model as teacher.
    ///
    /// # Errors
    /// [`Error::Config`] for a network that cannot be distilled; what the device objects to.
    pub fn new(model: Model) -> Result<Teacher> {
        check(&model.config)?;
        let mut hash = Fingerprint::new(&model.config.class_names, &[]);
        hash.text(&serde_json::to_string(&model.config).expect("plain values"));
        for values in model.values()? {
            hash.bytes(bytemuck::cast_slice(&values));
        }
        Ok(Teacher { model, fingerprint: hash.finish() })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Which of its training's weights it teaches with, where its files say.
    pub fn average(&self) -> Option<Average> {
        self.model.found.as_ref()?.weights.map(Average::from)
    }

    /// A hash of its configuration and weights.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Makes `options` those of a student: of guidance weights in `range`, which a teacher that is a student itself knows
    /// already, or, where `steps` are given, of half its steps.
    ///
    /// # Errors
    /// [`Error::Config`] for a range or a number of steps that the teacher cannot teach.
    pub fn teach(
        &self,
        options: TrainOptions,
        range: [f64; 2],
        steps: Option<usize>,
        prediction: Option<Prediction>,
    ) -> Result<TrainOptions> {
        let config = &self.model.config;
        let own = config.scheduler.process()?;
        let known = config.unet.guidance_range;
        if steps.is_none() && known.is_some() {
            return Err(Error::Config(
                "the teacher is distilled already; give --halve to halve its steps".into(),
            ));
        }
        if steps.is_some() && known.is_none() {
            return Err(Error::Config("steps are halved after guidance is distilled".into()));
        }
        let mut unet = config.unet.clone();
        unet.guidance_range = Some(known.unwrap_or(range));
        let objective = Objective {
            schedule: schedule(config)?,
            steps_total: config.scheduler.num_train_timesteps.unwrap_or(Objective::default().steps_total),
            prediction: prediction.unwrap_or(own.prediction),
            learn_sigma: own.variance.is_learned(),
            ..Objective::default()
        };
        let mut sampling = config.sampling.clone();
        if let Some(steps) = steps {
            (sampling.steps, sampling.sampler, sampling.spacing) = (steps, Some("halving".into()), None);
        }
        let (log_snr_min, log_snr_max) = match own.is_continuous() {
            true => (config.scheduler.log_snr_min, config.scheduler.log_snr_max),
            false => (options.log_snr_min, options.log_snr_max),
        };
        let options = TrainOptions {
            unet,
            objective,
            sampling,
            log_snr_min,
            log_snr_max,
            distillation: Some(Distillation {
                teacher: self.fingerprint.clone(),
                average: self.average().map(|average| average.to_string()),
                steps,
            }),
            ..options
        };
        options.check()?;
        Ok(options)
    }

    /// What a student starts from: its teacher's values, and its own where the teacher has none.
    pub(super) fn starting_values(&self, student: &Parameters, seed: u64) -> Result<Vec<Vec<f32>>> {
        let mut values = student.initial_values(seed);
        let theirs = self.model.values()?;
        for (spec, theirs) in self.model.unet.parameters().specs().iter().zip(theirs) {
            let place = student.specs().iter().position(|own| own.name == spec.name);
            match place.filter(|place| values[*place].len() == theirs.len()) {
                Some(place) => values[place] = theirs,
                None => {
                    return Err(Error::Config(format!(
                        "the student has no {} like its teacher's",
                        spec.name
                    )));
                }
            }
        }
        Ok(values)
    }
}

/// Refuses what cannot teach.
fn check(config: &ModelConfig) -> Result<()> {
    let refuse = |what: &str| Err(Error::Config(format!("this model cannot be distilled: {what}")));
    let process = config.process()?;
    Conditions::of(config).check_guidance("distillation")?;
    if config.unet.low_res_channels > 0 {
        return refuse("it is an upsampler");
    }
    if config.unet.vector_width > 0 {
        return refuse("it takes a vector, and students are taught classes alone");
    }
    if process.prediction == Prediction::PreviousX {
        return refuse("it predicts the mean of a step; eps, x0 and v can be distilled");
    }
    if process.prediction.scales_input() {
        return refuse("it is preconditioned; eps, x0 and v can be distilled");
    }
    if config.scheduler.rescale_timesteps && config.scheduler.num_train_timesteps != Some(1000) {
        return refuse("it is told t·1000/T, and trainings here tell t");
    }
    schedule(config).map(drop)
}

fn schedule(config: &ModelConfig) -> Result<TrainSchedule> {
    if config.scheduler.has_own_betas() {
        return Err(Error::Config(
            "the teacher's betas are its own (`beta_start`, `trained_betas` or `rescale_betas_zero_snr` in its configuration), \
             and a student's are those of a schedule by name"
                .into(),
        ));
    }
    config.scheduler.beta_schedule.parse()
}

#[cfg(test)]
mod tests;
