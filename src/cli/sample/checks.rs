//! What of a request does not go together with its models.

use crate::diffusion::Process;
use crate::error::{Error, Result};
use crate::model::{ModelConfig, check_same_classes};
use crate::sample::SamplerOptions;

use super::Args;

/// Refuses an exponent that nothing would read.
pub(super) fn check_exponent(args: &Args, options: &SamplerOptions, process: &Process) -> Result<()> {
    if args.v.is_none() || process.has_variance_exponent(&options.method, options.steps) {
        return Ok(());
    }
    Err(Error::Config(format!(
        "--v is for ancestral steps in continuous time; this is {} of a model of {} time, which does not read it",
        process.sampler(&options.method, options.steps),
        if process.is_continuous() { "continuous" } else { "discrete" }
    )))
}

/// Refuses a classifier of other pictures, or of another process.
pub(super) fn check_classifier(model: &ModelConfig, classifier: &ModelConfig) -> Result<Option<String>> {
    let (own, made) = (classifier.unet.shape(), model.unet.shape());
    if own != made {
        return Err(Error::Config(format!(
            "the classifier is for pictures of {own}, the model makes {made}"
        )));
    }
    // What both are told of a noise level must mean the same.
    let process = |c: &ModelConfig| (c.scheduler.beta_schedule.clone(), c.scheduler.num_train_timesteps);
    let betas = |c: &ModelConfig| {
        let s = &c.scheduler;
        (s.beta_start, s.beta_end, s.trained_betas.clone(), s.rescale_betas_zero_snr)
    };
    if process(model) == process(classifier) && betas(model) != betas(classifier) {
        return Err(Error::Config(
            "the classifier was trained on noise of other betas than the model (`beta_start`, `beta_end`, `trained_betas`, \
             `rescale_betas_zero_snr`)"
                .into(),
        ));
    }
    if process(model) != process(classifier) {
        let of = |(schedule, steps): (String, Option<usize>)| match steps {
            Some(steps) => format!("{schedule} in {steps} steps"),
            None => schedule,
        };
        return Err(Error::Config(format!(
            "the classifier was trained on noise of the schedule {}, the model on {}",
            of(process(classifier)),
            of(process(model))
        )));
    }
    match model.unet.num_classes {
        Some(_) => {
            let (ours, theirs) = (&*model.class_names, &*classifier.class_names);
            check_same_classes(("the model", ours), ("the classifier", theirs), false)
        }
        None => Ok(None),
    }
}

/// A model's configuration with the names of a classifier's classes where it has none itself.
pub(super) fn with_classes_of(model: &ModelConfig, classifier: &ModelConfig) -> ModelConfig {
    let mut config = model.clone();
    if config.class_names.is_empty() {
        config.class_names = classifier.class_names.clone();
    }
    config
}
