//! `UNet2DConditionModel`'s configuration and ours: the networks of Stable Diffusion.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::brief;
use crate::nn::UNetConfig;
use crate::nn::unet::{NullClass, QkvLayout, Resample, TimeScaleShift, TransformerConfig};
use crate::shape::Extent;

/// What diffusers calls the class.
pub(super) const CLASS_NAME: &str = "UNet2DConditionModel";

/// Steps of sampling where nothing else is asked for: those of its pipelines.
pub(super) const STEPS: usize = 50;

/// A number for all levels, or one for each.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Each {
    All(usize),
    One(Vec<usize>),
}

impl Each {
    fn of(&self, levels: usize) -> Option<Vec<usize>> {
        match self {
            Each::All(number) => Some(vec![*number; levels]),
            Each::One(numbers) => Some(numbers.clone()).filter(|numbers| numbers.len() == levels),
        }
    }
}

/// `unet/config.json`. Fields that are left out have the values of the class.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(super) struct UNet2DCondition {
    sample_size: Option<Extent>,
    in_channels: usize,
    out_channels: usize,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    block_out_channels: Vec<usize>,
    layers_per_block: Each,
    dropout: f32,
    norm_num_groups: usize,
    cross_attention_dim: Each,
    transformer_layers_per_block: Each,
    /// The number of heads, whatever its name says.
    attention_head_dim: Each,
    num_attention_heads: Option<Each>,
    num_class_embeds: Option<usize>,
    addition_embed_type: Option<String>,
    projection_class_embeddings_input_dim: Option<usize>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl Default for UNet2DCondition {
    fn default() -> Self {
        let types = |plain: &str, attends: &str, last: bool| -> Vec<String> {
            let mut types = vec![attends.to_owned(); 4];
            types[if last { 3 } else { 0 }] = plain.to_owned();
            types
        };
        UNet2DCondition {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            down_block_types: types("DownBlock2D", ATTENDS[0], true),
            up_block_types: types("UpBlock2D", ATTENDS[1], false),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: Each::All(2),
            dropout: 0.0,
            norm_num_groups: 32,
            cross_attention_dim: Each::All(1280),
            transformer_layers_per_block: Each::All(1),
            attention_head_dim: Each::All(8),
            num_attention_heads: None,
            num_class_embeds: None,
            addition_embed_type: None,
            projection_class_embeddings_input_dim: None,
            others: BTreeMap::new(),
        }
    }
}

/// The blocks of a level, down and up.
const ATTENDS: [&str; 2] = ["CrossAttnDownBlock2D", "CrossAttnUpBlock2D"];
const PLAIN: [&str; 2] = ["DownBlock2D", "UpBlock2D"];

/// Settings that must have these values, which are those of the class: what they could say else is not read.
fn fixed() -> Vec<(&'static str, Value)> {
    let said = [
        ("center_input_sample", json!(false)),
        ("flip_sin_to_cos", json!(true)),
        ("freq_shift", json!(0)),
        ("mid_block_type", json!("UNetMidBlock2DCrossAttn")),
        ("downsample_padding", json!(1)),
        ("mid_block_scale_factor", json!(1)),
        ("act_fn", json!("silu")),
        ("norm_eps", json!(1e-5)),
        ("resnet_time_scale_shift", json!("default")),
        ("time_embedding_type", json!("positional")),
        ("conv_in_kernel", json!(3)),
        ("conv_out_kernel", json!(3)),
        ("attention_type", json!("default")),
        ("resnet_out_scale_factor", json!(1.0)),
        ("class_embeddings_concat", json!(false)),
        ("resnet_skip_time_act", json!(false)),
        ("only_cross_attention", json!(false)),
        ("dual_cross_attention", json!(false)),
        ("mid_block_only_cross_attention", json!(false)),
    ];
    said.into()
}

/// Settings that are not looked at. Whether projections are linear is said by the tensors; the softmax is in f32 in any case;
/// how the numbers of the vector are made is the affair of who makes them.
const NOT_LOOKED_AT: [&str; 4] = [
    "use_linear_projection",
    "upcast_attention",
    "addition_time_embed_dim",
    // Of another kind of addition than is read.
    "addition_embed_type_num_heads",
];

fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-12,
        _ => a == b,
    }
}

