//! From the bytes of an image file to pixels: PNG, JPEG, WebP, BMP and GIF (its first frame).

use std::io::Cursor;

use ::image::{DynamicImage, ImageDecoder, ImageReader, Limits, metadata::Orientation};

use super::Image;
use super::kind::{self, Kind};

/// No side longer than this, no more pixels than this, and no decoder that wants more bytes than this: a hostile header
/// is not obeyed. Told before anything of that size is allocated.
const MAX_SIDE: u32 = 1 << 15;
const MAX_PIXELS: u64 = 1 << 27;
const MAX_BYTES: u64 = 1 << 29;

/// What a header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub width: usize,
    pub height: usize,
    pub grey: bool,
}

/// Reads size and colour from the start of a file, without decoding it.
pub fn header(bytes: &[u8]) -> Result<Header, String> {
    let mut decoder = decoder(bytes)?;
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
pub fn pixels(bytes: &[u8], channels: usize) -> Result<Image, String> {
    let mut decoder = decoder(bytes)?;
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

fn decoder(bytes: &[u8]) -> Result<impl ImageDecoder + '_, String> {
    let format = match kind::of(&bytes[..bytes.len().min(kind::HEAD)]) {
        Kind::Picture(format) => format,
        Kind::Other(what) => return Err(format!("is {what}")),
    };
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|error| error.to_string())?;
    let ((width, height), needed) = (decoder.dimensions(), decoder.total_bytes());
    if width > MAX_SIDE
        || height > MAX_SIDE
        || u64::from(width) * u64::from(height) > MAX_PIXELS
        || needed > MAX_BYTES
    {
        return Err(format!(
            "is {width}x{height} pixels, {} MiB; at most {MAX_SIDE} a side, {} million pixels and {} MiB are read",
            needed >> 20,
            MAX_PIXELS / 1_000_000,
            MAX_BYTES >> 20
        ));
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

    fn png(image: DynamicImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ::image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn transparency_lies_on_white() {
        let mut rgba = ::image::RgbaImage::new(3, 1);
        rgba.put_pixel(0, 0, ::image::Rgba([10, 20, 30, 255]));
        rgba.put_pixel(1, 0, ::image::Rgba([10, 20, 30, 0]));
        rgba.put_pixel(2, 0, ::image::Rgba([0, 0, 0, 128]));
        let image = pixels(&png(rgba.into()), 3).unwrap();
        assert_eq!(image.pixels, [10, 20, 30, 255, 255, 255, 127, 127, 127]);
    }

    #[test]
    fn grey_is_told_from_colour() {
        let grey = ::image::GrayImage::from_raw(3, 5, (0..15).collect()).unwrap();
        let found = header(&png(grey.clone().into())).unwrap();
        assert!(found.grey && (found.width, found.height) == (3, 5));
        assert_eq!(pixels(&png(grey.clone().into()), 1).unwrap().pixels, (0..15).collect::<Vec<u8>>());
        assert_eq!(pixels(&png(grey.into()), 3).unwrap().pixels[..6], [0, 0, 0, 1, 1, 1]);
        assert!(!header(&png(DynamicImage::new_rgb8(2, 2))).unwrap().grey);
    }

    #[test]
    fn a_huge_header_is_refused() {
        // A GIF screen descriptor and an image of 65535 x 65535 with no data.
        let mut gif = b"GIF89a\xff\xff\xff\xff\x00\x00\x00".to_vec();
        gif.extend(b"\x2c\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x00");
        assert!(pixels(&gif, 3).is_err());
        assert!(header(b"not an image").is_err());
    }

    #[test]
    fn large_claims_are_refused_with_their_figures() {
        // 32,700 x 32,700 grey pixels of one value are a PNG of a megabyte; its header alone says enough.
        let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
        let mut chunk = |name: &[u8; 4], data: &[u8]| {
            png.extend((data.len() as u32).to_be_bytes());
            let mut crc = flate2::Crc::new();
            crc.update(&[name, data].concat());
            png.extend([&name[..], data, &crc.sum().to_be_bytes()].concat());
        };
        let side = 32_700u32.to_be_bytes();
        chunk(b"IHDR", &[&side[..], &side, &[8, 0, 0, 0, 0]].concat());
        chunk(b"IDAT", &[0; 20]);
        for refused in [header(&png).err(), pixels(&png, 1).err()] {
            let message = refused.unwrap();
            assert!(message.contains("32700x32700") && message.contains("134 million"), "{message}");
        }
    }
}
