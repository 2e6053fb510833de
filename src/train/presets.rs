//! Presets: named sets of defaults.

use crate::data::{Dataset, vector_width};
use crate::error::{Error, Result, brief};
use crate::model::SamplingDefaults;
use crate::nn::UNetConfig;
use crate::nn::unet::{NullClass, QkvLayout, Resample, TimeScaleShift};
use crate::ops::EmaWarmup;
use crate::tensor::Precision;

use super::objective::Objective;
use super::options::TrainOptions;

/// A named set of defaults, and what came out of it.
pub struct Preset {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Channels of the first level.
    pub width: usize,
    /// Multiples of it, a level each.
    pub multipliers: &'static [f64],
    /// Residual blocks a level.
    pub blocks: usize,
    /// Sizes at which there is attention.
    pub attention: &'static [usize],
    /// Groups of a norm.
    pub groups: usize,
    /// The rate of dropout.
    pub dropout: f32,
    /// Channels a head.
    pub head_dim: usize,
    /// Images a step, on sets of some thousands of pictures or more.
    pub batch: usize,
    /// Images at a time.
    pub microbatch: usize,
    /// The learning rate.
    pub learning_rate: f64,
    /// Images over which it rises; at most six passes over a set.
    pub warmup_images: u64,
    /// Images in all.
    pub images: u64,
    /// Averages.
    pub ema_rates: &'static [f64],
    /// Steps of sampling.
    pub sampling_steps: usize,
    /// The exponent v of sampling's variance.
    pub variance_exponent: f64,
}

/// The presets. `digits` is what `quickstart` runs; `custom` is where every other data set starts.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "digits",
        about: "8x8 grey digits in minutes on two CPU cores",
        width: 32,
        multipliers: &[1.0, 1.0],
        blocks: 1,
        attention: &[4],
        groups: 8,
        dropout: 0.0,
        head_dim: 32,
        batch: 32,
        microbatch: 32,
        learning_rate: 2e-3,
        warmup_images: 640,
        images: 24_000,
        ema_rates: &[0.99],
        sampling_steps: 64,
        variance_exponent: 0.3,
    },
    Preset {
        name: "custom",
        about: "32x32 to 64x64 pictures on one GPU",
        width: 64,
        multipliers: &[1.0, 2.0, 3.0, 4.0],
        blocks: 2,
        attention: &[16, 8],
        groups: 32,
        dropout: 0.1,
        head_dim: 64,
        batch: 64,
        microbatch: 64,
        learning_rate: 2e-4,
        warmup_images: 10_000,
        images: 2_000_000,
        ema_rates: &[0.999, 0.9999],
        sampling_steps: 256,
        variance_exponent: 0.3,
    },
    Preset {
        name: "cifar10",
        about: "IDDPM's CIFAR-10 network: 128 channels, mult 1,2,2,2, three blocks",
        width: 128,
        multipliers: &[1.0, 2.0, 2.0, 2.0],
        blocks: 3,
        attention: &[16, 8],
        groups: 32,
        dropout: 0.3,
        head_dim: 64,
        batch: 128,
        microbatch: 128,
        learning_rate: 1e-4,
        warmup_images: 10_000,
        images: 64_000_000,
        ema_rates: &[0.9999],
        sampling_steps: 256,
        variance_exponent: 0.3,
    },
    Preset {
        name: "imagenet64",
        about: "ADM's 64x64 network: 192 channels, mult 1,2,3,4, three blocks, 296M parameters",
        width: 192,
        multipliers: &[1.0, 2.0, 3.0, 4.0],
        blocks: 3,
        attention: &[32, 16, 8],
        groups: 32,
        dropout: 0.1,
        head_dim: 64,
        batch: 2048,
        microbatch: 32,
        learning_rate: 3e-4,
        warmup_images: 100_000,
        images: 1_105_920_000,
        ema_rates: &[0.9999],
        sampling_steps: 256,
        variance_exponent: 0.3,
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
    pub(super) fn batch_on(&self, images: usize) -> (usize, usize) {
        let largest = (images / STEPS_A_PASS).max(SMALLEST_BATCH);
        let batch = self.batch.min(1 << largest.ilog2());
        (batch, self.microbatch.min(batch))
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
        let size = dataset.image_size();
        let sizes: Vec<usize> = (0..self.multipliers.len()).map(|level| size.longer() >> level).collect();
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
                model_channels: self.width,
                channel_mult: self.multipliers.to_vec(),
                layers_per_block: self.blocks,
                // The preset names sizes of its own pictures; others attend where they have such a size.
                attention_resolutions: self.attention.iter().copied().filter(|s| sizes.contains(s)).collect(),
                attention_head_dim: Some(self.head_dim),
                num_attention_heads: None,
                qkv_order: QkvLayout::New,
                norm_num_groups: self.groups,
                dropout: self.dropout,
                resample: Resample::Resnet,
                resnet_time_scale_shift: TimeScaleShift::ScaleShift,
                residual_scaling: false,
                num_classes: Some(dataset.num_classes()),
                null_class: NullClass::Learned,
                vector_width: vector_width(dataset.attributes()),
                low_res_channels: 0,
                beside_channels: 0,
                transformer: None,
                condition_from: None,
                guidance_range: None,
            },
            random_crop: false,
            stretch: false,
            flip: false,
            batch,
            microbatch,
            learning_rate: self.learning_rate,
            warmup_images: self.warmup_images.min(WARMUP_PASSES * dataset.len() as u64),
            weight_decay: 0.0,
            grad_clip: 1.0,
            images: self.images,
            unconditional_probability: 0.1,
            part_dropout: 0.0,
            attributes: dataset.attributes().to_vec(),
            attribute_values: dataset.vectors_fingerprint(),
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
                steps: self.sampling_steps,
                variance_exponent: self.variance_exponent,
                clip: "static".into(),
                sampler: None,
                spacing: None,
            },
            changes: Vec::new(),
        }
    }
}
