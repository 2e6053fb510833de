//! What makes a UNet: widths, depths, attention, and the options of ADM and IDDPM.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, brief};
use crate::nn::denoiser::About;
use crate::nn::takes::{ClassIn, NullClass, PictureIn, PictureKind, Takes, TokensIn, VectorIn};
use crate::shape::{Extent, Shape};
use crate::sizes::most_along;

use super::transformer::TransformerConfig;

/// How a level changes resolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resample {
    /// Inside a residual block (BigGAN, ADM).
    #[default]
    Resnet,
    /// A stride-2 convolution down, nearest and a convolution up (IDDPM).
    Conv,
}

/// How the embedding enters a residual block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeScaleShift {
    /// AdaGN: GroupNorm(h)·(1 + scale) + shift.
    #[default]
    ScaleShift,
    /// Added before the group norm.
    Default,
}

/// The order of the qkv channels in attention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QkvLayout {
    /// `[q,k,v][head][d]`.
    #[default]
    New,
    /// `[head][q,k,v][d]`: most published files.
    Legacy,
}

/// The architecture of a UNet, as `config.json` holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UNetConfig {
    /// The extent of the samples it was made for. A network is told which levels attend by it; it evaluates any extent of
    /// the same kind that [`divides`](Self::divides) divides.
    pub sample_size: Extent,
    /// Channels of the samples: 1 or 3 of pictures, those of a codec's latents.
    pub in_channels: usize,
    /// Channels of the output: `in_channels`, or twice that with learned variances.
    pub out_channels: usize,
    /// The width that `channel_mult` multiplies, and the size of the sinusoidal embedding.
    pub model_channels: usize,
    /// The width of each level, as a multiple of `model_channels`.
    pub channel_mult: Vec<f64>,
    /// Residual blocks a level on the way down; one more on the way up.
    pub layers_per_block: usize,
    /// Feature-map sizes at which there is attention. A level's size is the longer side of its feature map, of a line its
    /// length: the tokens of a level that attends at 16 are then at most 16·16, whatever the proportions. They name levels of
    /// [`sample_size`](Self::sample_size), once and for all: on samples of another extent the same levels attend.
    pub attention_resolutions: Vec<usize>,
    /// Channels a head; `None` where `num_attention_heads` is given.
    pub attention_head_dim: Option<usize>,
    /// A fixed number of heads instead.
    pub num_attention_heads: Option<usize>,
    /// The order of the qkv channels.
    pub qkv_order: QkvLayout,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// Dropout inside residual blocks while training.
    pub dropout: f32,
    /// How resolution changes.
    pub resample: Resample,
    /// How the embedding enters.
    pub resnet_time_scale_shift: TimeScaleShift,
    /// Residual sums scaled by 1/√2.
    pub residual_scaling: bool,
    /// Classes; `None` for an unconditional network.
    pub num_classes: Option<usize>,
    /// What "no condition" is.
    pub null_class: NullClass,
    /// Numbers of the vector that is a part of the condition; 0 where there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub vector_width: usize,
    /// Channels of the small picture that an upsampler is given behind its own; 0 for any other network.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub low_res_channels: usize,
    /// Channels of the picture of the sample's own extent that is given behind it, such as the mask and the masked latents of
    /// inpainting; 0 where there is none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub beside_channels: usize,
    /// Where it attends, transformers that read tokens instead of plain attention, as latent diffusion has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transformer: Option<TransformerConfig>,
    /// The first block that is told the condition, by its name in files (`middle_block`, `output_blocks.3`): late
    /// conditioning. None where all blocks are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition_from: Option<String>,
    /// Of a distilled network, which is told the guidance weight w: the least and the largest it was trained for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_range: Option<[f64; 2]>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(channels: &usize) -> bool {
    *channels == 0
}

impl UNetConfig {
    /// The width of each level.
    pub fn widths(&self) -> Vec<usize> {
        self.channel_mult.iter().map(|mult| (mult * self.model_channels as f64) as usize).collect()
    }

    /// What it is made for: its own channels over its extent.
    pub fn shape(&self) -> Shape {
        Shape { channels: self.in_channels, extent: self.sample_size }
    }

    /// Height and width of what it evaluates are multiples of this: each level but the first halves them.
    pub fn divides(&self) -> usize {
        1 << self.channel_mult.len().saturating_sub(1).min(31)
    }

    /// What a network of it is.
    pub fn about(&self) -> About {
        About {
            sample: self.shape(),
            out_channels: self.out_channels,
            takes: self.takes(),
            divides: self.divides(),
        }
    }

