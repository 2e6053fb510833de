//! Replacing a file all at once: whoever reads sees the old one or the new one, whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// What the name of a file that is being written ends with: one that no person gives, as whatever bears it is overwritten.
pub(super) const UNFINISHED: &str = ".freeguide.tmp";

/// A file being written beside its final place; [`commit`](Self::commit) puts it there, dropping it without
/// that removes it and leaves what was there before.
pub struct AtomicFile {
    target: PathBuf,
    /// None where the target is no regular file: `/dev/null` is written to, not replaced.
    temporary: Option<PathBuf>,
    writer: Option<BufWriter<File>>,
}

impl AtomicFile {
    /// Starts to write what is to be `path`; folders above it are made.
    ///
    /// # Errors
    /// When a folder or the temporary file beside `path` cannot be made.
    pub fn create(path: impl AsRef<Path>) -> Result<AtomicFile> {
        let path = path.as_ref();
        if path.is_dir() {
            return Err(Error::io(path)(io::Error::new(
                io::ErrorKind::IsADirectory,
                "is a folder, not a file",
            )));
        }
        // Through links, so that the link stays and what it points to is replaced.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if target.exists() && !target.is_file() {
            let file = File::options().write(true).open(&target).map_err(Error::io(&target))?;
            return Ok(AtomicFile { target, temporary: None, writer: Some(BufWriter::new(file)) });
        }
        let mut name = target.file_name().unwrap_or_default().to_owned();
        if name.is_empty() {
            return Err(Error::io(path)(io::Error::new(io::ErrorKind::InvalidInput, "names no file")));
        }
        let parent = folder_of(&target);
        fs::create_dir_all(parent).map_err(Error::io(parent))?;
        // Always the same name, so that what a crash leaves is overwritten and not gathered.
        name.push(UNFINISHED);
        let temporary = target.with_file_name(name);
        let file = File::create(&temporary).map_err(Error::io(path))?;
        Ok(AtomicFile { target, temporary: Some(temporary), writer: Some(BufWriter::new(file)) })
    }

    /// Brings what was written to disk and then to its name.
    ///
    /// # Errors
    /// When the disk is full or the rename fails; the old file is then still there.
    pub fn commit(mut self) -> Result<()> {
        self.finish(true).map_err(Error::io(&self.target))
    }

    /// As [`commit`](Self::commit), without waiting for the disk: of what was written right before a power cut, the name may
    /// be left without all of its bytes. For what carries a checksum of its own and can be made again.
    ///
    /// # Errors
    /// As of `commit`, but a full disk may not show.
    pub fn commit_unsynced(mut self) -> Result<()> {
        self.finish(false).map_err(Error::io(&self.target))
    }

    fn finish(&mut self, lasting: bool) -> io::Result<()> {
        let writer = self.writer.take().ok_or_else(|| io::Error::other("already closed"))?;
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        let Some(temporary) = &self.temporary else { return Ok(()) };
        // The bytes before the name: otherwise a power cut may leave the name with nothing in it.
        if lasting {
            file.sync_all()?;
        }
        drop(file);
        fs::rename(temporary, &self.target)?;
        self.temporary = None;
        // The rename itself lasts once the folder is written. Not every system can do that; it is no error.
        if lasting && let Ok(folder) = File::open(folder_of(&self.target)) {
            let _ = folder.sync_all();
        }
        Ok(())
    }

    fn writer(&mut self) -> io::Result<&mut BufWriter<File>> {
        self.writer.as_mut().ok_or_else(|| io::Error::other("already closed"))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer()?.flush()
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.writer()?.seek(to)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            // Without a flush: on a full disk that would only fail once more.
            drop(writer.into_parts());
        }
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary);
        }
    }
}

/// The folder that `path` lies in; `.` for a bare name.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes `path` through `write`, all or nothing; folders above it are made.
///
/// # Errors
/// Those of `write`, and those of the disk. The file that was at `path` is then unchanged, and nothing else is
/// left behind.
pub fn write_atomic(path: impl AsRef<Path>, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    write(&mut file)?;
    file.commit()
}

/// Refuses a path that [`write_atomic`] could not write now; leaves everything as it was, a file that is there included.
/// For what is known to be written after long work.
///
/// # Errors
/// Those of [`AtomicFile::create`].
pub fn prove_writable(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let missing: Vec<&Path> = path.ancestors().skip(1).take_while(|folder| is_missing(folder)).collect();
    let tried = AtomicFile::create(path).map(drop);
    // From the innermost out; one that somebody else has used meanwhile stays.
    for folder in missing {
        let _ = fs::remove_dir(folder);
    }
    tried
}

/// Whether a folder above a file is still to be made.
fn is_missing(folder: &Path) -> bool {
    !folder.as_os_str().is_empty() && fs::symlink_metadata(folder).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `room` bytes and is then full.
    struct Full<'a> {
        inner: &'a mut dyn Write,
        room: usize,
    }

    impl Write for Full<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            let taken = self.inner.write(&bytes[..bytes.len().min(self.room)])?;
            self.room -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.inner.flush()
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn replaces_whole_and_makes_folders() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c.bin");
        for text in ["first", "second, longer"] {
            write_atomic(&path, |writer| writer.write_all(text.as_bytes()).map_err(Error::io("c.bin")))
                .unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(names(path.parent().unwrap()), ["c.bin"]);
        assert!(write_atomic(dir.path(), |_| Ok(())).is_err());
    }

    #[test]
    fn a_proof_changes_nothing_and_sees_what_writing_would() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "old").unwrap();
        for good in ["file", "new", "a/b/c.bin"] {
            prove_writable(dir.path().join(good)).unwrap();
        }
        let long = "x".repeat(300);
        for bad in ["file/below.png", ".", "a/b/..", long.as_str()] {
            let path = dir.path().join(bad);
            assert!(prove_writable(&path).is_err(), "{bad}");
            assert!(write_atomic(&path, |_| Ok(())).is_err(), "{bad}");
            let _ = fs::remove_dir_all(dir.path().join("a"));
        }
        assert_eq!(names(dir.path()), ["file"]);
        assert_eq!(fs::read_to_string(dir.path().join("file")).unwrap(), "old");
    }

    #[test]
    fn a_file_of_somebody_elses_named_tmp_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a.png"), dir.path().join("a.png.tmp"));
        fs::write(&other, "mine").unwrap();
        write_atomic(&path, |writer| writer.write_all(b"new").map_err(Error::io("x"))).unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
    }

    #[test]
    fn a_full_disk_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::write(&path, "old").unwrap();
        for room in [0, 1, 9000, 20_000] {
            let result = write_atomic(&path, |writer| {
                let mut full = Full { inner: writer, room };
                full.write_all(&[7; 30_001]).map_err(Error::io(&path))
            });
            assert!(result.is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), "old");
            assert_eq!(names(dir.path()), ["state"]);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn devices_are_written_to_and_links_kept() {
        let full = write_atomic("/dev/full", |writer| writer.write_all(&[7; 7]).map_err(Error::io("x")));
        assert!(full.unwrap_err().to_string().contains("/dev/full"));
        write_atomic("/dev/null", |writer| writer.write_all(&[7; 7]).map_err(Error::io("x"))).unwrap();
        assert!(!Path::new("/dev/null").is_file());

        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write_atomic(&link, |writer| writer.write_all(b"new").map_err(Error::io("x"))).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
    }
}
