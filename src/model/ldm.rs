//! Latent diffusion's files (CompVis and Stability AI: Stable Diffusion 1, 2 and XL): a UNet under guided-diffusion's names with
//! transformers where it attends, beside a codec and text encoders.
//!
//! What tensors do not say is known by family: heads, the size of latents, what is predicted. Files carry no configuration;
//! the marker keys and the rule for Stable Diffusion 2 are those that other programs go by.

use std::collections::BTreeMap;

use crate::error::{Error, Result, brief};
use crate::io::TensorSource;
use crate::nn::unet::{NullClass, QkvLayout};
use crate::nn::{UNet, UNetConfig};
use crate::shape::Extent;

use super::architecture::Architecture;
use super::config::{ModelConfig, SamplingDefaults, SchedulerConfig, UNET};
use super::flags::Flags;
use super::published::Heads;
use super::renamed::{Place, Renamed};

/// What stands before the network's names.
const RAW: &str = "model.diffusion_model.";
/// What stands before those of its average, whose dots are left out from there on.
const AVERAGE: &str = "model_ema.diffusion_model";
/// The average here, dots in their places.
const NAMED_AVERAGE: &str = "model_ema/";

/// A family of files, known by the width of its tokens and of its vector.
struct Family {
    name: &'static str,
    context: usize,
    vector: usize,
    heads: Heads,
    /// Height and width of its latents.
    size: usize,
}

const FAMILIES: &[Family] = &[
    Family { name: "Stable Diffusion 1", context: 768, vector: 0, heads: Heads::Count(8), size: 64 },
    Family { name: STABLE_DIFFUSION_2, context: 1024, vector: 0, heads: Heads::Channels(64), size: 64 },
    Family {
        name: "Stable Diffusion XL",
        context: 2048,
        vector: 2816,
        heads: Heads::Channels(64),
        size: 128,
    },
    Family {
        name: "the refiner of Stable Diffusion XL",
        context: 1280,
        vector: 2560,
        heads: Heads::Channels(64),
        size: 128,
    },
];

const STABLE_DIFFUSION_2: &str = "Stable Diffusion 2";
/// Latents of Stable Diffusion 2 where v is predicted: 768 pixels.
const SIZE_OF_V: usize = 96;

/// The β of all of them: `scaled_linear` between these, over a thousand steps.
const BETAS: (f64, f64) = (0.00085, 0.012);

/// Of Stable Diffusion 2 those that predict v have a wider spread than this in [`TELLTALE`].
const SPREAD_OF_V: f64 = 0.09;
const TELLTALE: &str = "output_blocks.11.1.transformer_blocks.0.norm1.bias";

/// Where a file keeps the parameter `name` of a network under `prefix`; none where it is called the same.
pub(super) fn place(prefix: &str, name: &str) -> Option<Place> {
    let (module, leaf) = name.rsplit_once('.')?;
    for (joint, parts) in [("qkv", &["q", "k", "v"][..]), ("kv", &["k", "v"])] {
        if let Some(module) = module.strip_suffix(&format!(".to_{joint}")) {
            let parts = parts.iter().map(|part| format!("{prefix}{module}.to_{part}.{leaf}"));
            return Some(Place::Joined(parts.collect()));
        }
    }
    let of_vector = module.strip_prefix("vector_embed.")?;
    Some(Place::One(format!("{prefix}label_emb.0.{of_vector}.{leaf}")))
}

/// The tensors of the network `config` under `prefix` as this program names them; a file that has them so is left as it is.
pub(super) fn joined(
    source: Box<dyn TensorSource>,
    config: &UNetConfig,
    prefix: &str,
) -> Result<Box<dyn TensorSource>> {
    let apart = format!("{prefix}middle_block.1.transformer_blocks.0.attn1.to_q.weight");
    if config.transformer.is_none() || source.names().binary_search(&apart).is_err() {
        return Ok(source);
    }
    let network = UNet::new(config)?;
    Ok(Box::new(Renamed::new(source, network.parameters(), prefix, |name| place(prefix, name))?))
}

