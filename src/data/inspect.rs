//! What each file of a tree is: looked at on all cores, and once.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use xxhash_rust::xxh3::xxh3_128;

use super::decode;
use super::found::{Found, Looked};
use super::kind::{self, Kind, PICTURES};
use super::known::Known;
use super::tree::{Entry, Tree, Unread};
use super::whole::{self, Wholeness};

/// Looks at every entry, but those that are `known`. Bytes are handed over where `keep` says so.
pub fn all(tree: &Tree, known: &Known, keep: bool) -> Vec<Looked> {
    each(tree.entries.len(), |index| {
        let entry = &tree.entries[index];
        match known.get(entry) {
            Some(found) => Looked { found: found.clone(), bytes: None, lasting: true },
            None => one(tree, entry, keep),
        }
    })
}

fn one(tree: &Tree, entry: &Entry, keep: bool) -> Looked {
    let is_picture = |head: &[u8]| matches!(kind::of(head), Kind::Picture(_));
    let bytes = match tree.files.read(entry.at, &is_picture) {
        Ok(bytes) => bytes,
        Err(Unread::Damaged(what)) => {
            return Looked { found: Found::Damaged(what), bytes: None, lasting: true };
        }
        Err(Unread::System(error)) => {
            return Looked { found: Found::Damaged(error.to_string()), bytes: None, lasting: false };
        }
    };
    let found = match kind::of(&bytes[..bytes.len().min(kind::HEAD)]) {
        Kind::Other(what) => Found::Other(format!("is {what}; {PICTURES} are read")),
        Kind::Picture(format) => match decode::header(&bytes) {
            Err(what) => Found::Damaged(what),
            Ok(header) => match whole::check(format, &bytes) {
                Wholeness::Cut => Found::Damaged("ends before its picture does: it is cut".into()),
                // Rare enough to be decoded at once.
                Wholeness::Doubtful => match decode::pixels(&bytes, 3) {
                    Err(what) => Found::Damaged(format!("cannot be decoded: {what}")),
                    Ok(_) => Found::picture(xxh3_128(&bytes), header),
                },
                Wholeness::Whole => Found::picture(xxh3_128(&bytes), header),
            },
        },
    };
    let is_good = matches!(found, Found::Picture(..));
    Looked { found, bytes: (keep && is_good).then_some(bytes), lasting: true }
}

/// `work` of every number below `count`, in order, on as many threads as there are cores.
pub fn each<T: Send + Sync>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let cores = if cfg!(target_arch = "wasm32") {
        1
    } else {
        std::thread::available_parallelism().map_or(1, usize::from)
    };
    // A thread for few files costs more than it gives.
    let threads = cores.min(count / 16).max(1);
    if threads == 1 {
        return (0..count).map(work).collect();
    }
    let done: Vec<OnceLock<T>> = (0..count).map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(place) = done.get(index) else { return };
                    let _ = place.set(work(index));
                }
            });
        }
    });
    done.into_iter().map(|place| place.into_inner().expect("every number was worked on")).collect()
}
