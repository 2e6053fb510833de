//! Pieces of a large file, or of one that lies in memory: read where and when they are asked for, never more than there is.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};

/// An open file of a known length.
#[derive(Debug)]
pub(crate) struct Pieces {
    path: PathBuf,
    source: Source,
    length: u64,
}

#[derive(Debug)]
enum Source {
    File(Mutex<File>),
    Memory(Vec<u8>),
}

impl Pieces {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// When there is none, or it is no file.
    pub fn open(path: &Path) -> Result<Pieces> {
        let file = File::open(path).map_err(Error::io(path))?;
        let about = file.metadata().map_err(Error::io(path))?;
        if about.is_dir() {
            return Err(Error::format(path, "is a folder, where a file is expected"));
        }
        Ok(Pieces { path: path.to_owned(), source: Source::File(Mutex::new(file)), length: about.len() })
    }

    /// A file that lies in memory; errors call it `name`.
    pub fn of_bytes(name: &str, bytes: Vec<u8>) -> Pieces {
        Pieces { path: name.into(), length: bytes.len() as u64, source: Source::Memory(bytes) }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in all.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The bytes of `range`.
    ///
    /// # Errors
    /// When the range goes past the end, or reading fails. Nothing is allocated for bytes that are not there.
    pub fn read(&self, range: Range<u64>) -> Result<Vec<u8>> {
        if range.start > range.end || range.end > self.length {
            let (start, end, length) = (range.start, range.end, self.length);
            let what = format!("is cut short: bytes {start} to {end} are needed, but it has {length}");
            return Err(Error::format(&self.path, what));
        }
        let file = match &self.source {
            Source::File(file) => file,
            Source::Memory(bytes) => return Ok(bytes[range.start as usize..range.end as usize].to_vec()),
        };
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(range.start)).map_err(Error::io(&self.path))?;
        file.read_exact(&mut bytes).map_err(Error::io(&self.path))?;
        Ok(bytes)
    }

    /// A second handle with a place of its own.
    pub fn reopen(&self) -> Result<File> {
        File::open(&self.path).map_err(Error::io(&self.path))
    }
}
