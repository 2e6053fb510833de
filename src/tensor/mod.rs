//! Handles of values on the device: shape, element type, place. And the [`Context`] that operations record into.
//!
//! Invariants: no arithmetic happens here, and nothing here knows an operation or a layer.

mod context;
mod gradients;
mod precision;
mod tape;

pub use context::{Context, Launch};
pub use precision::Precision;
pub use tape::GradTarget;

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::gpu::{Binding, Buffer, Elem, Storage};

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 16-bit float; the device must have `SHADER_F16`.
    F16,
    /// 32-bit unsigned integer: labels, indices, packed bytes.
    U32,
}

impl DType {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            DType::F16 => 2,
            DType::F32 | DType::U32 => 4,
        }
    }

    /// What a kernel's `elem` stands for with this type; integers count as f32, which their kernels never use.
    pub fn elem(self) -> Elem {
        match self {
            DType::F16 => Elem::F16,
            DType::F32 | DType::U32 => Elem::F32,
        }
    }
}

/// A value on the device: a place, a shape and a type. Cheap to clone; clones are the same value.
/// Activations are `[N, H, W, C]`, channels innermost.
#[derive(Clone, Debug)]
pub struct Tensor {
    storage: Storage,
    offset: u64,
    shape: Arc<[usize]>,
    dtype: DType,
}

impl Tensor {
    /// A tensor at `offset` bytes into `storage`.
    pub fn new(storage: Storage, offset: u64, shape: &[usize], dtype: DType) -> Self {
        Tensor { storage, offset, shape: shape.into(), dtype }
    }

    /// A tensor over a buffer, from its beginning on.
    pub fn over(buffer: &Buffer, shape: &[usize], dtype: DType) -> Self {
        Tensor::new(Storage::Buffer(buffer.clone()), 0, shape, dtype)
    }

    /// Its extents.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where it lives.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        (self.len() * self.dtype.bytes()) as u64
    }

    /// Where it starts in its storage, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The same elements under another shape.
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor> {
        if shape.iter().product::<usize>() != self.len() {
            return Err(Error::shape("reshape", format!("{:?} does not fit into {shape:?}", self.shape)));
        }
        Ok(Tensor { shape: shape.into(), ..self.clone() })
    }

    /// `[N, H, W, C]` of an image tensor.
    ///
    /// # Errors
    /// [`Error::Shape`] naming `op` when the tensor has not four dimensions.
    pub fn nhwc(&self, op: &'static str) -> Result<[usize; 4]> {
        self.shape[..].try_into().map_err(|_| {
            Error::shape(op, format!("expected [N, H, W, C] (four dimensions), got {:?}", self.shape))
        })
    }

    /// The range a kernel binds.
    pub fn binding(&self) -> Binding {
        Binding { storage: self.storage.clone(), offset: self.offset, bytes: self.bytes() }
    }

    /// Equal for tensors that are the same value, whatever shape they are seen under.
    pub fn identity(&self) -> (u64, u64) {
        (self.storage.identity(), self.offset)
    }
}
