//! PNG files with notes in them, so that an image says how it was made.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use ::png::{BitDepth, ColorType, Decoder, Encoder, EncodingError};

use super::write_atomic;
use crate::data::Image;
use crate::error::{Error, Result};

/// Writes `image` with `text`, (keyword, value) each, all or nothing. Values of Latin-1 become tEXt chunks, others
/// iTXt. Keywords are 1 to 79 letters of Latin-1.
///
/// # Errors
/// When the image has no pixels, a keyword is not allowed, or the disk refuses.
pub fn write_png(path: impl AsRef<Path>, image: &Image, text: &[(String, String)]) -> Result<()> {
    let path = path.as_ref();
    let (width, height) = (u32::try_from(image.width), u32::try_from(image.height));
    let (Ok(width @ 1..), Ok(height @ 1..)) = (width, height) else {
        let what = format!("an image of {}x{} pixels has no PNG", image.width, image.height);
        return Err(Error::shape("write_png", what));
    };
    let failed = |error| match error {
        EncodingError::IoError(error) => Error::io(path)(error),
        other => Error::format(path, format!("cannot be written as PNG: {other}")),
    };
    write_atomic(path, |writer| {
        let mut encoder = Encoder::new(writer, width, height);
        encoder.set_color(if image.channels == 1 { ColorType::Grayscale } else { ColorType::Rgb });
        encoder.set_depth(BitDepth::Eight);
        for (key, value) in text {
            let latin = value.chars().all(|c| u32::from(c) < 256 && c != '\0');
            let (key, value) = (key.clone(), value.clone());
            if latin { encoder.add_text_chunk(key, value) } else { encoder.add_itxt_chunk(key, value) }
                .map_err(failed)?;
        }
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(&image.pixels).map_err(failed)?;
        writer.finish().map_err(failed)
    })
}

/// The notes in a PNG file: (keyword, value) each, of tEXt, zTXt and iTXt chunks.
///
/// # Errors
/// When the file cannot be read or is no whole PNG.
pub fn read_png_text(path: impl AsRef<Path>) -> Result<Vec<(String, String)>> {
    let path = path.as_ref();
    let file = File::open(path).map_err(Error::io(path))?;
    let failed = |error| Error::format(path, format!("is no PNG, or a damaged one: {error}"));
    let mut reader = Decoder::new(BufReader::new(file)).read_info().map_err(failed)?;
    // Notes may also come after the pixels.
    reader.finish().map_err(failed)?;
    let info = reader.info();
    let mut text = Vec::new();
    for chunk in &info.uncompressed_latin1_text {
        text.push((chunk.keyword.clone(), chunk.text.clone()));
    }
    for chunk in &info.compressed_latin1_text {
        text.push((chunk.keyword.clone(), chunk.get_text().map_err(failed)?));
    }
    for chunk in &info.utf8_text {
        text.push((chunk.keyword.clone(), chunk.get_text().map_err(failed)?));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_and_notes_come_back() {
        let dir = tempfile::tempdir().unwrap();
        for channels in [1, 3] {
            let path = dir.path().join(format!("new/{channels}.png"));
            let image = Image::new(7, 5, channels, (0..35 * channels as u8).collect()).unwrap();
            let text: Vec<(String, String)> =
                [("seed", "7"), ("empty", ""), ("note", "née\nline"), ("greek", "σ = 0.5")]
                    .map(|(key, value)| (key.to_string(), value.to_string()))
                    .into();
            write_png(&path, &image, &text).unwrap();
            let mut found = read_png_text(&path).unwrap();
            found.sort();
            let mut wanted = text;
            wanted.sort();
            assert_eq!(found, wanted);
            let decoded = ::image::open(&path).unwrap();
            assert_eq!((decoded.width(), decoded.height(), decoded.as_bytes()), (7, 5, &image.pixels[..]));
        }
    }

    #[test]
    fn what_cannot_be_a_png_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.png");
        assert!(write_png(&path, &Image::filled(0, 5, 3, 0), &[]).is_err());
        let long = [("k".repeat(80), String::new())];
        assert!(
            write_png(&path, &Image::filled(3, 5, 3, 0), &long).unwrap_err().to_string().contains("x.png")
        );
        assert!(!path.exists());
        std::fs::write(&path, b"GIF89a").unwrap();
        assert!(read_png_text(&path).is_err());
    }
}