    /// The feature-map size of each level, as `attention_resolutions` counts it: the longer side.
    pub fn sizes(&self) -> Vec<usize> {
        (0..self.channel_mult.len()).map(|level| self.size_at(level)).collect()
    }

    /// 0 where there is nothing left to halve, as of a list of levels that was not checked yet.
    fn size_at(&self, level: usize) -> usize {
        let size = self.sample_size.longer();
        u32::try_from(level).ok().and_then(|level| size.checked_shr(level)).unwrap_or(0)
    }

    /// Whether there is attention at a level.
    pub fn attends(&self, level: usize) -> bool {
        self.attention_resolutions.contains(&self.size_at(level))
    }

    /// Rows of the class embedding.
    pub fn embedding_rows(&self) -> Option<usize> {
        let classes = self.num_classes?;
        Some(if self.null_class == NullClass::Learned { classes + 1 } else { classes })
    }

    /// What such a network takes of a condition.
    pub fn takes(&self) -> Takes {
        let null = self.null_class;
        let kinds =
            [(self.low_res_channels, PictureKind::Small), (self.beside_channels, PictureKind::Beside)];
        let picture = kinds.into_iter().find(|(channels, _)| *channels > 0);
        Takes {
            class: self.num_classes.map(|classes| ClassIn { classes, null, anneals: true }),
            tokens: self.transformer.as_ref().map(|of| TokensIn { width: of.context_width }),
            vector: Some(self.vector_width).filter(|width| *width > 0).map(|width| VectorIn { width }),
            picture: picture.map(|(channels, kind)| PictureIn { channels, kind }),
            guidance: self.guidance_range,
            moves: false,
        }
    }

    /// The label that stands for "no condition": past the classes.
    pub fn null_label(&self) -> u32 {
        self.num_classes.unwrap_or(0) as u32
    }

    /// Input blocks, the stem among them; and output blocks.
    pub fn block_counts(&self) -> (usize, usize) {
        let (levels, layers) = (self.channel_mult.len(), self.layers_per_block);
        (levels * (layers + 1), levels * (layers + 1))
    }

    /// The number of the first block that is told the condition, counted through input blocks, middle and output blocks: 0
    /// where all are.
    ///
    /// # Errors
    /// [`Error::Config`] for a name that is no block's, with the names there are.
    pub fn condition_block(&self) -> Result<usize> {
        let Some(name) = &self.condition_from else { return Ok(0) };
        let (inputs, outputs) = self.block_counts();
        let numbered = |prefix: &str, from: usize, count: usize| {
            let number: usize = name.strip_prefix(prefix)?.parse().ok()?;
            (from..count).contains(&number).then_some(number)
        };
        let found = match name.as_str() {
            "middle_block" => Some(inputs),
            _ => numbered("input_blocks.", 1, inputs)
                .or_else(|| numbered("output_blocks.", 0, outputs).map(|number| inputs + 1 + number)),
        };
        found.ok_or_else(|| {
            Error::Config(format!(
                "{name:?} is no block that a condition can enter from; there are input_blocks.1 to input_blocks.{}, \
                 middle_block, and output_blocks.0 to output_blocks.{} (--condition-from)",
                inputs - 1,
                outputs - 1, name = brief(name)))
        })
    }

    /// Heads of an attention over `channels` channels.
    pub fn heads(&self, channels: usize) -> usize {
        match (self.num_attention_heads, self.attention_head_dim) {
            (Some(heads), _) => heads,
            // A level narrower than a head is one head.
            (None, Some(dim)) => channels.checked_div(dim).map_or(0, |heads| heads.max(1)),
            (None, None) => 1,
        }
    }

    /// What would divide, near to what does not: other groups for these channels, other channels for these groups.
    fn other_groups(&self) -> String {
        let divides = |groups: usize, channels: usize| {
            let config = UNetConfig { model_channels: channels, ..self.clone() };
            config.widths().iter().all(|width| *width > 0 && width.is_multiple_of(groups))
        };
        let groups = (1..=self.norm_num_groups).rev().find(|groups| divides(*groups, self.model_channels));
        let near = |away: usize| [self.model_channels.checked_sub(away), Some(self.model_channels + away)];
        let fits = |channels: &usize| self.norm_num_groups > 0 && divides(self.norm_num_groups, *channels);
        let channels = (1..=1024).flat_map(near).flatten().find(fits);
        let ways = [
            groups.map(|groups| format!("--norm-groups {groups} divides the channels of every level")),
            channels.map(|channels| format!("--channels {channels} suits {} groups", self.norm_num_groups)),
        ];
        let ways: Vec<String> = ways.into_iter().flatten().collect();
        if ways.is_empty() { "; give other --norm-groups".into() } else { format!("; {}", ways.join(", ")) }
    }

