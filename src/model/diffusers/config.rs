//! `UNet2DModel`'s configuration and ours.

use serde::{Deserialize, Serialize};

use crate::error::brief;
use crate::nn::UNetConfig;
use crate::nn::unet::{NullClass, QkvLayout, Resample, TimeScaleShift};
use crate::shape::Extent;

/// What diffusers calls the class.
pub(super) const CLASS_NAME: &str = "UNet2DModel";

/// `unet/config.json`. Fields that are left out have the values of the class.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct UNet2D {
    #[serde(rename = "_class_name")]
    pub class_name: String,
    pub sample_size: Option<Extent>,
    pub in_channels: usize,
    pub out_channels: usize,
    pub center_input_sample: bool,
    pub time_embedding_type: String,
    pub time_embedding_dim: Option<usize>,
    pub freq_shift: f64,
    pub flip_sin_to_cos: bool,
    pub down_block_types: Vec<String>,
    pub mid_block_type: Option<String>,
    pub up_block_types: Vec<String>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub mid_block_scale_factor: f64,
    pub downsample_padding: usize,
    pub downsample_type: String,
    pub upsample_type: String,
    pub dropout: f32,
    pub act_fn: String,
    pub attention_head_dim: Option<usize>,
    pub norm_num_groups: usize,
    pub attn_norm_num_groups: Option<usize>,
    pub norm_eps: f64,
    pub resnet_time_scale_shift: String,
    pub add_attention: bool,
    pub class_embed_type: Option<String>,
    pub num_class_embeds: Option<usize>,
    pub num_train_timesteps: Option<usize>,
}

impl Default for UNet2D {
    fn default() -> Self {
        let attn = |direction: &str| vec![format!("Attn{direction}Block2D"); 3];
        UNet2D {
            class_name: String::new(),
            sample_size: None,
            in_channels: 3,
            out_channels: 3,
            center_input_sample: false,
            time_embedding_type: "positional".into(),
            time_embedding_dim: None,
            freq_shift: 0.0,
            flip_sin_to_cos: true,
            down_block_types: [vec!["DownBlock2D".into()], attn("Down")].concat(),
            mid_block_type: Some("UNetMidBlock2D".into()),
            up_block_types: [attn("Up"), vec!["UpBlock2D".into()]].concat(),
            block_out_channels: vec![224, 448, 672, 896],
            layers_per_block: 2,
            mid_block_scale_factor: 1.0,
            downsample_padding: 1,
            downsample_type: "conv".into(),
            upsample_type: "conv".into(),
            dropout: 0.0,
            act_fn: "silu".into(),
            attention_head_dim: Some(8),
            norm_num_groups: 32,
            attn_norm_num_groups: None,
            norm_eps: 1e-5,
            resnet_time_scale_shift: "default".into(),
            add_attention: true,
            class_embed_type: None,
            num_class_embeds: None,
            num_train_timesteps: None,
        }
    }
}

/// The names of a level's blocks, down and up.
fn block_types(attends: bool, resample: Resample) -> [&'static str; 2] {
    match (attends, resample) {
        (true, _) => ["AttnDownBlock2D", "AttnUpBlock2D"],
        (false, Resample::Resnet) => ["ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"],
        (false, Resample::Conv) => ["DownBlock2D", "UpBlock2D"],
    }
}

