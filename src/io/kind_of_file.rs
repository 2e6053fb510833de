//! What a file is, by its first bytes: so that a message can name what was given instead of what it is not.
//!
//! Names and extensions decide nothing here. What needs no second look is in the table of `signatures.rs`.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::safetensors::MOST_HEADER;
use super::signatures::SIGNATURES;
use crate::error::{Error, Result};

/// As many bytes as are looked at: a tar says what it is at byte 257.
pub const LOOKED_AT: usize = 1024;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// Nothing at all.
    Empty,
    /// What Git leaves where a large file was not fetched; the size of the file itself in bytes where it is said.
    LfsPointer(Option<u64>),
    /// A page of HTML, as a browser saves it in place of a download.
    WebPage,
    /// XML, as a store answers with an error.
    Xml,
    /// An object or a list of JSON.
    Json,
    /// Weights: a length, then a header of JSON.
    Safetensors,
    /// PyTorch's zip, or its older stream of pickles.
    PyTorch,
    /// A zip of arrays.
    Npz,
    /// Any other zip.
    Zip,
    /// A pickle that is none of PyTorch's files.
    Pickle,
    /// One array of NumPy's.
    Npy,
    /// A table in columns.
    Parquet,
    /// llama.cpp's weights.
    Gguf,
    /// Keras' weights among others.
    Hdf5,
    /// An archive of files.
    Tar,
    /// A compressed file; what with.
    Compressed(&'static str),
    /// An archive that is neither a zip nor a tar; which.
    Archive(&'static str),
    /// A picture; its format.
    Picture(&'static str),
    /// MNIST's form of images and labels.
    Idx,
    /// What is known and read nowhere here; in words that go after "is".
    Other(&'static str),
    /// Readable text of another kind.
    Text,
    /// None of these.
    Unknown,
}

impl FileKind {
    /// What the file at `path` is.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read; a folder is [`Error::Format`].
    pub fn of(path: &Path) -> Result<FileKind> {
        if path.is_dir() {
            return Err(Error::format(path, "is a folder, where a file is expected"));
        }
        let mut start = Vec::new();
        let file = File::open(path).map_err(Error::io(path))?;
        file.take(LOOKED_AT as u64).read_to_end(&mut start).map_err(Error::io(path))?;
        Ok(FileKind::of_start(&start))
    }

    /// What begins with `start`, the first [`LOOKED_AT`] bytes of a file or all of a shorter one.
    pub fn of_start(start: &[u8]) -> FileKind {
        if start.is_empty() {
            return FileKind::Empty;
        }
        if let [length @ .., b'{'] = &start[..start.len().min(9)]
            && let Ok(length) = <[u8; 8]>::try_from(length)
            && (2..=MOST_HEADER).contains(&u64::from_le_bytes(length))
        {
            return FileKind::Safetensors;
        }
        if let [b'P', b'K', 3, 4, ..] = start {
            return zip(start);
        }
        if let [0x80, 2..=5, ..] = start {
            return if super::pt::begins_like_one(start) { FileKind::PyTorch } else { FileKind::Pickle };
        }
        let told = |(at, bytes, _): &&(usize, &[u8], FileKind)| {
            start.get(*at..).is_some_and(|rest| rest.starts_with(bytes))
        };
        SIGNATURES.iter().find(told).map_or_else(|| text(start), |(.., kind)| *kind)
    }

    /// What to do about a file of this kind where another is needed, if its kind tells.
    pub fn way_out(self) -> Option<&'static str> {
        Some(match self {
            FileKind::Empty => "download or copy it again",
            FileKind::LfsPointer(_) => "`git lfs pull` in its repository brings the file itself",
            FileKind::WebPage | FileKind::Xml => {
                "what it says in a browser or an editor tells why the download gave it; download the file itself"
            }
            FileKind::Tar | FileKind::Zip | FileKind::Compressed(_) | FileKind::Archive(_) => {
                "unpack it and give what is in it"
            }
            _ => return None,
        })
    }

    /// What it is where `wanted` is needed, and what to do about it, as the end of a sentence that begins with the file's
    /// name.
    pub fn instead_of(self, wanted: &str) -> String {
        match self.way_out() {
            Some(way_out) => format!("is {self}, where {wanted} is expected: {way_out}"),
            None => format!("is {self}, where {wanted} is expected"),
        }
    }
}

/// A zip by the name of its first entry, which stands right behind the 30 bytes of the entry's header.
fn zip(start: &[u8]) -> FileKind {
    let length = start.get(26..28).map_or(0, |bytes| usize::from(u16::from_le_bytes([bytes[0], bytes[1]])));
    let name = start.get(30..30 + length).unwrap_or_default();
    // PyTorch writes its pickle first, and a folder around everything.
    if name.ends_with(b"/data.pkl") || name == b"data.pkl" {
        FileKind::PyTorch
    } else if name.ends_with(b".npy") {
        FileKind::Npz
    } else {
        FileKind::Zip
    }
}

/// What can be read as text.
fn text(start: &[u8]) -> FileKind {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    let readable = match std::str::from_utf8(start) {
        Ok(text) => text,
        // The last character may go on past what is looked at.
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
            std::str::from_utf8(&start[..error.valid_up_to()]).expect("valid up to there")
        }
        Err(_) => return not_text(start),
    };
    let text = readable.trim_start();
    let begins = |with: &str| text.get(..with.len()).is_some_and(|head| head.eq_ignore_ascii_case(with));
    if begins("version https://git-lfs.github.com/spec/") {
        let size = text.lines().find_map(|line| line.strip_prefix("size ")?.trim().parse().ok());
        return FileKind::LfsPointer(size);
    }
    if ["<!doctype html", "<html", "<head", "<body"].into_iter().any(begins) {
        return FileKind::WebPage;
    }
    if begins("<svg") || begins("<?xml") && text.contains("<svg") {
        return FileKind::Picture("SVG");
    }
    if begins("<?xml") {
        return FileKind::Xml;
    }
    if readable.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        return not_text(start);
    }
    let after = |bracket| text.strip_prefix(bracket).map(str::trim_start);
    let object = after('{').is_some_and(|rest| rest.starts_with('"') || rest.starts_with('}'));
    let list = after('[')
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['"', '[', '{', ']', '-']) || digit(rest));
    match object || list {
        true => FileKind::Json,
        false => FileKind::Text,
    }
}

