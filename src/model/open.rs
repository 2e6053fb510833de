//! Opening a checkpoint of any kind: which file, which network in it, which configuration, and where that comes from.
//!
//! `locate.rs` finds the file, `network.rs` the network in it; here the configuration is settled. In this order: flags
//! that were given; what the file itself carries; `config.json` beside it; the table of published files. Where two that are
//! both about the file differ, that is an error which shows both.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::io::{FileKind, PtFile, SafetensorsFile, TensorSource};

use super::agreement::{differences, told};
use super::architecture::{self, Shapes};
use super::average;
use super::checkpoint::{Checkpoint, Found};
use super::config::{CLASSIFIER, ModelConfig, UNET, parse_config, read_config};
use super::diffusers;
use super::flags::{self, Flags};
use super::ldm;
use super::locate::{self, Choice, Place};
use super::network::{self, Network};
use super::published;
use super::values::check_tensors;
use super::weights_kind::WeightsKind;

impl Checkpoint {
    /// Opens a folder of this program, a diffusers folder, a `.safetensors` or a `.pt` file. `flags` names a JSON file
    /// of guided-diffusion's flags that go before what is known of published files.
    ///
    /// # Errors
    /// As [`Checkpoint::choose`].
    pub fn open(path: &Path, flags: Option<&Path>) -> Result<Checkpoint> {
        Checkpoint::choose(path, &Choice::flags(flags))
    }

    /// As [`Checkpoint::open`], of several networks or averages the one that is asked for. `FILE#NETWORK` and
    /// `FOLDER#AVERAGE` as a path ask too.
    ///
    /// # Errors
    /// Whatever is wrong with the files, by name; a choice that is not there, or is needed, with those that there are; two
    /// configurations of one file that differ, with both values; the flags that are missing for a file that is not
    /// published; a tensor that is missing, left over, or of another shape than its network's.
    pub fn choose(path: &Path, choice: &Choice) -> Result<Checkpoint> {
        let place = locate::find(path, choice)?;
        let weights = Weights::open(&place.file)?;
        let mut checkpoint = match diffusers::are_names(weights.source.as_ref()) {
            true => of_diffusers(weights, place, choice)?,
            false => of_guided_diffusion(weights, place, choice)?,
        };
        if choice.null_class_last {
            checkpoint.config.take_last_row_as_null()?;
            checkpoint.notes.push("its last row of classes is the null class, as was said".into());
        }
        checkpoint.check()?;
        Ok(checkpoint)
    }

    /// A checkpoint of this program that lies in memory: the texts of its two files, which errors call `name`.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_bytes(name: &str, config: &str, weights: &[u8]) -> Result<Checkpoint> {
        let source: Box<dyn TensorSource> = Box::new(SafetensorsFile::from_bytes(name, weights)?);
        let config = parse_config(Path::new(name), config)?;
        let found = Found {
            file: name.into(),
            file_why: "in memory".into(),
            network: None,
            network_why: "the only one".into(),
            configuration: "in memory".into(),
            weights: WeightsKind::of_config(&config),
        };
        let checkpoint = Checkpoint { source, prefix: String::new(), config, notes: Vec::new(), found };
        checkpoint.check()?;
        Ok(checkpoint)
    }

    /// Whether a folder holds weights under one of the names that [`Checkpoint::open`] knows.
    pub fn is_in(folder: &Path) -> bool {
        locate::holds_weights(folder)
    }

    /// Checks that the file has exactly the tensors of its network.
    fn check(&self) -> Result<()> {
        check_tensors(self.source.as_ref(), &self.parameters()?, &self.prefix)
    }
}

/// A file of tensors and its own notes.
struct Weights {
    source: Box<dyn TensorSource>,
    notes: BTreeMap<String, String>,
    /// Whether it is a safetensors file: a `config.json` beside such a one is its configuration.
    safetensors: bool,
}

impl Weights {
    /// Opens a file by its contents, whatever its name.
    fn open(path: &Path) -> Result<Weights> {
        let named = path.extension().is_some_and(|extension| extension == "safetensors");
        let source: Box<dyn TensorSource> = match FileKind::of(path)? {
            FileKind::Safetensors => return Weights::safetensors(path),
            // Its own opening tells what is damaged.
            FileKind::Text | FileKind::Unknown if named => return Weights::safetensors(path),
            FileKind::PyTorch | FileKind::Zip | FileKind::Tar | FileKind::Unknown => {
                Box::new(PtFile::open(path)?)
            }
            FileKind::Json => diffusers::shards(path)?,
            kind => return Err(Error::format(path, kind.instead_of("a model's weights"))),
        };
        Ok(Weights { source, notes: BTreeMap::new(), safetensors: false })
    }

