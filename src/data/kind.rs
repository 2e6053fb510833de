//! What a file is, by its first bytes. Names and extensions are not asked: they lie often enough.

use ::image::ImageFormat;

/// So many first bytes tell every kind.
pub const HEAD: usize = 512;

/// The kinds that are decoded, for messages.
pub const PICTURES: &str = "PNG, JPEG, WebP, BMP and GIF pictures";

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A picture of a format that is decoded.
    Picture(ImageFormat),
    /// Anything else, in words that go after "is".
    Other(&'static str),
}

/// The kind of a file that begins with `head`: its first [`HEAD`] bytes, or all it has.
pub fn of(head: &[u8]) -> Kind {
    use ImageFormat::*;
    match ::image::guess_format(head) {
        Ok(format @ (Png | Jpeg | WebP | Bmp | Gif)) => Kind::Picture(format),
        Ok(Tiff) => Kind::Other("a TIFF picture"),
        Ok(Avif) => Kind::Other("an AVIF picture"),
        Ok(Ico) => Kind::Other("an icon (.ico)"),
        Ok(Pnm) => Kind::Other("a PNM picture"),
        Ok(OpenExr) => Kind::Other("an OpenEXR picture"),
        Ok(Hdr) => Kind::Other("a Radiance picture (.hdr)"),
        Ok(Qoi) => Kind::Other("a QOI picture"),
        Ok(Dds) => Kind::Other("a DDS texture"),
        Ok(_) => Kind::Other("a picture of another kind"),
        Err(_) => Kind::Other(other(head)),
    }
}

/// Kinds told by bytes at a place.
const SIGNATURES: &[(usize, &[u8], &str)] = &[
    (
        0,
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer, not the file itself (`git lfs pull` fetches it)",
    ),
    (0, b"PAR1", "a Parquet table"),
    (0, b"\x93NUMPY", "a NumPy array (.npy)"),
    (0, b"PK\x03\x04", "a zip"),
    (0, b"PK\x05\x06", "an empty zip"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"BZh", "a bzip2 file"),
    (0, b"\xfd7zXZ\0", "an xz file"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"ARROW1", "an Arrow file"),
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"MATLAB 5.0", "a MATLAB file"),
    (0, b"\x80\x02", "a Python pickle"),
    (0, b"\x80\x03", "a Python pickle"),
    (0, b"\x80\x04", "a Python pickle"),
    (0, b"\x80\x05", "a Python pickle"),
    (0, b"%PDF", "a PDF document"),
    (0, b"8BPS", "a Photoshop picture"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (4, b"ftypheic", "a HEIC picture"),
    (4, b"ftypheix", "a HEIC picture"),
    (4, b"ftypmif1", "a HEIF picture"),
    (4, b"ftyp", "a video"),
    (0, b"\x1a\x45\xdf\xa3", "a video"),
    (0, b"RIFF", "a sound or a video"),
];

fn other(head: &[u8]) -> &'static str {
    if head.is_empty() {
        return "empty";
    }
    let told =
        |(at, magic, _): &&(usize, &[u8], &str)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic));
    if let Some((_, _, what)) = SIGNATURES.iter().find(told) {
        return what;
    }
    // A character may be cut at the end of the head.
    let text = match str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            str::from_utf8(&head[..error.valid_up_to()]).unwrap_or("")
        }
        Err(_) => "",
    };
    if text.is_empty() || text.contains('\0') {
        return "of no known kind";
    }
    let start = text.trim_start().to_ascii_lowercase();
    if start.starts_with("<!doctype html") || start.starts_with("<html") {
        "a web page, saved in the place of the file"
    } else if start.contains("<svg") {
        "an SVG drawing"
    } else {
        "text"
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
            (b"\x01\x02\0\x03", "no known kind"),
        ] {
            let Kind::Other(what) = of(head) else { panic!("{head:?} is no picture") };
            assert!(what.contains(expected), "{head:?} is {what}");
        }
        assert_eq!(of(b"\x89PNG\r\n\x1a\n"), Kind::Picture(ImageFormat::Png));
        assert_eq!(of(b"\xff\xd8\xff\xe0"), Kind::Picture(ImageFormat::Jpeg));
        assert_eq!(of(b"BM\0\0"), Kind::Picture(ImageFormat::Bmp));
    }
}
