//! What a sampler evaluates, and what does not go together.

use crate::error::{Error, Result};
use crate::gpu::Buffer;
use crate::nn::{UNet, UNetConfig, Weights};

use super::SamplerOptions;
use super::guide::Guide;

/// What a sampler evaluates.
#[derive(Clone, Copy)]
pub struct Networks<'a> {
    /// The network.
    pub unet: &'a UNet,
    /// Its weights.
    pub weights: &'a Weights,
    /// Another network for the unconditional half of guidance: one trained without classes, or a weaker one.
    pub unconditional: Option<(&'a UNet, &'a Weights)>,
    /// What guides by a gradient.
    pub guide: Option<&'a dyn Guide>,
    /// For an upsampler the small pictures, `[N, side, side, low_res_channels]` f32 in [-1, 1], and their side; to be written
    /// before each batch.
    pub low_res: Option<(&'a Buffer, usize)>,
}

/// Refuses small pictures that do not fit an upsampler, or that a network does not take.
pub(super) fn check_low_res(
    config: &UNetConfig,
    low_res: Option<(u64, usize)>,
    options: &SamplerOptions,
) -> Result<()> {
    let channels = config.low_res_channels;
    let what = match low_res {
        None if channels == 0 => return Ok(()),
        None => {
            "this network is an upsampler: it makes pictures of smaller ones (give it as --upsampler)".into()
        }
        Some(_) if channels == 0 => "this network is no upsampler: it takes no small pictures".into(),
        Some(_) if options.guided => "guidance is for the network that makes the small pictures".into(),
        Some((bytes, side)) if bytes < (options.batch * side * side * channels * 4) as u64 => {
            format!("{} small pictures of side {side} do not fit into {bytes} bytes", options.batch)
        }
        Some(_) => return Ok(()),
    };
    Err(Error::Config(what))
}

/// Refuses a pair of networks that do not make the same pictures.
pub(super) fn check_pair(config: &UNetConfig, other: &UNetConfig) -> Result<()> {
    let of = |c: &UNetConfig| (c.sample_size, c.in_channels, c.out_channels);
    if of(config) == of(other) {
        return Ok(());
    }
    Err(Error::Config(format!(
        "the unconditional network is for {:?} (size, channels in, channels out), the conditional one for {:?}",
        of(other),
        of(config)
    )))
}