    fn safetensors(path: &Path) -> Result<Weights> {
        let file = SafetensorsFile::open(path)?;
        let notes = file.metadata().clone();
        Ok(Weights { source: Box::new(file), notes, safetensors: true })
    }
}

/// Where a file of weights may carry its configuration.
pub(super) const CONFIG_NOTE: &str = "freeguide_config";

/// What of a configuration tells of a training and decides no picture: an average's differs from its neighbour's.
const TELLS: [&str; 6] =
    ["ema_rate", "ema_warmup", "ema_initial_share", "trained_rows", "images_seen", "data"];

/// The network of a diffusers folder.
fn of_diffusers(weights: Weights, place: Place, choice: &Choice) -> Result<Checkpoint> {
    let refuse = |what: &str| Err(Error::format(&place.file, format!("has diffusers' names: {what}")));
    if choice.flags.is_some() {
        return refuse(
            "its configuration stands in its folder, and flags of guided-diffusion say nothing of it",
        );
    }
    if place.network.is_some() {
        return refuse("it holds one network, which has no name");
    }
    if place.average.is_some() {
        return refuse("it does not say which average it holds");
    }
    let opened = diffusers::open(&place.file, weights.source)?;
    let found = Found {
        file: place.file,
        file_why: place.why,
        network: None,
        network_why: "the only one in the file".into(),
        configuration: opened.configuration,
        weights: WeightsKind::of_config(&opened.config),
    };
    let notes = [place.notes, opened.notes].concat();
    Ok(Checkpoint { source: opened.source, prefix: String::new(), config: opened.config, notes, found })
}

/// A network under guided-diffusion's names: a file of theirs, or of this program.
fn of_guided_diffusion(weights: Weights, place: Place, choice: &Choice) -> Result<Checkpoint> {
    let Weights { source, notes: carried, safetensors } = weights;
    let file = place.file;
    let source = ldm::with_dots(source)?;
    let network = network::choose(source.as_ref(), place.network.as_deref())?;
    let mut notes = place.notes;
    notes.extend(network.as_ref().and_then(|network| network.note.clone()));

    let known = match &choice.flags {
        None => configured(&file, &carried, safetensors)?,
        Some(_) => {
            if carried.contains_key(CONFIG_NOTE) {
                notes.push("the configuration that the file carries is not read: flags were given".into());
            }
            None
        }
    };
    let held = average::held(&file, &carried);
    let (prefix, config, configuration) = match known {
        Some((config, from)) => {
            // Without its first tensor a file of a known network is told what it lacks.
            let prefix = network.as_ref().map_or_else(String::new, |network| network.prefix.clone());
            (prefix, config, from)
        }
        None => {
            let Network { prefix, .. } = network.as_ref().ok_or_else(|| none_of(source.as_ref()))?;
            let inferred = infer(&file, source.as_ref(), prefix, choice.flags.as_deref())?;
            notes.extend(inferred.notes);
            (prefix.clone(), inferred.config, inferred.from)
        }
    };

    let source = ldm::joined(source, &config.unet, &prefix)?;

    // What `config.json` says of an average is said of the model; a file of another name says it for itself.
    let is_models =
        file.file_name().is_some_and(|name| name == "model.safetensors") || carried.contains_key(CONFIG_NOTE);
    let held = held.or(WeightsKind::of_config(&config).filter(|_| is_models));
    if let Some(asked) = place.average {
        locate::check_average(&file, held.map(Into::into), asked)?;
    }
    let (ema_rate, ema_initial_share) = match held {
        Some(WeightsKind::Average { rate, initial_share }) => (Some(rate), initial_share),
        _ => (None, None),
    };
    let ema_warmup = config.ema_warmup.filter(|_| ema_rate.is_some());
    let config = ModelConfig { ema_rate, ema_initial_share, ema_warmup, ..config };
    let found = Found {
        file,
        file_why: place.why,
        network: network.as_ref().and_then(|network| network.name.clone()),
        network_why: network.map_or_else(|| "the whole file".into(), |network| network.why),
        configuration,
        weights: held,
    };
    Ok(Checkpoint { source, prefix, config, notes, found })
}

/// The configuration that a file carries or that lies beside it, and which; they must say the same.
fn configured(
    file: &Path,
    carried: &BTreeMap<String, String>,
    safetensors: bool,
) -> Result<Option<(ModelConfig, String)>> {
    let own = carried.get(CONFIG_NOTE).map(|text| parse_config(file, text)).transpose()?;
    let path = file.with_file_name("config.json");
    // A .pt file has no configuration of this program's beside it; another program's is about other weights.
    let beside = (safetensors && path.exists() && (own.is_none() || is_ours(&path)))
        .then(|| read_config(&path))
        .transpose()?;
    let from_beside = "config.json beside the file";
    Ok(match (own, beside) {
        (Some(own), Some(beside)) => {
            if let Some(what) = told(
                &differences(&own, &beside, &TELLS),
                "the configuration that it carries",
                &path.display().to_string(),
            ) {
                let way_out = "put the file into a folder of its own, or take config.json away";
                return Err(Error::format(file, format!("{what}; {way_out}")));
            }
            Some((own, "carried by the file; config.json beside it says the same".into()))
        }
        (Some(own), None) => Some((own, "carried by the file".into())),
        (None, Some(beside)) => Some((beside, from_beside.into())),
        (None, None) => None,
    })
}

