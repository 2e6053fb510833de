//! An autoencoder that was opened, as data: which files, which sizes, which factors, and why.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::{CodecConfig, read};
use super::infer;
use super::locate::{self, Place};
use super::names::{Half, Naming, Root, is_junk, kl_roots, tiny_root};
use super::source::AsCodec;
use crate::error::{Error, Result};
use crate::io::TensorSource;
use crate::model::tensor_file::open_tensors;
use crate::nn::{AutoencoderKl, AutoencoderTiny, Codec, Halves, Latents, Parameters};

/// What is asked of an autoencoder beyond its path.
#[derive(Clone, Debug, PartialEq)]
pub struct CodecChoice {
    /// The halves that are wanted; [`Halves::Both`] takes what is there.
    pub halves: Halves,
    /// How its latents become a denoiser's, where a pipeline knows better than its files.
    pub latents: Option<Latents>,
    /// Whether it was used with pictures in [0, 1], as EDM2's latents were.
    pub unit_pictures: bool,
}

impl Default for CodecChoice {
    /// All that is there, as its files say.
    fn default() -> Self {
        CodecChoice { halves: Halves::Both, latents: None, unit_pictures: false }
    }
}

impl CodecChoice {
    /// These halves, as their files say.
    pub fn of(halves: Halves) -> Self {
        CodecChoice { halves, ..CodecChoice::default() }
    }
}

/// An opened autoencoder. No weight has been read.
pub struct CodecCheckpoint {
    files: Vec<(Arc<dyn TensorSource>, Root)>,
    /// The file of weights, or the index of several.
    pub file: PathBuf,
    /// Its sizes.
    pub config: CodecConfig,
    /// The halves that are there and wanted.
    pub halves: Halves,
    /// What the sizes were taken from.
    pub configuration: String,
    /// What was taken for granted or chosen without being asked for, a sentence each.
    pub notes: Vec<String>,
}

impl CodecCheckpoint {
    /// The autoencoder of a single file of latent diffusion, of a pipeline's folder, or of its own folder or file. Reads headers
    /// alone.
    ///
    /// # Errors
    /// What is missing, unknown or of another shape, by name; when there is no autoencoder that is read, or not the half that
    /// is wanted.
    pub fn open(path: &Path, choice: &CodecChoice) -> Result<CodecCheckpoint> {
        let Place { weights, config, notes } = locate::find(path)?;
        let files = weights.iter().map(|file| open_tensors(file).map(Arc::from));
        let files: Vec<Arc<dyn TensorSource>> = files.collect::<Result<_>>()?;
        let beside = match &config {
            Some(path) => read(path)?.map(|config| (config, path.display().to_string())),
            None => None,
        };
        CodecCheckpoint::of(files, beside, notes, choice)
    }

    /// The autoencoder of files that are open, as browsers have them in memory: one, or the halves of a small one. `config` is what
    /// a `config.json` says of it ([`CodecConfig::parse`]); without it the tensors tell.
    ///
    /// # Errors
    /// As [`CodecCheckpoint::open`].
    pub fn of_sources(
        sources: Vec<Arc<dyn TensorSource>>,
        config: Option<CodecConfig>,
        choice: &CodecChoice,
    ) -> Result<CodecCheckpoint> {
        if sources.is_empty() {
            return Err(Error::Config("an autoencoder of no file".into()));
        }
        let said = config.map(|config| (config, "the configuration that was given".into()));
        CodecCheckpoint::of(sources, said, Vec::new(), choice)
    }

    fn of(
        files: Vec<Arc<dyn TensorSource>>,
        said: Said,
        notes: Vec<String>,
        choice: &CodecChoice,
    ) -> Result<CodecCheckpoint> {
        let roots = kl_roots(&files[0].names());
        let mut opened = match choose(&roots, files[0].path())? {
            Some(root) => of_kl(Arc::clone(&files[0]), root, said, choice)?,
            None => of_tiny(files, said, choice)?,
        };
        opened.notes.splice(..0, notes);
        if let Some(latents) = &choice.latents {
            match &mut opened.config {
                CodecConfig::Kl(config) => config.latents = latents.clone(),
                CodecConfig::Tiny(config) => config.latents = latents.clone(),
            }
            opened.config.check()?;
        }
        if let CodecConfig::Kl(config) = &mut opened.config {
            config.unit_pictures = choice.unit_pictures;
        }
        opened.check()?;
        Ok(opened)
    }

