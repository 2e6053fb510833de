//! The bytes that formats begin with, those of each format's own documentation: the one table of them. `kind_of_file.rs` looks
//! through it and knows what needs a second look; data sets and models ask that.

use super::kind_of_file::FileKind::{self, *};

/// (place, bytes, kind), the more special of two before the other.
pub(super) const SIGNATURES: &[(usize, &[u8], FileKind)] = &[
    // Arrays, tables, weights.
    (0, b"\x93NUMPY", Npy),
    (0, b"PAR1", Parquet),
    (0, b"ARROW1", Other("an Arrow file")),
    (0, b"GGUF", Gguf),
    (0, b"\x89HDF\r\n\x1a\n", Hdf5),
    (0, b"SQLite format 3\0", Other("an SQLite database")),
    (0, b"MATLAB 5.0", Other("a MATLAB file")),
    // The bytes of u8 and one, three or four dimensions.
    (0, b"\0\0\x08\x01", Idx),
    (0, b"\0\0\x08\x03", Idx),
    (0, b"\0\0\x08\x04", Idx),
    // Archives; a zip with entries is looked into.
    (257, b"ustar", Tar),
    (0, b"\x1f\x8b", Compressed("gzip")),
    (0, b"\x28\xb5\x2f\xfd", Compressed("zstd")),
    (0, b"\xfd7zXZ\0", Compressed("xz")),
    (0, b"BZh", Compressed("bzip2")),
    (0, b"7z\xbc\xaf\x27\x1c", Archive("7z")),
    (0, b"Rar!", Archive("RAR")),
    // A zip without entries.
    (0, b"PK\x05\x06", Zip),
    // Pictures.
    (0, b"\x89PNG\r\n\x1a\n", Picture("PNG")),
    (0, b"\xff\xd8\xff", Picture("JPEG")),
    (0, b"GIF87a", Picture("GIF")),
    (0, b"GIF89a", Picture("GIF")),
    (8, b"WEBPVP8", Picture("WebP")),
    (0, b"II*\0", Picture("TIFF")),
    (0, b"MM\0*", Picture("TIFF")),
    (0, b"8BPS", Picture("Photoshop")),
    (0, b"\0\0\0\x0cJXL ", Picture("JPEG XL")),
    (0, b"\xff\x0a", Picture("JPEG XL")),
    (0, b"\0\0\0\x0cjP  ", Picture("JPEG 2000")),
    (0, b"\xff\x4f\xff\x51", Picture("JPEG 2000")),
    (0, b"\0\0\x01\0", Picture("ICO")),
    (0, b"\x76\x2f\x31\x01", Picture("OpenEXR")),
    (0, b"#?RADIANCE", Picture("Radiance")),
    (0, b"qoif", Picture("QOI")),
    (0, b"DDS ", Picture("DDS")),
    (0, b"farbfeld", Picture("farbfeld")),
    (0, b"P1\n", Picture("PNM")),
    (0, b"P2\n", Picture("PNM")),
    (0, b"P3\n", Picture("PNM")),
    (0, b"P4\n", Picture("PNM")),
    (0, b"P5\n", Picture("PNM")),
    (0, b"P6\n", Picture("PNM")),
    (0, b"P7\n", Picture("PNM")),
    (4, b"ftypavif", Picture("AVIF")),
    (4, b"ftypheic", Picture("HEIC")),
    (4, b"ftypheix", Picture("HEIC")),
    (4, b"ftypmif1", Picture("HEIF")),
    // Other media.
    (4, b"ftyp", Other("a video")),
    (0, b"\x1a\x45\xdf\xa3", Other("a video")),
    (0, b"RIFF", Other("a sound or a video")),
    (0, b"%PDF", Other("a PDF document")),
];
