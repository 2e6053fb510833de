//! Labelled images: where they come from, how they are decoded, brought to size, and dealt out in batches.
//!
//! This layer knows file formats, class names, pixels as bytes and the order of an epoch.
//! Invariant: it never knows about devices, tensors, models or diffusion; all of it is host memory, and what
//! it hands out is a pure function of the files and a seed.

use std::path::Path;

use crate::error::{Error, Result};
use crate::sizes::MOST_SIDE;

mod decode;
mod digits;
mod edm_zip;
pub(crate) mod fingerprint;
mod folder;
mod idx;
mod image;
pub mod loader;
#[cfg(not(target_arch = "wasm32"))]
pub mod prefetch;
pub mod transform;

pub use self::image::Image;
pub use loader::{Batch, Crop, Loader, LoaderOptions};
#[cfg(not(target_arch = "wasm32"))]
pub use prefetch::Prefetch;
pub use transform::CropOffset;

/// Below this total, the compressed files of a set are kept in memory; above it they are read as needed.
const KEEP_BYTES: u64 = 512 << 20;

/// The class name of a set without labels.
const ONLY_CLASS: &str = "all";

/// Gives the pixels of one image; the index is within the set.
trait Source: Send + Sync {
    fn decode(&self, index: usize) -> Result<Image>;
}

/// What a format's reader hands over.
struct Parts {
    name: String,
    channels: usize,
    class_names: Vec<String>,
    labels: Vec<u32>,
    /// (width, height) of each image, or one entry where all are alike.
    sizes: Vec<(usize, usize)>,
    skipped: Vec<(String, String)>,
    fingerprint: String,
    source: Box<dyn Source>,
}

/// One readable kind of dataset.
struct Format {
    /// What to give, for the message when nothing fits.
    what: &'static str,
    accepts: fn(&str) -> bool,
    open: fn(&str) -> Result<Parts>,
}

/// Tried in this order; the first that accepts the spec reads it.
const FORMATS: &[Format] = &[
    Format { what: "`digits`", accepts: digits::accepts, open: digits::open },
    Format { what: "a folder of images", accepts: folder::accepts, open: folder::open },
    Format { what: "a .zip with dataset.json", accepts: edm_zip::accepts, open: edm_zip::open },
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
    labels: Vec<u32>,
    native_size: (usize, usize),
    image_size: usize,
    skipped: Vec<(String, String)>,
    fingerprint: String,
    source: Box<dyn Source>,
}

impl Dataset {
    /// Opens the set that `spec` names: `digits`, a folder, a `.zip` in EDM's form, or an IDX images file.
    ///
    /// `image_size` is the side in pixels that images will be brought to. Without it the set must be of one
    /// square size, which is then taken.
    ///
    /// # Errors
    /// When there is no such file, when it is damaged, when not one image of it is readable, and when images
    /// are not of one square size and no `image_size` says what to do about that.
    pub fn open(spec: &str, image_size: Option<usize>) -> Result<Dataset> {
        let format = FORMATS.iter().find(|format| (format.accepts)(spec)).ok_or_else(|| {
            let known: Vec<_> = FORMATS.iter().map(|format| format.what).collect();
            Error::format(spec, format!("no such file or folder; give {}", known.join(", ")))
        })?;
        let parts = (format.open)(spec)?;
        let native_size = *parts.sizes.first().ok_or_else(|| Error::format(spec, "holds no images"))?;
        let image_size = match image_size {
            Some(0) => return Err(Error::Config("an image size of 0 pixels is no size".into())),
            Some(size) if size > MOST_SIDE => {
                return Err(Error::Config(format!(
                    "an image size of {size} pixels is beyond {MOST_SIDE}, the most that pictures are brought to"
                )));
            }
            Some(size) => size,
            None => one_square_size(spec, &parts.sizes)?,
        };
        Ok(Dataset {
            name: parts.name,
            channels: parts.channels,
            class_names: parts.class_names,
            labels: parts.labels,
            native_size,
            image_size,
            skipped: parts.skipped,
            fingerprint: parts.fingerprint,
            source: parts.source,
        })
    }

    /// The number of images, at least 1.
    #[allow(clippy::len_without_is_empty, reason = "an empty set does not open")]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// The number of classes, at least 1.
    pub fn num_classes(&self) -> usize {
        self.class_names.len()
    }

    /// The label of image `index` (below [`len`](Self::len)); it is below [`num_classes`](Self::num_classes).
    pub fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }

    /// Every image's label, in order.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The pixels of image `index` in the size it was stored, with the set's number of channels.
    ///
    /// # Errors
    /// When `index` is out of range, and when the file is damaged past its header or has gone away.
    pub fn decode(&self, index: usize) -> Result<Image> {
        if index >= self.len() {
            let (name, len) = (&self.name, self.len());
            return Err(Error::Config(format!("{name}: there is no image {index}, it has {len}")));
        }
        self.source.decode(index)
    }

    /// (width, height) in pixels of the first image as stored.
    pub fn native_size(&self) -> (usize, usize) {
        self.native_size
    }

    /// The side in pixels that images are to be brought to: what was asked for at opening, or the native side.
    pub fn image_size(&self) -> usize {
        self.image_size
    }

    /// Files that look like images of this set but are not in it: (name, reason).
    pub fn skipped(&self) -> &[(String, String)] {
        &self.skipped
    }

    /// A stable hash over names, labels and sizes, the same wherever the set lies on disk: equal fingerprints
    /// mean that a training may be resumed on this set.
    pub fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

/// The side of images that are all of one square size.
fn one_square_size(spec: &str, sizes: &[(usize, usize)]) -> Result<usize> {
    let (width, height) = sizes[0];
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_path_lists_what_may_be_given() {
        let message = Dataset::open("no/such/place", None).err().unwrap().to_string();
        assert!(message.contains("no/such/place") && message.contains("digits") && message.contains("IDX"));
    }

    #[test]
    fn sizes_must_agree_unless_one_is_asked_for() {
        assert_eq!(one_square_size("x", &[(7, 7)]).unwrap(), 7);
        assert!(one_square_size("x", &[(7, 5)]).unwrap_err().to_string().contains("7x5"));
        assert!(one_square_size("x", &[(7, 7), (9, 9)]).unwrap_err().to_string().contains("9x9"));
        assert!(Dataset::open("digits", Some(0)).is_err());
        assert_eq!(Dataset::open("digits", Some(13)).unwrap().image_size(), 13);
    }
}
