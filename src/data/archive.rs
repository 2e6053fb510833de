//! A zip as a tree of files.

use std::collections::BTreeSet;
use std::io::{Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use zip::ZipArchive;
use zip::result::ZipError;

use super::kind::{self, Kind};
use super::parts::{KEEP_BYTES, READABLE};
use super::tree::{Entry, Files, LeftOut, MAX_FILE, Tree, Unread, is_hidden, read_wanted};
use crate::error::{Error, Result};

trait ReadSeek: Read + Seek + Send {}
impl<T: Read + Seek + Send> ReadSeek for T {}
type Archive = ZipArchive<Box<dyn ReadSeek>>;

/// True for a file that is a zip, or is named like one.
pub fn is_zip(path: &Path) -> bool {
    let zipped = || {
        let mut magic = [0; 2];
        std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && &magic == b"PK"
    };
    path.is_file() && (path.extension().is_some_and(|e| e.eq_ignore_ascii_case("zip")) || zipped())
}

/// Lists a zip.
///
/// # Errors
/// When it is none, or its directory is damaged.
pub fn list(path: &Path) -> Result<Tree> {
    let mut archive = open(path)?;
    let (mut entries, mut folders, mut left_out) = (Vec::new(), BTreeSet::new(), Vec::new());
    for at in 0..archive.len() {
        let name = match archive.name_for_index(at) {
            Some(Ok(name)) => name.into_owned(),
            Some(Err(error)) => {
                left_out.push(LeftOut::new(format!("entry {at}"), error.to_string()));
                continue;
            }
            None => continue,
        };
        if name.split('/').any(is_hidden) {
            left_out.push(LeftOut::new(name, "is hidden"));
            continue;
        }
        if let Some((folder, _)) = name.split_once('/') {
            folders.insert(folder.to_owned());
        }
        match archive.by_index(at) {
            Ok(file) if file.is_dir() => {}
            Ok(file) => {
                let crc = file.crc32();
                entries.push(Entry { name, bytes: file.size(), stamp: crc.into(), crc: Some(crc), at });
            }
            Err(error) => left_out.push(LeftOut { damaged: true, ..LeftOut::new(name, error.to_string()) }),
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let files = Box::new(Zip { path: path.to_owned(), archive: Mutex::new(archive) });
    Ok(Tree { path: path.to_owned(), is_zip: true, entries, folders, left_out, notes: Vec::new(), files })
}

/// Opens the zip, whole in memory if it is small.
fn open(path: &Path) -> Result<Archive> {
    let mut file = std::fs::File::open(path).map_err(Error::io(path))?;
    let bytes = file.metadata().map_err(Error::io(path))?.len();
    let mut head = Vec::new();
    file.by_ref().take(kind::HEAD as u64).read_to_end(&mut head).map_err(Error::io(path))?;
    if let Kind::Other(what) = kind::of(&head)
        && !head.starts_with(b"PK")
    {
        return Err(Error::format(path, format!("is no zip, but {what}; {READABLE}")));
    }
    let reader: Box<dyn ReadSeek> = if bytes < KEEP_BYTES {
        file.read_to_end(&mut head).map_err(Error::io(path))?;
        Box::new(Cursor::new(head))
    } else {
        Box::new(std::io::BufReader::new(file))
    };
    ZipArchive::new(reader)
        .map_err(|error| Error::format(path, format!("is no zip, or a damaged one ({bytes} bytes): {error}")))
}

struct Zip {
    path: PathBuf,
    /// Reading an entry moves the reader; decoding happens outside of the lock.
    archive: Mutex<Archive>,
}

impl Files for Zip {
    fn read(&self, at: usize, wanted: &dyn Fn(&[u8]) -> bool) -> Result<Vec<u8>, Unread> {
        let mut archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
        let file = archive.by_index(at).map_err(|error| match error {
            ZipError::Io(error) => of_io(error),
            other => Unread::Damaged(other.to_string()),
        })?;
        let bytes = file.size();
        if bytes > MAX_FILE {
            return Err(Unread::Damaged(format!(
                "would be {bytes} bytes unpacked; at most {MAX_FILE} are read"
            )));
        }
        read_wanted(file, bytes, wanted).map_err(of_io)
    }

    fn place(&self, _: usize) -> PathBuf {
        self.path.clone()
    }
}

/// A damaged stream and a wrong checksum come as errors of reading, too.
fn of_io(error: std::io::Error) -> Unread {
    use std::io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    match error.kind() {
        InvalidData | InvalidInput | Other | UnexpectedEof => Unread::Damaged(error.to_string()),
        _ => Unread::System(error),
    }
}
