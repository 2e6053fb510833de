//! Labelled images: where they come from, how they are decoded, brought to size, and dealt out in batches.
//!
//! This layer knows file formats, class names, pixels as bytes and the order of an epoch.
//! Invariant: it never knows about devices, tensors, models or diffusion; all of it is host memory, and what
//! it hands out is a pure function of the files and a seed.

mod archive;
mod attributes;
mod classes;
mod dataset;
mod decode;
mod digits;
pub(crate) mod fingerprint;
mod folder;
mod found;
mod idx;
mod image;
mod inspect;
mod kind;
mod known;
mod labels;
pub mod loader;
mod parts;
mod pictures;
#[cfg(not(target_arch = "wasm32"))]
pub mod prefetch;
mod strokes;
mod table;
#[cfg(test)]
mod tests;
pub mod transform;
mod tree;
mod whole;

pub use self::image::{Image, to_nearest_u8, to_u8};
pub use attributes::{Attribute, AttributeValues, vector_of, vector_pieces, vector_width};
pub use dataset::Dataset;
pub use loader::{Batch, Crop, Loader, LoaderOptions};
pub use parts::{DataOptions, Labelling};
#[cfg(not(target_arch = "wasm32"))]
pub use prefetch::Prefetch;
pub use table::Table;
pub use transform::CropOffset;
pub use tree::LeftOut;

use crate::error::Result;
use parts::Parts;

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