impl UNet2D {
    /// Our configuration of the same network.
    ///
    /// # Errors
    /// What the class can do and this program cannot, by the name of its setting.
    pub fn ours(&self) -> Result<UNetConfig, String> {
        if self.class_name != CLASS_NAME {
            return Err(format!(
                "`_class_name` is {:?}; of diffusers' networks {CLASS_NAME} and {} are read",
                brief(&self.class_name),
                super::conditional::CLASS_NAME
            ));
        }
        let base = self.block_out_channels.first().copied().unwrap_or(0);
        let fixed = [
            ("center_input_sample", self.center_input_sample.to_string(), "false"),
            ("time_embedding_type", self.time_embedding_type.clone(), "positional"),
            ("freq_shift", self.freq_shift.to_string(), "0"),
            ("flip_sin_to_cos", self.flip_sin_to_cos.to_string(), "true"),
            ("mid_block_scale_factor", self.mid_block_scale_factor.to_string(), "1"),
            ("mid_block_type", self.mid_block_type.clone().unwrap_or_default(), "UNetMidBlock2D"),
            ("downsample_padding", self.downsample_padding.to_string(), "1"),
            ("act_fn", self.act_fn.clone(), "silu"),
            ("norm_eps", format!("{:e}", self.norm_eps), "1e-5"),
            ("add_attention", self.add_attention.to_string(), "true"),
            ("class_embed_type", self.class_embed_type.clone().unwrap_or_default(), ""),
        ];
        for (name, found, needed) in fixed {
            if found != needed && !(name == "act_fn" && found == "swish") {
                return Err(format!(
                    "`{name}` is {found:?}, which is not supported; {needed:?} is",
                    found = brief(&found)
                ));
            }
        }
        if self.time_embedding_dim.is_some_and(|dim| Some(dim) != base.checked_mul(4)) {
            return Err("`time_embedding_dim` is not four times the first of `block_out_channels`".into());
        }
        if self.attn_norm_num_groups.is_some_and(|groups| groups != self.norm_num_groups) {
            return Err(
                "`attn_norm_num_groups` differs from `norm_num_groups`, which is not supported".into()
            );
        }
        let size = self.sample_size.ok_or("`sample_size` is not given; write the pictures' size there")?;
        if size.is_line() {
            return Err(format!("`sample_size` is {size}, and {CLASS_NAME} is of pictures"));
        }
        let resample = match (self.downsample_type.as_str(), self.upsample_type.as_str()) {
            ("resnet", "resnet") => Resample::Resnet,
            ("conv", "conv") => Resample::Conv,
            other => {
                return Err(format!(
                    "`downsample_type` and `upsample_type` are {:?}: both must be one of conv and resnet",
                    (brief(other.0), brief(other.1))
                ));
            }
        };
        let levels = self.block_out_channels.len();
        if levels == 0
            || levels > 16
            || self.down_block_types.len() != levels
            || self.up_block_types.len() != levels
        {
            return Err(
                "`block_out_channels`, `down_block_types` and `up_block_types` are not of one length".into(),
            );
        }
        let mut attention_resolutions = Vec::new();
        for level in 0..levels {
            let (down, up) = (&self.down_block_types[level], &self.up_block_types[levels - 1 - level]);
            let attends = down == "AttnDownBlock2D";
            // The last level does not halve, so both kinds of block without attention are the same there.
            let plain = |down: &str, up: &str| {
                block_types(false, Resample::Conv) == [down, up]
                    || block_types(false, Resample::Resnet) == [down, up]
            };
            let fits = block_types(attends, resample) == [down.as_str(), up.as_str()]
                || (level + 1 == levels && !attends && plain(down, up));
            if !fits {
                return Err(format!(
                    "level {level} goes down by {down:?} and up by {up:?}, which is not supported",
                    down = brief(down),
                    up = brief(up)
                ));
            }
            if attends {
                attention_resolutions.push(size.longer() >> level);
            }
        }
        Ok(UNetConfig {
            sample_size: size,
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            model_channels: base,
            channel_mult: self.block_out_channels.iter().map(|width| *width as f64 / base as f64).collect(),
            layers_per_block: self.layers_per_block,
            attention_resolutions,
            attention_head_dim: self.attention_head_dim,
            num_attention_heads: self.attention_head_dim.is_none().then_some(1),
            qkv_order: QkvLayout::New,
            norm_num_groups: self.norm_num_groups,
            dropout: self.dropout,
            resample,
            resnet_time_scale_shift: match self.resnet_time_scale_shift.as_str() {
                "scale_shift" => TimeScaleShift::ScaleShift,
                "default" => TimeScaleShift::Default,
                other => {
                    return Err(format!(
                        "`resnet_time_scale_shift` is {other:?}, which is not supported",
                        other = brief(other)
                    ));
                }
            },
            residual_scaling: false,
            num_classes: self.num_class_embeds,
            null_class: NullClass::Absent,
            vector_width: 0,
            low_res_channels: 0,
            beside_channels: 0,
            transformer: None,
            condition_from: None,
            guidance_range: None,
        })
    }

    /// The class's configuration of our network.
    ///
    /// # Errors
    /// What this program can do and the class cannot.
    pub fn of(config: &UNetConfig) -> Result<UNet2D, String> {
        let widths = config.widths();
        let refuse = |what: &str| Err(format!("diffusers' {CLASS_NAME} has no {what}"));
        if config.transformer.is_some() {
            return refuse(
                "transformers that read tokens; such networks are read of its folders, and not written",
            );
        }
        if config.low_res_channels > 0 || config.beside_channels > 0 {
            return refuse("input for a small picture or one beside its samples");
        }
        if config.sample_size.is_line() {
            return refuse("samples along a line");
        }
        if config.condition_from.is_some() || config.guidance_range.is_some() {
            return refuse("late condition or guidance weight as an input");
        }
        if config.residual_scaling {
            return refuse("scaled residual sums");
        }
        if widths[0] != config.model_channels {
            return refuse("first level of another width than its embedding's");
        }
        let head_dim = match (config.num_attention_heads, config.attention_head_dim) {
            (None, dim) => dim,
            (Some(1), _) => None,
            (Some(heads), _) => {
                // A number of heads can be said only where it comes to the same size at every level that attends.
                let last = widths.len() - 1;
                let attending = (0..widths.len()).filter(|level| config.attends(*level) || *level == last);
                let sizes: Vec<usize> = attending.map(|level| widths[level] / heads).collect();
                if sizes.iter().any(|size| *size != sizes[0]) {
                    return refuse("number of heads that is the same at levels of several widths");
                }
                Some(sizes[0])
            }
        };
        let blocks = |direction: usize| -> Vec<String> {
            (0..widths.len())
                .map(|level| block_types(config.attends(level), config.resample)[direction].to_owned())
                .collect()
        };
        let (down_block_types, mut up_block_types) = (blocks(0), blocks(1));
        up_block_types.reverse();
        let resample = if config.resample == Resample::Resnet { "resnet" } else { "conv" };
        let shift = match config.resnet_time_scale_shift {
            TimeScaleShift::ScaleShift => "scale_shift",
            TimeScaleShift::Default => "default",
        };
        Ok(UNet2D {
            class_name: CLASS_NAME.into(),
            sample_size: Some(config.sample_size),
            in_channels: config.in_channels,
            out_channels: config.out_channels,
            down_block_types,
            up_block_types,
            block_out_channels: widths,
            layers_per_block: config.layers_per_block,
            downsample_type: resample.into(),
            upsample_type: resample.into(),
            dropout: config.dropout,
            attention_head_dim: head_dim,
            norm_num_groups: config.norm_num_groups,
            attn_norm_num_groups: Some(config.norm_num_groups),
            resnet_time_scale_shift: shift.into(),
            num_class_embeds: config.embedding_rows(),
            ..UNet2D::default()
        })
    }
}