/// The tensors of a file, its average's with dots in their names: `model_ema.diffusion_modelout0bias` is
/// `model_ema/out.0.bias`. Where not every tensor of the network has such a twin, all stay as they are.
pub(super) fn with_dots(source: Box<dyn TensorSource>) -> Result<Box<dyn TensorSource>> {
    let names = source.names();
    let Some(root) = names.iter().find_map(|name| Some(&name[..name.find(AVERAGE)?])) else {
        return Ok(source);
    };
    let raw = format!("{root}{RAW}");
    let twins: BTreeMap<String, String> = names
        .iter()
        .filter_map(|name| name.strip_prefix(&raw))
        .map(|name| {
            let twin = format!("{root}{AVERAGE}{}", name.replace('.', ""));
            (format!("{root}{NAMED_AVERAGE}{name}"), twin)
        })
        .collect();
    if twins.is_empty() || twins.values().any(|twin| names.binary_search(twin).is_err()) {
        return Ok(source);
    }
    Ok(Box::new(Renamed::singly(source, twins)?))
}

/// What the network under `prefix` is, as its tensors, its family and `flags` say together, and notes of what was taken for
/// granted.
///
/// # Errors
/// What is not known of the family, or predicts what is not read, in words.
pub(super) fn configure(
    source: &dyn TensorSource,
    prefix: &str,
    found: &Architecture,
    flags: &Flags,
) -> Result<(ModelConfig, Vec<String>)> {
    let bad = |what: String| Error::format(source.path(), what);
    let context = found.transformer.as_ref().map_or(0, |of| of.context_width);
    let family =
        FAMILIES.iter().find(|family| (family.context, family.vector) == (context, found.vector_width));
    let (heads, size) = match (family, flags.num_heads, flags.num_head_channels) {
        (_, _, Some(channels @ 1..)) => (Heads::Channels(channels as usize), family.map(|of| of.size)),
        (_, Some(heads), _) => (Heads::Count(heads), family.map(|of| of.size)),
        (Some(family), None, _) => (family.heads, Some(family.size)),
        (None, None, _) => {
            return Err(bad(format!(
                "it reads tokens of {context} numbers and a vector of {}, which is no family that is known ({}); give a JSON \
                 file with its heads (config), as in {{\"num_heads\": 8}}",
                found.vector_width,
                FAMILIES
                    .iter()
                    .map(|of| format!("{}: {}", of.name, of.context))
                    .collect::<Vec<_>>()
                    .join(", ")
            )));
        }
    };
    let (prediction, why) = predicted(source, prefix, found, (family, flags))?;
    let is_2_of_v = family.is_some_and(|of| of.name == STABLE_DIFFUSION_2) && prediction == V;
    let size = flags.image_size.or(size.map(|size| if is_2_of_v { SIZE_OF_V } else { size }));
    let size = size.unwrap_or(64);
    let levels = found.channel_mult.len();
    if levels > 16 || size >> (levels - 1) == 0 {
        return Err(bad(format!("latents of {size}x{size} do not fit {levels} levels")));
    }
    let zero_snr = flags.rescale_betas_zero_snr.unwrap_or_else(|| marked(source, prefix, "ztsnr"));

    let kind = match found.beside_channels {
        0 => String::new(),
        5 => " for inpainting (a mask and masked latents beside its own)".into(),
        4 => " that is told another picture's latents".into(),
        channels => format!(" with {channels} channels beside its own"),
    };
    let name = family.map_or("latent diffusion of no known family", |of| of.name);
    let mut notes = vec![format!("the UNet of {name}{kind}"), why];
    if zero_snr {
        notes.push("its first level is noise alone (zero SNR), as the file or the flags say".into());
    }
    let config = ModelConfig {
        class_name: UNET.into(),
        unet: unet(found, heads, size, flags),
        scheduler: SchedulerConfig {
            prediction_type: prediction.into(),
            beta_schedule: "scaled_linear".into(),
            num_train_timesteps: Some(1000),
            beta_start: Some(BETAS.0),
            beta_end: Some(BETAS.1),
            rescale_betas_zero_snr: zero_snr,
            variance_type: Some("fixed_small".into()),
            ..SchedulerConfig::continuous(0.0, 0.0)
        },
        sampling: SamplingDefaults {
            steps: 20,
            variance_exponent: 0.0,
            clip: "none".into(),
            sampler: Some("dpmpp-2m".into()),
            // Other spacings leave out the one level that such a network has for noise alone.
            spacing: zero_snr.then(|| "trailing".into()),
        },
        class_names: (0..found.num_classes.unwrap_or(0)).map(|label| label.to_string()).collect(),
        data: "pictures and texts".into(),
        unconditional_probability: 0.0,
        part_dropout: 0.0,
        attributes: Vec::new(),
        images_seen: 0,
        ema_rate: None,
        ema_warmup: None,
        ema_initial_share: None,
        trained_rows: None,
        init_from: None,
    };
    Ok((config, notes))
}