    /// Refuses what cannot be built, with the numbers.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::Config(what));
        let levels = self.channel_mult.len();
        let extent = self.sample_size;
        let no_places = extent.height() == 0 || extent.width() == 0;
        if levels == 0 || self.layers_per_block == 0 || self.model_channels == 0 || no_places {
            return refuse(
                "a UNet needs at least one level, one block a level, one channel and one pixel".into(),
            );
        }
        if extent.is_line() && self.low_res_channels > 0 {
            return refuse(format!("an upsampler enlarges pictures, and its samples are {extent}"));
        }
        if self.low_res_channels > 0 && self.beside_channels > 0 {
            return refuse(
                "a network takes one picture: one to enlarge or one beside its sample, not both".into(),
            );
        }
        // Far beyond any network, and small enough that no size overflows.
        let most =
            self.channel_mult.iter().fold(0.0, |m: f64, x| if x.is_nan() { f64::NAN } else { m.max(*x) });
        let counts = [
            self.num_classes.unwrap_or(0),
            self.out_channels,
            self.in_channels,
            self.low_res_channels,
            self.beside_channels,
            self.vector_width,
        ];
        if self.model_channels > 1 << 14
            || !(0.0..=64.0).contains(&most)
            || self.layers_per_block > 64
            || extent.longer() > most_along(extent)
            || counts.iter().any(|count| *count > 1 << 20)
            || counts[1] == 0
            || counts[2] == 0
        {
            return refuse(format!(
                "a UNet of {} channels times up to {most}, {} blocks a level, pictures of {}, and {:?} classes, output, \
                 input and low-resolution channels, those of a picture beside, and numbers of a vector is beyond what can be built",
                self.model_channels, self.layers_per_block, extent, counts
            ));
        }
        if levels > 16 || extent.halved(levels as u32 - 1).is_none() {
            return refuse(format!(
                "{} levels halve the picture {} times, but {} does not stay whole: {}; choose an image size that is a \
                 multiple of {}, or fewer levels (--channel-mult)",
                levels,
                levels - 1,
                extent,
                halvings(extent, levels).join(" -> "),
                1u64 << (levels - 1).min(63)
            ));
        }
        for (level, width) in self.widths().into_iter().enumerate() {
            if width == 0 || !width.is_multiple_of(self.norm_num_groups.max(1)) || self.norm_num_groups == 0 {
                return refuse(format!(
                    "level {level} has {width} channels, which {} norm groups do not divide{}",
                    self.norm_num_groups,
                    self.other_groups()
                ));
            }
            let heads = self.heads(width);
            if heads == 0 || !width.is_multiple_of(heads) {
                return refuse(format!(
                    "level {level} has {width} channels, which {heads} heads do not divide"
                ));
            }
            // The middle of the network always attends.
            let attends = self.attention_resolutions.contains(&self.sizes()[level]) || level == levels - 1;
            if attends && width / heads > 256 {
                let dim = width / heads;
                return refuse(format!(
                    "level {level} would have heads of {dim} channels; at most 256 are possible"
                ));
            }
        }
        for size in &self.attention_resolutions {
            if !self.sizes().contains(size) {
                return refuse(format!(
                    "--attention {size} is not a feature-map size of this network; those are {:?}",
                    self.sizes()
                ));
            }
        }
        if let Some(transformer) = &self.transformer {
            let attends: Vec<bool> = (0..levels).map(|level| self.attends(level)).collect();
            transformer.check(&attends)?;
            if self.condition_from.is_some() {
                return refuse(
                    "`condition_from` is not for networks that read tokens: they are told in every block"
                        .into(),
                );
            }
        }
        self.condition_block()?;
        if self.condition_from.is_some() && self.num_classes.is_none() && self.vector_width == 0 {
            return refuse("--condition-from is for networks that have classes, or a vector".into());
        }
        if let Some([low, high]) = self.guidance_range
            && !(low.is_finite() && high.is_finite() && low <= high)
        {
            return refuse(format!(
                "a distilled network cannot be for guidance weights from {low} to {high}"
            ));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse(format!("dropout must lie in [0, 1), got {}", self.dropout));
        }
        Ok(())
    }
}

/// The size of each level; of what is no square both sides.
fn halvings(extent: Extent, levels: usize) -> Vec<String> {
    let at = |axis: usize, level: usize| axis as f64 / f64::from(1 << level);
    let one = |level: usize| match extent {
        Extent::Plane { height, width } if height != width => {
            format!("{}x{}", at(height, level), at(width, level))
        }
        _ => format!("{}", at(extent.width(), level)),
    };
    (0..levels.min(8)).map(one).collect()
}

#[cfg(test)]
mod tests;
