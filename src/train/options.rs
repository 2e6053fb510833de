//! What determines a training: change any of it and the run is another one.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::{Attribute, Crop, vector_width};
use crate::diffusion::{ConditionDropout, Prediction, TimeSampler};
use crate::error::{Error, Result};
use crate::gpu::Capabilities;
use crate::model::{SamplingDefaults, TrainedRows};
use crate::nn::UNetConfig;
use crate::ops::EmaWarmup;
use crate::shape::Extent;
use crate::sizes::{MOST_BATCH, MOST_IMAGES, product};
use crate::tensor::{DType, Precision};

use super::objective::{LossKind, Objective};

/// Everything that determines a training. Saved as `train.json`; what decides what is trained changes in a folder only where
/// that is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainOptions {
    /// The data set's name.
    pub data: String,
    /// A hash of its contents.
    pub data_fingerprint: String,
    /// What an earlier version of this program would have written there: a training begun with it goes on.
    #[serde(skip)]
    pub earlier_data_fingerprint: Option<String>,
    /// The classes' names.
    pub class_names: Vec<String>,
    /// The network.
    pub unet: UNetConfig,
    /// Random crops instead of central ones.
    pub random_crop: bool,
    /// Stretch images to size as a whole instead of cropping them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stretch: bool,
    /// Random horizontal flips.
    pub flip: bool,
    /// Images a step.
    pub batch: usize,
    /// Images at a time on the device; divides `batch`.
    pub microbatch: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Images over which the learning rate rises linearly from zero.
    pub warmup_images: u64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// The largest gradient norm; 0 for none.
    pub grad_clip: f64,
    /// Images in all.
    pub images: u64,
    /// The probability of leaving the label out.
    pub unconditional_probability: f64,
    /// The probability of leaving each part of the condition out by itself, where it has several: the class, the vector, and
    /// each attribute of the vector.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub part_dropout: f64,
    /// What the network's vector says of a picture.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<Attribute>,
    /// A hash of what it says of each of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribute_values: Option<String>,
    /// Rates of the exponential moving averages, the first being the model's.
    pub ema_rates: Vec<f64>,
    /// How the averages warm up. A folder of a version that says nothing of it goes on as one that does.
    #[serde(default)]
    pub ema_warmup: EmaWarmup,
    /// λ at the noisy end.
    pub log_snr_min: f64,
    /// λ at the clean end.
    pub log_snr_max: f64,
    /// Extent of the small pictures that an upsampler is given; none for any other network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upsample_from: Option<Extent>,
    /// The schedule, the prediction, the loss.
    #[serde(default, skip_serializing_if = "Objective::is_default")]
    pub objective: Objective,
    /// A hash of the weights that it begins with; none where they are drawn by the seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_from: Option<String>,
    /// The rows of the class embedding that those weights had been trained on; a folder of a version that says nothing of it
    /// goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_rows: Option<TrainedRows>,
    /// Of a student: who teaches it what; none for any other training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distillation: Option<Distillation>,
    /// Storage type of activations.
    pub precision: Precision,
    /// The seed of everything.
    pub seed: u64,
    /// Images between sample pictures; 0 for none.
    pub sample_every: u64,
    /// Images between saved states.
    pub save_every: u64,
    /// Written into the model's configuration.
    pub sampling: SamplingDefaults,
    /// What was changed on the way, as the folder tells it; nothing to be asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(probability: &f64) -> bool {
    *probability == 0.0
}

/// An option that was changed on the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Images seen before it.
    pub images: u64,
    /// The option, by the name that accepts its change.
    pub option: String,
    /// What it was.
    pub from: Value,
    /// What it is from there on.
    pub to: Value,
}

/// What makes a training a distillation; part of [`TrainOptions`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distillation {
    /// A hash of the teacher's configuration and weights.
    pub teacher: String,
    /// Which of the teacher's weights these are, where its files say: `raw`, or the rate of an average. Told, not compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average: Option<String>,
    /// Steps of the student where it halves those of its teacher; none where it learns guidance.
    pub steps: Option<usize>,
}

