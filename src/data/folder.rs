//! A folder as a tree of files: each file once by its real path, whatever links there are.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::tree::{Entry, Files, LeftOut, MAX_FILE, Tree, Unread, is_hidden, read_wanted};
use crate::error::{Error, Result};

/// How far below the root files are looked for.
const MAX_DEPTH: usize = 64;

/// Lists a folder, counting in `met` the files and folders that it holds.
///
/// # Errors
/// When the folder itself cannot be read; one below it is left out by name.
pub fn list(root: &Path, met: Option<&AtomicUsize>) -> Result<Tree> {
    let real = root.canonicalize().map_err(Error::io(root))?;
    std::fs::read_dir(root).map_err(Error::io(root))?;
    let mut walk = Walk { root: real.clone(), met, ..Walk::default() };
    walk.folder(root, real, "", 0);
    // Links last, so that what lies in the folder itself is read there, and of those the ones to folders first.
    while !walk.links.is_empty() {
        let (mut links, files): (Vec<_>, Vec<_>) =
            std::mem::take(&mut walk.links).into_iter().partition(|(_, path, _)| path.is_dir());
        match links.is_empty() {
            true => links = files,
            false => walk.links = files,
        }
        links.sort();
        links.into_iter().for_each(|link| walk.link(link));
    }
    if let Some((count, first)) = &walk.outside {
        walk.notes.push(format!("{count} files are links out of the folder, as {first}"));
    }
    let Walk { mut found, folders, left_out, notes, .. } = walk;
    found.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    let (mut entries, mut paths) = (Vec::new(), Vec::new());
    for (at, (entry, path)) in found.into_iter().enumerate() {
        entries.push(Entry { at, ..entry });
        paths.push(path);
    }
    let files = Box::new(Paths(paths));
    Ok(Tree { path: root.to_owned(), is_zip: false, entries, folders, left_out, notes, files })
}

#[derive(Default)]
struct Walk<'a> {
    met: Option<&'a AtomicUsize>,
    root: PathBuf,
    /// The real paths of the folders that were read, and their names below the root.
    seen: HashMap<PathBuf, String>,
    /// The real paths of the files that links led to.
    linked: HashSet<PathBuf>,
    /// (name, path, depth)
    links: Vec<(String, PathBuf, usize)>,
    found: Vec<(Entry, PathBuf)>,
    folders: BTreeSet<String>,
    left_out: Vec<LeftOut>,
    notes: Vec<String>,
    /// How many links to files outside of the root there are, and the first.
    outside: Option<(usize, String)>,
}

