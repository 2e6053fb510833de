//! Labelled images: where they come from, how they are decoded, brought to size, and dealt out in batches.
//!
//! This layer knows file formats, class names, pixels as bytes and the order of an epoch.
//! Invariant: it never knows about devices, tensors, models or diffusion; all of it is host memory, and what
//! it hands out is a pure function of the files and a seed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::sizes::MOST_SIDE;

mod archive;
mod classes;
mod decode;
mod digits;
pub(crate) mod fingerprint;
mod folder;
mod idx;
mod image;
mod inspect;
mod kind;
mod known;
mod labels;
pub mod loader;
mod pictures;
#[cfg(not(target_arch = "wasm32"))]
pub mod prefetch;
mod table;
#[cfg(test)]
mod tests;
pub mod transform;
mod tree;
mod whole;

pub use self::image::Image;
pub use loader::{Batch, Crop, Loader, LoaderOptions};
#[cfg(not(target_arch = "wasm32"))]
pub use prefetch::Prefetch;
pub use table::Table;
pub use transform::CropOffset;
pub use tree::LeftOut;

/// Below this total, the compressed files of a set are kept in memory; above it they are read as needed.
const KEEP_BYTES: u64 = 512 << 20;

/// The class name of a set without labels.
const ONLY_CLASS: &str = "all";

/// What is read, for messages about what is not.
const READABLE: &str = "data is `digits`, a folder of pictures, a zip of pictures, or an IDX images file";

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
    /// The side in pixels that images will be brought to. Without it the set must be of one square size, which is then
    /// taken.
    pub image_size: Option<usize>,
    /// Whether labels are looked for.
    pub labelling: Labelling,
    /// The column of `metadata.csv` or `metadata.jsonl` with the labels; `label` where nothing is said.
    pub label: Option<String>,
    /// Decode everything at once, and refuse a set with a damaged picture.
    pub strict: bool,
    /// A folder of the program's own in which to keep what was found in files, so that the next opening is quicker.
    pub cache: Option<PathBuf>,
    /// Counts the files that are met while a folder is listed, for whoever wants to tell of it meanwhile.
    pub files_met: Option<Arc<AtomicUsize>>,
}

/// Gives the pixels of one image; the index is within the set.
trait Source: Send + Sync {
    /// The inner error is what is wrong with a damaged picture, the outer one whatever else goes wrong.
    fn decode(&self, index: usize) -> Result<Result<Image, String>>;

    /// Its name within the set.
    fn name(&self, index: usize) -> String;

    /// Its file.
    fn place(&self, index: usize) -> PathBuf;
}

/// What a format's reader hands over.
struct Parts {
    name: String,
    channels: usize,
    class_names: Vec<String>,
    labels: Vec<u32>,
    /// One each, or nothing at all.
    captions: Vec<Option<String>>,
    /// (width, height) of each image, or one entry where all are alike.
    sizes: Vec<(usize, usize)>,
    left_out: Vec<LeftOut>,
    /// Where labels come from, in words that go after "labels".
    label_source: String,
    is_unlabelled: bool,
    notes: Vec<String>,
    warnings: Vec<String>,
    fingerprint: String,
    earlier_fingerprint: Option<String>,
    source: Box<dyn Source>,
}

/// One readable kind of dataset.
struct Format {
    /// What to give, for the message when nothing fits.
    what: &'static str,
    accepts: fn(&str) -> bool,
    open: fn(&str, &DataOptions) -> Result<Parts>,
}

/// Tried in this order; the first that accepts the spec reads it.
const FORMATS: &[Format] = &[
    Format { what: "`digits`", accepts: digits::accepts, open: digits::open },
    Format { what: "a folder or a .zip of images", accepts: pictures::accepts, open: pictures::open },
    Format { what: "an IDX images file", accepts: idx::accepts, open: idx::open },
];

