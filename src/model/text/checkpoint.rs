//! A text encoder that was opened, as data: which tensors, which sizes, which tokenizer, and why.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::{Sizes, infer, projection, read, two};
use super::family::{TextFamily, layer_of_skip};
use super::locate::{self, Place, Whose};
use super::names::{Naming, Root, roots};
use super::source::Renamed;
use crate::error::{Error, Result};
use crate::io::TensorSource;
use crate::model::tensor_file::open_tensors;
use crate::nn::{ClipText, ClipTextConfig, Given, TextEncoder};
use crate::ops::Gelu;
use crate::text::ClipTokenizer;

/// An opened text encoder. No weight has been read.
pub struct TextCheckpoint {
    pub(super) source: Arc<dyn TensorSource>,
    pub(super) root: Root,
    /// The file, or the index of several.
    pub file: PathBuf,
    /// Whose it is.
    pub family: TextFamily,
    /// Its sizes.
    pub config: ClipTextConfig,
    /// What of its states is given.
    pub given: Given,
    /// What takes texts apart for it.
    pub tokenizer: Arc<ClipTokenizer>,
    /// The token that its texts are padded with.
    pub pad: u32,
    /// The token whose place stands for a text; where there is none that of the highest number.
    pub(super) eos: Option<u32>,
    /// What the sizes were taken from.
    pub configuration: String,
    /// What was taken for granted or chosen without being asked for, a sentence each.
    pub notes: Vec<String>,
}

/// What stands before an encoder's names in single files, and whose it is.
const SINGLE_FILES: [(&str, Naming, TextFamily); 5] = [
    ("cond_stage_model.transformer.", Naming::Transformers { inner: "" }, TextFamily::Sd1),
    ("cond_stage_model.model.", Naming::OpenClip, TextFamily::Sd2),
    ("conditioner.embedders.0.transformer.", Naming::Transformers { inner: "" }, TextFamily::SdxlFirst),
    ("conditioner.embedders.1.model.", Naming::OpenClip, TextFamily::SdxlSecond),
    ("conditioner.embedders.0.model.", Naming::OpenClip, TextFamily::SdxlSecond),
];

impl TextCheckpoint {
    /// The text encoders of a model, in their order: those of a single file (Stable Diffusion 1, 2, SDXL under the names that
    /// they were published with), of a pipeline's folder, or the one of an encoder's own folder or file. Reads headers alone.
    ///
    /// # Errors
    /// What is missing, unknown or of another shape, by name; when there is no text encoder that is read.
    pub fn open(path: &Path) -> Result<Vec<TextCheckpoint>> {
        let mut all = Vec::new();
        for place in locate::find(path)? {
            all.extend(of_place(place)?);
        }
        Ok(all)
    }

    /// Takes the states of another layer, for all prompts alike: 1 is the encoder's last as it was trained, 2 the last but one.
    /// Whether the final norm is applied stays as the family has it, and so does the pooled vector.
    ///
    /// # Errors
    /// [`Error::Config`] for a layer that there is not, with those that there are.
    pub fn skip(&mut self, skip: usize) -> Result<()> {
        self.given.layer = layer_of_skip(&self.config, skip)?;
        self.check()
    }

    /// What it is, in a line.
    pub fn summary(&self) -> String {
        let ClipTextConfig { width, layers, heads, places, act, .. } = &self.config;
        let act = match act {
            Gelu::Quick => "quick GELU",
            Gelu::Erf => "GELU",
            Gelu::Tanh => "GELU by tanh",
        };
        let Given { layer, norm, pooled } = self.given;
        let norm = if norm { " with the final norm" } else { "" };
        let pooled = if pooled { ", and the pooled vector" } else { "" };
        let family = self.family.name();
        format!(
            "CLIP text encoder ({family}): {layers} layers of {width}, {heads} heads, {act}, {places} tokens; gives layer \
             {layer}{norm}{pooled}"
        )
    }

    /// Numbers of its parameters that are brought to a device, the table of tokens left out.
    ///
    /// # Errors
    /// As [`ClipText::new`].
    pub fn parameters(&self) -> Result<usize> {
        Ok(ClipText::new(&self.config, self.given)?.parameters().count())
    }