impl Walk<'_> {
    /// Takes in what lies in `path`, whose real path is `real` and whose name below the root, with a slash, is `prefix`.
    fn folder(&mut self, path: &Path, real: PathBuf, prefix: &str, depth: usize) {
        if let Some(first) = self.seen.get(&real) {
            let reason = format!("is {}, which is read already", named(first));
            return self.left_out.push(LeftOut::new(prefix, reason));
        }
        if depth > MAX_DEPTH {
            let reason = format!("lies more than {MAX_DEPTH} folders deep");
            return self.left_out.push(LeftOut::new(prefix, reason));
        }
        let entries = match std::fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => {
                return self.left_out.push(LeftOut::new(prefix, format!("cannot be read: {error}")));
            }
        };
        self.seen.insert(real.clone(), prefix.to_owned());
        for entry in entries {
            if let Some(met) = self.met {
                met.fetch_add(1, Ordering::Relaxed);
            }
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    let reason = format!("cannot be read to its end: {error}");
                    return self.left_out.push(LeftOut::new(named(prefix), reason));
                }
            };
            let file_name = entry.file_name();
            let name = format!("{prefix}{}", file_name.to_string_lossy());
            if is_hidden(&file_name.to_string_lossy()) {
                self.left_out.push(LeftOut::new(name, "is hidden"));
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_symlink() => self.links.push((name, entry.path(), depth)),
                Ok(kind) if kind.is_dir() => {
                    if depth == 0 {
                        self.folders.insert(name.clone());
                    }
                    self.folder(&entry.path(), real.join(&file_name), &format!("{name}/"), depth + 1);
                }
                Ok(kind) if kind.is_file() => match entry.metadata() {
                    Ok(about) => self.file(name, entry.path(), &about),
                    Err(error) => self.left_out.push(LeftOut::new(name, error.to_string())),
                },
                Ok(_) => self.left_out.push(LeftOut::new(name, "is neither a file nor a folder")),
                Err(error) => self.left_out.push(LeftOut::new(name, error.to_string())),
            }
        }
    }

    fn file(&mut self, name: String, path: PathBuf, about: &Metadata) {
        let entry = Entry { name, bytes: about.len(), stamp: stamp(about), crc: None, at: 0 };
        self.found.push((entry, path));
    }

    fn link(&mut self, (name, path, depth): (String, PathBuf, usize)) {
        let (real, about) = match path.canonicalize().and_then(|real| Ok((std::fs::metadata(&real)?, real))) {
            Ok((about, real)) => (real, about),
            Err(error) => {
                let reason = format!("is a link that leads nowhere ({error})");
                return self.left_out.push(LeftOut::new(name, reason));
            }
        };
        let mut leave_out = |reason: String| self.left_out.push(LeftOut::new(&name, reason));
        if about.is_dir() {
            if let Some(first) = self.seen.get(&real) {
                return leave_out(format!("is a link to {}, which is read already", named(first)));
            }
            if self.root.starts_with(&real) {
                return leave_out("is a link to a folder around the set".into());
            }
            // A linked class folder is common; deeper, it may lead anywhere.
            if depth > 0 {
                let what = "is a link to a folder elsewhere; such a link is followed only in the place of a class folder";
                return leave_out(what.into());
            }
            self.notes.push(format!("{name} is a link to {}", real.display()));
            self.folders.insert(name.clone());
            self.folder(&path, real, &format!("{name}/"), depth + 1);
        } else if about.is_file() {
            let file_name = real.file_name().unwrap_or_default().to_string_lossy();
            let parent = real.parent().and_then(|parent| self.seen.get(parent));
            if let Some(parent) = parent.filter(|_| !is_hidden(&file_name)) {
                return leave_out(format!("is a link to {parent}{file_name}, which is read already"));
            }
            if !self.linked.insert(real.clone()) {
                return leave_out("is a link to a file that another link leads to, too".into());
            }
            if !real.starts_with(&self.root) {
                self.outside.get_or_insert_with(|| (0, name.clone())).0 += 1;
            }
            self.file(name, path, &about);
        } else {
            leave_out("is a link to neither a file nor a folder".into());
        }
    }
}

/// The root has no name of its own.
fn named(prefix: &str) -> &str {
    if prefix.is_empty() { "the set's own folder" } else { prefix }
}

/// Changes when the file does: by its times, of which the second cannot be set back, and its inode.
#[cfg(unix)]
fn stamp(about: &Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let numbers =
        [about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec(), about.ino().cast_signed()];
    xxhash_rust::xxh3::xxh3_64(bytemuck::cast_slice(&numbers))
}

/// Changes when the file does: by the time of its last change.
#[cfg(not(unix))]
fn stamp(about: &Metadata) -> u64 {
    let since = about.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_nanos() as u64)
}

struct Paths(Vec<PathBuf>);

impl Files for Paths {
    fn read(&self, at: usize, wanted: &dyn Fn(&[u8]) -> bool) -> Result<Vec<u8>, Unread> {
        let file = std::fs::File::open(&self.0[at]).map_err(Unread::System)?;
        let bytes = file.metadata().map_err(Unread::System)?.len();
        if bytes > MAX_FILE {
            return Err(Unread::Damaged(format!("has {bytes} bytes; at most {MAX_FILE} are read")));
        }
        read_wanted(file, bytes, wanted).map_err(Unread::System)
    }

    fn place(&self, at: usize) -> PathBuf {
        self.0[at].clone()
    }
}
