//! How good a set of pictures is: inception score, FID, sFID, KID, precision, recall, agreement with a classifier.
//!
//! The measures take features and probabilities as they come, in any number; which network they are of is not their
//! business. Sums are f64.
//!
//! | measure | source | here |
//! |---|---|---|
//! | inception score | Salimans et al., arXiv 1606.03498 | [`InceptionScore`] |
//! | FID, sFID | Heusel et al., arXiv 1706.08500; Nash et al., arXiv 2103.03841 | [`Moments`], [`frechet_distance`] |
//! | KID | Bińkowski et al., arXiv 1801.01401 | [`kernel_distance`] |
//! | precision, recall | Kynkäänniemi et al., arXiv 1904.06991 | [`precision_recall`], [`class_recall`] |
//!
//! From pictures to numbers: a [`FeatureNetwork`] (the small [`PictureClassifier`], or a published network) says what it sees,
//! a [`Store`] keeps that part by part, so that an evaluation can be interrupted, and [`measure`] compares it with a
//! [`Reference`].
//!
//! Invariant: the measures know no device, no network and no file.

mod caution;
mod class_lists;
mod classifier;
#[cfg(test)]
mod device_tests;
mod frechet;
mod inception;
mod inception_score;
mod kernel_distance;
mod linalg;
mod manifold;
mod moments;
mod network;
mod reference;
mod report;
#[cfg(not(target_arch = "wasm32"))]
mod source;
mod store;
mod sweep;
#[cfg(test)]
mod tests;
#[cfg(not(target_arch = "wasm32"))]
mod training;

pub use class_lists::{class_map, in_numbers_of};
pub use classifier::{ClassifierNetwork, ClassifierShape, PictureClassifier};
pub use frechet::frechet_distance;
pub use inception::{Convention, Inception, Variant};
pub use inception_score::{InceptionScore, SPLIT, Score};
pub use kernel_distance::{KernelDistance, kernel_distance, squared_discrepancy};
pub use manifold::{ClassRecall, NEIGHBOURS, PrecisionRecall, class_recall, precision_recall};
pub use moments::{Gaussian, Moments};
pub use network::{Extracted, FeatureNetwork, Pictures, Sizes, most_probable};
pub use reference::Reference;
pub use report::{Measures, RecallOfClass, Report, agreement, measure};
#[cfg(not(target_arch = "wasm32"))]
pub use source::{
    DataPictures, Draw, NpzPictures, PictureSource, SampledPictures, See, collect, contents_of,
};
pub use store::{Collected, Store};
pub use sweep::{Point, from_csv, in_table, series, to_csv, to_table};
#[cfg(not(target_arch = "wasm32"))]
pub use training::{default_images, train_classifier};

use crate::error::{Error, Result};

/// A vector of numbers for each picture, `[N, D]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    /// D.
    pub dim: usize,
    /// Row by row.
    pub values: Vec<f32>,
}

impl Features {
    /// No pictures yet, of vectors of `dim` numbers.
    pub fn new(dim: usize) -> Self {
        Features { dim, values: Vec::new() }
    }

    /// N.
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.dim).unwrap_or(0)
    }

    /// Whether there is no picture.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The vector of picture `index`, which must be below [`len`](Self::len).
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.dim..][..self.dim]
    }

    /// The rows of these pictures, each below [`len`](Self::len).
    pub fn take(&self, indices: &[usize]) -> Features {
        let rows = indices.iter().flat_map(|&index| self.row(index).iter().copied());
        Features { dim: self.dim, values: rows.collect() }
    }

    /// Rows `first..first + count`, as far as there are any.
    pub fn rows(&self, first: usize, count: usize) -> &[f32] {
        let last = (first + count).min(self.len());
        &self.values[first.min(last) * self.dim..last * self.dim]
    }
}

/// An error unless both have vectors of one length.
fn same_dim(what: &'static str, a: usize, b: usize) -> Result<()> {
    if a == b && a > 0 {
        return Ok(());
    }
    let why =
        format!("one set has features of {a} numbers, the other of {b}: they are not of the same network");
    Err(Error::shape(what, why))
}
