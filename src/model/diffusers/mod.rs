//! diffusers' folders of `UNet2DModel` and `UNet2DConditionModel`: `model_index.json`, `unet/config.json`, weights in one file or
//! several, and the scheduler's settings.

mod conditional;
mod config;
mod names;
mod qkv_order;
mod scheduler;
mod shards;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::agreement::{Difference, differences, told};
use super::checkpoint::Checkpoint;
use super::config::{ModelConfig, SamplingDefaults, UNET, read_config};
use super::renamed::{Place, Renamed};
use crate::error::{Error, Result};
use crate::io::{Dtype, TensorBytes, TensorSource, write_atomic, write_safetensors};
use crate::nn::unet::QkvLayout;
use crate::nn::{Layout, UNet, UNetConfig};
use conditional::UNet2DCondition;
use config::UNet2D;
pub(super) use names::place;
pub(super) use qkv_order::reorder_qkv;
use scheduler::Scheduler;
pub(super) use shards::STEM;

/// Our own configuration, kept beside diffusers': what theirs cannot say.
const OURS: &str = "freeguide.json";

/// What a folder makes of a file of weights in it.
pub(super) struct Opened {
    /// The tensors under guided-diffusion's names.
    pub source: Box<dyn TensorSource>,
    pub config: ModelConfig,
    /// What the configuration was taken from.
    pub configuration: String,
    pub notes: Vec<String>,
}

/// Whether a file has the names of the tensors of one of diffusers' networks.
pub(super) fn are_names(source: &dyn TensorSource) -> bool {
    let names = source.names();
    let any = |prefix: &str| names.iter().any(|name| name.starts_with(prefix));
    any("conv_in.") && (any("down_blocks.") || any("time_embedding."))
}

/// Opens several files behind their index.
pub(super) fn shards(index: &Path) -> Result<Box<dyn TensorSource>> {
    shards::open(index)
}

