//! Flags: what tensors do not say, in guided-diffusion's own names, from the table of published files or `--config`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result, brief};
use crate::nn::UNetConfig;
use crate::nn::unet::{NullClass, QkvLayout, Resample, TimeScaleShift};
use crate::shape::Extent;

use super::architecture::{Architecture, Kind};
use super::config::{CLASSIFIER, ModelConfig, STEPS, SamplingDefaults, SchedulerConfig, UNET};
use super::imagenet;
use super::published::{Heads, Published};

/// The flags a model was trained with, as its scripts name them. All may be left out of a file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Flags {
    /// Height and width of the pictures.
    #[serde(alias = "large_size", alias = "sample_size")]
    pub image_size: Option<usize>,
    /// A fixed number of heads.
    pub num_heads: Option<usize>,
    /// Channels of a head; beats `num_heads`, as in the scripts.
    pub num_head_channels: Option<i64>,
    /// The new order of qkv channels.
    pub use_new_attention_order: Option<bool>,
    /// `linear` or `cosine`.
    pub noise_schedule: Option<String>,
    /// Steps T.
    pub diffusion_steps: Option<usize>,
    /// The network predicts x instead of the noise.
    pub predict_xstart: Option<bool>,
    /// What is predicted, in other words: `epsilon`, `sample` or `v_prediction`.
    pub prediction_type: Option<String>,
    /// Of latent diffusion's networks: β are rescaled so that the first level is noise alone.
    pub rescale_betas_zero_snr: Option<bool>,
    /// β̃ instead of β, where variances are not learned.
    pub sigma_small: Option<bool>,
    /// The network is told t·1000/T.
    pub rescale_timesteps: Option<bool>,
    /// Dropout, for training on.
    pub dropout: Option<f32>,
    /// Residual blocks a level of a classifier whose tensors leave it open.
    pub classifier_depth: Option<usize>,
    /// Names of the classes, or `"imagenet"`.
    pub class_names: Option<ClassNames>,
    /// Checked against the tensors where it is given: the base width.
    #[serde(alias = "classifier_width")]
    pub num_channels: Option<usize>,
    /// Checked: residual blocks a level.
    pub num_res_blocks: Option<usize>,
    /// Checked: whether the network has classes.
    pub class_cond: Option<bool>,
    /// Checked: whether variances are learned.
    pub learn_sigma: Option<bool>,
    /// Checked: whether residual blocks change resolution.
    pub resblock_updown: Option<bool>,
    /// Checked: whether the embedding scales and shifts.
    pub use_scale_shift_norm: Option<bool>,
    /// The width of a small picture; any that divides the large one is taken.
    pub small_size: Option<usize>,
    /// Read off the tensors.
    pub attention_resolutions: Option<String>,
    /// How a script computes; says nothing of the model.
    pub use_fp16: Option<bool>,
    /// Only for training.
    pub use_kl: Option<bool>,
    /// Only for training.
    pub rescale_learned_sigmas: Option<bool>,
    /// What is none of these; [`Flags::read`] refuses it.
    #[serde(flatten)]
    unknown: BTreeMap<String, serde_json::Value>,
}

/// Class names in a flags file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum ClassNames {
    /// A list known by name.
    Known(String),
    /// Their names in the order of their labels.
    List(Vec<String>),
}

impl Flags {
    /// Those of a published file.
    pub fn of(published: &Published) -> Flags {
        let (num_heads, num_head_channels) = match published.heads {
            Heads::Count(count) => (Some(count), None),
            Heads::Channels(channels) => (None, Some(channels as i64)),
        };
        Flags {
            image_size: Some(published.image_size),
            num_heads,
            num_head_channels,
            use_new_attention_order: Some(published.new_order),
            noise_schedule: Some(published.schedule.into()),
            diffusion_steps: Some(published.steps),
            rescale_timesteps: Some(published.rescale),
            class_names: (published.data == "ImageNet").then(|| ClassNames::Known("imagenet".into())),
            ..Flags::default()
        }
    }

