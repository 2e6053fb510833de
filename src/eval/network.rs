//! Networks that turn pictures into features.

use crate::error::{Error, Result};
use crate::shape::{Extent, Shape};

/// How many numbers a network gives for a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Of the pooled features, for FID, KID, precision and recall.
    pub pooled: usize,
    /// Of the spatial features, for sFID.
    pub spatial: usize,
    /// Of the probabilities, for the inception score.
    pub classes: usize,
}

/// What a network says of some pictures, row by row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extracted {
    /// `[N, pooled]`.
    pub pooled: Vec<f32>,
    /// `[N, spatial]`.
    pub spatial: Vec<f32>,
    /// `[N, classes]`, each row summing to 1.
    pub probabilities: Vec<f32>,
}

/// Some pictures of one size, bytes in N, H, W, C order.
#[derive(Clone, Copy, Debug)]
pub struct Pictures<'a> {
    /// All pixels.
    pub pixels: &'a [u8],
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 1 or 3.
    pub channels: usize,
}

impl<'a> Pictures<'a> {
    /// Pictures of a shape.
    pub fn of(pixels: &'a [u8], shape: Shape) -> Self {
        let Shape { channels, extent } = shape;
        Pictures { pixels, width: extent.width(), height: extent.height(), channels }
    }

    /// Their size.
    pub fn extent(&self) -> Extent {
        Extent::Plane { height: self.height, width: self.width }
    }
}

impl Pictures<'_> {
    /// N.
    pub fn len(&self) -> usize {
        self.pixels.len().checked_div(self.width * self.height * self.channels).unwrap_or(0)
    }

    /// Whether there is no picture.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same pixels with `channels` channels; of RGB that is to be grey the mean.
    ///
    /// # Errors
    /// [`Error::Shape`] for anything but 1 and 3.
    pub fn with_channels(&self, channels: usize) -> Result<Vec<u8>> {
        match (self.channels, channels) {
            (from, to) if from == to => Ok(self.pixels.to_vec()),
            (1, 3) => Ok(self.pixels.iter().flat_map(|&value| [value; 3]).collect()),
            (3, 1) => Ok(self
                .pixels
                .chunks(3)
                .map(|pixel| ((pixel.iter().map(|&x| u32::from(x)).sum::<u32>() + 1) / 3) as u8)
                .collect()),
            (from, to) => {
                Err(Error::shape("features", format!("pictures of {from} channels where {to} are needed")))
            }
        }
    }
}

/// A network that measures look through.
pub trait FeatureNetwork {
    /// What tells it from all others: numbers of other networks do not compare.
    fn identity(&self) -> &str;

    /// The lengths of what it gives.
    fn sizes(&self) -> Sizes;

    /// Whether its classes are those of the data that pictures are compared with, so that what it takes a picture for can be
    /// held against the picture's label.
    fn knows_the_labels(&self) -> bool {
        false
    }

    /// The names of those classes, in the order of their labels, where they are known: labels are held against its classes
    /// by name.
    fn class_names(&self) -> &[String] {
        &[]
    }

    /// The features of any number of pictures.
    ///
    /// # Errors
    /// When the pictures are of a size it does not take, or the device fails.
    fn extract(&self, pictures: Pictures<'_>) -> Result<Extracted>;
}

/// The class of the largest of a row of probabilities.
pub fn most_probable(probabilities: &[f32]) -> u32 {
    let largest = probabilities.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    largest.map_or(0, |(class, _)| class as u32)
}