impl UNet2DCondition {
    /// Our configuration of the same network.
    ///
    /// # Errors
    /// What the class can do and this program cannot, by the name of its setting.
    pub fn ours(&self) -> Result<UNetConfig, String> {
        self.check_others()?;
        let size = self.sample_size.ok_or("`sample_size` is not given; write the latents' size there")?;
        let levels = self.block_out_channels.len();
        let differ = "are not of one length";
        if levels == 0
            || levels > 16
            || self.down_block_types.len() != levels
            || self.up_block_types.len() != levels
        {
            return Err(format!("`block_out_channels`, `down_block_types` and `up_block_types` {differ}"));
        }
        if size.is_line() {
            return Err(format!("`sample_size` is {size}, and {CLASS_NAME} is of pictures"));
        }
        let each = |name: &str, each: &Each| {
            each.of(levels).ok_or_else(|| format!("`{name}` and `block_out_channels` {differ}"))
        };
        let one = |name: &str, numbers: &Each| -> Result<usize, String> {
            let numbers = each(name, numbers)?;
            let same = numbers.iter().all(|number| *number == numbers[0]);
            if same {
                Ok(numbers[0])
            } else {
                Err(format!("`{name}` is {numbers:?}: one for all levels is read"))
            }
        };
        let attends = self.attends(levels)?;
        let heads = each(
            "attention_head_dim",
            self.num_attention_heads.as_ref().unwrap_or(&self.attention_head_dim),
        )?;
        let (head_dim, num_heads) = self.heads(&heads, &attends)?;
        let layers = each("transformer_layers_per_block", &self.transformer_layers_per_block)?;
        let base = self.block_out_channels[0];
        Ok(UNetConfig {
            sample_size: size,
            in_channels: self.out_channels,
            out_channels: self.out_channels,
            model_channels: base,
            channel_mult: self.block_out_channels.iter().map(|width| *width as f64 / base as f64).collect(),
            layers_per_block: one("layers_per_block", &self.layers_per_block)?,
            attention_resolutions: (0..levels)
                .filter(|level| attends[*level])
                .map(|level| size.longer() >> level)
                .collect(),
            attention_head_dim: head_dim,
            num_attention_heads: num_heads,
            qkv_order: QkvLayout::New,
            norm_num_groups: self.norm_num_groups,
            dropout: self.dropout,
            resample: Resample::Conv,
            resnet_time_scale_shift: TimeScaleShift::Default,
            residual_scaling: false,
            num_classes: self.num_class_embeds,
            null_class: NullClass::Absent,
            vector_width: self.vector_width()?,
            low_res_channels: 0,
            beside_channels: self.in_channels.checked_sub(self.out_channels).ok_or_else(|| {
                format!(
                    "`in_channels` is {}, less than `out_channels` {}",
                    self.in_channels, self.out_channels
                )
            })?,
            transformer: Some(TransformerConfig {
                context_width: one("cross_attention_dim", &self.cross_attention_dim)?,
                middle_layers: layers[levels - 1],
                layers: layers
                    .iter()
                    .zip(&attends)
                    .map(|(layers, on)| if *on { *layers } else { 0 })
                    .collect(),
            }),
            condition_from: None,
            guidance_range: None,
        })
    }

    fn check_others(&self) -> Result<(), String> {
        let fixed = fixed();
        for (name, value) in &self.others {
            let needed = fixed.iter().find(|(fixed, _)| fixed == name).map(|(_, value)| value);
            let fits = match needed {
                // Nothing is the class's own value everywhere but in the middle, where it is no block at all.
                _ if value.is_null() && name != "mid_block_type" || name.starts_with('_') => true,
                Some(needed) => same(value, needed) || (name == "act_fn" && value == "swish"),
                None => value == false || NOT_LOOKED_AT.contains(&name.as_str()),
            };
            if !fits {
                let needed = needed.map_or("null".to_owned(), Value::to_string);
                return Err(format!(
                    "`{}` is {}, which is not supported; {needed} is",
                    brief(name),
                    brief(&value.to_string())
                ));
            }
        }
        Ok(())
    }

    /// Which levels attend, by the blocks down and up.
    fn attends(&self, levels: usize) -> Result<Vec<bool>, String> {
        let of_level = |level: usize| {
            let (down, up) = (&self.down_block_types[level], &self.up_block_types[levels - 1 - level]);
            match [down.as_str(), up.as_str()] {
                types if types == ATTENDS => Ok(true),
                types if types == PLAIN => Ok(false),
                _ => Err(format!(
                    "level {level} goes down by {:?} and up by {:?}, which is not supported",
                    brief(down),
                    brief(up)
                )),
            }
        };
        (0..levels).map(of_level).collect()
    }

