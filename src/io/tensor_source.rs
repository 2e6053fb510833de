//! What files of tensors have in common, whatever their format.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use half::slice::HalfFloatSliceExt;

use super::Dtype;
use crate::error::{Error, Result};

/// Named tensors in a file, or in several files that belong together. Opening one reads its headers alone.
pub trait TensorSource: Send + Sync {
    /// What errors name.
    fn path(&self) -> &Path;

    /// The tensors' names, sorted.
    fn names(&self) -> Vec<String>;

    /// What is there beside tensors and plain values and is not read: the name of its type, by its own name.
    fn opaque(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Type and shape of a tensor.
    ///
    /// # Errors
    /// When there is none of that name.
    fn about(&self, name: &str) -> Result<(Dtype, Vec<usize>)>;

    /// The elements of a tensor, little-endian, row by row.
    ///
    /// # Errors
    /// When there is none of that name, or the file does not hold what its headers promise.
    fn bytes(&self, name: &str) -> Result<Vec<u8>>;

    /// Some of a tensor's elements, by their places row by row: of a large table the rows that are needed.
    ///
    /// # Errors
    /// As [`Self::bytes`], and for places past the tensor's end.
    fn part(&self, name: &str, elements: Range<usize>) -> Result<Vec<u8>> {
        let range = places(self, name, elements)?;
        Ok(self.bytes(name)?[range].to_vec())
    }

    /// Shape and values of a tensor of f32, f16, bf16 or f64.
    ///
    /// # Errors
    /// As [`Self::bytes`], and when it is of another type.
    fn values(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let (dtype, shape) = self.about(name)?;
        let values = widen(dtype, &self.bytes(name)?).ok_or_else(|| {
            let what = format!("is of type {dtype:?}, but F32, F16, BF16 or F64 is needed");
            Error::tensor(self.path(), name, what)
        })?;
        Ok((shape, values))
    }
}

/// The bytes of some of a tensor's elements, counted from its first; its rows are whole bytes.
pub(super) fn places(
    source: &(impl TensorSource + ?Sized),
    name: &str,
    elements: Range<usize>,
) -> Result<Range<usize>> {
    let (dtype, shape) = source.about(name)?;
    let count: usize = shape.iter().product();
    if elements.start > elements.end || elements.end > count {
        let what = format!("has {count} elements, and {elements:?} of them are needed");
        return Err(Error::tensor(source.path(), name, what));
    }
    let byte = |element: usize| element * dtype.bitsize() / 8;
    Ok(byte(elements.start)..byte(elements.end))
}

/// Little-endian floats of any width as f32; `None` for other types.
pub fn widen(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    Some(match dtype {
        Dtype::F32 => each(bytes, f32::from_le_bytes),
        Dtype::F16 if cfg!(target_endian = "little") => {
            // Whole slices go by the processor's own instruction, eight at a time.
            let halves: Vec<half::f16> = bytemuck::pod_collect_to_vec(&bytes[..bytes.len() / 2 * 2]);
            let mut values = vec![0.0; halves.len()];
            halves.convert_to_f32_slice(&mut values);
            values
        }
        Dtype::F16 => each(bytes, |bytes| half::f16::from_le_bytes(bytes).to_f32()),
        Dtype::BF16 => each(bytes, |bytes| half::bf16::from_le_bytes(bytes).to_f32()),
        Dtype::F64 => each(bytes, |bytes| f64::from_le_bytes(bytes) as f32),
        _ => return None,
    })
}

fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|bytes| value(*bytes)).collect()
}