    /// What it is, in a line.
    pub fn summary(&self) -> String {
        let halves = match self.halves {
            Halves::Both => "",
            Halves::Encoder => ", the encoder alone",
            Halves::Decoder => ", the decoder alone",
        };
        let of = |latents: &Latents| {
            let [mean, factor] = latents.of_channel(0);
            let shift = if mean == 0.0 { String::new() } else { format!(", shift {mean}") };
            format!("factor {factor}{shift}")
        };
        match &self.config {
            CodecConfig::Kl(config) => format!(
                "KL autoencoder: {:?} channels, latents of {} channels, {}{halves}",
                config.channels,
                config.latent_channels,
                of(&config.latents)
            ),
            CodecConfig::Tiny(config) => format!(
                "small autoencoder (TAESD): {} channels, latents of {} channels, {}{halves}",
                config.width,
                config.latent_channels,
                of(&config.latents)
            ),
        }
    }

    /// The network, its feature maps in strips of at most `strip_bytes` where that is said.
    ///
    /// # Errors
    /// As [`AutoencoderKl::new`] and [`AutoencoderTiny::new`].
    pub fn codec(&self, strip_bytes: Option<u64>) -> Result<Arc<dyn Codec>> {
        network(&self.config, self.halves, strip_bytes)
    }

    /// Its tensors under the names of the parameters.
    pub(super) fn source(&self, parameters: &Parameters) -> Result<AsCodec<'_>> {
        let files: Vec<(&dyn TensorSource, &Root)> =
            self.files.iter().map(|(file, root)| (file.as_ref(), root)).collect();
        AsCodec::new(&files, parameters)
    }

    /// Checks that the files have the tensors that are needed and, beside what training leaves, no others.
    fn check(&self) -> Result<()> {
        self.source(self.codec(None)?.parameters())?;
        // Those of the other half are known, too.
        let mut known = BTreeSet::new();
        for halves in [Halves::Encoder, Halves::Decoder] {
            if let Ok(source) = self.source(network(&self.config, halves, None)?.parameters()) {
                known.extend(source.own_names().map(str::to_owned));
            }
        }
        for (file, root) in &self.files {
            let names = file.names();
            let under = names.iter().filter(|name| name.starts_with(&root.prefix));
            let strangers: Vec<&String> = under
                .filter(|name| !known.contains(*name) && !is_junk(&name[root.prefix.len()..]))
                .filter(|name| !is_other_half(name, root, self.halves))
                .collect();
            if let Some(first) = strangers.first() {
                let what = format!("is not a part of this autoencoder ({} such tensors)", strangers.len());
                return Err(Error::tensor(file.path(), first.as_str(), what));
            }
        }
        Ok(())
    }
}

fn network(config: &CodecConfig, halves: Halves, strip_bytes: Option<u64>) -> Result<Arc<dyn Codec>> {
    Ok(match (config, strip_bytes) {
        (CodecConfig::Kl(config), None) => Arc::new(AutoencoderKl::new(config, halves)?),
        (CodecConfig::Kl(config), Some(bytes)) => {
            Arc::new(AutoencoderKl::new(config, halves)?.in_strips_of(bytes))
        }
        (CodecConfig::Tiny(config), None) => Arc::new(AutoencoderTiny::new(config, halves)?),
        (CodecConfig::Tiny(config), Some(bytes)) => {
            Arc::new(AutoencoderTiny::new(config, halves)?.in_strips_of(bytes))
        }
    })
}

/// Whether a tensor is of a half that is not wanted, of which only some may be there.
fn is_other_half(name: &str, root: &Root, halves: Halves) -> bool {
    let name = &name[root.prefix.len()..];
    let unwanted: &[&str] = match halves {
        Halves::Both => &[],
        Halves::Encoder => &["decoder.", "post_quant_conv."],
        Halves::Decoder => &["encoder.", "quant_conv."],
    };
    unwanted.iter().any(|front| name.starts_with(front))
}

/// The autoencoder of a file that is meant: where there are several, the one of latent diffusion's name.
fn choose(roots: &[Root], path: &Path) -> Result<Option<Root>> {
    let own = |root: &&Root| {
        let own = root.prefix.rsplit('/').next().unwrap_or_default();
        own == "first_stage_model." || own == "vae."
    };
    match (roots, roots.iter().find(own)) {
        ([], _) => Ok(None),
        ([only], _) => Ok(Some(only.clone())),
        (_, Some(root)) => Ok(Some(root.clone())),
        _ => {
            let names: Vec<&str> = roots.iter().map(|root| root.prefix.as_str()).collect();
            Err(Error::format(path, format!("holds several autoencoders, under {}", names.join(", "))))
        }
    }
}

