//! What determines a training: change any of it and the run is another one.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::data::{Crop, Dataset};
use crate::error::{Error, Result, brief};
use crate::gpu::Capabilities;
use crate::model::{SamplingDefaults, TrainedRows};
use crate::nn::UNetConfig;
use crate::nn::unet::{NullClass, QkvLayout, Resample, TimeScaleShift};
use crate::ops::EmaWarmup;
use crate::sizes::{MOST_BATCH, MOST_IMAGES, product};
use crate::tensor::{DType, Precision};

use super::distill::Distillation;
use super::objective::Objective;
use super::settle::Change;

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
    /// Rates of the exponential moving averages, the first being the model's.
    pub ema_rates: Vec<f64>,
    /// How the averages warm up. A folder of a version that says nothing of it goes on as one that does.
    #[serde(default)]
    pub ema_warmup: EmaWarmup,
    /// λ at the noisy end.
    pub log_snr_min: f64,
    /// λ at the clean end.
    pub log_snr_max: f64,
    /// Side of the small pictures that an upsampler is given; none for any other network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upsample_from: Option<usize>,
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

/// A named set of defaults, and what came out of it.
pub struct Preset {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Base width, multipliers, blocks a level, attention sizes, norm groups, dropout.
    pub unet: (usize, &'static [f64], usize, &'static [usize], usize, f32),
    /// Channels a head.
    pub head_dim: usize,
    /// Batch and microbatch, on sets of some thousands of pictures or more.
    pub batch: (usize, usize),
    /// Learning rate, warm-up in images; six passes over a smaller set.
    pub learning_rate: (f64, u64),
    /// Images in all.
    pub images: u64,
    /// Averages.
    pub ema_rates: &'static [f64],
    /// Steps and variance exponent of sampling.
    pub sampling: (usize, f64),
}

/// The presets. `digits` is what `quickstart` runs; `custom` is where every other data set starts.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "digits",
        about: "8x8 grey digits in minutes on two CPU cores",
        unet: (32, &[1.0, 1.0], 1, &[4], 8, 0.0),
        head_dim: 32,
        batch: (32, 32),
        learning_rate: (2e-3, 640),
        images: 24_000,
        ema_rates: &[0.99],
        sampling: (64, 0.3),
    },
    Preset {
        name: "custom",
        about: "32x32 to 64x64 pictures on one GPU",
        unet: (64, &[1.0, 2.0, 3.0, 4.0], 2, &[16, 8], 32, 0.1),
        head_dim: 64,
        batch: (64, 64),
        learning_rate: (2e-4, 10_000),
        images: 2_000_000,
        ema_rates: &[0.999, 0.9999],
        sampling: (256, 0.3),
    },
    Preset {
        name: "cifar10",
        about: "IDDPM's CIFAR-10 network: 128 channels, mult 1,2,2,2, three blocks",
        unet: (128, &[1.0, 2.0, 2.0, 2.0], 3, &[16, 8], 32, 0.3),
        head_dim: 64,
        batch: (128, 128),
        learning_rate: (1e-4, 10_000),
        images: 64_000_000,
        ema_rates: &[0.9999],
        sampling: (256, 0.3),
    },
    Preset {
        name: "imagenet64",
        about: "ADM's 64x64 network: 192 channels, mult 1,2,3,4, three blocks, 296M parameters",
        unet: (192, &[1.0, 2.0, 3.0, 4.0], 3, &[32, 16, 8], 32, 0.1),
        head_dim: 64,
        batch: (2048, 32),
        learning_rate: (3e-4, 100_000),
        images: 1_105_920_000,
        ema_rates: &[0.9999],
        sampling: (256, 0.3),
    },
];

/// Steps that a pass over a small set has at least: the batch shrinks for it, down to [`SMALLEST_BATCH`].
const STEPS_A_PASS: usize = 16;
/// The batch that no set is too small for.
const SMALLEST_BATCH: usize = 8;
/// Passes over a small set within which the learning rate has risen.
const WARMUP_PASSES: u64 = 6;

impl Preset {
    /// Batch and microbatch on `images` pictures: the preset's, or as large a power of two as leaves a pass over a small set
    /// some steps. By the pictures and not by how long the training is, so that it may go on for longer.
    fn batch_on(&self, images: usize) -> (usize, usize) {
        let largest = (images / STEPS_A_PASS).max(SMALLEST_BATCH);
        let batch = self.batch.0.min(1 << largest.ilog2());
        (batch, self.batch.1.min(batch))
    }

