//! A file of weights in a diffusers folder: one, or several behind an index.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result, brief};
use crate::io::{Dtype, SafetensorsFile, TensorSource};

/// What diffusers calls a network's weights.
pub(in crate::model) const STEM: &str = "diffusion_pytorch_model";

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

/// Opens the files that `index` names, which lie beside it.
pub(super) fn open(index: &Path) -> Result<Box<dyn TensorSource>> {
    Ok(Box::new(shards(index.to_owned())?))
}

fn shards(index: PathBuf) -> Result<Shards> {
    let text = std::fs::read_to_string(&index).map_err(Error::io(&index))?;
    let bad = |what: String| Error::format(&index, what);
    let Index { weight_map } = serde_json::from_str(&text).map_err(|error| {
        bad(format!("is a JSON file, where weights or an index of them are expected: {error}; give the folder it is in"))
    })?;
    let mut files = BTreeMap::new();
    for name in weight_map.values() {
        // A name alone: an index must not lead out of its folder.
        if Path::new(name).file_name().is_none_or(|plain| plain.to_str() != Some(name)) {
            return Err(bad(format!(
                "names the file {name:?}, which is not in its folder",
                name = brief(name)
            )));
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

    fn part(&self, name: &str, elements: Range<usize>) -> Result<Vec<u8>> {
        self.file(name)?.part(name, elements)
    }
}