impl Distillation {
    /// Refuses what no student can learn.
    fn check(&self, options: &TrainOptions) -> Result<()> {
        let refuse = |what: &str| Err(Error::Config(what.to_owned()));
        // Variances are learnt from the teacher, not from the bound.
        let objective = Objective { learn_sigma: false, ..options.objective };
        objective.check()?;
        if objective.loss != LossKind::Simple || objective.t_sampler == TimeSampler::Importance {
            return refuse("a student's loss is the mean squared error, at times drawn evenly");
        }
        if options.unet.guidance_range.is_none() {
            return refuse("a student is told the guidance weight: give --w FROM:TO");
        }
        match self.steps {
            Some(0) => refuse("a student needs at least one step (--halve)"),
            Some(_) if objective.prediction == Prediction::Eps => refuse(
                "steps of a network that predicts eps cannot be halved: at the noisy end x̂ = (z - σ eps)/α says nothing of \
                 the picture; distil the guidance with --predict v first",
            ),
            _ => Ok(()),
        }
    }
}

impl TrainOptions {
    /// Refuses what cannot be trained, with the numbers.
    pub fn check(&self) -> Result<()> {
        self.unet.check()?;
        let refuse = |what: String| Err(Error::Config(what));
        if self.batch == 0 || self.microbatch == 0 || !self.batch.is_multiple_of(self.microbatch) {
            return refuse(format!(
                "a batch of {} images does not consist of microbatches of {}",
                self.batch, self.microbatch
            ));
        }
        if self.images == 0 || self.save_every == 0 {
            return refuse("--images and --save-every must be at least 1".into());
        }
        if self.images > MOST_IMAGES || self.batch > MOST_BATCH {
            return refuse(format!(
                "{} images in batches of {} are beyond any training: at most {MOST_IMAGES} images and batches of {MOST_BATCH} \
                 are possible",
                self.images, self.batch
            ));
        }
        let [n, height, width, channels] = self.unet.shape().nhwc(self.batch);
        product("the pixels of a batch", &[n, height, width, channels, 4])?;
        for (name, value, good) in [
            ("--lr", self.learning_rate, self.learning_rate > 0.0),
            ("--weight-decay", self.weight_decay, self.weight_decay >= 0.0),
            ("--grad-clip", self.grad_clip, self.grad_clip >= 0.0),
            (
                "--p-uncond",
                self.unconditional_probability,
                (0.0..=1.0).contains(&self.unconditional_probability),
            ),
        ] {
            // The device reckons in f32.
            if !good || !(value as f32).is_finite() {
                return refuse(format!("{name} cannot be {value}"));
            }
        }
        if self.ema_rates.is_empty() || self.ema_rates.len() > 4 {
            return refuse(format!("--ema takes one to four rates, got {}", self.ema_rates.len()));
        }
        for (i, rate) in self.ema_rates.iter().enumerate() {
            if !(0.0..1.0).contains(rate) {
                return refuse(format!("an average's rate must lie in [0, 1), got {rate}"));
            }
            if self.ema_rates[..i].contains(rate) {
                return refuse(format!("--ema names the rate {rate} twice"));
            }
        }
        match &self.distillation {
            None => self.objective.check()?,
            Some(distillation) => distillation.check(self)?,
        }
        self.check_upsampling()?;
        self.check_attributes()?;
        let (inputs, outputs) = (self.unet.in_channels, self.unet.out_channels);
        if self.objective.is_classifier() {
            if outputs != self.class_names.len() || outputs < 2 {
                return refuse(format!(
                    "a classifier of {} classes cannot have {outputs} outputs; it takes two classes at least",
                    self.class_names.len()
                ));
            }
        } else if outputs != self.objective.out_channels(inputs) {
            return refuse(format!(
                "the network has {outputs} output channels, but this objective needs {}",
                self.objective.out_channels(inputs)
            ));
        }
        crate::diffusion::ContinuousSchedule::new(self.log_snr_min, self.log_snr_max)?;
        Ok(())
    }