fn unet(found: &Architecture, heads: Heads, size: usize, flags: &Flags) -> UNetConfig {
    UNetConfig {
        sample_size: Extent::square(size),
        in_channels: found.in_channels,
        out_channels: found.out_channels,
        model_channels: found.model_channels,
        channel_mult: found.channel_mult.clone(),
        layers_per_block: found.layers_per_block,
        attention_resolutions: found.attention_levels.iter().map(|level| size >> level).collect(),
        attention_head_dim: match heads {
            Heads::Channels(channels) => Some(channels),
            Heads::Count(_) => None,
        },
        num_attention_heads: match heads {
            Heads::Channels(_) => None,
            Heads::Count(count) => Some(count),
        },
        qkv_order: QkvLayout::New,
        norm_num_groups: 32,
        dropout: flags.dropout.unwrap_or(0.0),
        resample: found.resample,
        resnet_time_scale_shift: found.time_scale_shift,
        residual_scaling: false,
        num_classes: found.num_classes,
        null_class: NullClass::Absent,
        vector_width: found.vector_width,
        low_res_channels: 0,
        beside_channels: found.beside_channels,
        transformer: found.transformer.clone(),
        condition_from: None,
        guidance_range: None,
    }
}

const EPSILON: &str = "epsilon";
const V: &str = "v_prediction";

/// What the network predicts, and how that is known.
fn predicted(
    source: &dyn TensorSource,
    prefix: &str,
    found: &Architecture,
    (family, flags): (Option<&Family>, &Flags),
) -> Result<(&'static str, String)> {
    let bad = |what: String| Error::format(source.path(), what);
    match flags.prediction_type.as_deref() {
        Some("epsilon") => return Ok((EPSILON, "predicts the noise, as the flags say".into())),
        Some(V) => return Ok((V, "predicts v, as the flags say".into())),
        Some(other) => {
            let what =
                format!("the flag prediction_type is {:?}; there are epsilon and v_prediction", brief(other));
            return Err(bad(what));
        }
        None => {}
    }
    for marker in ["edm_vpred.sigma_max", "edm_mean"] {
        if marked(source, prefix, marker) {
            let what = format!(
                "has the marker `{marker}`: it was trained on EDM's levels of noise, which is not read of such files"
            );
            return Err(bad(what));
        }
    }
    if marked(source, prefix, "v_pred") {
        return Ok((V, "predicts v, as the marker `v_pred` in the file says".into()));
    }
    let telltale = format!("{prefix}{TELLTALE}");
    let is_2 = family.is_some_and(|of| of.name == STABLE_DIFFUSION_2);
    if is_2 && found.beside_channels == 0 && source.names().binary_search(&telltale).is_ok() {
        let (_, values) = source.values(&telltale)?;
        let spread = deviation(&values);
        let (prediction, what) = if spread > SPREAD_OF_V { (V, "v") } else { (EPSILON, "the noise") };
        let why = format!("predicts {what}, as the spread {spread:.3} of `{TELLTALE}` tells of this family");
        return Ok((prediction, why));
    }
    let why = "nothing in the file says what it predicts: the noise, it is assumed; \"prediction_type\": \"v_prediction\" in a file \
               of flags (config) says otherwise";
    Ok((EPSILON, why.into()))
}

fn deviation(values: &[f32]) -> f64 {
    let count = values.len().max(1) as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
    (values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / count).sqrt()
}

/// Whether a file has a tensor of this name beside its networks, which says something by being there.
fn marked(source: &dyn TensorSource, prefix: &str, marker: &str) -> bool {
    let root = [RAW, NAMED_AVERAGE].iter().find_map(|network| prefix.strip_suffix(network)).unwrap_or("");
    source.names().binary_search(&format!("{root}{marker}")).is_ok()
}

#[cfg(test)]
mod tests;
