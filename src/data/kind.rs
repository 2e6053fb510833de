//! What a file of a data set is: a picture of a format that is decoded, or something else, by its first bytes. The kinds and
//! their signatures are those of `io`.

use std::fmt;

use ::image::ImageFormat;

use crate::io::FileKind;

/// So many first bytes tell every kind.
pub const HEAD: usize = 512;

/// The kinds that are decoded, for messages.
pub const PICTURES: &str = "PNG, JPEG, WebP, BMP and GIF pictures";

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A picture of a format that is decoded.
    Picture(ImageFormat),
    /// Anything else.
    Other(Other),
}

/// A kind that is no picture to be decoded; shown in words that go after "is".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other(pub FileKind);

/// The kind of a file that begins with `head`: its first [`HEAD`] bytes, or all it has.
pub fn of(head: &[u8]) -> Kind {
    let kind = FileKind::of_start(head);
    let format = match kind {
        FileKind::Picture("PNG") => ImageFormat::Png,
        FileKind::Picture("JPEG") => ImageFormat::Jpeg,
        FileKind::Picture("WebP") => ImageFormat::WebP,
        FileKind::Picture("BMP") => ImageFormat::Bmp,
        FileKind::Picture("GIF") => ImageFormat::Gif,
        _ => return Kind::Other(Other(kind)),
    };
    Kind::Picture(format)
}

impl fmt::Display for Other {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            // The way out fits into a list of files.
            FileKind::LfsPointer(_) => write!(to, "{} (`git lfs pull` fetches it)", self.0),
            kind => kind.fmt(to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_their_bytes() {
        let mut tar = vec![0; 257];
        tar.extend(b"ustar\0");
        for (head, expected) in [
            (&b"II*\0\x08\0\0\0"[..], "TIFF"),
            (b"\0\0\0\x20ftypavif", "AVIF"),
            (b"\0\0\0\x18ftypheic", "HEIC"),
            (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
            (b"PAR1\x15", "Parquet"),
            (b"\x93NUMPY\x01\0", "NumPy"),
            (&tar, "tar"),
            (b"\x80\x04\x95", "pickle"),
            (b"\n <!DOCTYPE html><html>", "web page"),
            (b"<?xml version=\"1.0\"?>\n<svg>", "SVG"),
            (b"", "empty"),
            ("gr\u{fc}n".as_bytes(), "text"),
            (&"gr\u{fc}".as_bytes()[..3], "text"),
            ("BMW and Audi".as_bytes(), "text"),
            (b"\x01\x02\0\x03", "not known"),
        ] {
            let Kind::Other(what) = of(head) else { panic!("{head:?} is no picture") };
            assert!(what.to_string().contains(expected), "{head:?} is {what}");
        }
        assert_eq!(of(b"\x89PNG\r\n\x1a\n"), Kind::Picture(ImageFormat::Png));
        assert_eq!(of(b"\xff\xd8\xff\xe0"), Kind::Picture(ImageFormat::Jpeg));
        assert_eq!(of(b"BM\0\0"), Kind::Picture(ImageFormat::Bmp));
    }

    /// A format that is decoded is told by its bytes as the decoder's own library tells it.
    #[test]
    fn what_is_decoded_is_recognised() {
        for format in
            [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Gif]
        {
            let mut bytes = std::io::Cursor::new(Vec::new());
            ::image::RgbImage::new(3, 2).write_to(&mut bytes, format).unwrap();
            assert_eq!(of(bytes.get_ref()), Kind::Picture(format));
        }
    }
}
