//! What an unpickled stream is made of: plain values, and tensors as views of storages.

use crate::io::Dtype;

/// A value's place in its [`Heap`].
pub(super) type Id = usize;

/// A run of elements of one type that tensors are views of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Storage {
    pub dtype: Dtype,
    /// Its name in the file.
    pub key: String,
    /// Its length.
    pub elements: u64,
    /// Where it is a part of the storage `key` (files before PyTorch 0.4): its first element there.
    pub start: u64,
}

/// A tensor: element `i` of dimension `d` lies `i·strides[d]` elements behind `offset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub storage: Storage,
    pub offset: u64,
    pub shape: Vec<usize>,
    pub strides: Vec<u64>,
}

/// The functions and types that a stream may name. None of them is run: each says how values are put together, or,
/// where it is of no use here, only what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    DefaultDict,
    Size,
    RebuildTensor,
    RebuildParameter,
    StorageOf(Dtype),
    /// Any other, as `module.name`.
    Other(Box<str>),
}

impl Global {
    /// The names that say how values are put together; all others stand for objects that are not made.
    pub fn named(module: &str, name: &str) -> Option<Global> {
        let dtype = match (module, name) {
            ("collections", "OrderedDict") => return Some(Global::OrderedDict),
            ("collections", "defaultdict") => return Some(Global::DefaultDict),
            ("torch", "Size") => return Some(Global::Size),
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => return Some(Global::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => return Some(Global::RebuildParameter),
            ("torch", "DoubleStorage") => Dtype::F64,
            ("torch", "FloatStorage") => Dtype::F32,
            ("torch", "HalfStorage") => Dtype::F16,
            ("torch", "BFloat16Storage") => Dtype::BF16,
            ("torch", "LongStorage") => Dtype::I64,
            ("torch", "IntStorage") => Dtype::I32,
            ("torch", "ShortStorage") => Dtype::I16,
            ("torch", "CharStorage") => Dtype::I8,
            ("torch", "ByteStorage") => Dtype::U8,
            ("torch", "BoolStorage") => Dtype::BOOL,
            _ => return None,
        };
        Some(Global::StorageOf(dtype))
    }
}

/// One value. Containers hold places, so that sharing costs nothing and cycles can be seen.
#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// Two's complement, little-endian: beyond 64 bits.
    Long(Vec<u8>),
    Float(f64),
    Text(String),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Box<Storage>),
    Tensor(Box<View>),
    /// What a stream would have made of the type or function at this place; nothing was made of it.
    Opaque(Id),
}

impl Value {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool(_) => "a truth value",
            Value::Int(_) | Value::Long(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Text(_) => "a text",
            Value::Tuple(_) => "a tuple",
            Value::List(_) => "a list",
            Value::Dict(_) => "a dict",
            Value::Global(_) => "a type",
            Value::Storage(_) => "a storage",
            Value::Tensor(_) => "a tensor",
            Value::Opaque(_) => "an object",
        }
    }
}

/// A plain value of a checkpoint beside its tensors.
#[derive(Clone, Debug, PartialEq)]
pub enum Plain {
    /// None.
    None,
    /// True or false.
    Bool(bool),
    /// An integer of up to 64 bits.
    Int(i64),
    /// A longer one: two's complement, little-endian.
    Long(Vec<u8>),
    /// A float.
    Float(f64),
    /// A text.
    Text(String),
}