/// A set of labelled images, opened and checked; pixels are decoded one image at a time.
pub struct Dataset {
    /// A short name: `digits`, or the file's or folder's own name.
    pub name: String,
    /// 1 (grey) or 3 (RGB), for every image of the set.
    pub channels: usize,
    /// The name of each class; the label is the position.
    pub class_names: Vec<String>,
    parts: Parts,
    image_size: usize,
    /// Images that were met and could not be decoded.
    damaged: Mutex<BTreeMap<usize, LeftOut>>,
}

impl Dataset {
    /// Opens the set that `spec` names: `digits`, a folder, a `.zip`, or an IDX images file.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn open(spec: &str, image_size: Option<usize>) -> Result<Dataset> {
        Dataset::open_with(spec, &DataOptions { image_size, ..DataOptions::default() })
    }

    /// Opens the set that `spec` names in a way of one's own.
    ///
    /// # Errors
    /// When there is no such file, when it is damaged, when not one image of it is readable, when what stands for labels
    /// is none, and when images are not of one square size and no `image_size` says what to do about that.
    pub fn open_with(spec: &str, options: &DataOptions) -> Result<Dataset> {
        let format = FORMATS.iter().find(|format| (format.accepts)(spec)).ok_or_else(|| {
            let known: Vec<_> = FORMATS.iter().map(|format| format.what).collect();
            Error::format(spec, format!("no such file or folder; give {}", known.join(", ")))
        })?;
        let parts = (format.open)(spec, options)?;
        let image_size = match options.image_size {
            Some(0) => return Err(Error::Config("an image size of 0 pixels is no size".into())),
            Some(size) if size > MOST_SIDE => {
                return Err(Error::Config(format!(
                    "an image size of {size} pixels is beyond {MOST_SIDE}, the most that pictures are brought to"
                )));
            }
            Some(size) => size,
            None => one_square_size(spec, &parts.sizes)?,
        };
        let dataset = Dataset {
            name: parts.name.clone(),
            channels: parts.channels,
            class_names: parts.class_names.clone(),
            parts,
            image_size,
            damaged: Mutex::default(),
        };
        if options.strict {
            dataset.refuse_damage(spec)?;
        }
        Ok(dataset)
    }

    /// Decodes every image.
    fn refuse_damage(&self, spec: &str) -> Result<()> {
        inspect::each(self.len(), |index| self.decode_good(index).map(drop))
            .into_iter()
            .collect::<Result<()>>()?;
        let mut damaged: Vec<LeftOut> = self.left_out().iter().filter(|file| file.damaged).cloned().collect();
        damaged.extend(self.damaged());
        let Some(LeftOut { name, reason, .. }) = damaged.first() else { return Ok(()) };
        let what = match damaged.len() {
            1 => "a picture of it is".to_owned(),
            count => format!("{count} pictures of it are"),
        };
        Err(Error::format(spec, format!("{what} damaged, which `strict` does not allow: {name} {reason}")))
    }

    /// The number of images, at least 1.
    #[allow(clippy::len_without_is_empty, reason = "an empty set does not open")]
    pub fn len(&self) -> usize {
        self.parts.labels.len()
    }

    /// The number of classes, at least 1.
    pub fn num_classes(&self) -> usize {
        self.class_names.len()
    }

    /// The label of image `index` (below [`len`](Self::len)); it is below [`num_classes`](Self::num_classes).
    pub fn label(&self, index: usize) -> u32 {
        self.parts.labels[index]
    }

    /// Every image's label, in order.
    pub fn labels(&self) -> &[u32] {
        &self.parts.labels
    }

    /// What is said of image `index` (below [`len`](Self::len)) in words, where a labels file has a column `text`.
    pub fn caption(&self, index: usize) -> Option<&str> {
        self.parts.captions.get(index)?.as_deref()
    }

    /// Whether the set has no labels: then there is one class, which says nothing.
    pub fn is_unlabelled(&self) -> bool {
        self.parts.is_unlabelled
    }

    /// The pixels of image `index` in the size it was stored, with the set's number of channels.
    ///
    /// # Errors
    /// When `index` is out of range, and when the file is damaged past its header, has changed or has gone away.
    pub fn decode(&self, index: usize) -> Result<Image> {
        self.checked(index)?;
        self.parts.source.decode(index)?.map_err(|reason| {
            Error::format(self.parts.source.place(index), format!("cannot be decoded: {reason}"))
        })
    }

    /// The same, and `None` for a damaged picture, which is then among [`damaged`](Self::damaged). Which are, depends on
    /// their bytes alone.
    ///
    /// # Errors
    /// When `index` is out of range, and when the file has changed or has gone away.
    pub fn decode_good(&self, index: usize) -> Result<Option<Image>> {
        self.checked(index)?;
        match self.parts.source.decode(index)? {
            Ok(image) => Ok(Some(image)),
            Err(reason) => {
                let name = self.parts.source.name(index);
                let left_out =
                    LeftOut { name, reason: format!("cannot be decoded: {reason}"), damaged: true };
                self.damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(index, left_out);
                Ok(None)
            }
        }
    }

    fn checked(&self, index: usize) -> Result<()> {
        if index >= self.len() {
            let (name, len) = (&self.name, self.len());
            return Err(Error::Config(format!("{name}: there is no image {index}, it has {len}")));
        }
        Ok(())
    }

    /// The pictures of the set that [`decode_good`](Self::decode_good) could not decode so far.
    pub fn damaged(&self) -> Vec<LeftOut> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// What is known of image `index` by now, if it was damaged.
    fn damage(&self, index: usize) -> Option<LeftOut> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).get(&index).cloned()
    }

    /// (width, height) in pixels of the first image as stored.
    pub fn native_size(&self) -> (usize, usize) {
        self.parts.sizes[0]
    }

    /// The side in pixels that images are to be brought to: what was asked for at opening, or the native side.
    pub fn image_size(&self) -> usize {
        self.image_size
    }

    /// Files that lie where the set does and are not in it.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.parts.left_out
    }

    /// What a person should know before trusting the labels.
    pub fn warnings(&self) -> &[String] {
        &self.parts.warnings
    }

    /// What was found, to be shown: classes, counts, sizes, what was left out.
    pub fn table(&self) -> Table<'_> {
        Table(self)
    }

    /// A stable hash over names, labels and contents, the same wherever the set lies on disk: equal fingerprints mean
    /// that a training may be resumed on this set.
    pub fn fingerprint(&self) -> String {
        self.parts.fingerprint.clone()
    }

    /// The hash that an earlier version of this program had of this set: of names, labels and sizes of files, without
    /// their contents. None where it is the same still.
    pub fn earlier_fingerprint(&self) -> Option<&str> {
        self.parts.earlier_fingerprint.as_deref()
    }

    /// Whether a text names this set by its fingerprint, or by that of an earlier version.
    pub fn is_named_in(&self, text: &str) -> bool {
        text.contains(&self.parts.fingerprint)
            || self.earlier_fingerprint().is_some_and(|earlier| text.contains(earlier))
    }
}

/// The side of images that are all of one square size.
fn one_square_size(spec: &str, sizes: &[(usize, usize)]) -> Result<usize> {
    let (width, height) = *sizes.first().ok_or_else(|| Error::format(spec, "holds no images"))?;
    if width != height {
        let what = format!(
            "images of {width}x{height} are not square; say what size to bring them to (--image-size)"
        );
        return Err(Error::format(spec, what));
    }
    match sizes.iter().find(|size| **size != sizes[0]) {
        None => Ok(width),
        Some((other_width, other_height)) => Err(Error::format(
            spec,
            format!(
                "images differ in size ({width}x{height} and {other_width}x{other_height}); \
                 give an image size to bring them to"
            ),
        )),
    }
}

/// The last part of a path, for naming a set.
fn short_name(spec: &str) -> String {
    let path = Path::new(spec);
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    // `.` and `..` have no name of their own.
    name.or_else(|| path.canonicalize().ok()?.file_name().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| spec.to_owned())
}
