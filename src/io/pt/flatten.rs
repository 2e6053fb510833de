//! From nested dicts and lists to named tensors and plain values: names are joined by `/`.

use std::collections::BTreeMap;

use super::heap::{Heap, Outcome};
use super::value::{Id, Plain, Value, View};

/// Deeper nesting than any checkpoint's, or a container that holds itself.
const MOST_DEPTH: usize = 32;

/// More values than any checkpoint's: shared containers could stand for many more than the file has bytes.
const MOST_VALUES: usize = 1 << 17;

/// The longest joined name.
const MOST_NAME: usize = 1024;

/// All that a checkpoint holds, by name.
#[derive(Default, Debug)]
pub(super) struct Entries {
    pub tensors: BTreeMap<String, View>,
    pub plain: BTreeMap<String, Plain>,
    /// Objects that were not made, by the name of their type.
    pub opaque: BTreeMap<String, String>,
}

/// Names everything below `root`: entries of a dict by their key (a text or a number), of a list by their place.
pub(super) fn flatten(heap: &Heap, root: Id) -> Outcome<Entries> {
    let mut entries = Entries::default();
    let mut seen = 0;
    walk(heap, root, &mut Vec::new(), &mut entries, &mut seen)?;
    Ok(entries)
}

fn walk(heap: &Heap, id: Id, path: &mut Vec<String>, entries: &mut Entries, seen: &mut usize) -> Outcome<()> {
    *seen += 1;
    if *seen > MOST_VALUES {
        return Err(format!("it holds more than {MOST_VALUES} values"));
    }
    if path.len() > MOST_DEPTH {
        return Err(format!("it is nested more than {MOST_DEPTH} deep, or holds itself"));
    }
    let plain = match heap.get(id) {
        Value::Dict(items) => {
            for (place, (key, value)) in items.iter().enumerate() {
                path.push(key_of(heap.get(*key), place)?);
                walk(heap, *value, path, entries, seen)?;
                path.pop();
            }
            return Ok(());
        }
        Value::List(items) | Value::Tuple(items) => {
            for (place, value) in items.iter().enumerate() {
                path.push(place.to_string());
                walk(heap, *value, path, entries, seen)?;
                path.pop();
            }
            return Ok(());
        }
        Value::Tensor(view) => {
            let name = entries.new_name(path)?;
            entries.tensors.insert(name, (**view).clone());
            return Ok(());
        }
        Value::None => Plain::None,
        Value::Bool(value) => Plain::Bool(*value),
        Value::Int(value) => Plain::Int(*value),
        Value::Long(bytes) => Plain::Long(bytes.clone()),
        Value::Float(value) => Plain::Float(*value),
        Value::Text(text) => Plain::Text(text.clone()),
        Value::Opaque(_) | Value::Global(_) | Value::Storage(_) => {
            let name = entries.new_name(path)?;
            entries.opaque.insert(name, heap.name(id).to_owned());
            return Ok(());
        }
    };
    let name = entries.new_name(path)?;
    entries.plain.insert(name, plain);
    Ok(())
}

impl Entries {
    /// The joined name of what is at `path`, which nothing else may have.
    fn new_name(&self, path: &[String]) -> Outcome<String> {
        let name = joined(path)?;
        let taken = self.tensors.contains_key(&name)
            || self.plain.contains_key(&name)
            || self.opaque.contains_key(&name);
        if taken { Err(format!("`{name}` comes twice")) } else { Ok(name) }
    }
}

/// The name that a key gives; of one that is no name, what it is and its place.
fn key_of(key: &Value, place: usize) -> Outcome<String> {
    match key {
        Value::Text(text) if text.len() <= MOST_NAME => Ok(text.clone()),
        Value::Text(text) => Err(format!("a name has {} bytes", text.len())),
        Value::Int(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        other => Ok(format!("({}, the key at {place})", other.kind())),
    }
}

fn joined(path: &[String]) -> Outcome<String> {
    let name = path.join("/");
    if name.len() > MOST_NAME {
        return Err(format!("a name has {} bytes", name.len()));
    }
    Ok(name)
}