/// The network of a file of weights, configured by what lies in its folder and the one above.
pub(super) fn open(weights: &Path, source: Box<dyn TensorSource>) -> Result<Opened> {
    let unet = weights.parent().unwrap_or(Path::new("."));
    let path = unet.join("config.json");
    if !path.exists() {
        let what = "has diffusers' names, whose configuration stands in config.json beside it; there is none";
        return Err(Error::format(weights, what));
    }
    let bad = |what: String| Error::format(&path, what);
    let theirs = Theirs::read(&path)?;
    let config = theirs.ours().map_err(bad)?;
    config.check().map_err(|error| bad(error.to_string()))?;

    let mut notes = vec![format!("a diffusers folder of {}", theirs.class_name())];
    let top = unet.parent().unwrap_or(Path::new("."));
    let settings = settings(top, unet)?;
    let ours = [unet.join(OURS), top.join(OURS)].into_iter().find(|path| path.exists());
    let (config, configuration) = match (ours, settings) {
        (Some(kept), settings) => {
            let mut ours = read_config(&kept)?;
            // The channels of qkv lie apart here, whatever their order was.
            ours.unet.qkv_order = QkvLayout::New;
            match &theirs {
                Theirs::Plain(theirs) => agree(&kept, &ours, (&path, theirs), settings.as_ref())?,
                Theirs::Conditional(_) => {
                    let what = format!("is not read beside a {}: take it away", conditional::CLASS_NAME);
                    return Err(Error::format(&kept, what));
                }
            }
            let beside = match settings {
                Some(_) => "config.json and scheduler_config.json say",
                None => "config.json says",
            };
            (ours, format!("{}, and {beside} the same", kept.display()))
        }
        (None, Some(settings)) => {
            notes.extend(settings.ours.notes);
            let classes = config.num_classes.unwrap_or(0);
            let config = ModelConfig {
                class_name: UNET.into(),
                unet: config,
                scheduler: settings.ours.scheduler,
                sampling: match theirs {
                    Theirs::Plain(_) => settings.ours.sampling,
                    Theirs::Conditional(_) => {
                        SamplingDefaults { steps: conditional::STEPS, ..settings.ours.sampling }
                    }
                },
                class_names: (0..classes).map(|label| label.to_string()).collect(),
                data: "unknown pictures".into(),
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
            (config, format!("{} and {}", path.display(), settings.path.display()))
        }
        (None, None) => {
            return Err(bad(
                "has no scheduler/scheduler_config.json beside its folder, which says what it was trained for".into(),
            ));
        }
    };
    let network = UNet::new(&config.unet)?;
    let source = Renamed::new(source, network.parameters(), "", |name| place(network.config(), name))?;
    Ok(Opened { source: Box::new(source), config, configuration, notes })
}

/// The configuration of one of diffusers' networks.
enum Theirs {
    Plain(Box<UNet2D>),
    Conditional(Box<UNet2DCondition>),
}

impl Theirs {
    /// By its class; of another than is known as the plain one, which says so.
    fn read(path: &PathBuf) -> Result<Theirs> {
        let value: serde_json::Value = read(path)?;
        let bad = |error: serde_json::Error| Error::format(path, error.to_string());
        Ok(match value["_class_name"] == conditional::CLASS_NAME {
            true => Theirs::Conditional(Box::new(serde_json::from_value(value).map_err(bad)?)),
            false => Theirs::Plain(Box::new(serde_json::from_value(value).map_err(bad)?)),
        })
    }

    fn class_name(&self) -> &str {
        match self {
            Theirs::Plain(theirs) => &theirs.class_name,
            Theirs::Conditional(_) => conditional::CLASS_NAME,
        }
    }

    fn ours(&self) -> Result<UNetConfig, String> {
        match self {
            Theirs::Plain(theirs) => theirs.ours(),
            Theirs::Conditional(theirs) => theirs.ours(),
        }
    }
}

/// A scheduler's settings as they stand in a file, and what they say in our words.
struct Settings {
    path: PathBuf,
    theirs: Scheduler,
    ours: scheduler::Read,
}

/// The settings of a pipeline's scheduler, or of one beside a network that stands alone; where there are both, they agree.
fn settings(top: &Path, unet: &Path) -> Result<Option<Settings>> {
    let mut found: Option<Settings> = None;
    for path in [top.join("scheduler/scheduler_config.json"), unet.join("scheduler_config.json")] {
        if !path.exists() {
            continue;
        }
        let theirs = scheduler::parse(&path)?;
        let ours = theirs.ours().map_err(|what| Error::format(&path, what))?;
        match &found {
            None => found = Some(Settings { path, theirs, ours }),
            Some(first) => {
                let differ = said_otherwise((&first.theirs, &first.ours), (&theirs, &ours));
                let here = first.path.display().to_string();
                if let Some(what) = told(&differ, &here, "this file") {
                    let what = format!("contradicts another: {what}; take one of them away");
                    return Err(Error::format(&path, what));
                }
            }
        }
    }
    Ok(found)
}

/// The settings that `there` says, and otherwise than `here`: none where both come to the same.
fn said_otherwise(
    here: (&Scheduler, &scheduler::Read),
    there: (&Scheduler, &scheduler::Read),
) -> Vec<Difference> {
    let of = |read: &scheduler::Read| (read.scheduler.clone(), read.sampling.clone());
    if of(here.1) == of(there.1) {
        return Vec::new();
    }
    let mut differ = differences(here.0, there.0, &[]);
    differ.retain(|one| one.is_said() && (!one.field.starts_with('_') || one.field == "_class_name"));
    differ
}

/// Checks that our own notes say what diffusers' files beside them say, as far as those can say it.
fn agree(
    kept: &Path,
    ours: &ModelConfig,
    (path, theirs): (&Path, &UNet2D),
    settings: Option<&Settings>,
) -> Result<()> {
    let bad = |what: String| Error::format(kept, what);
    let contradiction = |differ: &[Difference], beside: &Path| {
        let what = told(differ, OURS, &beside.display().to_string()).unwrap_or_default();
        let way_out =
            "undo the change, make it in both, or delete freeguide.json to go by diffusers' files alone";
        Err(bad(format!("contradicts a file beside it: {what}; {way_out}")))
    };
    // What their class cannot say is left out by going through it, and what it says in several ways is one.
    let said = UNet2D::of(&ours.unet).map_err(bad)?;
    if said.ours().map_err(bad)? != theirs.ours().map_err(|what| Error::format(path, what))? {
        return contradiction(&differences(&said, theirs, &[]), path);
    }
    let Some(settings) = settings else { return Ok(()) };
    match Scheduler::of(&ours.scheduler, &ours.sampling) {
        Some(said) => {
            let read = said.ours().map_err(bad)?;
            match &said_otherwise((&said, &read), (&settings.theirs, &settings.ours))[..] {
                [] => Ok(()),
                differ => contradiction(differ, &settings.path),
            }
        }
        // A schedule that theirs cannot be.
        None => contradiction(&differences(&ours.scheduler, &settings.ours.scheduler, &[]), &settings.path),
    }
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
            Place::Joined(names) => {
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
    if let Some(scheduler) = Scheduler::of(&config.scheduler, &config.sampling) {
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
