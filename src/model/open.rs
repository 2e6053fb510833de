//! Opening a checkpoint of any kind: what it is, its configuration, and where that comes from.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::io::{Pieces, PtFile, SafetensorsFile, TensorSource};
use crate::nn::{Classifier, Parameters, UNet};

use super::architecture::{self, Kind};
use super::checkpoint::check_tensors;
use super::config::{CLASSIFIER, ModelConfig, UNET};
use super::diffusers;
use super::flags::{self, Flags};
use super::published;

/// An opened checkpoint: its tensors, and the configuration of its network. No weight has been read.
pub struct Checkpoint {
    /// The tensors, under guided-diffusion's names.
    pub source: Box<dyn TensorSource>,
    /// What stands before each name.
    pub prefix: String,
    /// The configuration.
    pub config: ModelConfig,
    /// What the configuration was taken from, a sentence each.
    pub notes: Vec<String>,
}

impl Checkpoint {
    /// Opens a folder of this program, a diffusers folder, a `.safetensors` or a `.pt` file. `flags` names a JSON file
    /// of guided-diffusion's flags that go before what is known of published files.
    ///
    /// # Errors
    /// Whatever is wrong with the files, by name; the flags that are missing for a file that is not published; a tensor
    /// that is missing, left over, or of another shape than its network's.
    pub fn open(path: &Path, flags: Option<&Path>) -> Result<Checkpoint> {
        if !path.exists() {
            return Err(Error::format(path, "there is no such file or folder"));
        }
        if flags.is_none()
            && let Some(checkpoint) = diffusers::open(path)?
        {
            checkpoint.check()?;
            return Ok(checkpoint);
        }
        let checkpoint = match own_files(path)? {
            Some((weights, config)) if flags.is_none() => {
                let source: Box<dyn TensorSource> = Box::new(SafetensorsFile::open(&weights)?);
                let config = read_config(&config)?;
                Checkpoint { source, prefix: String::new(), config, notes: Vec::new() }
            }
            Some((weights, _)) => infer(&weights, flags)?,
            None => infer(path, flags)?,
        };
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
        let checkpoint = Checkpoint { source, prefix: String::new(), config, notes: Vec::new() };
        checkpoint.check()?;
        Ok(checkpoint)
    }

    /// What the network is for.
    pub fn kind(&self) -> Kind {
        self.config.kind()
    }

    /// The network's parameters.
    ///
    /// # Errors
    /// As [`crate::nn::UNetConfig::check`].
    pub fn parameters(&self) -> Result<Parameters> {
        Ok(match self.kind() {
            Kind::UNet => UNet::new(&self.config.unet)?.parameters().clone(),
            Kind::Classifier => Classifier::new(&self.config.unet)?.parameters().clone(),
        })
    }

    /// Checks that the file has exactly the tensors of its network.
    fn check(&self) -> Result<()> {
        check_tensors(self.source.as_ref(), &self.parameters()?, &self.prefix)
    }
}

/// The weights and the configuration of this program's own folders, and of a file in one.
fn own_files(path: &Path) -> Result<Option<(PathBuf, PathBuf)>> {
    if path.is_dir() {
        let (weights, config) = (path.join("model.safetensors"), path.join("config.json"));
        if !weights.exists() {
            return Err(Error::format(
                path,
                "holds no model: expected a folder with model.safetensors and config.json, one of diffusers, or a .safetensors \
                 or .pt file",
            ));
        }
        return Ok(Some((weights, config)));
    }
    let config = path.with_file_name("config.json");
    let beside = path.extension().is_some_and(|extension| extension == "safetensors") && config.exists();
    Ok(beside.then(|| (path.to_owned(), config)))
}

/// Reads this program's `config.json`.
pub(super) fn read_config(path: &Path) -> Result<ModelConfig> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    parse_config(path, &text)
}

/// Where a file of weights may carry its configuration.
pub(super) const CONFIG_NOTE: &str = "freeguide_config";

fn parse_config(path: &Path, text: &str) -> Result<ModelConfig> {
    let config: ModelConfig =
        serde_json::from_str(text).map_err(|error| Error::format(path, error.to_string()))?;
    if config.class_name != UNET && config.class_name != CLASSIFIER {
        let what = format!("`_class_name` is {:?}, expected {UNET:?} or {CLASSIFIER:?}", config.class_name);
        return Err(Error::format(path, what));
    }
    config.unet.check().map_err(|error| Error::format(path, error.to_string()))?;
    Ok(config)
}

/// A file of tensors, by its beginning, and the configuration in its notes where it has one.
fn tensor_file(path: &Path) -> Result<(Box<dyn TensorSource>, Option<ModelConfig>)> {
    let file = Pieces::open(path)?;
    let start = file.read(0..file.length().min(9))?;
    let named = path.extension().is_some_and(|extension| extension == "safetensors");
    if !named && (start.get(8) != Some(&b'{') || start.starts_with(b"PK")) {
        return Ok((Box::new(PtFile::open(path)?), None));
    }
    let file = SafetensorsFile::open(path)?;
    let config = file.metadata().get(CONFIG_NOTE).map(|text| parse_config(path, text)).transpose()?;
    Ok((Box::new(file), config))
}

/// The configuration of a file that stands alone: from its notes, or from its tensors, the table of published files, and
/// flags.
fn infer(path: &Path, flags: Option<&Path>) -> Result<Checkpoint> {
    let (source, noted) = tensor_file(path)?;
    if let Some(config) = noted.filter(|_| flags.is_none()) {
        let notes = vec!["configuration from the file's notes".into()];
        return Ok(Checkpoint { source, prefix: String::new(), config, notes });
    }
    let prefix = prefix(source.as_ref())?;
    let shapes = architecture::shapes(source.as_ref(), &prefix)?;
    let given = flags.map(Flags::read).transpose()?.unwrap_or_default();

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
    if let Some(flags) = flags {
        notes.push(format!("flags from {}", flags.display()));
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
    Ok(Checkpoint { source, prefix, config, notes })
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

/// What stands before the names of the one network in a file, as `state_dict/` or `module.`.
fn prefix(source: &dyn TensorSource) -> Result<String> {
    const FIRST: &str = "time_embed.0.weight";
    let names = source.names();
    let found: Vec<&str> = names.iter().filter_map(|name| name.strip_suffix(FIRST)).collect();
    match found[..] {
        [prefix] => Ok(prefix.to_owned()),
        [] => Err(Error::format(
            source.path(),
            format!(
                "holds {} tensors, but no `{FIRST}`: it is none of guided-diffusion's networks",
                names.len()
            ),
        )),
        _ => Err(Error::format(
            source.path(),
            format!("holds several networks: under {}; one is expected", found.join(", ")),
        )),
    }
}
