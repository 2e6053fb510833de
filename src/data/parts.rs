//! What a format's reader is asked for, and what it hands over.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::attributes::Column;
use super::image::Image;
use super::tree::LeftOut;
use crate::error::{Error, Result, brief};
use crate::shape::Extent;

/// Below this total, the compressed files of a set are kept in memory; above it they are read as needed.
pub(super) const KEEP_BYTES: u64 = 512 << 20;

/// The class name of a set without labels.
pub(super) const ONLY_CLASS: &str = "all";

/// What is read, for messages about what is not.
pub(super) const READABLE: &str =
    "data is `digits`, a folder of pictures, a zip of pictures, or an IDX images file";

/// Whether labels are looked for, and believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Labelling {
    /// Looked for; what is no labelling is refused.
    #[default]
    Checked,
    /// Looked for; what may be no labelling is warned of. For where labels decide little.
    Trusted,
    /// Not looked for: one class.
    None,
}

/// How a data set is opened.
#[derive(Clone, Debug, Default)]
pub struct DataOptions {
    /// The size in pixels that images will be brought to. Without it the set must be of one size, which is then taken.
    pub image_size: Option<Extent>,
    /// Whether labels are looked for.
    pub labelling: Labelling,
    /// The column of `metadata.csv` or `metadata.jsonl` with the labels; `label` where nothing is said.
    pub label: Option<String>,
    /// What networks are to be told of pictures as a vector: `class`, or columns of `metadata.csv` or `metadata.jsonl`, of
    /// numbers or of names; of the digits `thickness` and `slant`.
    pub attributes: Vec<String>,
    /// Decode everything at once, and refuse a set with a damaged picture.
    pub strict: bool,
    /// A folder of the program's own in which to keep what was found in files, so that the next opening is quicker.
    pub cache: Option<PathBuf>,
    /// Counts the files that are met while a folder is listed, for whoever wants to tell of it meanwhile.
    pub files_met: Option<Arc<AtomicUsize>>,
}

/// The attribute that is the label.
pub(super) const CLASS: &str = "class";

impl DataOptions {
    /// The columns that are asked for beside the label.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.attributes.iter().map(String::as_str).filter(|name| *name != CLASS)
    }

    /// Refuses columns where there are none but `known`.
    pub(super) fn check_columns(&self, spec: &Path, known: &[&str]) -> Result<()> {
        match self.columns().find(|name| !known.contains(name)) {
            None => Ok(()),
            Some(name) => Err(Error::format(
                spec,
                format!("has no attribute {:?}, but {}", brief(name), [known, &[CLASS]].concat().join(", ")),
            )),
        }
    }
}

/// Gives the pixels of one image; the index is within the set.
pub(super) trait Source: Send + Sync {
    /// The inner error is what is wrong with a damaged picture, the outer one whatever else goes wrong.
    fn decode(&self, index: usize) -> Result<Result<Image, String>>;

    /// Its name within the set.
    fn name(&self, index: usize) -> String;

    /// Its file.
    fn place(&self, index: usize) -> PathBuf;
}

/// What a format's reader hands over.
pub(super) struct Parts {
    pub name: String,
    pub channels: usize,
    pub class_names: Vec<String>,
    pub labels: Vec<u32>,
    /// One each, or nothing at all.
    pub captions: Vec<Option<String>>,
    /// The columns that were asked for.
    pub columns: Vec<Column>,
    /// (width, height) of each image, or one entry where all are alike.
    pub sizes: Vec<(usize, usize)>,
    pub left_out: Vec<LeftOut>,
    /// Where labels come from, in words that go after "labels".
    pub label_source: String,
    pub is_unlabelled: bool,
    pub notes: Vec<String>,
    pub warnings: Vec<String>,
    pub fingerprint: String,
    pub earlier_fingerprint: Option<String>,
    pub source: Box<dyn Source>,
}

/// The last part of a path, for naming a set.
pub(super) fn short_name(spec: &str) -> String {
    let path = Path::new(spec);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    // `.` and `..` have no name of their own.
    name.or_else(|| path.canonicalize().ok()?.file_name().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| spec.to_owned())
}