    /// Reads a JSON file of flags.
    ///
    /// # Errors
    /// When it is no JSON, or names flags that are not known here: all of them.
    pub fn read(path: &Path) -> Result<Flags> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let flags: Flags = serde_json::from_str(&text)
            .map_err(|error| Error::format(path, format!("is no file of flags: {error}")))?;
        if !flags.unknown.is_empty() {
            let names: Vec<&str> = flags.unknown.keys().map(String::as_str).collect();
            let what = format!("has flags that are not known here: {}; leave them out", names.join(", "));
            return Err(Error::format(path, what));
        }
        Ok(flags)
    }

    /// These where they are given, `below` where not. Heads go together.
    #[must_use]
    pub fn over(self, below: Flags) -> Flags {
        let heads = self.num_heads.is_some() || self.num_head_channels.is_some();
        macro_rules! either {
            ($($field:ident),* $(,)?) => { Flags {
                num_heads: if heads { self.num_heads } else { below.num_heads },
                num_head_channels: if heads { self.num_head_channels } else { below.num_head_channels },
                $($field: self.$field.or(below.$field),)*
                unknown: BTreeMap::new(),
            } };
        }
        either!(
            image_size,
            use_new_attention_order,
            noise_schedule,
            diffusion_steps,
            predict_xstart,
            prediction_type,
            rescale_betas_zero_snr,
            sigma_small,
            rescale_timesteps,
            dropout,
            classifier_depth,
            class_names,
            num_channels,
            num_res_blocks,
            class_cond,
            learn_sigma,
            resblock_updown,
            use_scale_shift_norm,
            small_size,
            attention_resolutions,
            use_fp16,
            use_kl,
            rescale_learned_sigmas,
        )
    }
}

/// The configuration that tensors and flags make together.
///
/// # Errors
/// The flags that are missing, or that contradict the tensors.
pub fn configure(
    found: &Architecture,
    flags: &Flags,
    published: Option<&Published>,
) -> Result<ModelConfig, String> {
    contradictions(found, flags)?;
    let levels = found.channel_mult.len();
    let side = found.pool_side.map(|side| side << (levels - 1));
    let head_channels =
        flags.num_head_channels.filter(|channels| *channels > 0).map(|channels| channels as usize);
    let mut missing = Vec::new();
    if flags.image_size.or(side).is_none() {
        missing.push("\"image_size\"");
    }
    if flags.num_heads.is_none() && head_channels.is_none() {
        missing.push("\"num_heads\" or \"num_head_channels\"");
    }
    if flags.noise_schedule.is_none() {
        missing.push("\"noise_schedule\"");
    }
    if !missing.is_empty() {
        return Err(format!(
            "it is no published file, and its tensors do not say {}; give a JSON file of the flags it was trained with \
             (--config), as in {{\"image_size\": 64, \"num_head_channels\": 64, \"noise_schedule\": \"cosine\", \
             \"use_new_attention_order\": true}}",
            missing.join(", ")
        ));
    }
    let sample_size = flags.image_size.or(side).unwrap_or_default();
    if side.is_some_and(|side| side != sample_size) || levels > 16 || sample_size >> (levels - 1) == 0 {
        return Err(format!(
            "pictures of {sample_size}x{sample_size} do not fit {levels} levels, or the size that is pooled"
        ));
    }

    let learned = found.kind == Kind::UNet && found.out_channels == 2 * found.in_channels;
    if found.kind == Kind::UNet && !learned && found.out_channels != found.in_channels {
        let (inputs, outputs) = (found.in_channels, found.out_channels);
        return Err(format!("its output has {outputs} channels, neither {inputs} nor twice as many"));
    }
    let schedule = flags.noise_schedule.clone().unwrap_or_default();
    if !matches!(schedule.as_str(), "linear" | "cosine") {
        return Err(format!(
            "the schedule {schedule:?} is not known; there are \"linear\" and \"cosine\"",
            schedule = brief(&schedule)
        ));
    }
    let classes = match found.kind {
        Kind::UNet => found.num_classes.unwrap_or(0),
        Kind::Classifier => found.out_channels,
    };
    Ok(ModelConfig {
        class_name: if found.kind == Kind::UNet { UNET } else { CLASSIFIER }.into(),
        unet: UNetConfig {
            sample_size: Extent::square(sample_size),
            in_channels: found.in_channels,
            out_channels: found.out_channels,
            model_channels: found.model_channels,
            channel_mult: found.channel_mult.clone(),
            layers_per_block: found.layers_per_block,
            attention_resolutions: found.attention_levels.iter().map(|level| sample_size >> level).collect(),
            attention_head_dim: head_channels,
            num_attention_heads: flags.num_heads.filter(|_| head_channels.is_none()),
            qkv_order: match flags.use_new_attention_order {
                Some(true) => QkvLayout::New,
                _ => QkvLayout::Legacy,
            },
            norm_num_groups: 32,
            dropout: flags.dropout.unwrap_or(0.0),
            resample: found.resample,
            resnet_time_scale_shift: found.time_scale_shift,
            residual_scaling: false,
            num_classes: found.num_classes,
            null_class: NullClass::Absent,
            vector_width: 0,
            low_res_channels: found.low_res_channels,
            beside_channels: 0,
            transformer: None,
            condition_from: None,
            guidance_range: None,
        },
        scheduler: SchedulerConfig {
            beta_schedule: schedule,
            prediction_type: flags.prediction_type.clone().unwrap_or_else(|| {
                if flags.predict_xstart == Some(true) { "sample" } else { "epsilon" }.into()
            }),
            num_train_timesteps: Some(flags.diffusion_steps.unwrap_or(1000)),
            variance_type: Some(
                match (learned, flags.sigma_small) {
                    (true, _) => "learned_range",
                    (false, Some(true)) => "fixed_small",
                    (false, _) => "fixed_large",
                }
                .into(),
            ),
            rescale_timesteps: flags.rescale_timesteps.unwrap_or(false),
            rescale_betas_zero_snr: flags.rescale_betas_zero_snr.unwrap_or(false),
            ..SchedulerConfig::continuous(0.0, 0.0)
        },
        sampling: SamplingDefaults {
            // A short process has fewer.
            steps: published.map_or(STEPS.min(flags.diffusion_steps.unwrap_or(1000)).max(1), |published| {
                published.sampling_steps
            }),
            variance_exponent: 0.0,
            clip: "static".into(),
            sampler: None,
            spacing: None,
        },
        class_names: class_names(flags.class_names.as_ref(), classes)?,
        data: published.map_or("unknown pictures", |published| published.data).into(),
        unconditional_probability: 0.0,
        part_dropout: 0.0,
        attributes: Vec::new(),
        images_seen: 0,
        ema_rate: None,
        ema_warmup: None,
        ema_initial_share: None,
        trained_rows: None,
        init_from: None,
    })
}

