//! Folders of intermediate results: known by a marker, and removed only as far as they are the program's.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::atomic::UNFINISHED;
use super::{prove_writable, write_atomic};
use crate::error::{Error, Result};

/// The file that says whose a folder is.
const MARKER: &str = ".freeguide-work";
/// What stands in it.
const TEXT: &str = "Intermediate results of freeguide, which writes and removes files here. Keep nothing of yours in this folder.\n";

/// A folder that the program may write into and clear away: it made it, or found it empty, and left its marker there.
#[derive(Debug)]
pub struct WorkFolder {
    dir: PathBuf,
}

impl WorkFolder {
    /// Makes `dir`, or goes on in it.
    ///
    /// # Errors
    /// [`Error::Config`] when there is anything in it and no marker: it is somebody else's. When it cannot be made.
    pub fn open(dir: &Path) -> Result<WorkFolder> {
        if !is_ours_or_free(dir)? {
            return Err(refused(dir));
        }
        let marker = dir.join(MARKER);
        if !marker.exists() {
            write_atomic(&marker, |writer| writer.write_all(TEXT.as_bytes()).map_err(Error::io(&marker)))?;
        }
        Ok(WorkFolder { dir: dir.to_owned() })
    }

    /// Whether [`open`](Self::open) would succeed; changes nothing.
    ///
    /// # Errors
    /// The same.
    pub fn prove(dir: &Path) -> Result<()> {
        if !is_ours_or_free(dir)? {
            return Err(refused(dir));
        }
        prove_writable(dir.join(MARKER))
    }

    /// Takes the marker away where it is all that is in the folder, which stays, empty.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn unmark(self) -> Result<()> {
        let mut names = fs::read_dir(&self.dir).map_err(Error::io(&self.dir))?;
        let marker = self.dir.join(MARKER);
        match names.all(|entry| entry.is_ok_and(|entry| entry.file_name() == MARKER)) {
            true => fs::remove_file(&marker).map_err(Error::io(&marker)),
            false => Ok(()),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Appends a line to the file `name` in it, and brings it to disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn append(&self, name: &str, line: &str) -> Result<()> {
        let path = self.dir.join(name);
        let write = || {
            let mut file = fs::File::options().create(true).append(true).open(&path)?;
            file.write_all(format!("{line}\n").as_bytes())?;
            file.sync_all()
        };
        write().map_err(Error::io(&path))
    }

    /// Removes the files whose names the program gives, `is_written` says which, and those it had not finished; then the
    /// folder, if nothing else is in it. Whatever else there is stays, with the marker.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn discard(self, is_written: impl Fn(&str) -> bool) -> Result<()> {
        let mut others = false;
        for entry in fs::read_dir(&self.dir).map_err(Error::io(&self.dir))? {
            let entry = entry.map_err(Error::io(&self.dir))?;
            let name = entry.file_name();
            let written = name.to_str().is_some_and(|name| {
                let finished = name.strip_suffix(UNFINISHED).unwrap_or(name);
                finished != MARKER && is_written(finished)
            });
            let folder = entry.file_type().map_err(Error::io(entry.path()))?.is_dir();
            if written && !folder {
                fs::remove_file(entry.path()).map_err(Error::io(entry.path()))?;
            } else if name != MARKER {
                others = true;
            }
        }
        if !others {
            let marker = self.dir.join(MARKER);
            fs::remove_file(&marker).map_err(Error::io(&marker))?;
            // It may be a mount point or the shell's own folder: then it stays, empty.
            let _ = fs::remove_dir(&self.dir);
        }
        Ok(())
    }
}

/// Whether the folder bears the marker: the program has worked in it.
pub fn is_work_folder(dir: &Path) -> bool {
    dir.join(MARKER).is_file()
}

/// Whether the folder bears the marker, is empty or is not there.
fn is_ours_or_free(dir: &Path) -> Result<bool> {
    if is_work_folder(dir) {
        return Ok(true);
    }
    match fs::read_dir(dir) {
        // What a crash left of the marker itself is nobody else's.
        Ok(entries) => {
            let unfinished = format!("{MARKER}{UNFINISHED}");
            let mut names = entries.map(|entry| entry.map(|entry| entry.file_name()));
            Ok(names.all(|name| name.is_ok_and(|name| name == unfinished.as_str())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::io(dir)(error)),
    }
}

fn refused(dir: &Path) -> Error {
    Error::Config(format!(
        "{} is not empty and is no work folder of this program (it has no {MARKER}): nothing is written or removed there; \
         give another folder, or an empty one",
        dir.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_part(name: &str) -> bool {
        name.starts_with("part-")
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .map(|all| all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        names.sort();
        names
    }

    #[test]
    fn what_it_made_goes_and_what_it_found_stays() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("a/work");
        WorkFolder::prove(&work).unwrap();
        assert!(names(dir.path()).is_empty(), "a proof leaves nothing");
        WorkFolder::open(&work).unwrap();
        for name in ["part-0", "part-1.freeguide.tmp"] {
            fs::write(work.join(name), "").unwrap();
        }
        // Opened again it is the same.
        WorkFolder::open(&work).unwrap().discard(is_part).unwrap();
        assert!(names(&dir.path().join("a")).is_empty());

        // Somebody puts something beside: it stays, and so does a folder of a known name.
        let folder = WorkFolder::open(&work).unwrap();
        fs::write(work.join("mine.txt"), "mine").unwrap();
        fs::write(work.join("part-0"), "").unwrap();
        fs::create_dir(work.join("part-mine")).unwrap();
        folder.discard(is_part).unwrap();
        assert_eq!(names(&work), [MARKER, "mine.txt", "part-mine"]);
    }

    #[test]
    fn a_folder_of_somebody_elses_is_refused_and_an_empty_one_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("part-0"), "mine").unwrap();
        for refused in [WorkFolder::open(dir.path()).map(drop), WorkFolder::prove(dir.path())] {
            let text = refused.unwrap_err().to_string();
            assert!(text.contains("is not empty") && text.contains(MARKER), "{text}");
        }
        assert_eq!(names(dir.path()), ["part-0"]);
        assert!(WorkFolder::open(&dir.path().join("part-0")).is_err(), "a file");
        let empty = dir.path().join("empty");
        fs::create_dir(&empty).unwrap();
        WorkFolder::prove(&empty).unwrap();
        assert!(names(&empty).is_empty());
        WorkFolder::open(&empty).unwrap();
        assert_eq!(names(&empty), [MARKER]);
    }
}
