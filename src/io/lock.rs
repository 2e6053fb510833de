//! A folder that one process writes at a time.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs4::{FileExt, TryLockError};

use crate::error::{Error, Result};

/// An exclusive lock on a folder, held until it is dropped. The operating system holds it, so a process that is killed
/// leaves nothing that blocks; the file with the number of the process may stay, and the next holder writes its own.
pub struct FolderLock {
    path: PathBuf,
    file: File,
    note: Option<String>,
}

impl FolderLock {
    /// Locks `dir`, which must exist, through its file `name`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the process that holds the lock; when the file cannot be made.
    pub fn take(dir: &Path, name: &str) -> Result<FolderLock> {
        let path = dir.join(name);
        loop {
            let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = open.map_err(Error::io(&path))?;
            let note = match FileExt::try_lock(&file) {
                Ok(()) => None,
                Err(TryLockError::WouldBlock) => return Err(held(dir, &mut file)),
                // Some file systems of networks have no locks.
                Err(TryLockError::Error(error)) => Some(format!(
                    "{} cannot be locked ({error}): make sure that no other process writes there",
                    dir.display()
                )),
            };
            // A holder that ends takes the file away: what was opened before that is no longer the folder's lock.
            if !is_still(&file, &path) {
                continue;
            }
            // Told to those who are refused; on a full disk they are refused without it.
            let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
            return Ok(FolderLock { path, file, note });
        }
    }

    /// What the user should know of it: that the file system has no locks.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // While it is locked, so that nobody else's is taken away. Where files cannot be told apart it stays, empty.
        if cfg!(unix) {
            if is_still(&self.file, &self.path) {
                let _ = fs::remove_file(&self.path);
            }
        } else {
            let _ = self.file.set_len(0);
        }
    }
}

/// Whether `path` still is the file that was opened.
#[cfg(unix)]
fn is_still(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |about: &fs::Metadata| (about.dev(), about.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(a), Ok(b)) if id(&a) == id(&b))
}

#[cfg(not(unix))]
fn is_still(_: &File, _: &Path) -> bool {
    true
}

/// The refusal of who comes second.
fn held(dir: &Path, file: &mut File) -> Error {
    // The holder writes its number right after it has the lock.
    let mut text = String::new();
    for _ in 0..25 {
        std::thread::sleep(Duration::from_millis(20));
        text.clear();
        let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
        if text.ends_with('\n') {
            break;
        }
    }
    let who = match text.trim().parse::<u32>() {
        Ok(id) if id == std::process::id() => format!("this process ({id}) itself"),
        Ok(id) => format!("process {id}"),
        // Windows locks what is in the file too.
        Err(_) => "another process".into(),
    };
    let dir = dir.display();
    Error::Config(format!(
        "{dir} is being written by {who}; wait for its end, stop it, or choose another folder"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(dir: &Path) -> Result<FolderLock> {
        FolderLock::take(dir, "x.lock")
    }

    #[test]
    fn the_second_is_refused_by_the_number_of_the_first_and_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let held = take(dir.path()).unwrap();
        assert!(held.note().is_none(), "{:?}", held.note());
        let refused = take(dir.path()).err().expect("a second holder").to_string();
        assert!(refused.contains(&format!("process ({})", std::process::id())), "{refused}");
        drop(held);
        if cfg!(unix) {
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
        // What a killed process leaves blocks nobody.
        fs::write(dir.path().join("x.lock"), "4000000000\n").unwrap();
        take(dir.path()).unwrap();
    }

    /// Many that take and give back at once: never two holders.
    #[test]
    fn there_are_never_two_holders() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let dir = tempfile::tempdir().unwrap();
        let (holders, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while taken.load(Ordering::SeqCst) < 200 {
                        let Ok(lock) = take(dir.path()) else { continue };
                        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two holders");
                        taken.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                        holders.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
    }
}
