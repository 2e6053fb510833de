//! From one kind of checkpoint to another: the same numbers in the same type, under other names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::io::{Dtype, TensorBytes, write_atomic, write_safetensors};
use crate::nn::unet::QkvLayout;

use super::config::ModelConfig;
use super::diffusers::{self, reorder_qkv};
use super::open::{CONFIG_NOTE, Checkpoint};

/// What a checkpoint is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// This program's folder: `model.safetensors` and `config.json`.
    Freeguide,
    /// One `.safetensors` file under guided-diffusion's names, its configuration in its notes.
    GuidedDiffusion,
    /// A pipeline's folder of diffusers.
    Diffusers,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "freeguide" => Ok(Format::Freeguide),
            "guided-diffusion" => Ok(Format::GuidedDiffusion),
            "diffusers" => Ok(Format::Diffusers),
            _ => Err(Error::Config(format!(
                "`{text}` is no format of checkpoints; there are freeguide, guided-diffusion and diffusers"
            ))),
        }
    }
}

impl Format {
    /// Every file that [`convert`] to this format may write at `out`.
    pub fn files(self, out: &Path) -> Vec<PathBuf> {
        match self {
            Format::Freeguide => ["model.safetensors", "config.json"].map(|name| out.join(name)).into(),
            Format::GuidedDiffusion => vec![out.to_owned()],
            Format::Diffusers => diffusers::files(out),
        }
    }
}

/// Writes `checkpoint` at `out`; `order` puts the qkv channels into another order than they are in.
///
/// # Errors
/// [`Error::Config`] for what the format cannot hold; whatever is wrong with a tensor or the disk.
pub fn convert(checkpoint: &Checkpoint, out: &Path, format: Format, order: Option<QkvLayout>) -> Result<()> {
    if format == Format::Diffusers {
        if checkpoint.kind() != super::Kind::UNet {
            return Err(Error::Config(
                "diffusers has no classifier of this kind; only UNets are written".into(),
            ));
        }
        if order == Some(QkvLayout::Legacy) {
            return Err(Error::Config("diffusers keeps q, k and v apart: there is no legacy order".into()));
        }
        return diffusers::write(checkpoint, out);
    }

    let mut config = checkpoint.config.clone();
    config.unet.qkv_order = order.unwrap_or(config.unet.qkv_order);
    let turned = config.unet.qkv_order != checkpoint.config.unet.qkv_order;
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for spec in checkpoint.parameters()?.specs() {
        let name = format!("{}{}", checkpoint.prefix, spec.name);
        let (dtype, shape) = checkpoint.source.about(&name)?;
        let mut bytes = checkpoint.source.bytes(&name)?;
        // The pool of a classifier is in the new order whatever the network's is.
        if turned && spec.name.contains(".qkv.") {
            let to_new = config.unet.qkv_order == QkvLayout::New;
            bytes = reorder_qkv(&bytes, config.unet.heads(shape[0] / 3), to_new);
        }
        tensors.push((spec.name.clone(), dtype, shape, bytes));
    }
    let views: Vec<TensorBytes<'_>> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| TensorBytes { name, dtype: *dtype, shape, bytes })
        .collect();
    let mut notes = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    match format {
        Format::Freeguide => {
            std::fs::create_dir_all(out).map_err(Error::io(out))?;
            write_safetensors(out.join("model.safetensors"), &views, &notes)?;
            let path = out.join("config.json");
            let text = json(&path, &config)?;
            write_atomic(&path, |writer| writer.write_all(text.as_bytes()).map_err(Error::io(&path)))
        }
        _ => {
            notes.insert(CONFIG_NOTE.into(), json(out, &config)?);
            write_safetensors(out, &views, &notes)
        }
    }
}