    /// The preset of a name.
    ///
    /// # Errors
    /// [`Error::Config`] listing the names.
    pub fn named(name: &str) -> Result<&'static Preset> {
        PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
            let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
            Error::Config(format!(
                "there is no preset {name:?}; there are {}",
                names.join(", "),
                name = brief(name)
            ))
        })
    }

    /// The preset of a name, or the one that suits a data set.
    ///
    /// # Errors
    /// As [`Preset::named`].
    pub fn or_usual(name: Option<&str>, dataset: &Dataset) -> Result<&'static Preset> {
        let usual = if dataset.name == "digits" { "digits" } else { "custom" };
        Preset::named(name.unwrap_or(usual))
    }

    /// The options of a training of this preset on a data set.
    pub fn options(&self, dataset: &Dataset, seed: u64) -> TrainOptions {
        let (model_channels, mult, layers_per_block, attention, norm_num_groups, dropout) = self.unet;
        let size = dataset.image_size();
        let sizes: Vec<usize> = (0..mult.len()).map(|level| size >> level).collect();
        let (batch, microbatch) = self.batch_on(dataset.len());
        TrainOptions {
            data: dataset.name.clone(),
            data_fingerprint: dataset.fingerprint(),
            earlier_data_fingerprint: dataset.earlier_fingerprint().map(str::to_owned),
            class_names: dataset.class_names.clone(),
            unet: UNetConfig {
                sample_size: size,
                in_channels: dataset.channels,
                out_channels: dataset.channels,
                model_channels,
                channel_mult: mult.to_vec(),
                layers_per_block,
                // The preset names sizes of its own pictures; others attend where they have such a size.
                attention_resolutions: attention.iter().copied().filter(|s| sizes.contains(s)).collect(),
                attention_head_dim: Some(self.head_dim),
                num_attention_heads: None,
                qkv_order: QkvLayout::New,
                norm_num_groups,
                dropout,
                resample: Resample::Resnet,
                resnet_time_scale_shift: TimeScaleShift::ScaleShift,
                residual_scaling: false,
                num_classes: Some(dataset.num_classes()),
                null_class: NullClass::Learned,
                low_res_channels: 0,
                condition_from: None,
                guidance_range: None,
            },
            random_crop: false,
            flip: false,
            batch,
            microbatch,
            learning_rate: self.learning_rate.0,
            warmup_images: self.learning_rate.1.min(WARMUP_PASSES * dataset.len() as u64),
            weight_decay: 0.0,
            grad_clip: 1.0,
            images: self.images,
            unconditional_probability: 0.1,
            ema_rates: self.ema_rates.to_vec(),
            ema_warmup: EmaWarmup::default(),
            log_snr_min: -20.0,
            log_snr_max: 20.0,
            upsample_from: None,
            objective: Objective::default(),
            init_from: None,
            init_rows: None,
            distillation: None,
            precision: Precision::Auto,
            seed,
            sample_every: 0,
            save_every: (self.images / 4).clamp(1, 100_000),
            sampling: SamplingDefaults {
                steps: self.sampling.0,
                variance_exponent: self.sampling.1,
                clip: "static".into(),
                sampler: None,
                spacing: None,
            },
            changes: Vec::new(),
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
        let side = self.unet.sample_size;
        product("the pixels of a batch", &[self.batch, side, side, self.unet.in_channels, 4])?;
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
        let (size, channels) = (self.unet.sample_size, self.unet.low_res_channels);
        let what = match self.upsample_from {
            None if channels == 0 => return Ok(()),
            None => format!("the network takes small pictures of {channels} channels; give --upsample-from"),
            Some(small)
                if small == 0
                    || small >= size
                    || !(size / small).is_power_of_two()
                    || !size.is_multiple_of(small) =>
            {
                format!(
                    "--upsample-from {small}: pictures of {size} halve to {size}/2, {size}/4, …, not to {small}"
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

    /// How images are cropped.
    pub fn crop(&self) -> Crop {
        if self.random_crop { Crop::Random } else { Crop::Center }
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
