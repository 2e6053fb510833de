//! An autoencoder's sizes as diffusers' `config.json` says them.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result, brief};
use crate::nn::{KlConfig, Latents, TinyConfig};

/// Which autoencoder, and its sizes.
#[derive(Clone, Debug, PartialEq)]
pub enum CodecConfig {
    /// Means and log-variances, group norms, attention in the middle.
    Kl(KlConfig),
    /// TAESD and its kin.
    Tiny(TinyConfig),
}

const KL: &str = "AutoencoderKL";
const TINY: &str = "AutoencoderTiny";

/// `AutoencoderKL`'s, with its defaults.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Kl {
    in_channels: usize,
    out_channels: usize,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    block_out_channels: Vec<usize>,
    layers_per_block: usize,
    act_fn: String,
    latent_channels: usize,
    norm_num_groups: usize,
    scaling_factor: f64,
    shift_factor: Option<f64>,
    latents_mean: Option<Vec<f64>>,
    latents_std: Option<Vec<f64>>,
    use_quant_conv: bool,
    use_post_quant_conv: bool,
    mid_block_add_attention: bool,
}

impl Default for Kl {
    fn default() -> Self {
        Kl {
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec!["DownEncoderBlock2D".into()],
            up_block_types: vec!["UpDecoderBlock2D".into()],
            block_out_channels: vec![64],
            layers_per_block: 1,
            act_fn: "silu".into(),
            latent_channels: 4,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

impl Kl {
    fn ours(self) -> Result<KlConfig, String> {
        let levels = self.block_out_channels.len();
        for (name, types, only) in [
            ("down_block_types", &self.down_block_types, "DownEncoderBlock2D"),
            ("up_block_types", &self.up_block_types, "UpDecoderBlock2D"),
        ] {
            if types.len() != levels {
                return Err(format!("`{name}` has {} entries, `block_out_channels` {levels}", types.len()));
            }
            if let Some(other) = types.iter().find(|kind| *kind != only) {
                return Err(format!("`{name}` has {:?}, which is not supported; {only:?} is", brief(other)));
            }
        }
        if !["silu", "swish"].contains(&self.act_fn.as_str()) {
            return Err(format!(
                "`act_fn` is {:?}, which is not supported; \"silu\" is",
                brief(&self.act_fn)
            ));
        }
        if self.in_channels != self.out_channels {
            return Err(format!(
                "`in_channels` is {}, `out_channels` {}",
                self.in_channels, self.out_channels
            ));
        }
        let latents =
            match (&self.latents_mean, &self.latents_std, self.shift_factor.filter(|shift| *shift != 0.0)) {
                (Some(mean), Some(std), None) => Latents::standardised(mean, std, self.scaling_factor),
                (None, None, shift) => Latents::scaled(self.scaling_factor, shift.unwrap_or(0.0)),
                _ => {
                    return Err(
                        "`latents_mean` and `latents_std` stand together and without a `shift_factor`".into(),
                    );
                }
            };
        Ok(KlConfig {
            picture_channels: self.in_channels,
            channels: self.block_out_channels,
            layers: self.layers_per_block,
            latent_channels: self.latent_channels,
            groups: self.norm_num_groups,
            attends: self.mid_block_add_attention,
            quant: self.use_quant_conv,
            post_quant: self.use_post_quant_conv,
            latents: latents.map_err(|error| error.to_string())?,
            unit_pictures: false,
        })
    }
}

/// `AutoencoderTiny`'s, with its defaults.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Tiny {
    in_channels: usize,
    out_channels: usize,
    encoder_block_out_channels: Vec<usize>,
    decoder_block_out_channels: Vec<usize>,
    act_fn: String,
    upsample_fn: String,
    latent_channels: usize,
    upsampling_scaling_factor: usize,
    num_encoder_blocks: Vec<usize>,
    num_decoder_blocks: Vec<usize>,
    scaling_factor: f64,
    shift_factor: f64,
}

impl Default for Tiny {
    fn default() -> Self {
        Tiny {
            in_channels: 3,
            out_channels: 3,
            encoder_block_out_channels: vec![64; 4],
            decoder_block_out_channels: vec![64; 4],
            act_fn: "relu".into(),
            upsample_fn: "nearest".into(),
            latent_channels: 4,
            upsampling_scaling_factor: 2,
            num_encoder_blocks: vec![1, 3, 3, 3],
            num_decoder_blocks: vec![3, 3, 3, 1],
            scaling_factor: 1.0,
            shift_factor: 0.0,
        }
    }
}

impl Tiny {
    fn ours(self) -> Result<TinyConfig, String> {
        let fixed = [
            ("act_fn", self.act_fn.clone(), "relu"),
            ("upsample_fn", self.upsample_fn.clone(), "nearest"),
            ("upsampling_scaling_factor", self.upsampling_scaling_factor.to_string(), "2"),
        ];
        for (name, found, needed) in fixed {
            if found != needed {
                return Err(format!(
                    "`{name}` is {:?}, which is not supported; {needed:?} is",
                    brief(&found)
                ));
            }
        }
        let widths: Vec<usize> =
            [&self.encoder_block_out_channels[..], &self.decoder_block_out_channels].concat();
        let width = widths.first().copied().unwrap_or(0);
        if widths.iter().any(|other| *other != width) || self.in_channels != self.out_channels {
            return Err(
                "its maps are not all of one width, or its pictures of other channels out than in".into()
            );
        }
        let latents =
            Latents::scaled(self.scaling_factor, self.shift_factor).map_err(|error| error.to_string())?;
        Ok(TinyConfig {
            picture_channels: self.in_channels,
            latent_channels: self.latent_channels,
            width,
            encoder_blocks: self.num_encoder_blocks,
            decoder_blocks: self.num_decoder_blocks,
            latents,
        })
    }
}

/// Reads `config.json`; `None` where it is of something else, as of a network beside whose folder a file lies.
pub(super) fn read(path: &Path) -> Result<Option<CodecConfig>> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    CodecConfig::parse(path, &text)
}

impl CodecConfig {
    /// What the text of a `config.json` of diffusers says; `None` where it is of something else. Errors call it `path`.
    ///
    /// # Errors
    /// [`Error::Format`] for what is no JSON, and for what the class can do and this program cannot, by the name of its setting.
    pub fn parse(path: &Path, text: &str) -> Result<Option<CodecConfig>> {
        let bad = |what: String| Error::format(path, what);
        let value: Value = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
        let class = value.get("_class_name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let said = |error: serde_json::Error| error.to_string();
        let config = match class.as_str() {
            KL => serde_json::from_value::<Kl>(value).map_err(said).and_then(Kl::ours).map(CodecConfig::Kl),
            TINY => serde_json::from_value::<Tiny>(value)
                .map_err(said)
                .and_then(Tiny::ours)
                .map(CodecConfig::Tiny),
            _ => return Ok(None),
        };
        let config = config.map_err(bad)?;
        config.check().map_err(|error| bad(error.to_string()))?;
        Ok(Some(config))
    }

    /// Refuses sizes that no such network has.
    ///
    /// # Errors
    /// As [`KlConfig::check`] and [`TinyConfig::check`].
    pub fn check(&self) -> Result<()> {
        match self {
            CodecConfig::Kl(config) => config.check(),
            CodecConfig::Tiny(config) => config.check(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Option<CodecConfig>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn stable_diffusions_own_is_read() {
        let sd = r#"{"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
            "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
            "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
            "sample_size": 512, "_diffusers_version": "0.6.0"}"#;
        assert_eq!(parsed(sd).unwrap(), Some(CodecConfig::Kl(KlConfig::stable_diffusion())));
        let sdxl = sd.replace("\"sample_size\": 512", "\"scaling_factor\": 0.13025, \"force_upcast\": true");
        let latents = Latents::scaled(0.13025, 0.0).unwrap();
        let want = KlConfig { latents, ..KlConfig::stable_diffusion() };
        assert_eq!(parsed(&sdxl).unwrap(), Some(CodecConfig::Kl(want)));
        let spread = sd.replace(
            "\"sample_size\": 512",
            "\"scaling_factor\": 0.5, \"latents_mean\": [1, 2, 3, 4], \"latents_std\": [1, 2, 1, 2]",
        );
        let latents = Latents::standardised(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 1.0, 2.0], 0.5).unwrap();
        let want = KlConfig { latents, ..KlConfig::stable_diffusion() };
        assert_eq!(parsed(&spread).unwrap(), Some(CodecConfig::Kl(want)));
        let tiny = r#"{"_class_name": "AutoencoderTiny"}"#;
        assert_eq!(parsed(tiny).unwrap(), Some(CodecConfig::Tiny(TinyConfig::taesd(4))));
    }

    #[test]
    fn what_it_cannot_be_is_told_by_its_name() {
        let refused = |text: &str, words: &str| {
            let told = parsed(text).unwrap_err().to_string();
            assert!(told.contains(words), "{told}");
        };
        let kl = |more: &str| format!(r#"{{"_class_name": "AutoencoderKL", {more}}}"#);
        refused(&kl(r#""down_block_types": ["AttnDownEncoderBlock2D"]"#), "`down_block_types` has \"Attn");
        refused(&kl(r#""block_out_channels": [64, 64]"#), "`down_block_types` has 1 entries");
        refused(&kl(r#""act_fn": "relu""#), "`act_fn` is \"relu\"");
        refused(&kl(r#""norm_num_groups": 48"#), "do not divide into 48 groups");
        refused(&kl(r#""scaling_factor": 0"#), "factors");
        refused(&kl(r#""latents_mean": [0, 0, 0, 0]"#), "stand together");
        refused(&kl(r#""latent_channels": "four""#), "four");
        refused(r#"{"_class_name": "AutoencoderTiny", "act_fn": "silu"}"#, "`act_fn` is \"silu\"");
        refused("{", "EOF");
        assert_eq!(parsed(r#"{"_class_name": "UNet2DConditionModel"}"#).unwrap(), None);
    }
}
