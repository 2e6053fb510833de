//! From nested dicts and lists to named tensors and plain values: names are joined by `/`.

use std::collections::BTreeMap;

use super::pickle::{Heap, Outcome};
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
            for (key, value) in items {
                path.push(key_of(heap.get(*key))?);
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
            let name = joined(path)?;
            if entries.plain.contains_key(&name)
                || entries.tensors.insert(name.clone(), (**view).clone()).is_some()
            {
                return Err(twice(&name));
            }
            return Ok(());
        }
        Value::None => Plain::None,
        Value::Bool(value) => Plain::Bool(*value),
        Value::Int(value) => Plain::Int(*value),
        Value::Long(bytes) => Plain::Long(bytes.clone()),
        Value::Float(value) => Plain::Float(*value),
        Value::Text(text) => Plain::Text(text.clone()),
        other @ (Value::Global(_) | Value::Storage(_)) => {
            return Err(format!(
                "`{}` is {}, where a tensor or a plain value is expected",
                joined(path)?,
                other.kind()
            ));
        }
    };
    let name = joined(path)?;
    if entries.tensors.contains_key(&name) || entries.plain.insert(name.clone(), plain).is_some() {
        return Err(twice(&name));
    }
    Ok(())
}

fn key_of(key: &Value) -> Outcome<String> {
    match key {
        Value::Text(text) if text.len() <= MOST_NAME => Ok(text.clone()),
        Value::Text(text) => Err(format!("a name has {} bytes", text.len())),
        Value::Int(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        other => Err(format!("a key of a dict is {}", other.kind())),
    }
}

fn joined(path: &[String]) -> Outcome<String> {
    let name = path.join("/");
    if name.len() > MOST_NAME {
        return Err(format!("a name has {} bytes", name.len()));
    }
    Ok(name)
}

fn twice(name: &str) -> String {
    format!("`{name}` comes twice")
}
