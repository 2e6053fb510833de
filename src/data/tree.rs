//! Files below a root, in a folder or in a zip: one shape for both.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::PathBuf;

use super::kind::HEAD;

/// A file larger than this is not read; a small zip can claim, and hold, very much.
pub const MAX_FILE: u64 = 1 << 30;

/// The files with labels, at the root of a set.
pub const LABELS: [&str; 3] = ["dataset.json", "metadata.csv", "metadata.jsonl"];

/// A file of a data set's place that is not in the set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeftOut {
    /// Below the root of the set, with `/` on every system.
    pub name: String,
    /// Why, in words that go after the name.
    pub reason: String,
    /// Whether it is a picture that is damaged, or may be: `strict` refuses a set with such a file.
    pub damaged: bool,
}

impl LeftOut {
    /// What is no picture of the set, by its nature or its place.
    pub fn new(name: impl Into<String>, reason: impl Into<String>) -> Self {
        LeftOut { name: name.into(), reason: reason.into(), damaged: false }
    }
}

/// A file.
pub struct Entry {
    /// Below the root, with `/` on every system.
    pub name: String,
    pub bytes: u64,
    /// Another number whenever the contents may be others: of times and inode, or a zip's checksum.
    pub stamp: u64,
    /// The checksum that a zip has of it.
    pub crc: Option<u32>,
    /// Its number for [`Files::read`].
    pub at: usize,
}

/// Why a file could not be read.
pub enum Unread {
    /// What is stored is damaged, and will be the next time too.
    Damaged(String),
    /// The system could not: the next time may be another matter.
    System(std::io::Error),
}

impl std::fmt::Display for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unread::Damaged(what) => f.write_str(what),
            Unread::System(error) => error.fmt(f),
        }
    }
}

/// Reads the files of a tree.
pub trait Files: Send + Sync {
    /// All bytes of file `at` if `wanted` says so of the first [`HEAD`] (or as many as there are), else those alone.
    fn read(&self, at: usize, wanted: &dyn Fn(&[u8]) -> bool) -> Result<Vec<u8>, Unread>;

    /// Where file `at` lies, for errors.
    fn place(&self, at: usize) -> PathBuf;
}

/// What lies below a root.
pub struct Tree {
    /// The folder, or the zip.
    pub path: PathBuf,
    pub is_zip: bool,
    /// In the order of their names, as the order of a directory is whatever the file system likes.
    pub entries: Vec<Entry>,
    /// The names of the folders right below the root.
    pub folders: BTreeSet<String>,
    pub left_out: Vec<LeftOut>,
    /// What a person should know of how this was read.
    pub notes: Vec<String>,
    pub files: Box<dyn Files>,
}

impl Tree {
    /// Makes the only folder of a root the root, where its labels lie there, or where a zip was made of a folder around
    /// class folders.
    pub fn look_inside(&mut self) {
        let [only] = &*self.folders.iter().cloned().collect::<Vec<_>>() else { return };
        let prefix = format!("{only}/");
        if self.entries.iter().any(|entry| !entry.name.starts_with(&prefix)) {
            return;
        }
        let inside = |entry: &Entry| entry.name[prefix.len()..].to_owned();
        let labelled = self.entries.iter().any(|entry| LABELS.contains(&inside(entry).as_str()));
        let folders: BTreeSet<String> = self
            .entries
            .iter()
            .filter_map(|entry| Some(inside(entry).split_once('/')?.0.to_owned()))
            .collect();
        let read_as_it_is = labelled || self.is_zip && !folders.is_empty();
        if !read_as_it_is {
            return;
        }
        for entry in &mut self.entries {
            entry.name.drain(..prefix.len());
        }
        self.notes.push(format!("all files lie in {prefix}, which is taken for the set"));
        self.folders = folders;
    }

    /// The entry of a name.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.entries
            .binary_search_by(|entry| entry.name.as_str().cmp(name))
            .ok()
            .map(|found| &self.entries[found])
    }

    /// All bytes of an entry.
    pub fn read(&self, entry: &Entry) -> Result<Vec<u8>, Unread> {
        self.files.read(entry.at, &|_| true)
    }
}

/// True for what systems and programs put beside files of the user's.
pub fn is_hidden(name: &str) -> bool {
    name.starts_with('.') || name == "__MACOSX"
}

/// What is read of a file at once: most pictures of a data set are no larger, and each read is a call of the system.
const AT_ONCE: u64 = 64 << 10;

/// The first bytes of a file of `bytes` bytes, and the others if `wanted` says so of the first.
pub fn read_wanted(
    mut reader: impl Read,
    bytes: u64,
    wanted: &dyn Fn(&[u8]) -> bool,
) -> std::io::Result<Vec<u8>> {
    // One more than there are: a zip's checksum is compared at the end, and a file may have grown. What is said to be tiny may not be.
    let first = if bytes <= AT_ONCE { (bytes + 1).max(HEAD as u64) } else { HEAD as u64 };
    let mut read = Vec::with_capacity(first as usize);
    reader.by_ref().take(first).read_to_end(&mut read)?;
    if read.len() < HEAD || !wanted(&read[..HEAD]) {
        read.truncate(HEAD);
    } else if read.len() as u64 == first {
        // Grows as bytes come, so that a claim costs nothing until it is true.
        read.reserve_exact((bytes.min(1 << 24) as usize + 1).saturating_sub(read.len()));
        reader.take(MAX_FILE).read_to_end(&mut read)?;
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes around the first read of both kinds, claims that are true, too small and too large.
    #[test]
    fn a_file_is_read_whole_if_it_is_wanted_and_else_its_head() {
        let at_once = AT_ONCE as usize;
        for size in [0, 1, HEAD - 1, HEAD, HEAD + 1, at_once - 1, at_once, at_once + 1, 3 * at_once] {
            let file: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
            for claimed in [size.saturating_sub(1), size, size + 1, 0, HEAD, 2 * at_once] {
                let read = |wanted: bool| read_wanted(&*file, claimed as u64, &|_| wanted).unwrap();
                assert!(read(true) == file, "{size} bytes, said to be {claimed}");
                assert!(read(false) == file[..size.min(HEAD)], "{size} bytes, said to be {claimed}");
            }
        }
    }
}
