//! Bringing an image to the wanted size: crop or stretch, resize, flip.
//!
//! Where to crop and whether to flip come as numbers, so that all chance stays with the caller.

use std::cmp::Ordering;

use ::image::imageops::{FilterType, resize};
use ::image::{ImageBuffer, Luma, Rgb};

use super::Image;
use crate::shape::Extent;

/// Where along the side that is too long the rest is cut off: 0 is at the left or top, 1 at the right or bottom.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CropOffset {
    /// In [0, 1), across.
    pub u: f64,
    /// In [0, 1), down.
    pub v: f64,
}

impl CropOffset {
    /// The middle.
    pub const CENTER: CropOffset = CropOffset { u: 0.5, v: 0.5 };
}

/// Cuts the largest part of the wanted proportions out of `image` at `crop`, brings it to `size` (Lanczos, widened when
/// shrinking so that nothing aliases), and mirrors it left to right if `flip`.
///
/// Same as resizing the side that is not cut and cropping, but a long strip costs no more than what is left of it.
pub fn prepare(image: &Image, size: Extent, crop: CropOffset, flip: bool) -> Image {
    flipped(resized(cut(image, size, crop), size), flip)
}

/// Brings the whole of `image` to `size` as [`prepare`] does, whatever its proportions, and mirrors it if `flip`.
pub fn stretch(image: &Image, size: Extent, flip: bool) -> Image {
    flipped(resized(image.clone(), size), flip)
}

fn flipped(mut image: Image, flip: bool) -> Image {
    if flip {
        let row = image.width * image.channels;
        for row in image.pixels.chunks_exact_mut(row) {
            row.reverse();
            // Reversing bytes mirrors the pixels and turns each one's channels round; turn those back.
            row.chunks_exact_mut(image.channels).for_each(<[u8]>::reverse);
        }
    }
    image
}

/// (width, height) of the largest part of an image that has the proportions of `size`, to the nearest pixel.
fn largest_part(image: &Image, size: Extent) -> (usize, usize) {
    let nearest = |a: usize, b: usize| ((a + b / 2) / b).max(1);
    let (across, down) = (image.width * size.height(), image.height * size.width());
    match across.cmp(&down) {
        Ordering::Equal => (image.width, image.height),
        Ordering::Greater => (nearest(down, size.height()).min(image.width), image.height),
        Ordering::Less => (image.width, nearest(across, size.width()).min(image.height)),
    }
}

fn cut(image: &Image, size: Extent, crop: CropOffset) -> Image {
    let (width, height) = largest_part(image, size);
    if (width, height) == (image.width, image.height) {
        return image.clone();
    }
    let offset = |at: f64, room: usize| ((at * (room + 1) as f64) as usize).min(room);
    let (left, top) = (offset(crop.u, image.width - width), offset(crop.v, image.height - height));
    let channels = image.channels;
    let mut pixels = Vec::with_capacity(width * height * channels);
    for y in top..top + height {
        let start = (y * image.width + left) * channels;
        pixels.extend_from_slice(&image.pixels[start..start + width * channels]);
    }
    Image { width, height, channels, pixels }
}

