//! Bringing an image to a square of the wanted side: crop, resize, flip.
//!
//! Where to crop and whether to flip come as numbers, so that all chance stays with the caller.

use ::image::imageops::{FilterType, resize};
use ::image::{ImageBuffer, Luma, Rgb};

use super::Image;

/// Where along the longer side the square is cut: 0 is at the left or top, 1 at the right or bottom.
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

/// Cuts the largest square out of `image` at `crop`, brings it to `size` by `size` pixels (Lanczos, widened when
/// shrinking so that nothing aliases), and mirrors it left to right if `flip`.
///
/// Same as resizing the shorter side to `size` and cropping, but a long strip costs no more than a square.
pub fn prepare(image: &Image, size: usize, crop: CropOffset, flip: bool) -> Image {
    let side = image.width.min(image.height);
    let mut square = cut(image, side, crop);
    if side != size {
        square = resized(square, size);
    }
    if flip {
        let row = square.width * square.channels;
        for row in square.pixels.chunks_exact_mut(row) {
            row.reverse();
            // Reversing bytes mirrors the pixels and turns each one's channels round; turn those back.
            row.chunks_exact_mut(square.channels).for_each(<[u8]>::reverse);
        }
    }
    square
}

fn cut(image: &Image, side: usize, crop: CropOffset) -> Image {
    if image.width == image.height {
        return image.clone();
    }
    let offset = |at: f64, room: usize| ((at * (room + 1) as f64) as usize).min(room);
    let (left, top) = (offset(crop.u, image.width - side), offset(crop.v, image.height - side));
    let channels = image.channels;
    let mut pixels = Vec::with_capacity(side * side * channels);
    for y in top..top + side {
        let start = (y * image.width + left) * channels;
        pixels.extend_from_slice(&image.pixels[start..start + side * channels]);
    }
    Image { width: side, height: side, channels, pixels }
}

fn resized(image: Image, size: usize) -> Image {
    let (width, height, side) = (image.width as u32, image.height as u32, size as u32);
    let pixels = if image.channels == 1 {
        let buffer = ImageBuffer::<Luma<u8>, _>::from_raw(width, height, image.pixels);
        buffer.map(|buffer| resize(&buffer, side, side, FilterType::Lanczos3).into_raw())
    } else {
        let buffer = ImageBuffer::<Rgb<u8>, _>::from_raw(width, height, image.pixels);
        buffer.map(|buffer| resize(&buffer, side, side, FilterType::Lanczos3).into_raw())
    };
    let pixels = pixels.expect("an Image has as many bytes as its sizes say");
    Image { width: size, height: size, channels: image.channels, pixels }
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
        let at = |u| prepare(&wide, 3, CropOffset { u, v: 0.9 }, false).pixels[..3].to_vec();
        assert_eq!((at(0.0), at(0.5), at(0.999)), (vec![0, 1, 2], vec![1, 2, 3], vec![2, 3, 4]));
        let tall = counting(1, 3, 3);
        assert_eq!(prepare(&tall, 1, CropOffset { u: 0.0, v: 0.7 }, false).pixels, [6, 7, 8]);
    }

    #[test]
    fn flips_pixels_not_channels() {
        let image = counting(3, 3, 3);
        let flipped = prepare(&image, 3, CropOffset::CENTER, true);
        assert_eq!(flipped.pixels[..9], [6, 7, 8, 3, 4, 5, 0, 1, 2]);
        assert_eq!(prepare(&flipped, 3, CropOffset::CENTER, true), image);
    }

    #[test]
    fn resizes_to_the_side() {
        for (width, height, channels, size) in [(7, 5, 3, 3), (5, 7, 1, 11), (1, 900, 3, 5), (13, 13, 1, 1)] {
            let flat = Image::filled(width, height, channels, 131);
            let out = prepare(&flat, size, CropOffset::CENTER, false);
            assert_eq!(out, Image::filled(size, size, channels, 131));
        }
        // A chequerboard shrinks to its mean, not to one of its colours.
        let board =
            Image::new(16, 16, 1, (0..256).map(|i| ((i + i / 16) % 2 * 255) as u8).collect()).unwrap();
        let out = prepare(&board, 4, CropOffset::CENTER, false);
        assert!(out.pixels.iter().all(|&value| (112..=143).contains(&value)), "{:?}", out.pixels);
    }
}
