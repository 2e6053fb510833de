//! An image as bytes in memory.

use crate::error::{Error, Result};
use crate::shape::{Extent, Shape};

/// Pixels as bytes, rows from the top, channels innermost (HWC).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 1 (grey) or 3 (RGB).
    pub channels: usize,
    /// `height * width * channels` values of 0..=255, sRGB as stored.
    pub pixels: Vec<u8>,
}

impl Image {
    /// An image of given pixels.
    ///
    /// # Errors
    /// When the number of bytes is not `width * height * channels`, or `channels` is neither 1 nor 3.
    pub fn new(width: usize, height: usize, channels: usize, pixels: Vec<u8>) -> Result<Image> {
        let needed = width.checked_mul(height).and_then(|area| area.checked_mul(channels));
        if needed != Some(pixels.len()) || !matches!(channels, 1 | 3) {
            let have = pixels.len();
            let what =
                format!("{have} bytes do not make an image of {width}x{height} with {channels} channels");
            return Err(Error::shape("image", what));
        }
        Ok(Image { width, height, channels, pixels })
    }

    /// An image of one value throughout. `channels` is 1 or 3.
    pub fn filled(width: usize, height: usize, channels: usize, value: u8) -> Image {
        Image { width, height, channels, pixels: vec![value; width * height * channels] }
    }

    /// Its channels over its extent.
    pub fn shape(&self) -> Shape {
        let extent = Extent::Plane { height: self.height, width: self.width };
        Shape { channels: self.channels, extent }
    }

    /// The same image with three channels; grey is repeated.
    pub fn to_rgb(&self) -> Image {
        let pixels = match self.channels {
            3 => self.pixels.clone(),
            _ => self.pixels.iter().flat_map(|&value| [value; 3]).collect(),
        };
        Image { width: self.width, height: self.height, channels: 3, pixels }
    }
}

/// Values in [-1, 1] as bytes: (x + 1)·127.5, clamped to 0..255 and truncated, as the reference does.
pub fn to_u8(values: &[f32]) -> Vec<u8> {
    values.iter().map(|x| ((x + 1.0) * 127.5).clamp(0.0, 255.0) as u8).collect()
}

/// Values in [-1, 1] as bytes: (x + 1)·127.5, clamped to 0..255 and rounded to the nearest, halves to even, as latent diffusion's
/// pictures are.
pub fn to_nearest_u8(values: &[f32]) -> Vec<u8> {
    values.iter().map(|x| ((x + 1.0) * 127.5).clamp(0.0, 255.0).round_ties_even() as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a decoder's pictures some lie past the ends, and must not wrap round.
    #[test]
    fn what_lies_past_the_ends_is_clamped() {
        let values = [1.02, -1.02, 0.0, 1.0, -1.0, -0.5, 0.25, f32::INFINITY];
        assert_eq!(to_nearest_u8(&values), [255, 0, 128, 255, 0, 64, 159, 255]);
        assert_eq!(to_u8(&values), [255, 0, 127, 255, 0, 63, 159, 255]);
    }

    #[test]
    fn counts_are_checked() {
        assert!(Image::new(3, 5, 1, vec![0; 15]).is_ok());
        assert!(Image::new(3, 5, 3, vec![0; 15]).is_err());
        assert!(Image::new(3, 5, 2, vec![0; 30]).is_err());
        assert!(Image::new(usize::MAX, 5, 3, vec![]).is_err());
    }

    #[test]
    fn grey_repeats() {
        assert_eq!(Image::new(1, 2, 1, vec![7, 9]).unwrap().to_rgb().pixels, [7, 7, 7, 9, 9, 9]);
    }
}
