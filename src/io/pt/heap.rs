//! The values that a pickle makes.

use std::collections::HashMap;

use super::value::{Global, Id, Storage, Value};

/// What is wrong, without the file's name.
pub(super) type Outcome<T> = std::result::Result<T, String>;

pub(super) const REFUSED: &str = "only tensors and plain values are read, and nothing is ever run";

/// The most names of types that are not read: a checkpoint has a handful.
const MOST_OTHERS: usize = 4096;

/// The longest name of a module, and of a type in it.
pub(super) const MOST_NAME: usize = 256;

/// Values, by place.
#[derive(Default)]
pub(super) struct Heap {
    values: Vec<Value>,
    /// The places of the names of types that are not read, each once.
    others: HashMap<String, Id>,
}

impl Heap {
    pub fn get(&self, id: Id) -> &Value {
        &self.values[id]
    }

    /// Every run of elements that the stream names, in whatever it was used.
    pub fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(&**storage),
            _ => None,
        })
    }

    /// What the type at `id`, or of the object there, is called.
    pub fn name(&self, id: Id) -> &str {
        match self.get(id) {
            Value::Opaque(of) if *of != id => self.name(*of),
            Value::Global(Global::Other(name)) => name,
            other => other.kind(),
        }
    }

    pub fn get_mut(&mut self, id: Id) -> &mut Value {
        &mut self.values[id]
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn push(&mut self, value: Value) -> Id {
        self.values.push(value);
        self.values.len() - 1
    }

    /// The place of the type or function `module.name`.
    pub fn global(&mut self, module: &str, name: &str) -> Outcome<Id> {
        if let Some(global) = Global::named(module, name) {
            return Ok(self.push(Value::Global(global)));
        }
        if module.len() > MOST_NAME || name.len() > MOST_NAME {
            return Err(format!("the name of a type has {} bytes", module.len() + name.len()));
        }
        let whole = format!("{module}.{name}");
        if let Some(id) = self.others.get(&whole) {
            return Ok(*id);
        }
        if self.others.len() == MOST_OTHERS {
            return Err(format!("it names more than {MOST_OTHERS} types"));
        }
        let id = self.push(Value::Global(Global::Other(whole.as_str().into())));
        self.others.insert(whole, id);
        Ok(id)
    }
}
