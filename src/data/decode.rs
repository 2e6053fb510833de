//! From the bytes of an image file to pixels: PNG, JPEG, WebP, BMP and GIF (its first frame).

use std::io::{BufRead, Seek};
use std::path::Path;

use ::image::{DynamicImage, ImageDecoder, ImageReader, Limits, metadata::Orientation};

use super::Image;

/// No side longer than this, and no decoder that wants more memory than this: a hostile header is not obeyed.
const MAX_SIDE: u32 = 1 << 15;
const MAX_BYTES: u64 = 1 << 30;

/// What a header tells.
pub struct Header {
    pub width: usize,
    pub height: usize,
    pub grey: bool,
}

/// True for the file name extensions that are looked at.
pub fn is_image_name(name: &str) -> bool {
    let extension = Path::new(name).extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    matches!(extension.as_deref(), Some("png" | "jpg" | "jpeg" | "webp" | "bmp" | "gif"))
}

/// Reads size and colour from the start of a file, without decoding it.
pub fn header(reader: impl BufRead + Seek) -> Result<Header, String> {
    let mut decoder = decoder(reader)?;
    let (width, height) = decoder.dimensions();
    let (width, height) = match decoder.orientation().unwrap_or(Orientation::NoTransforms) {
        Orientation::Rotate90
        | Orientation::Rotate270
        | Orientation::Rotate90FlipH
        | Orientation::Rotate270FlipH => (height, width),
        _ => (width, height),
    };
    if width == 0 || height == 0 {
        return Err(format!("is {width}x{height} pixels"));
    }
    Ok(Header { width: width as usize, height: height as usize, grey: !decoder.color_type().has_color() })
}

/// Decodes a file to 1 or 3 channels, upright, with what is transparent laid on white.
pub fn pixels(reader: impl BufRead + Seek, channels: usize) -> Result<Image, String> {
    let mut decoder = decoder(reader)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut decoded = DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())?;
    decoded.apply_orientation(orientation);
    if decoded.color().has_alpha() {
        decoded = on_white(&decoded);
    }
    let (width, height) = (decoded.width() as usize, decoded.height() as usize);
    let pixels = if channels == 1 { decoded.into_luma8().into_raw() } else { decoded.into_rgb8().into_raw() };
    Ok(Image { width, height, channels, pixels })
}

fn decoder<'a>(reader: impl BufRead + Seek + 'a) -> Result<impl ImageDecoder + 'a, String> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    // By content, as extensions lie often enough.
    let mut reader = ImageReader::new(reader).with_guessed_format().map_err(|error| error.to_string())?;
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|error| error.to_string())?;
    let ((width, height), bytes) = (decoder.dimensions(), decoder.total_bytes());
    if width > MAX_SIDE || height > MAX_SIDE || bytes > MAX_BYTES {
        return Err(format!("is {width}x{height} pixels; at most {MAX_SIDE} a side and 1 GiB are read"));
    }
    Ok(decoder)
}

fn on_white(image: &DynamicImage) -> DynamicImage {
    let mut rgb = ::image::RgbImage::new(image.width(), image.height());
    for (out, pixel) in rgb.pixels_mut().zip(image.to_rgba8().pixels()) {
        let alpha = u32::from(pixel[3]);
        for channel in 0..3 {
            let mixed = u32::from(pixel[channel]) * alpha + 255 * (255 - alpha);
            out[channel] = ((mixed + 127) / 255) as u8;
        }
    }
    DynamicImage::ImageRgb8(rgb)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn png(image: DynamicImage) -> Cursor<Vec<u8>> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ::image::ImageFormat::Png).unwrap();
        bytes.set_position(0);
        bytes
    }

    #[test]
    fn transparency_lies_on_white() {
        let mut rgba = ::image::RgbaImage::new(3, 1);
        rgba.put_pixel(0, 0, ::image::Rgba([10, 20, 30, 255]));
        rgba.put_pixel(1, 0, ::image::Rgba([10, 20, 30, 0]));
        rgba.put_pixel(2, 0, ::image::Rgba([0, 0, 0, 128]));
        let image = pixels(png(rgba.into()), 3).unwrap();
        assert_eq!(image.pixels, [10, 20, 30, 255, 255, 255, 127, 127, 127]);
    }

    #[test]
    fn grey_is_told_from_colour() {
        let grey = ::image::GrayImage::from_raw(3, 5, (0..15).collect()).unwrap();
        let found = header(png(grey.clone().into())).unwrap();
        assert!(found.grey && (found.width, found.height) == (3, 5));
        assert_eq!(pixels(png(grey.clone().into()), 1).unwrap().pixels, (0..15).collect::<Vec<u8>>());
        assert_eq!(pixels(png(grey.into()), 3).unwrap().pixels[..6], [0, 0, 0, 1, 1, 1]);
        assert!(!header(png(DynamicImage::new_rgb8(2, 2))).unwrap().grey);
    }

    #[test]
    fn a_huge_header_is_refused() {
        // A GIF screen descriptor and an image of 65535 x 65535 with no data.
        let mut gif = b"GIF89a\xff\xff\xff\xff\x00\x00\x00".to_vec();
        gif.extend(b"\x2c\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x00");
        assert!(pixels(Cursor::new(gif), 3).is_err());
        assert!(header(Cursor::new(b"not an image".to_vec())).is_err());
    }
}
