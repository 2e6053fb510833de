//! What PyTorch writes into a pickle: storages by persistent id, tensors as views of them, and nothing else.

use super::heap::{Heap, Outcome, REFUSED};
use super::value::{Global, Id, Storage, Value, View};

/// More dimensions than any layer's tensor has.
const MOST_DIMENSIONS: usize = 16;

/// The longest name of a storage: PyTorch numbers them.
const MOST_KEY: usize = 64;

/// What stands for an object of the class at `class`.
pub(super) fn object(heap: &Heap, class: Id) -> Outcome<Value> {
    match heap.get(class) {
        Value::Global(Global::OrderedDict | Global::DefaultDict) => Ok(Value::Dict(Vec::new())),
        Value::Global(Global::Other(_)) => Ok(Value::Opaque(class)),
        Value::Opaque(of) => Ok(Value::Opaque(*of)),
        other => Err(format!("it makes an object of {}, which is refused: {REFUSED}", other.kind())),
    }
}

/// The storage of a persistent id: ("storage", type, key, location, elements[, view of (key, first, elements)]). One of
/// elements that are not read stands for itself by its type's name.
pub(super) fn storage(heap: &Heap, id: Id) -> Outcome<Value> {
    let items = tuple(heap, id)?;
    let values: Vec<&Value> = items.iter().map(|id| heap.get(*id)).collect();
    if let [Value::Text(kind), Value::Global(Global::Other(_)) | Value::Opaque(_), ..] = values[..]
        && kind == "storage"
    {
        return object(heap, items[1]);
    }
    let (dtype, key, elements, view) = match values[..] {
        [Value::Text(kind), Value::Global(Global::StorageOf(dtype)), Value::Text(key), _, elements, ..]
            if kind == "storage" && values.len() <= 6 =>
        {
            (*dtype, key, elements, values.get(5))
        }
        _ => return Err("a persistent id is none of a storage".into()),
    };
    if key.len() > MOST_KEY {
        return Err(format!("a storage has a name of {} bytes", key.len()));
    }
    let elements = size(elements)?;
    let (elements, start) = match view {
        None | Some(Value::None) => (elements, 0),
        Some(Value::Tuple(parts)) => match parts.iter().map(|id| heap.get(*id)).collect::<Vec<_>>()[..] {
            // The view's own key is only to find it again; what counts is its place in the storage.
            [_, first, length] => (size(length)?, size(first)?),
            _ => return Err("a view of a storage is no triple".into()),
        },
        Some(other) => return Err(format!("a view of a storage is {}", other.kind())),
    };
    Ok(Value::Storage(Box::new(Storage { dtype, key: key.clone(), elements, start })))
}

/// What REDUCE makes of one of the names above and its arguments.
pub(super) fn call(heap: &Heap, callee: Id, arguments: Id) -> Outcome<Value> {
    let global = match heap.get(callee) {
        Value::Global(Global::Other(_)) | Value::Opaque(_) => return object(heap, callee),
        Value::Global(global) => global,
        other => return Err(format!("it calls {}, which is refused: {REFUSED}", other.kind())),
    };
    let arguments = tuple(heap, arguments)?;
    match (global, arguments) {
        (Global::OrderedDict, []) | (Global::DefaultDict, [] | [_]) => Ok(Value::Dict(Vec::new())),
        (Global::OrderedDict, [items]) => ordered_dict(heap, *items),
        (Global::Size, [sizes]) => match heap.get(*sizes) {
            Value::Tuple(items) | Value::List(items) if items.len() <= MOST_DIMENSIONS => {
                Ok(Value::Tuple(items.clone()))
            }
            other => {
                Err(format!("a size is {}, or has more than {MOST_DIMENSIONS} dimensions", other.kind()))
            }
        },
        (Global::RebuildTensor, [storage, offset, shape, strides, ..]) => {
            let storage = match heap.get(*storage) {
                Value::Storage(storage) => storage,
                Value::Opaque(of) => return Ok(Value::Opaque(*of)),
                other => return Err(format!("a tensor's storage is {}", other.kind())),
            };
            let offset = size(heap.get(*offset))?;
            let shape: Vec<usize> = sizes(heap, *shape)?.into_iter().map(|dim| dim as usize).collect();
            let strides = sizes(heap, *strides)?;
            if shape.len() != strides.len() {
                return Err(format!("a tensor has {} sizes but {} strides", shape.len(), strides.len()));
            }
            Ok(Value::Tensor(Box::new(View { storage: (**storage).clone(), offset, shape, strides })))
        }
        (Global::RebuildParameter, [data, ..]) => match heap.get(*data) {
            tensor @ (Value::Tensor(_) | Value::Opaque(_)) => Ok(tensor.clone()),
            other => Err(format!("a parameter is made of {}", other.kind())),
        },
        (global, arguments) => Err(format!("{global:?} with {} arguments is not known", arguments.len())),
    }
}

fn ordered_dict(heap: &Heap, items: Id) -> Outcome<Value> {
    let items = match heap.get(items) {
        Value::List(items) | Value::Tuple(items) => items,
        other => return Err(format!("a dict is made of {}", other.kind())),
    };
    let pair = |id: &Id| match heap.get(*id) {
        Value::List(pair) | Value::Tuple(pair) if pair.len() == 2 => Ok((pair[0], pair[1])),
        other => Err(format!("an entry of a dict is {}", other.kind())),
    };
    items.iter().map(pair).collect::<Outcome<_>>().map(Value::Dict)
}

fn tuple(heap: &Heap, id: Id) -> Outcome<&[Id]> {
    match heap.get(id) {
        Value::Tuple(items) => Ok(items),
        other => Err(format!("a tuple is needed, got {}", other.kind())),
    }
}

fn size(value: &Value) -> Outcome<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).map_err(|_| format!("{number} is no size")),
        Value::Long(_) => Err("a size does not fit 64 bits".into()),
        other => Err(format!("a size is {}", other.kind())),
    }
}

fn sizes(heap: &Heap, id: Id) -> Outcome<Vec<u64>> {
    let items = match heap.get(id) {
        Value::Tuple(items) | Value::List(items) => items,
        other => return Err(format!("a tensor's shape or strides are {}", other.kind())),
    };
    if items.len() > MOST_DIMENSIONS {
        return Err(format!("a tensor has {} dimensions; at most {MOST_DIMENSIONS} are read", items.len()));
    }
    items.iter().map(|id| size(heap.get(*id))).collect()
}