    /// The file's tensors under the names of the encoder's parameters.
    pub(super) fn renamed(&self, encoder: &ClipText) -> Result<Renamed<'_>> {
        let names = self.source.names();
        Renamed::new(self.source.as_ref(), encoder.parameters(), |name| self.root.place(name, &names))
    }

    /// Checks that the file has the tensors that are needed, and the tokenizer a row for each of its tokens.
    fn check(&self) -> Result<()> {
        let names = self.source.names();
        // Before as many are declared as a configuration makes up.
        let there = self.root.layers(&names);
        if there < self.config.layers {
            let missing = self.root.in_layer(there, "layer_norm1.weight").names()[0].clone();
            let what = format!("is missing: the configuration says {} layers", self.config.layers);
            return Err(Error::tensor(self.source.path(), missing, what));
        }
        let encoder = ClipText::new(&self.config, self.given)
            .map_err(|error| Error::format(&self.file, error.to_string()))?;
        self.renamed(&encoder)?;
        let table = self.root.table();
        let [rows, width] = two(self.source.as_ref(), &table)?;
        if width != self.config.width {
            let what =
                format!("is [{rows}, {width}], but the configuration makes it {} wide", self.config.width);
            return Err(Error::tensor(self.source.path(), table, what));
        }
        let tokens = self.tokenizer.count();
        if tokens > rows {
            let what = format!(
                "has {rows} rows, but its tokenizer has {tokens} tokens: they do not belong together"
            );
            return Err(Error::tensor(self.source.path(), table, what));
        }
        if let Some(stranger) = self.root.stranger(&names, self.config.layers) {
            return Err(Error::tensor(self.source.path(), stranger, "is not a part of the text encoder"));
        }
        Ok(())
    }
}

fn of_place(place: Place) -> Result<Vec<TextCheckpoint>> {
    let source: Arc<dyn TensorSource> = Arc::from(open_tensors(&place.weights)?);
    let found = roots(&source.names());
    let mut known = Vec::new();
    for root in &found {
        // PyTorch's files have the names of dictionaries before a tensor's own.
        let own = root.prefix.rsplit('/').next().unwrap_or_default();
        let is = |naming: &Naming| std::mem::discriminant(naming) == std::mem::discriminant(&root.naming);
        let family = SINGLE_FILES.into_iter().find(|(prefix, naming, _)| *prefix == own && is(naming));
        match family {
            Some((_, _, family)) => known.push((root.clone(), Some(family))),
            None if own.is_empty() => known.push((root.clone(), None)),
            None => {}
        }
    }
    if known.is_empty() {
        return Err(Error::format(&place.weights, none_of(&found)));
    }
    known.into_iter().map(|(root, family)| checkpoint(&place, Arc::clone(&source), root, family)).collect()
}

/// What a file without an encoder that is read is told.
fn none_of(found: &[Root]) -> String {
    let known: Vec<&str> = SINGLE_FILES.iter().map(|(prefix, ..)| *prefix).collect();
    match found.first() {
        Some(root) => format!(
            "holds a text encoder under `{}`, which is of no model that is read; known are {}",
            root.prefix,
            known.join(", ")
        ),
        None => format!(
            "holds no text encoder: no `token_embedding.weight` under {} or by itself",
            known.join(", ")
        ),
    }
}

/// An encoder of a file; `family` is what its names say in a single file.
fn checkpoint(
    place: &Place,
    source: Arc<dyn TensorSource>,
    root: Root,
    family: Option<TextFamily>,
) -> Result<TextCheckpoint> {
    let mut notes = place.notes.clone();
    let projected = projection(source.as_ref(), &root)?;
    // What lies beside a single file is about others.
    let config = place.config.as_ref().filter(|_| family.is_none());
    let (Sizes { config, eos }, configuration) = match config {
        Some(path) => (read(path, projected)?, path.display().to_string()),
        None => {
            let (sizes, note) = infer(source.as_ref(), &root, projected)?;
            notes.push(note);
            (sizes, "its tensors".into())
        }
    };
    let family = match (family, place.family) {
        (Some(TextFamily::Sd1), _) | (None, Some(Whose::StableDiffusion)) if config.width == 1024 => {
            TextFamily::Sd2
        }
        (Some(family), _) | (None, Some(Whose::Of(family))) => family,
        (None, Some(Whose::StableDiffusion)) => TextFamily::Sd1,
        (None, None) => TextFamily::Alone,
    };
    let folder = place.tokenizer.as_ref().filter(|_| configuration != "its tensors");
    let (tokenizer, pad) = match folder {
        Some(folder) => {
            let tokenizer = ClipTokenizer::open(folder)?;
            let pad = tokenizer.pad();
            (Arc::new(tokenizer), pad)
        }
        None => {
            let tokenizer = ClipTokenizer::shipped();
            let pad = family.pad(tokenizer.end());
            (tokenizer, pad)
        }
    };
    let given = family.given(&config);
    let file = place.weights.clone();
    let opened = TextCheckpoint {
        source,
        root,
        file,
        family,
        config,
        given,
        tokenizer,
        pad,
        eos,
        configuration,
        notes,
    };
    opened.check()?;
    Ok(opened)
}