/// The names of `classes` classes; their numbers where there are no names.
fn class_names(names: Option<&ClassNames>, classes: usize) -> Result<Vec<String>, String> {
    let list = match names {
        _ if classes == 0 => return Ok(Vec::new()),
        None => return Ok((0..classes).map(|label| label.to_string()).collect()),
        Some(ClassNames::List(list)) => list.clone(),
        Some(ClassNames::Known(name)) if name == "imagenet" => imagenet::class_names(),
        Some(ClassNames::Known(other)) => {
            return Err(format!(
                "the list of class names {other:?} is not known; there is \"imagenet\"",
                other = brief(&other)
            ));
        }
    };
    if list.len() != classes {
        return Err(format!("{} class names were given for {classes} classes", list.len()));
    }
    Ok(list)
}

/// Flags that are given and say otherwise than the tensors.
fn contradictions(found: &Architecture, flags: &Flags) -> Result<(), String> {
    let differs = |name: &str, given: Option<String>, read: String| match given {
        Some(given) if given != read => {
            Err(format!("the flag {name} is {given}, but its tensors say {read}", given = brief(&given)))
        }
        _ => Ok(()),
    };
    let text = |value: Option<usize>| value.map(|value| value.to_string());
    let truth = |value: Option<bool>| value.map(|value| value.to_string());
    let updown = found.resample == Resample::Resnet;
    let scale_shift = found.time_scale_shift == TimeScaleShift::ScaleShift;
    let learned = found.out_channels == 2 * found.in_channels;
    differs("num_channels", text(flags.num_channels), found.model_channels.to_string())?;
    differs("num_res_blocks", text(flags.num_res_blocks), found.layers_per_block.to_string())?;
    differs("use_scale_shift_norm", truth(flags.use_scale_shift_norm), scale_shift.to_string())?;
    if found.kind == Kind::UNet {
        differs("class_cond", truth(flags.class_cond), found.num_classes.is_some().to_string())?;
        differs("learn_sigma", truth(flags.learn_sigma), learned.to_string())?;
    }
    if found.channel_mult.len() > 1 {
        differs("resblock_updown", truth(flags.resblock_updown), updown.to_string())?;
    }
    Ok(())
}