    /// Decides what [`Precision::Auto`] stands for: what the training in `dir` was begun with, or the device's choice.
    ///
    /// # Errors
    /// [`Error::Config`] for f16 on a device without it.
    pub fn settle_precision(mut self, device: &Capabilities, dir: &Path) -> Result<Self> {
        if self.precision == Precision::Auto {
            #[derive(Deserialize)]
            struct Begun {
                precision: Precision,
            }
            let begun = std::fs::read(dir.join("train.json")).ok();
            let begun = begun.and_then(|text| serde_json::from_slice::<Begun>(&text).ok());
            self.precision = match begun {
                // What an older version, which knew f32 alone, left open.
                Some(Begun { precision: Precision::Auto }) => Precision::F32,
                Some(Begun { precision }) => precision,
                None => self.precision,
            };
        }
        self.precision = self.precision.checked_on(device)?;
        Ok(self)
    }

    /// The storage type of activations. [`Precision::Auto`], not settled, counts as f32.
    pub fn dtype(&self) -> DType {
        self.precision.dtype()
    }

    /// Refuses small pictures that averages of 2x2 pixels do not lead to.
    fn check_upsampling(&self) -> Result<()> {
        let (extent, channels) = (self.unet.sample_size, self.unet.low_res_channels);
        let what = match self.upsample_from {
            None if channels == 0 => return Ok(()),
            None => format!("the network takes small pictures of {channels} channels; give --upsample-from"),
            Some(small)
                if extent.over(small).is_none_or(|factor| factor == 1 || !factor.is_power_of_two()) =>
            {
                format!(
                    "--upsample-from {small}: pictures of {extent} halve to {extent}/2, {extent}/4, …, not to {small}"
                )
            }
            Some(_) if channels != self.unet.in_channels => {
                format!(
                    "an upsampler of {} channels takes as many of the small picture, not {channels}",
                    self.unet.in_channels
                )
            }
            Some(_) => return Ok(()),
        };
        Err(Error::Config(what))
    }

    /// Refuses attributes that are not what the network is told, or that a training would make untrue.
    fn check_attributes(&self) -> Result<()> {
        self.dropout().check()?;
        let (said, width) = (vector_width(&self.attributes), self.unet.vector_width);
        let refuse = |what: String| Err(Error::Config(what));
        if !self.attributes.is_empty() && said != width {
            return refuse(format!(
                "the attributes are {said} numbers, and the network's vector has {width}"
            ));
        }
        if width > 0 && self.objective.is_classifier() {
            return refuse("a classifier takes no attributes".into());
        }
        if self.flip && self.attributes.iter().any(|attribute| attribute.name == "slant") {
            return refuse(
                "flip: the slant of a mirrored picture is another; leave the flips or the slant out".into(),
            );
        }
        Ok(())
    }

    /// What images lose of their condition; parts by themselves where there are several.
    pub fn dropout(&self) -> ConditionDropout {
        let parts = self.unet.num_classes.is_some() && self.unet.vector_width > 0;
        let of = |several: bool| if several { self.part_dropout } else { 0.0 };
        ConditionDropout {
            together: self.unconditional_probability,
            class: of(parts),
            vector: of(parts),
            attribute: of(self.attributes.len() > 1),
        }
    }

    /// How images are cropped.
    pub fn crop(&self) -> Crop {
        match (self.stretch, self.random_crop) {
            (true, _) => Crop::Stretch,
            (false, true) => Crop::Random,
            (false, false) => Crop::Center,
        }
    }

    /// The batch of the step after `images` images: that of today, or what it was before it was changed.
    pub(super) fn batch_at(&self, images: u64) -> u64 {
        let mut later =
            self.changes.iter().filter(|change| change.option == "batch" && change.images > images);
        later.next().and_then(|change| change.from.as_u64()).unwrap_or(self.batch as u64)
    }

    /// The learning rate of the step after `images` images.
    pub fn learning_rate_at(&self, images: u64) -> f64 {
        let end = (images + self.batch as u64) as f64;
        self.learning_rate * (end / self.warmup_images.max(1) as f64).min(1.0)
    }
}

#[cfg(test)]
mod tests;