    /// Channels a head, or the number of heads: whichever is the same wherever it attends.
    fn heads(&self, heads: &[usize], attends: &[bool]) -> Result<(Option<usize>, Option<usize>), String> {
        let last = heads.len() - 1;
        let used: Vec<(usize, usize)> = (0..heads.len())
            .filter(|level| attends[*level] || *level == last)
            .map(|level| (heads[level], self.block_out_channels[level]))
            .collect();
        let (count, width) = used[0];
        if count == 0 || used.iter().any(|(heads, width)| *heads == 0 || !width.is_multiple_of(*heads)) {
            return Err(format!(
                "`attention_head_dim`, the number of heads, is {heads:?}: they do not divide the channels"
            ));
        }
        let dim = width / count;
        let of_dim = used.iter().all(|(heads, width)| width / heads == dim);
        let of_count = used.iter().all(|(heads, _)| *heads == count);
        // Where one level attends both are true of it, and the others' numbers say which is meant.
        let same = heads.iter().all(|heads| *heads == count);
        match (of_count, of_dim) {
            (true, _) if same || !of_dim => return Ok((None, Some(count))),
            (_, true) => return Ok((Some(dim), None)),
            _ => {}
        }
        Err(format!(
            "`attention_head_dim`, the number of heads, is {heads:?}: neither their number nor their size is the same at all levels"
        ))
    }

    fn vector_width(&self) -> Result<usize, String> {
        match (self.addition_embed_type.as_deref(), self.projection_class_embeddings_input_dim) {
            (None, _) => Ok(0),
            (Some("text_time"), Some(width)) => Ok(width),
            (Some("text_time"), None) => {
                Err("`projection_class_embeddings_input_dim` is not given, the width of the vector".into())
            }
            (Some(other), _) => Err(format!(
                "`addition_embed_type` is {:?}, which is not supported; \"text_time\" is",
                brief(other)
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(change: &Value) -> Result<UNetConfig, String> {
        // As diffusers 0.42 writes Stable Diffusion 1.5.
        let mut config: Value = serde_json::from_str(include_str!("conditional/config.json")).unwrap();
        for (name, value) in change.as_object().into_iter().flatten() {
            config[name] = value.clone();
        }
        serde_json::from_value::<UNet2DCondition>(config).map_err(|error| error.to_string())?.ours()
    }

    #[test]
    fn stable_diffusion_is_read() {
        let one = ours(&json!({})).unwrap();
        one.check().unwrap();
        assert_eq!((one.num_attention_heads, one.attention_head_dim), (Some(8), None));
        assert_eq!(one.transformer.as_ref().unwrap().layers, [1, 1, 1, 0]);
        assert_eq!((one.attention_resolutions.clone(), one.beside_channels), (vec![64, 32, 16], 0));
        let inpainting = ours(&json!({"in_channels": 9})).unwrap();
        assert_eq!((inpainting.in_channels, inpainting.beside_channels), (4, 5));
        let two = ours(&json!({"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024,
                               "use_linear_projection": true, "upcast_attention": true}));
        let two = two.unwrap();
        assert_eq!((two.num_attention_heads, two.attention_head_dim), (None, Some(64)));
        let xl = ours(&json!({
            "block_out_channels": [320, 640, 1280], "attention_head_dim": [5, 10, 20], "cross_attention_dim": 2048,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "transformer_layers_per_block": [1, 2, 10], "addition_embed_type": "text_time", "sample_size": 128,
            "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816
        }))
        .unwrap();
        xl.check().unwrap();
        let of = xl.transformer.as_ref().unwrap();
        assert_eq!((&of.layers[..], of.middle_layers, xl.vector_width), (&[0, 2, 10][..], 10, 2816));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (change, part) in [
            (json!({"time_cond_proj_dim": 256}), "`time_cond_proj_dim` is 256"),
            (json!({"encoder_hid_dim_type": "ip_image_proj"}), "encoder_hid_dim_type"),
            (json!({"freq_shift": 1}), "`freq_shift` is 1, which is not supported; 0 is"),
            (json!({"norm_eps": 1e-6}), "norm_eps"),
            (json!({"attention_head_dim": [8, 8, 4, 5]}), "neither their number nor their size"),
            (json!({"layers_per_block": [1, 2, 2, 2]}), "layers_per_block"),
            (
                json!({"down_block_types": ["AttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"]}),
                "level 0 goes down by \"AttnDownBlock2D\"",
            ),
            (json!({"in_channels": 3}), "less than `out_channels` 4"),
            (json!({"addition_embed_type": "image"}), "addition_embed_type"),
            (json!({"sample_size": null}), "sample_size"),
            (json!({"mid_block_type": null}), "`mid_block_type` is null, which is not supported"),
        ] {
            let message = ours(&change).unwrap_err();
            assert!(message.contains(part), "{part} is not in: {message}");
        }
    }
}
