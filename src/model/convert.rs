//! From one kind of checkpoint to another: the same numbers in the same type, under other names.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, Result, brief};
use crate::io::{Dtype, TensorBytes, write_atomic, write_safetensors};
use crate::nn::unet::{NullClass, QkvLayout};

use super::checkpoint::Checkpoint;
use super::config::ModelConfig;
use super::diffusers::{self, reorder_qkv};
use super::open::CONFIG_NOTE;
use super::weights_kind::WeightsKind;

/// What a checkpoint is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// This program's folder: `model.safetensors` and `config.json`.
    Freeguide,
    /// One `.safetensors` file under guided-diffusion's names, its configuration in its notes, for this program.
    Safetensors,
    /// The same, refused where guided-diffusion itself would read another network than it is.
    GuidedDiffusion,
    /// A pipeline's folder of diffusers.
    Diffusers,
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "freeguide" => Ok(Format::Freeguide),
            "safetensors" => Ok(Format::Safetensors),
            "guided-diffusion" => Ok(Format::GuidedDiffusion),
            "diffusers" => Ok(Format::Diffusers),
            _ => Err(Error::Config(format!(
                "`{text}` is no format of checkpoints; there are freeguide, safetensors, guided-diffusion and diffusers",
                text = brief(text)
            ))),
        }
    }
}