fn resized(image: Image, size: Extent) -> Image {
    let (width, height) = (size.width(), size.height());
    if (image.width, image.height) == (width, height) {
        return image;
    }
    let (from_width, from_height) = (image.width as u32, image.height as u32);
    let (to_width, to_height) = (width as u32, height as u32);
    let pixels = if image.channels == 1 {
        let buffer = ImageBuffer::<Luma<u8>, _>::from_raw(from_width, from_height, image.pixels);
        buffer.map(|buffer| resize(&buffer, to_width, to_height, FilterType::Lanczos3).into_raw())
    } else {
        let buffer = ImageBuffer::<Rgb<u8>, _>::from_raw(from_width, from_height, image.pixels);
        buffer.map(|buffer| resize(&buffer, to_width, to_height, FilterType::Lanczos3).into_raw())
    };
    let pixels = pixels.expect("an Image has as many bytes as its sizes say");
    Image { width, height, channels: image.channels, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(width: usize, height: usize, channels: usize) -> Image {
        let pixels = (0..width * height * channels).map(|i| i as u8).collect();
        Image::new(width, height, channels, pixels).unwrap()
    }

    #[test]
    fn crops_where_it_is_told() {
        let wide = counting(5, 3, 1);
        let side = Extent::square;
        let at = |u| prepare(&wide, side(3), CropOffset { u, v: 0.9 }, false).pixels[..3].to_vec();
        assert_eq!((at(0.0), at(0.5), at(0.999)), (vec![0, 1, 2], vec![1, 2, 3], vec![2, 3, 4]));
        let tall = counting(1, 3, 3);
        assert_eq!(prepare(&tall, side(1), CropOffset { u: 0.0, v: 0.7 }, false).pixels, [6, 7, 8]);
        // Half as high as wide: of five rows and four columns the two rows at the crop, in their own size.
        let image = counting(4, 5, 1);
        let lying = Extent::Plane { height: 2, width: 4 };
        let at = |v| prepare(&image, lying, CropOffset { u: 0.9, v }, false).pixels[0];
        assert_eq!((at(0.0), at(0.5), at(0.999)), (0, 8, 12));
        let standing = Extent::Plane { height: 5, width: 1 };
        assert_eq!(prepare(&image, standing, CropOffset { u: 0.3, v: 0.0 }, false).pixels, [1, 5, 9, 13, 17]);
    }

    #[test]
    fn stretching_leaves_nothing_out() {
        // Dark on the left, light on the right: cut to the middle it would be dark and light by halves as well, so the
        // outermost columns are marked.
        let mut image = Image::filled(8, 8, 1, 0);
        image.pixels.chunks_exact_mut(8).for_each(|row| (row[0], row[7]) = (255, 255));
        let wide = Extent::Plane { height: 8, width: 16 };
        let stretched = stretch(&image, wide, false);
        assert_eq!((stretched.width, stretched.height), (16, 8));
        assert!(stretched.pixels[0] > 200 && stretched.pixels[15] > 200 && stretched.pixels[8] < 20);
        let tall = Extent::Plane { height: 8, width: 4 };
        let cropped = prepare(&image, tall, CropOffset::CENTER, false);
        assert!(cropped.pixels.iter().all(|pixel| *pixel == 0), "the marks are cut off");
        assert!(stretch(&image, tall, true).pixels[0] > 100, "and here they are not");
        assert_eq!(stretch(&image, Extent::square(8), false), image);
    }

    #[test]
    fn flips_pixels_not_channels() {
        let image = counting(3, 3, 3);
        let flipped = prepare(&image, Extent::square(3), CropOffset::CENTER, true);
        assert_eq!(flipped.pixels[..9], [6, 7, 8, 3, 4, 5, 0, 1, 2]);
        assert_eq!(prepare(&flipped, Extent::square(3), CropOffset::CENTER, true), image);
    }

    #[test]
    fn resizes_to_the_side() {
        for (width, height, channels, size) in [(7, 5, 3, 3), (5, 7, 1, 11), (1, 900, 3, 5), (13, 13, 1, 1)] {
            let flat = Image::filled(width, height, channels, 131);
            let out = prepare(&flat, Extent::square(size), CropOffset::CENTER, false);
            assert_eq!(out, Image::filled(size, size, channels, 131));
            let wide = Extent::Plane { height: size, width: 3 * size + 1 };
            let out = prepare(&flat, wide, CropOffset::CENTER, false);
            assert_eq!(out, Image::filled(3 * size + 1, size, channels, 131));
            assert_eq!(stretch(&flat, wide, false), out);
        }
        // A chequerboard shrinks to its mean, not to one of its colours.
        let board =
            Image::new(16, 16, 1, (0..256).map(|i| ((i + i / 16) % 2 * 255) as u8).collect()).unwrap();
        let out = prepare(&board, Extent::square(4), CropOffset::CENTER, false);
        assert!(out.pixels.iter().all(|&value| (112..=143).contains(&value)), "{:?}", out.pixels);
    }
}