/// Of signatures so short that text begins so too, once it is no text.
fn not_text(start: &[u8]) -> FileKind {
    if start.starts_with(b"BM") { FileKind::Picture("BMP") } else { FileKind::Unknown }
}

fn digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

impl fmt::Display for FileKind {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileKind::Empty => to.write_str("empty"),
            FileKind::LfsPointer(None) => to.write_str("a Git LFS pointer, not the file itself"),
            FileKind::LfsPointer(Some(size)) => {
                write!(to, "a Git LFS pointer, not the file itself (of {size} bytes)")
            }
            FileKind::WebPage => to.write_str("a web page (HTML)"),
            FileKind::Xml => to.write_str("a text of XML"),
            FileKind::Json => to.write_str("a JSON file"),
            FileKind::Safetensors => to.write_str("a file of weights (safetensors)"),
            FileKind::PyTorch => to.write_str("a file of PyTorch's (.pt, .pth, .bin)"),
            FileKind::Npz => to.write_str("a zip of NumPy arrays (.npz)"),
            FileKind::Zip => to.write_str("a zip"),
            FileKind::Pickle => to.write_str("a Python pickle that PyTorch did not write"),
            FileKind::Npy => to.write_str("a NumPy array (.npy)"),
            FileKind::Parquet => to.write_str("a Parquet table"),
            FileKind::Gguf => to.write_str("a file of weights of llama.cpp's kind (GGUF)"),
            FileKind::Hdf5 => to.write_str("an HDF5 file (.h5), as of Keras"),
            FileKind::Tar => to.write_str("a tar archive"),
            FileKind::Compressed(with) => write!(to, "a file compressed with {with}"),
            FileKind::Archive(kind) => write!(to, "an archive of {kind}"),
            FileKind::Picture(format) => write!(to, "a picture ({format})"),
            FileKind::Idx => to.write_str("an IDX file, MNIST's form of images and labels"),
            FileKind::Other(what) => to.write_str(what),
            FileKind::Text => to.write_str("text"),
            FileKind::Unknown => to.write_str("a file of a kind that is not known here"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar() -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..5].copy_from_slice(b"a.png");
        bytes[257..262].copy_from_slice(b"ustar");
        bytes
    }

    fn zip_of(name: &str) -> Vec<u8> {
        use std::io::Write;
        let mut zip = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        zip.start_file(name, ::zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(b"contents").unwrap();
        zip.finish().unwrap().into_inner()
    }

    fn safetensors() -> Vec<u8> {
        let mut bytes = Vec::new();
        let path = Path::new("memory");
        let tensor =
            crate::io::TensorBytes { name: "w", dtype: crate::io::Dtype::F32, shape: &[1], bytes: &[0; 4] };
        crate::io::write_safetensors_to(&mut bytes, path, &[tensor], &Default::default()).unwrap();
        bytes
    }

    /// Each kind as its own programs write it.
    fn all() -> Vec<(Vec<u8>, FileKind)> {
        let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n";
        let legacy = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.";
        vec![
            (Vec::new(), FileKind::Empty),
            (lfs.into(), FileKind::LfsPointer(Some(12345))),
            (lfs.lines().next().unwrap().into(), FileKind::LfsPointer(None)),
            (b"\n <!DOCTYPE html><html><p>Sign in".to_vec(), FileKind::WebPage),
            (b"\xef\xbb\xbf<html lang=\"en\">".to_vec(), FileKind::WebPage),
            (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied".to_vec(), FileKind::Xml),
            (b"{\n  \"a\": 1}".to_vec(), FileKind::Json),
            (b"[0.5, 1]".to_vec(), FileKind::Json),
            (safetensors(), FileKind::Safetensors),
            (zip_of("archive/data.pkl"), FileKind::PyTorch),
            (legacy.to_vec(), FileKind::PyTorch),
            (zip_of("arr_0.npy"), FileKind::Npz),
            (zip_of("00000/img00000000.png"), FileKind::Zip),
            (b"\x80\x04}.".to_vec(), FileKind::Pickle),
            (b"\x93NUMPY\x01\x00v\x00{'descr'".to_vec(), FileKind::Npy),
            (b"PAR1\x15\x04\x15\x10".to_vec(), FileKind::Parquet),
            (b"GGUF\x03\0\0\0".to_vec(), FileKind::Gguf),
            (b"\x89HDF\r\n\x1a\n\0".to_vec(), FileKind::Hdf5),
            (tar(), FileKind::Tar),
            (b"\x1f\x8b\x08\x00".to_vec(), FileKind::Compressed("gzip")),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec(), FileKind::Picture("PNG")),
            (b"\xff\xd8\xff\xe0\0\x10JFIF".to_vec(), FileKind::Picture("JPEG")),
            (b"BM\x8a\0\0\0\xff\xff".to_vec(), FileKind::Picture("BMP")),
            (b"RIFF\x10\0\0\0WEBPVP8 ".to_vec(), FileKind::Picture("WebP")),
            (b"\0\0\0\x20ftypavif".to_vec(), FileKind::Picture("AVIF")),
            (b"\0\0\0\x18ftypheic".to_vec(), FileKind::Picture("HEIC")),
            (b"\0\0\0\x18ftypisom".to_vec(), FileKind::Other("a video")),
            (b"RIFF\x10\0\0\0WAVEfmt ".to_vec(), FileKind::Other("a sound or a video")),
            (b"<?xml version=\"1.0\"?>\n<svg>".to_vec(), FileKind::Picture("SVG")),
            (b"P6\n8 8\n255\n\0".to_vec(), FileKind::Picture("PNM")),
            (b"\0\0\x08\x03\0\0\0\x0a".to_vec(), FileKind::Idx),
            ("BMW, Fiat, Citro\u{eb}n".into(), FileKind::Text),
            (b"\xfe\xed\xfa\xcf\x07\0".to_vec(), FileKind::Unknown),
        ]
    }

    #[test]
    fn each_kind_is_known_by_its_first_bytes() {
        for (bytes, kind) in all() {
            assert_eq!(FileKind::of_start(&bytes), kind, "{:?}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn a_safetensors_header_of_any_length_is_no_json() {
        for length in [b'{', b'[', b'<', b'v', b'P'] {
            let start = [&u64::from(length).to_le_bytes()[..], b"{\"w\":{\"dtype\":\"F32\""].concat();
            assert_eq!(FileKind::of_start(&start), FileKind::Safetensors);
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_some_kind_and_never_a_panic() {
        for (bytes, _) in all() {
            for length in 0..bytes.len() {
                let _ = FileKind::of_start(&bytes[..length]).instead_of("a model");
            }
        }
    }

    #[test]
    fn the_text_names_it_and_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\nsize 7\n").unwrap();
        let told = FileKind::of(&path).unwrap().instead_of("a model");
        assert!(
            told.contains("Git LFS pointer") && told.contains("7 bytes") && told.contains("git lfs pull")
        );
        assert!(FileKind::of(dir.path()).unwrap_err().to_string().contains("folder"));
        let told = FileKind::Npy.instead_of("a model");
        assert_eq!(told, "is a NumPy array (.npy), where a model is expected");
    }
}
