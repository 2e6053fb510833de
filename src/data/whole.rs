//! Whether a picture's file is all there, from its structure: far quicker than decoding it.

use ::image::ImageFormat;

/// What the structure of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wholeness {
    /// It ends where its format says, and the checksums that the format has are right.
    Whole,
    /// Something is amiss; whether the picture can be had all the same, decoding tells.
    Doubtful,
    /// It ends early, and a decoder would make up the rest.
    Cut,
}

/// Looks at the structure of a file of a format.
pub fn check(format: ImageFormat, bytes: &[u8]) -> Wholeness {
    let good = match format {
        ImageFormat::Png => png(bytes),
        // Decoders fill what is missing with grey, and say nothing.
        ImageFormat::Jpeg if jpeg(bytes).is_none() => return Wholeness::Cut,
        ImageFormat::Jpeg => Some(()),
        ImageFormat::Gif => bytes.ends_with(&[0x3b]).then_some(()),
        ImageFormat::WebP => long_enough(bytes, 4, 8),
        ImageFormat::Bmp => long_enough(bytes, 2, 0),
        _ => None,
    };
    if good.is_some() { Wholeness::Whole } else { Wholeness::Doubtful }
}

/// Chunks (length, name, data, checksum) up to IEND, every checksum right.
fn png(bytes: &[u8]) -> Option<()> {
    let mut rest = bytes.get(8..)?;
    loop {
        let length = u32::from_be_bytes(*rest.first_chunk::<4>()?) as usize;
        let checked = rest.get(4..8usize.checked_add(length)?)?;
        let crc = u32::from_be_bytes(*rest.get(8 + length..)?.first_chunk::<4>()?);
        let mut own = flate2::Crc::new();
        own.update(checked);
        if own.sum() != crc {
            return None;
        }
        if checked.starts_with(b"IEND") {
            return Some(());
        }
        rest = rest.get(12 + length..)?;
    }
}

/// Segments with their lengths, and coded data between markers, up to the marker of the end.
fn jpeg(bytes: &[u8]) -> Option<()> {
    let mut at = 2;
    loop {
        // To the next marker: 0xff and neither a stuffed zero, nor a restart, nor filling.
        at += bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
        match bytes.get(at + 1)? {
            0xff => at += 1,
            0x00 | 0x01 | 0xd0..=0xd8 => at += 2,
            0xd9 => return Some(()),
            _ => at += 2 + usize::from(u16::from_be_bytes(*bytes.get(at + 2..)?.first_chunk::<2>()?)),
        }
    }
}

/// A 32-bit little-endian length at `at`, of what comes after the first `before` bytes.
fn long_enough(bytes: &[u8], at: usize, before: usize) -> Option<()> {
    let length = u32::from_le_bytes(*bytes.get(at..)?.first_chunk::<4>()?) as usize;
    (bytes.len() - before >= length).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn whole_files_are_whole_and_no_cut_file_is() {
        let picture = ::image::RgbImage::from_fn(31, 17, |x, y| {
            ::image::Rgb([x as u8 * 8, y as u8 * 15, (x ^ y) as u8])
        });
        for format in
            [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP, ImageFormat::Bmp]
        {
            let mut bytes = Cursor::new(Vec::new());
            picture.write_to(&mut bytes, format).unwrap();
            let mut bytes = bytes.into_inner();
            assert_eq!(check(format, &bytes), Wholeness::Whole, "{format:?}");
            for end in (0..bytes.len() - 1).step_by(7) {
                // A GIF may end like one half way through: its decoder tells.
                if format != ImageFormat::Gif {
                    assert_ne!(check(format, &bytes[..end]), Wholeness::Whole, "{format:?} cut at {end}");
                }
            }
            if matches!(format, ImageFormat::Png | ImageFormat::Jpeg) {
                bytes.extend(b"what programs append");
                assert_eq!(check(format, &bytes), Wholeness::Whole, "{format:?}");
            }
        }
    }

    #[test]
    fn a_flipped_bit_of_a_png_is_found() {
        let mut bytes = Cursor::new(Vec::new());
        ::image::GrayImage::new(9, 9).write_to(&mut bytes, ImageFormat::Png).unwrap();
        let mut bytes = bytes.into_inner();
        let at = bytes.len() - 20;
        bytes[at] ^= 4;
        assert_eq!(check(ImageFormat::Png, &bytes), Wholeness::Doubtful);
    }
}
