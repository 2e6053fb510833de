//! What was found in files at an earlier opening, kept in a folder of the program's own, never beside the user's files.
//!
//! A file is known again by its name, its size and its stamp. Whatever is wrong with what was kept only costs time: the
//! files are looked at anew.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::found::{Found, Looked};
use super::tree::{Entry, Tree};
use crate::error::{Error, Result};
use crate::io::AtomicFile;

/// What the first line begins with. Another version of the program may find other things in the same files.
const FIRST: &str = concat!("freeguide ", env!("CARGO_PKG_VERSION"), " data 1 ");
/// Data sets that are kept; the one that was not written for longest goes first.
const MOST: usize = 64;

/// What is known of the files of one data set.
#[derive(Default)]
pub struct Known {
    path: Option<PathBuf>,
    files: HashMap<String, (u64, u64, Found)>,
    /// What went wrong, for a person.
    pub note: Option<String>,
}

impl Known {
    /// What `folder` holds of the data set at `root`. Nothing without a folder.
    pub fn load(folder: Option<&Path>, root: &Path) -> Known {
        let (Some(folder), Ok(real)) = (folder, root.canonicalize()) else { return Known::default() };
        let key = xxh3_64(real.as_os_str().as_encoded_bytes());
        let path = folder.join(format!("data-{key:016x}.json"));
        let (files, note) = match std::fs::read_to_string(&path) {
            Ok(text) => match parse(&text) {
                Ok(files) => (files, None),
                Err(what) => {
                    let what =
                        format!("{} {what}; the files of the data set are looked at anew", path.display());
                    (HashMap::new(), Some(what))
                }
            },
            Err(_) => (HashMap::new(), None),
        };
        Known { path: Some(path), files, note }
    }

    /// What is known of a file.
    pub fn get(&self, entry: &Entry) -> Option<&Found> {
        let (bytes, stamp, found) = self.files.get(&entry.name)?;
        (*bytes == entry.bytes && *stamp == entry.stamp).then_some(found)
    }

    /// The file that keeps it.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Keeps what was found in each entry of a tree, if any of it is new.
    pub fn save(&mut self, tree: &Tree, looked: &[Looked]) {
        let Some(path) = &self.path else { return };
        let all: Vec<(&str, u64, u64, &Found)> = tree
            .entries
            .iter()
            .zip(looked)
            .filter(|(_, looked)| looked.lasting)
            .map(|(entry, looked)| (entry.name.as_str(), entry.bytes, entry.stamp, &looked.found))
            .collect();
        let is_known = |(name, bytes, stamp, found): &(&str, u64, u64, &Found)| {
            self.files
                .get(*name)
                .is_some_and(|known| (known.0, known.1, &known.2) == (*bytes, *stamp, *found))
        };
        if all.len() == self.files.len() && all.iter().all(is_known) {
            return;
        }
        if let Err(error) = write(path, &all) {
            self.note = Some(format!(
                "what was found in the files of the data set cannot be kept, so that the next opening takes as long ({error})"
            ));
        }
    }
}

fn parse(text: &str) -> Result<HashMap<String, (u64, u64, Found)>, String> {
    let (first, body) = text.split_once('\n').unwrap_or((text, ""));
    let Some(sum) = first.strip_prefix(FIRST) else {
        return Err("was written by another version, or is damaged".into());
    };
    if sum != format!("{:016x}", xxh3_64(body.as_bytes())) {
        return Err("is damaged".into());
    }
    let files: Vec<(String, u64, u64, Found)> =
        serde_json::from_str(body).map_err(|error| format!("is damaged: {error}"))?;
    Ok(files.into_iter().map(|(name, bytes, stamp, found)| (name, (bytes, stamp, found))).collect())
}

fn write(path: &Path, all: &[(&str, u64, u64, &Found)]) -> Result<()> {
    let body = serde_json::to_string(all).map_err(|error| Error::format(path, error.to_string()))?;
    let first = format!("{FIRST}{:016x}\n", xxh3_64(body.as_bytes()));
    let mut file = AtomicFile::create(path)?;
    file.write_all(first.as_bytes())
        .and_then(|()| file.write_all(body.as_bytes()))
        .map_err(Error::io(path))?;
    // The first line has a checksum of the rest.
    file.commit_unsynced()?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let about = |entry: std::io::Result<std::fs::DirEntry>| -> Option<(std::time::SystemTime, PathBuf)> {
        let entry = entry.ok()?;
        let name = entry.file_name().into_string().ok()?;
        let ours = name.starts_with("data-") && name.ends_with(".json");
        ours.then_some((entry.metadata().ok()?.modified().ok()?, entry.path()))
    };
    let mut kept: Vec<_> = std::fs::read_dir(folder).map_err(Error::io(folder))?.filter_map(about).collect();
    kept.sort();
    for (_, old) in kept.iter().take(kept.len().saturating_sub(MOST)) {
        // What cannot be removed now can be the next time.
        let _ = std::fs::remove_file(old);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_and_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data-0.json");
        let found = Found::Picture(u64::MAX, 7, 9, 8, true);
        write(&path, &[("a/b.png", 5, u64::MAX, &found)]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(parse(&text).unwrap()["a/b.png"], (5, u64::MAX, found));
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert!(parse(str::from_utf8(&bytes).unwrap()).is_err(), "byte {at} changed");
        }
        assert!(parse("").is_err() && parse(&text[..text.len() - 1]).is_err());
    }

    #[test]
    fn old_sets_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..MOST + 5 {
            write(&dir.path().join(format!("data-{i}.json")), &[]).unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), MOST);
    }
}
