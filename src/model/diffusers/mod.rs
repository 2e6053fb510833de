//! diffusers' folders of `UNet2DModel`: `model_index.json`, `unet/config.json`, weights in one file or several, and the
//! scheduler's settings.

mod config;
mod names;
mod scheduler;
mod shards;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::config::{ModelConfig, SamplingDefaults, UNET};
use super::open::{Checkpoint, read_config};
use crate::error::{Error, Result};
use crate::io::{Dtype, TensorBytes, write_atomic, write_safetensors};
use crate::nn::unet::QkvLayout;
use crate::nn::{Layout, UNet};
use config::UNet2D;
use names::{Place, place};
use scheduler::Scheduler;
use source::AsGuidedDiffusion;
pub(super) use source::reorder_qkv;

/// Our own configuration, kept beside diffusers': what theirs cannot say.
const OURS: &str = "freeguide.json";

/// Opens `path` if it is a diffusers folder: a pipeline's, its `unet`, or a weights file in there.
pub(super) fn open(path: &Path) -> Result<Option<Checkpoint>> {
    let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(shards::STEM));
    if path.is_file() && !named {
        return Ok(None);
    }
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
    let unet = if folder.join("model_index.json").exists() { folder.join("unet") } else { folder.to_owned() };
    let path = unet.join("config.json");
    let Some(class_name) = class_name(&path)? else { return Ok(None) };
    if class_name.starts_with("Freeguide") {
        return Ok(None);
    }
    let bad = |what: String| Error::format(&path, what);
    let theirs: UNet2D = read(&path)?;
    let config = theirs.ours().map_err(bad)?;
    config.check().map_err(|error| bad(error.to_string()))?;

    let mut notes = vec![format!("a diffusers folder of {}", theirs.class_name)];
    let top = unet.parent().unwrap_or(Path::new("."));
    let ours = [unet.join(OURS), top.join(OURS)].into_iter().find(|path| path.exists());
    let config = match ours {
        Some(path) => {
            let mut ours = read_config(&path)?;
            // The channels of qkv lie apart here, whatever their order was.
            ours.unet.qkv_order = QkvLayout::New;
            notes.push(format!("configuration from {}", path.display()));
            ours
        }
        None => {
            let settings = [top.join("scheduler/scheduler_config.json"), unet.join("scheduler_config.json")];
            let settings = settings.into_iter().find(|path| path.exists()).ok_or_else(|| {
                bad("has no scheduler/scheduler_config.json beside its folder, which says what it was trained for".into())
            })?;
            let scheduler =
                read::<Scheduler>(&settings)?.ours().map_err(|what| Error::format(&settings, what))?;
            let classes = config.num_classes.unwrap_or(0);
            ModelConfig {
                class_name: UNET.into(),
                unet: config.clone(),
                scheduler,
                sampling: SamplingDefaults {
                    steps: 250,
                    variance_exponent: 0.0,
                    clip: "static".into(),
                    sampler: None,
                },
                class_names: (0..classes).map(|label| label.to_string()).collect(),
                data: "unknown pictures".into(),
                unconditional_probability: 0.0,
                images_seen: 0,
                ema_rate: None,
                init_from: None,
            }
        }
    };
    let network = UNet::new(&config.unet)?;
    let source = AsGuidedDiffusion::new(shards::open(&unet)?, network.config(), network.parameters())?;
    Ok(Some(Checkpoint { source: Box::new(source), prefix: String::new(), config, notes }))
}

/// Every file that [`write`] may write.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let weights = format!("unet/{}.safetensors", shards::STEM);
    let names =
        [weights.as_str(), "unet/config.json", "scheduler/scheduler_config.json", OURS, "model_index.json"];
    names.map(|name| folder.join(name)).into()
}

/// Writes a checkpoint as a diffusers folder; each tensor keeps its type and bits.
///
/// # Errors
/// [`Error::Config`] for what `UNet2DModel` cannot be; whatever the disk objects to.
pub(super) fn write(checkpoint: &Checkpoint, folder: &Path) -> Result<()> {
    let config = &checkpoint.config;
    let theirs = UNet2D::of(&config.unet).map_err(Error::Config)?;
    let unet = folder.join("unet");
    std::fs::create_dir_all(&unet).map_err(Error::io(&unet))?;

    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for spec in checkpoint.parameters()?.specs() {
        let name = format!("{}{}", checkpoint.prefix, spec.name);
        let (dtype, mut shape) = checkpoint.source.about(&name)?;
        let mut bytes = checkpoint.source.bytes(&name)?;
        if spec.layout == Layout::Conv1d {
            shape.pop();
        }
        match place(&config.unet, &spec.name).expect("every parameter of a UNet has a place") {
            Place::One(name) => tensors.push((name, dtype, shape, bytes)),
            Place::Qkv(names) => {
                shape[0] /= 3;
                if config.unet.qkv_order == QkvLayout::Legacy {
                    bytes = reorder_qkv(&bytes, config.unet.heads(shape[0]), true);
                }
                for (name, part) in names.into_iter().zip(bytes.chunks_exact(bytes.len() / 3)) {
                    tensors.push((name, dtype, shape.clone(), part.to_vec()));
                }
            }
        }
    }
    let views: Vec<TensorBytes<'_>> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| TensorBytes { name, dtype: *dtype, shape, bytes })
        .collect();
    let weights = unet.join(format!("{}.safetensors", shards::STEM));
    write_safetensors(weights, &views, &BTreeMap::from([("format".into(), "pt".into())]))?;
    put(&unet.join("config.json"), &theirs)?;

    let mut index = BTreeMap::from([
        ("_class_name", serde_json::json!("DDPMPipeline")),
        ("unet", serde_json::json!(["diffusers", config::CLASS_NAME])),
    ]);
    if let Some(scheduler) = Scheduler::of(&config.scheduler) {
        let folder = folder.join("scheduler");
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        put(&folder.join("scheduler_config.json"), &scheduler)?;
        index.insert("scheduler", serde_json::json!(["diffusers", scheduler.class_name]));
    }
    let mut ours = config.clone();
    ours.unet.qkv_order = QkvLayout::New;
    put(&folder.join(OURS), &ours)?;
    put(&folder.join("model_index.json"), &index)
}

fn put(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::format(path, error.to_string()))?;
    write_atomic(path, |writer| writer.write_all(format!("{text}\n").as_bytes()).map_err(Error::io(path)))
}

fn read<T: DeserializeOwned>(path: &PathBuf) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text).map_err(|error| Error::format(path, error.to_string()))
}

/// The `_class_name` of a configuration that is there and has one.
fn class_name(path: &PathBuf) -> Result<Option<String>> {
    if !path.exists() {
        return Ok(None);
    }
    let value: serde_json::Value = read(path)?;
    Ok(value.get("_class_name").and_then(|name| name.as_str()).map(str::to_owned))
}