impl Format {
    /// Every file that [`convert`] to this format may write at `out`.
    pub fn files(self, out: &Path) -> Vec<PathBuf> {
        match self {
            Format::Freeguide => ["model.safetensors", "config.json"].map(|name| out.join(name)).into(),
            Format::Safetensors | Format::GuidedDiffusion => vec![out.to_owned()],
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

    if format == Format::GuidedDiffusion {
        let lacks = not_in_guided_diffusion(&checkpoint.config);
        if !lacks.is_empty() {
            return Err(Error::Config(format!(
                "guided-diffusion would read another network than this one: it has no {}; the format safetensors is the \
                 same file for this program",
                lacks.join(", no ")
            )));
        }
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
    let mut notes = checkpoint.found.weights.map(WeightsKind::to_notes).unwrap_or_default();
    notes.insert("format".to_owned(), "pt".to_owned());
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

/// What a network or its process has and guided-diffusion's code has not, in words. Its files say none of it, so it would
/// read them as something else.
pub fn not_in_guided_diffusion(config: &ModelConfig) -> Vec<String> {
    let ModelConfig { unet, scheduler, .. } = config;
    let mut lacks = Vec::new();
    let mut no = |lack: bool, what: String| lacks.extend(lack.then_some(what));
    no(unet.norm_num_groups != 32, format!("group norm of {} groups (it has 32)", unet.norm_num_groups));
    no(
        unet.num_classes.is_some() && unet.null_class == NullClass::Learned,
        format!("null class (row {} of the class embedding)", unet.num_classes.unwrap_or(0)),
    );
    no(
        unet.sample_size.side().is_none(),
        format!("samples of {} (its image_size is one side)", unet.sample_size),
    );
    no(unet.in_channels != 3, format!("pictures of {} channels", unet.in_channels));
    no(unet.residual_scaling, "scaled residual sums".into());
    no(unet.condition_from.is_some(), "late condition".into());
    no(unet.transformer.is_some(), "transformers that read tokens".into());
    no(unet.beside_channels > 0, "picture beside its samples".into());
    no(unet.vector_width > 0, "vector condition".into());
    no(unet.guidance_range.is_some(), "guidance weight as an input".into());
    let schedule = scheduler.beta_schedule.as_str();
    no(!matches!(schedule, "linear" | "cosine"), format!("{schedule} schedule"));
    no(scheduler.has_own_betas(), "betas of its own".into());
    no(scheduler.prediction_type == "v_prediction", "prediction of v".into());
    let learned = scheduler.variance_type.as_deref() == Some("learned");
    no(learned, "variances learned without a range, in its scripts".into());
    lacks
}

fn json(path: &Path, config: &ModelConfig) -> Result<String> {
    let text =
        serde_json::to_string_pretty(config).map_err(|error| Error::format(path, error.to_string()))?;
    Ok(text + "\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use std::fs;

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
            convert(&first, &place("one.safetensors"), Format::Safetensors, None).unwrap();
            assert!(
                fs::read(place("one.safetensors")).unwrap() == fs::read(place("gd.safetensors")).unwrap()
            );
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
    fn what_guided_diffusion_would_read_as_another_network_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.safetensors");
        let grey = |unet: UNetConfig| UNetConfig { in_channels: 1, out_channels: 2, ..unet };
        for (unet, named) in [
            (UNetConfig { norm_num_groups: 8, ..small() }, "8 groups"),
            (UNetConfig { null_class: NullClass::Learned, ..small() }, "null class (row 10"),
            (grey(small()), "1 channels"),
            (UNetConfig { residual_scaling: true, ..small() }, "residual"),
        ] {
            let first = checkpoint(&dir.path().join("first"), unet);
            let message = convert(&first, &out, Format::GuidedDiffusion, None).unwrap_err().to_string();
            assert!(message.contains(named) && message.contains("safetensors"), "{message}");
            assert!(!out.exists());
            // For this program it is written, and read as what it is.
            convert(&first, &out, Format::Safetensors, None).unwrap();
            assert_eq!(Checkpoint::open(&out, None).unwrap().config, first.config);
            fs::remove_file(&out).unwrap();
        }
        let mut first = checkpoint(&dir.path().join("first"), small());
        assert_eq!(not_in_guided_diffusion(&first.config), [""; 0]);
        first.config.scheduler = crate::model::SchedulerConfig::continuous(-20.0, 20.0);
        assert_eq!(not_in_guided_diffusion(&first.config), ["continuous schedule"]);
    }

    /// The fields of a JSON file, one of them changed.
    fn edit(path: &Path, field: &str, value: serde_json::Value) {
        let mut config: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        config[field] = value;
        fs::write(path, config.to_string()).unwrap();
    }

    #[test]
    fn what_was_edited_beside_our_own_notes_is_told_with_both_values() {
        let dir = tempfile::tempdir().unwrap();
        let first = checkpoint(&dir.path().join("first"), small());
        let out = dir.path().join("out");
        let written = || convert(&first, &out, Format::Diffusers, None).unwrap();
        let open = || Checkpoint::open(&out, None).map(drop).map_err(|error| error.to_string());
        written();
        open().unwrap();
        let [unet, scheduler] =
            ["unet/config.json", "scheduler/scheduler_config.json"].map(|name| out.join(name));
        for (path, field, value, both) in [
            (&scheduler, "beta_schedule", serde_json::json!("linear"), ["squaredcos_cap_v2", "linear"]),
            (&scheduler, "num_train_timesteps", serde_json::json!(500), ["1000", "500"]),
            (&scheduler, "prediction_type", serde_json::json!("v_prediction"), ["epsilon", "v_prediction"]),
            (&scheduler, "clip_sample", serde_json::json!(false), ["true", "false"]),
            (&unet, "sample_size", serde_json::json!(32), ["16", "32"]),
            (&unet, "attention_head_dim", serde_json::json!(8), ["16", "8"]),
        ] {
            written();
            edit(path, field, value);
            let message = open().unwrap_err();
            let file = path.file_name().unwrap().to_str().unwrap();
            for part in [format!("`{field}`").as_str(), both[0], both[1], "freeguide.json", file] {
                assert!(message.contains(part), "{part}: {message}");
            }
            // The way out that it names.
            fs::remove_file(out.join("freeguide.json")).unwrap();
            if let Err(message) = open() {
                assert!(!message.contains("contradicts"), "{message}");
            }
        }
        // What says the same in another way, or nothing, is no contradiction.
        written();
        edit(&unet, "act_fn", serde_json::json!("swish"));
        edit(&scheduler, "clip_sample", serde_json::Value::Null);
        edit(&scheduler, "_diffusers_version", serde_json::json!("0.42.1"));
        open().unwrap();
        // Two schedulers, one above and one beside the network.
        fs::remove_file(out.join("freeguide.json")).unwrap();
        fs::copy(&scheduler, out.join("unet/scheduler_config.json")).unwrap();
        open().unwrap();
        edit(&scheduler, "beta_schedule", serde_json::json!("linear"));
        let message = open().unwrap_err();
        assert!(message.contains("contradicts another") && message.contains("linear"), "{message}");
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
            ("_class_name", serde_json::json!("UNet3DConditionModel"), "UNet3DConditionModel"),
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