fn json(path: &Path, config: &ModelConfig) -> Result<String> {
    let text =
        serde_json::to_string_pretty(config).map_err(|error| Error::format(path, error.to_string()))?;
    Ok(text + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{SafetensorsFile, TensorSource};
    use crate::nn::unet::tests::small;
    use crate::nn::unet::{Resample, TimeScaleShift};
    use crate::nn::{UNet, UNetConfig};

    /// A checkpoint of `unet` with values of its own at `dir`, every tensor in f16.
    fn checkpoint(dir: &Path, unet: UNetConfig) -> Checkpoint {
        let network = UNet::new(&unet).unwrap();
        let classes = unet.num_classes.unwrap_or(0);
        let mut config: ModelConfig = serde_json::from_str(include_str!("convert/config.json")).unwrap();
        config.unet = unet;
        config.class_names = (0..classes).map(|label| format!("class {label}")).collect();
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = network
            .parameters()
            .specs()
            .iter()
            .enumerate()
            .map(|(i, spec)| {
                let values = crate::random::init_uniform(7, i as u64, spec.len(), 0.1);
                let bytes = values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
                (spec.name.clone(), spec.file_shape(), bytes)
            })
            .collect();
        let views: Vec<TensorBytes<'_>> = tensors
            .iter()
            .map(|(name, shape, bytes)| TensorBytes { name, dtype: Dtype::F16, shape, bytes })
            .collect();
        std::fs::create_dir_all(dir).unwrap();
        write_safetensors(dir.join("model.safetensors"), &views, &BTreeMap::new()).unwrap();
        std::fs::write(dir.join("config.json"), serde_json::to_string(&config).unwrap()).unwrap();
        Checkpoint::open(dir, None).unwrap()
    }

    #[track_caller]
    fn same(a: &Checkpoint, b: &Checkpoint) {
        assert_eq!(a.source.names(), b.source.names());
        for name in a.source.names() {
            assert_eq!(a.source.about(&name).unwrap(), b.source.about(&name).unwrap(), "{name}");
            assert_eq!(a.source.bytes(&name).unwrap(), b.source.bytes(&name).unwrap(), "{name}");
        }
    }

    #[test]
    fn every_way_round_gives_the_same_bits() {
        let iddpm = UNetConfig {
            resample: Resample::Conv,
            resnet_time_scale_shift: TimeScaleShift::Default,
            attention_resolutions: vec![16],
            num_classes: None,
            ..small()
        };
        let legacy = UNetConfig { qkv_order: QkvLayout::Legacy, layers_per_block: 2, ..small() };
        for (i, unet) in [small(), iddpm, legacy].into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let place = |name: &str| dir.path().join(name);
            let first = checkpoint(&place("first"), unet.clone());
            // By way of each format and back.
            convert(&first, &place("gd.safetensors"), Format::GuidedDiffusion, None).unwrap();
            let gd = Checkpoint::open(&place("gd.safetensors"), None).unwrap();
            assert_eq!(gd.config, first.config);
            same(&first, &gd);
            convert(&gd, &place("diffusers"), Format::Diffusers, None).unwrap();
            let theirs = Checkpoint::open(&place("diffusers"), None).unwrap();
            assert_eq!(theirs.config.unet, UNetConfig { qkv_order: QkvLayout::New, ..unet.clone() });
            convert(&theirs, &place("back"), Format::Freeguide, Some(unet.qkv_order)).unwrap();
            let back = Checkpoint::open(&place("back"), None).unwrap();
            assert_eq!(back.config, first.config);
            same(&first, &back);

            // Without our notes the same network is read off theirs.
            std::fs::remove_file(place("diffusers/freeguide.json")).unwrap();
            let bare = Checkpoint::open(&place("diffusers"), None).unwrap();
            same(&theirs, &bare);
            assert_eq!(bare.config.unet, theirs.config.unet, "{i}");
            assert_eq!(bare.config.scheduler, theirs.config.scheduler);
            // The weights file alone, and the folder of the network, are the same.
            for part in ["diffusers/unet", "diffusers/unet/diffusion_pytorch_model.safetensors"] {
                same(&bare, &Checkpoint::open(&place(part), None).unwrap());
            }
        }
    }

    #[test]
    fn the_names_are_those_of_diffusers() {
        let dir = tempfile::tempdir().unwrap();
        let first = checkpoint(&dir.path().join("first"), small());
        convert(&first, &dir.path().join("out"), Format::Diffusers, None).unwrap();
        let file =
            SafetensorsFile::open(dir.path().join("out/unet/diffusion_pytorch_model.safetensors")).unwrap();
        for (name, shape) in [
            ("conv_in.weight", &[32, 3, 3, 3][..]),
            ("time_embedding.linear_1.weight", &[128, 32]),
            ("class_embedding.weight", &[10, 128]),
            ("down_blocks.0.resnets.0.norm1.weight", &[32]),
            ("down_blocks.0.downsamplers.0.conv1.weight", &[32, 32, 3, 3]),
            ("down_blocks.1.resnets.0.conv_shortcut.weight", &[64, 32, 1, 1]),
            ("down_blocks.1.attentions.0.to_q.weight", &[64, 64]),
            ("mid_block.attentions.0.to_out.0.bias", &[64]),
            ("mid_block.resnets.1.time_emb_proj.weight", &[128, 128]),
            ("up_blocks.0.resnets.1.conv1.weight", &[64, 96, 3, 3]),
            ("up_blocks.0.attentions.1.group_norm.bias", &[64]),
            ("up_blocks.0.upsamplers.0.conv2.weight", &[64, 64, 3, 3]),
            ("up_blocks.1.resnets.1.norm2.weight", &[32]),
            ("conv_norm_out.weight", &[32]),
            ("conv_out.bias", &[6]),
        ] {
            assert_eq!(file.about(name).unwrap().1, shape, "{name}");
        }
        // Weight and bias of each qkv are three tensors there: two more each.
        let attentions = 4;
        assert_eq!(file.names().len(), 145 + 4 * attentions);
        let config = std::fs::read_to_string(dir.path().join("out/unet/config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        assert_eq!(
            config["down_block_types"],
            serde_json::json!(["ResnetDownsampleBlock2D", "AttnDownBlock2D"])
        );
        assert_eq!(config["up_block_types"], serde_json::json!(["AttnUpBlock2D", "ResnetUpsampleBlock2D"]));
        assert_eq!(config["block_out_channels"], serde_json::json!([32, 64]));
    }

    #[test]
    fn shards_are_one_network() {
        let dir = tempfile::tempdir().unwrap();
        let first = checkpoint(&dir.path().join("first"), small());
        convert(&first, &dir.path().join("out"), Format::Diffusers, None).unwrap();
        let unet = dir.path().join("out/unet");
        let whole = unet.join("diffusion_pytorch_model.safetensors");
        let file = SafetensorsFile::open(&whole).unwrap();
        let mut map = BTreeMap::new();
        for (i, half) in ["a.safetensors", "b.safetensors"].into_iter().enumerate() {
            let names: Vec<String> = file.names().into_iter().skip(i).step_by(2).collect();
            let parts: Vec<_> = names.iter().map(|name| (name, file.tensor(name).unwrap())).collect();
            let views: Vec<TensorBytes<'_>> = parts
                .iter()
                .map(|(name, (dtype, shape, bytes))| TensorBytes { name, dtype: *dtype, shape, bytes })
                .collect();
            write_safetensors(unet.join(half), &views, &BTreeMap::new()).unwrap();
            map.extend(names.into_iter().map(|name| (name, half)));
        }
        drop(file);
        std::fs::remove_file(&whole).unwrap();
        let index = unet.join("diffusion_pytorch_model.safetensors.index.json");
        let write = |map: &BTreeMap<String, &str>| {
            std::fs::write(&index, serde_json::json!({"metadata": {}, "weight_map": map}).to_string())
                .unwrap();
            Checkpoint::open(&dir.path().join("out"), None)
        };
        let refused = |map: &BTreeMap<String, &str>| write(map).map(drop).unwrap_err().to_string();
        let sharded = write(&map).unwrap();
        same(&first, &sharded);

        let with = |file: &'static str| map.keys().map(|name| (name.clone(), file)).collect();
        assert!(refused(&with("../../first/model.safetensors")).contains("not in its folder"));
        assert!(refused(&with("c.safetensors")).contains("c.safetensors"));
        assert!(refused(&with("a.safetensors")).contains("is not in the file"));
        let mut fewer = map.clone();
        fewer.remove("conv_in.bias");
        assert!(refused(&fewer).contains("`conv_in.bias` is not in the index"));
    }

    #[test]
    fn what_a_format_cannot_hold_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |unet: UNetConfig| {
            let first = checkpoint(&dir.path().join("first"), unet);
            let out = dir.path().join("out");
            convert(&first, &out, Format::Diffusers, None).unwrap_err().to_string()
        };
        assert!(refused(UNetConfig { low_res_channels: 3, ..small() }).contains("small picture"));
        assert!(refused(UNetConfig { residual_scaling: true, ..small() }).contains("residual"));
        let heads =
            UNetConfig { num_attention_heads: Some(2), attention_resolutions: vec![16, 8], ..small() };
        assert!(refused(heads).contains("number of heads"));

        let first = checkpoint(&dir.path().join("first"), small());
        let out = dir.path().join("out");
        convert(&first, &out, Format::Diffusers, None).unwrap();
        std::fs::remove_file(out.join("freeguide.json")).unwrap();
        let path = out.join("unet/config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        for (key, value, named) in [
            ("flip_sin_to_cos", serde_json::json!(false), "flip_sin_to_cos"),
            ("norm_eps", serde_json::json!(1e-6), "norm_eps"),
            ("down_block_types", serde_json::json!(["DownBlock2D", "CrossAttn"]), "DownBlock2D"),
            ("_class_name", serde_json::json!("UNet2DConditionModel"), "UNet2DConditionModel"),
            ("sample_size", serde_json::json!(null), "sample_size"),
        ] {
            let mut changed: serde_json::Value = serde_json::from_str(&text).unwrap();
            changed[key] = value;
            let changed = changed.to_string();
            std::fs::write(&path, changed).unwrap();
            let message = Checkpoint::open(&out, None).map(drop).unwrap_err().to_string();
            assert!(message.contains(named) && message.contains("config.json"), "{message}");
        }
    }
}
