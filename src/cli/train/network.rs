//! What ADM's paper varies of the network (arXiv 2105.05233, section 3).

use crate::nn::UNetConfig;
use crate::nn::unet::{Resample, TimeScaleShift};

use super::number;

/// How time and class enter a residual block.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Embedding {
    /// Scale and shift of its second group norm.
    Adagn,
    /// Added before that norm.
    Add,
}

/// Where the resolution changes.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum UpDown {
    /// Inside a residual block.
    Biggan,
    /// By a convolution between blocks.
    Plain,
}

/// The variations; what is not asked for is the preset's.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct VariationArgs {
    /// Channels of an attention head, however many heads that are [default: the preset's].
    #[arg(
        long,
        value_name = "N",
        help_heading = "Network",
        conflicts_with = "heads",
        value_parser = number::count(1..=number::MOST_SIDE)
    )]
    head_channels: Option<usize>,
    /// Attention heads, however wide, instead of --head-channels.
    #[arg(
        long,
        value_name = "N",
        help_heading = "Network",
        value_parser = number::count(1..=number::MOST_SIDE)
    )]
    heads: Option<usize>,
    /// How time and class enter a residual block: as scale and shift of a group norm (adagn), or added before it (add).
    #[arg(long, value_name = "adagn|add", help_heading = "Network", hide_possible_values = true)]
    embedding: Option<Embedding>,
    /// Where the resolution changes: inside a residual block (biggan), or by a convolution between blocks (plain).
    #[arg(long, value_name = "biggan|plain", help_heading = "Network", hide_possible_values = true)]
    up_down: Option<UpDown>,
    /// Divide the sums of residual blocks by √2.
    #[arg(long, help_heading = "Network")]
    scale_residuals: bool,
}

impl VariationArgs {
    /// Puts what is asked for into a network.
    pub(super) fn set(&self, unet: &mut UNetConfig) {
        if let Some(channels) = self.head_channels {
            (unet.attention_head_dim, unet.num_attention_heads) = (Some(channels), None);
        }
        if let Some(heads) = self.heads {
            (unet.attention_head_dim, unet.num_attention_heads) = (None, Some(heads));
        }
        if let Some(embedding) = self.embedding {
            unet.resnet_time_scale_shift = match embedding {
                Embedding::Adagn => TimeScaleShift::ScaleShift,
                Embedding::Add => TimeScaleShift::Default,
            };
        }
        if let Some(up_down) = self.up_down {
            unet.resample = match up_down {
                UpDown::Biggan => Resample::Resnet,
                UpDown::Plain => Resample::Conv,
            };
        }
        unet.residual_scaling |= self.scale_residuals;
    }
}