/// The halves that are there, and of them those that are wanted.
fn halves([encodes, decodes]: [bool; 2], wanted: Halves, path: &Path) -> Result<Halves> {
    match (wanted, encodes, decodes) {
        (Halves::Both, true, true) => Ok(Halves::Both),
        (Halves::Both | Halves::Encoder, true, _) => Ok(Halves::Encoder),
        (Halves::Both | Halves::Decoder, _, true) => Ok(Halves::Decoder),
        (Halves::Encoder, ..) => {
            Err(Error::format(path, "has no encoder: pictures cannot be made latents by it"))
        }
        _ => Err(Error::format(path, "has no decoder: latents cannot be made pictures by it")),
    }
}

/// What a configuration says, and where it stands.
type Said = Option<(CodecConfig, String)>;

fn of_kl(
    file: Arc<dyn TensorSource>,
    root: Root,
    said: Said,
    choice: &CodecChoice,
) -> Result<CodecCheckpoint> {
    let names = file.names();
    let has = |half: &str| names.binary_search(&format!("{}{half}.conv_in.weight", root.prefix)).is_ok();
    let halves = halves([has("encoder"), has("decoder")], choice.halves, file.path())?;
    let mut notes = Vec::new();
    // What lies beside a single file is about others.
    let (config, configuration) = match said.filter(|_| root.prefix.is_empty()) {
        Some((config @ CodecConfig::Kl(_), from)) => (config, from),
        Some((CodecConfig::Tiny(_), from)) => {
            return Err(Error::format(file.path(), format!("is no AutoencoderTiny, as {from} says")));
        }
        None => {
            let mut config = infer::kl(file.as_ref(), &root)?;
            if choice.latents.is_none() {
                let (latents, note) = infer::latents(file.as_ref(), config.latent_channels)?;
                config.latents = latents;
                notes.push(note);
            }
            (CodecConfig::Kl(config), "its tensors".into())
        }
    };
    Ok(CodecCheckpoint {
        file: file.path().to_owned(),
        files: vec![(file, root)],
        config,
        halves,
        configuration,
        notes,
    })
}

fn of_tiny(files: Vec<Arc<dyn TensorSource>>, said: Said, choice: &CodecChoice) -> Result<CodecCheckpoint> {
    let path = files[0].path().to_owned();
    let mut found: Vec<(Arc<dyn TensorSource>, Root, [bool; 2])> = Vec::new();
    for file in files {
        let names = file.names();
        let Some(root) = tiny_root(&names) else {
            if found.is_empty() {
                return Err(Error::format(file.path(), none_of(&names)));
            }
            continue;
        };
        let whole = |half: &str| names.iter().any(|name| name.starts_with(&format!("{half}.")));
        let there = match root.naming {
            Naming::TaesdHalf(half) => [half == Half::Encoder, half == Half::Decoder],
            _ => ["encoder", "decoder"].map(whole),
        };
        found.push((file, root, there));
    }
    let of = |half: usize| found.iter().find(|(.., there)| there[half]);
    let halves = halves([0, 1].map(|half| of(half).is_some()), choice.halves, &path)?;
    let (config, configuration) = match said.filter(|(config, _)| matches!(config, CodecConfig::Tiny(_))) {
        Some((config, from)) => (config, from),
        None => {
            let sources = [0, 1].map(|half| of(half).map(|(file, root, _)| (file.as_ref(), root)));
            let config = CodecConfig::Tiny(infer::tiny(sources)?);
            config.check().map_err(|error| Error::format(&path, error.to_string()))?;
            (config, "its tensors".into())
        }
    };
    let wanted = |there: &[bool; 2]| (there[0] && halves.encodes()) || (there[1] && halves.decodes());
    let files =
        found.into_iter().filter(|(.., there)| wanted(there)).map(|(file, root, _)| (file, root)).collect();
    Ok(CodecCheckpoint { file: path, files, config, halves, configuration, notes: Vec::new() })
}

/// What a file without an autoencoder is told.
fn none_of(names: &[String]) -> String {
    let count = names.len();
    format!(
        "holds {count} tensors, and no autoencoder that is read: neither `decoder.conv_in.weight`, by itself or under \
         `first_stage_model.`, nor those of a TAESD"
    )
}
