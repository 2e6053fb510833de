//! A file of weights in a diffusers folder: one, or several behind an index.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::io::{Dtype, PtFile, SafetensorsFile, TensorSource};

/// What diffusers calls a network's weights.
pub(super) const STEM: &str = "diffusion_pytorch_model";

/// Several files as one.
struct Shards {
    index: PathBuf,
    files: BTreeMap<String, SafetensorsFile>,
    /// The file of each tensor.
    places: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Opens the weights in `folder`.
pub(super) fn open(folder: &Path) -> Result<Box<dyn TensorSource>> {
    let one = folder.join(format!("{STEM}.safetensors"));
    let index = folder.join(format!("{STEM}.safetensors.index.json"));
    let pickle = folder.join(format!("{STEM}.bin"));
    if one.exists() {
        Ok(Box::new(SafetensorsFile::open(&one)?))
    } else if index.exists() {
        Ok(Box::new(shards(index)?))
    } else if pickle.exists() {
        Ok(Box::new(PtFile::open(&pickle)?))
    } else {
        Err(Error::format(folder, format!("holds neither {STEM}.safetensors, its index, nor {STEM}.bin")))
    }
}

fn shards(index: PathBuf) -> Result<Shards> {
    let text = std::fs::read_to_string(&index).map_err(Error::io(&index))?;
    let bad = |what: String| Error::format(&index, what);
    let Index { weight_map } = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    let mut files = BTreeMap::new();
    for name in weight_map.values() {
        // A name alone: an index must not lead out of its folder.
        if Path::new(name).file_name().is_none_or(|plain| plain.to_str() != Some(name)) {
            return Err(bad(format!("names the file {name:?}, which is not in its folder")));
        }
        if !files.contains_key(name) {
            files.insert(name.clone(), SafetensorsFile::open(index.with_file_name(name))?);
        }
    }
    for (tensor, name) in &weight_map {
        TensorSource::about(&files[name], tensor)?;
    }
    for (name, file) in &files {
        if let Some(other) = file.names().into_iter().find(|tensor| weight_map.get(tensor) != Some(name)) {
            return Err(Error::tensor(file.path(), other, "is not in the index of its folder"));
        }
    }
    Ok(Shards { index, files, places: weight_map })
}

impl Shards {
    fn file(&self, name: &str) -> Result<&SafetensorsFile> {
        let file = self.places.get(name).map(|file| &self.files[file]);
        file.ok_or_else(|| {
            let count = self.places.len();
            Error::tensor(&self.index, name, format!("is not in the index, which names {count} tensors"))
        })
    }
}

impl TensorSource for Shards {
    fn path(&self) -> &Path {
        &self.index
    }

    fn names(&self) -> Vec<String> {
        self.places.keys().cloned().collect()
    }

    fn about(&self, name: &str) -> Result<(Dtype, Vec<usize>)> {
        self.file(name)?.about(name)
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        self.file(name)?.bytes(name)
    }
}
