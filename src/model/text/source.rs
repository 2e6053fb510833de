//! A file's tensors under the names of [`ClipText`](crate::nn::ClipText)'s parameters.

use std::collections::BTreeMap;
use std::path::Path;

use super::names::{Place, Root};
use crate::error::{Error, Result};
use crate::io::{Dtype, TensorSource};
use crate::nn::Parameters;

/// The parameters of an encoder, wherever its file keeps them. Other tensors are not seen.
pub(super) struct AsClip<'a> {
    inner: &'a dyn TensorSource,
    /// Where each parameter lies, and its shape in files.
    places: BTreeMap<String, (Place, Vec<usize>)>,
}

impl<'a> AsClip<'a> {
    /// # Errors
    /// [`Error::Tensor`] for a tensor that is missing or of another shape, by the file's own name.
    pub fn new(inner: &'a dyn TensorSource, root: &Root, parameters: &Parameters) -> Result<Self> {
        let names = inner.names();
        let mut places = BTreeMap::new();
        for spec in parameters.specs() {
            let place = root.place(&spec.name, &names);
            let mut expected = spec.file_shape();
            match place {
                Place::Thirds(_) => expected[0] /= 3,
                Place::Turned(_) => expected.reverse(),
                Place::One(_) => {}
            }
            for name in place.names() {
                if names.binary_search(name).is_err() {
                    return Err(Error::tensor(inner.path(), name, "is missing"));
                }
                let (_, shape) = inner.about(name)?;
                if shape != expected {
                    let what = format!("is {shape:?}, but the configuration makes it {expected:?}");
                    return Err(Error::tensor(inner.path(), name, what));
                }
            }
            places.insert(spec.name.clone(), (place, spec.file_shape()));
        }
        Ok(AsClip { inner, places })
    }

    fn place(&self, name: &str) -> Result<&(Place, Vec<usize>)> {
        let missing = || Error::tensor(self.path(), name, "is no parameter of the text encoder");
        self.places.get(name).ok_or_else(missing)
    }
}

impl TensorSource for AsClip<'_> {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn names(&self) -> Vec<String> {
        self.places.keys().cloned().collect()
    }

    fn about(&self, name: &str) -> Result<(Dtype, Vec<usize>)> {
        let (place, shape) = self.place(name)?;
        Ok((self.inner.about(&place.names()[0])?.0, shape.clone()))
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let (place, shape) = self.place(name)?;
        let (first, _) = self.inner.about(&place.names()[0])?;
        let mut bytes = Vec::new();
        for part in place.names() {
            let (dtype, _) = self.inner.about(part)?;
            if dtype != first {
                let what = format!("is of type {dtype:?}, but its neighbour of {first:?}");
                return Err(Error::tensor(self.path(), part, what));
            }
            bytes.extend(self.inner.bytes(part)?);
        }
        Ok(match place {
            Place::Turned(_) => turned(&bytes, shape, first.bitsize() / 8),
            _ => bytes,
        })
    }
}

/// A matrix `[in, out]` as `[out, in]`, which is `shape`.
fn turned(bytes: &[u8], shape: &[usize], width: usize) -> Vec<u8> {
    let (outputs, inputs) = (shape[0], shape[1]);
    let mut turned = Vec::with_capacity(bytes.len());
    for output in 0..outputs {
        for input in 0..inputs {
            let at = (input * outputs + output) * width;
            turned.extend_from_slice(&bytes[at..at + width]);
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_turned() {
        // [in 2, out 3] of two bytes each.
        assert_eq!(turned(b"aabbccddeeff", &[3, 2], 2), b"aaddbbeeccff");
    }
}
