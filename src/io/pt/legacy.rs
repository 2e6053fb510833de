//! The older container (before PyTorch 1.6): five pickles behind one another, then the storages.
//!
//! Magic number, protocol, a note of the machine, the object, the storages' keys; then for each key, in that order, the
//! number of elements (i64) and the elements.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::io::pieces::Pieces;

use super::heap::{Heap, Outcome};
use super::pickle::{self, MOST_BYTES};
use super::value::{Id, Value};

/// The first pickle: this number, in the ten bytes that Python writes for it.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

const PROTOCOL: i64 = 1001;

/// Whether a file begins like one.
pub(in crate::io) fn accepts(start: &[u8]) -> bool {
    start.len() >= 14 && start[0] == 0x80 && start[2] == 0x8a && start[4..14] == MAGIC
}

/// The object, the keys of its storages in the order of the file, and where the first begins.
pub(super) struct Stream {
    pub root: Id,
    pub keys: Vec<String>,
    pub data: u64,
}

/// Runs the five pickles.
pub(super) fn open(file: &Pieces, heap: &mut Heap) -> Result<Stream> {
    let bytes = file.read(0..file.length().min(MOST_BYTES as u64))?;
    read(&bytes, heap).map_err(|what| Error::format(file.path(), what))
}

fn read(bytes: &[u8], heap: &mut Heap) -> Outcome<Stream> {
    let mut at = 0;
    let mut next = |heap: &mut Heap| -> Outcome<Id> {
        let (id, length) = pickle::load(&bytes[at..], heap)?;
        at += length;
        Ok(id)
    };
    let _magic = next(heap)?;
    let protocol = next(heap)?;
    if !matches!(heap.get(protocol), Value::Int(PROTOCOL)) {
        return Err(format!("is a PyTorch file of an unknown protocol; {PROTOCOL} is read"));
    }
    let machine = next(heap)?;
    if !little_endian(heap, machine) {
        return Err("was written on a big-endian machine, or does not say on which".into());
    }
    let root = next(heap)?;
    let keys = next(heap)?;
    let keys = match heap.get(keys) {
        Value::List(keys) => keys.iter().map(|id| match heap.get(*id) {
            Value::Text(key) if key.len() <= 64 => Ok(key.clone()),
            other => Err(format!("a storage's key is {}", other.kind())),
        }),
        other => return Err(format!("the storages' keys are {}", other.kind())),
    };
    let keys = keys.collect::<Outcome<_>>()?;
    Ok(Stream { root, keys, data: at as u64 })
}

fn little_endian(heap: &Heap, machine: Id) -> bool {
    let Value::Dict(items) = heap.get(machine) else { return false };
    items.iter().any(|(key, value)| {
        matches!(heap.get(*key), Value::Text(key) if key == "little_endian")
            && matches!(heap.get(*value), Value::Bool(true))
    })
}

/// Where each storage's elements lie, from their element sizes in bytes.
pub(super) fn storages(
    file: &Pieces,
    stream: &Stream,
    widths: &BTreeMap<&str, u64>,
) -> Result<BTreeMap<String, Range<u64>>> {
    let bad = |what: String| Error::format(file.path(), what);
    let mut places = BTreeMap::new();
    let mut at = stream.data;
    for key in &stream.keys {
        let width = widths.get(key.as_str());
        let width = *width.ok_or_else(|| bad(format!("holds a storage {key} that no tensor is of")))?;
        let head = file.read(at..at.saturating_add(8))?;
        let elements = i64::from_le_bytes(head.try_into().expect("eight bytes were asked for"));
        let start = at + 8;
        let end = u64::try_from(elements).ok().and_then(|n| n.checked_mul(width)?.checked_add(start));
        let end = end.filter(|end| *end <= file.length()).ok_or_else(|| {
            let left = file.length() - start;
            bad(format!(
                "is cut short: storage {key} has {elements} elements of {width} bytes, but {left} bytes are left"
            ))
        })?;
        if places.insert(key.clone(), start..end).is_some() {
            return Err(bad(format!("holds the storage {key} twice")));
        }
        at = end;
    }
    if at != file.length() {
        return Err(bad(format!("has {} bytes behind its last storage", file.length() - at)));
    }
    Ok(places)
}