/// Whether a `config.json` is one of this program's, if only by what it calls itself.
fn is_ours(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.contains(UNET) || text.contains(CLASSIFIER))
}

/// What a file without a network is told.
fn none_of(source: &dyn TensorSource) -> Error {
    let (count, opaque) = (source.names().len(), source.opaque());
    let what = format!(
        "holds {count} tensors, but no `time_embed.0.weight`: it is none of guided-diffusion's networks"
    );
    let object = opaque.iter().next().filter(|_| count == 0);
    Error::format(
        source.path(),
        match object {
            Some((_, kind)) => format!(
                "{what}; it is an object of `{kind}`, and objects are never made: save its state_dict() instead"
            ),
            None => what,
        },
    )
}

struct Inferred {
    config: ModelConfig,
    from: String,
    notes: Vec<String>,
}

/// The configuration of a file that no one describes: from its tensors, the table of published files, and flags.
fn infer(path: &Path, source: &dyn TensorSource, prefix: &str, flags: Option<&Path>) -> Result<Inferred> {
    let shapes = architecture::shapes(source, prefix)?;
    let given = flags.map(Flags::read).transpose()?.unwrap_or_default();

    if architecture::reads_tokens(&shapes) {
        return of_latents(path, source, prefix, (&shapes, &given, flags));
    }
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let published = published::recognise(&shapes, &stem);
    let from_table = published.map(Flags::of).unwrap_or_default();
    let mut notes = Vec::new();
    notes.push(match published {
        Some(file) if file.name == stem => format!("recognised as the published {}.pt", file.name),
        Some(file) => {
            format!("has the tensors of the published {}.pt, and is taken for one like it", file.name)
        }
        None => "is no published file".into(),
    });
    let mut from = vec!["its tensors".to_owned()];
    from.extend(published.map(|_| "the table of published files".to_owned()));
    if let Some(flags) = flags {
        notes.push(format!("flags from {}", flags.display()));
        from.push(format!("the flags in {}", flags.display()));
    }
    let all = given.over(from_table);
    notes.extend(assumed(&all));
    let outside = source.names().len() - shapes.len();
    if outside > 0 {
        notes.push(format!("the network is under `{prefix}`; {outside} other tensors are not read"));
    }

    let bad = |what: String| Error::format(path, what);
    let found = architecture::infer(&shapes, all.classifier_depth).map_err(bad)?;
    let config = flags::configure(&found, &all, published).map_err(bad)?;
    config.unet.check().map_err(|error| bad(error.to_string()))?;
    Ok(Inferred { config, from: from.join(", "), notes })
}

/// As [`infer`], of a network that reads tokens: of latent diffusion.
fn of_latents(
    path: &Path,
    source: &dyn TensorSource,
    prefix: &str,
    (shapes, given, flags): (&Shapes, &Flags, Option<&Path>),
) -> Result<Inferred> {
    let bad = |what: String| Error::format(path, what);
    let found = architecture::infer(shapes, None).map_err(bad)?;
    let (config, mut notes) = ldm::configure(source, prefix, &found, given)?;
    config.unet.check().map_err(|error| bad(error.to_string()))?;
    let mut from = vec!["its tensors and what is known of their family".to_owned()];
    if let Some(flags) = flags {
        notes.push(format!("flags from {}", flags.display()));
        from.push(format!("the flags in {}", flags.display()));
    }
    let outside = source.names().len() - shapes.len();
    if outside > 0 {
        notes.push(format!("the network is under `{prefix}`; {outside} other tensors are not read"));
    }
    Ok(Inferred { config, from: from.join(", "), notes })
}

/// What no one has said, and guided-diffusion's scripts take for granted.
fn assumed(flags: &Flags) -> Option<String> {
    let mut defaults = Vec::new();
    if flags.use_new_attention_order.is_none() {
        defaults.push("use_new_attention_order false");
    }
    if flags.diffusion_steps.is_none() {
        defaults.push("diffusion_steps 1000");
    }
    if flags.rescale_timesteps.is_none() {
        defaults.push("rescale_timesteps false");
    }
    if flags.class_names.is_none() {
        defaults.push("classes named by their numbers");
    }
    (!defaults.is_empty()).then(|| format!("guided-diffusion's defaults: {}", defaults.join(", ")))
}
