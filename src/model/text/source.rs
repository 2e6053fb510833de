//! A file's tensors under the names of a text encoder's parameters, and their way to a device.

use std::collections::BTreeMap;
use std::path::Path;

use super::names::Place;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::io::{Dtype, TensorSource};
use crate::model::values::for_each_value;
use crate::nn::{Arena, Parameters};
use crate::tensor::DType;

/// The parameters of an encoder, wherever its file keeps them. Other tensors are not seen.
pub(super) struct Renamed<'a> {
    inner: &'a dyn TensorSource,
    /// Where each parameter lies, and its shape in files.
    places: BTreeMap<String, (Place, Vec<usize>)>,
}

impl<'a> Renamed<'a> {
    /// # Errors
    /// [`Error::Tensor`] for a tensor that is missing or of another shape, by the file's own name.
    pub fn new(
        inner: &'a dyn TensorSource,
        parameters: &Parameters,
        place: impl Fn(&str) -> Place,
    ) -> Result<Self> {
        let names = inner.names();
        let mut places = BTreeMap::new();
        for spec in parameters.specs() {
            let place = place(&spec.name);
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
        Ok(Renamed { inner, places })
    }

    /// Brings the parameters to a device, with their checksum.
    pub fn upload(&self, gpu: &Gpu, parameters: &Parameters, dtype: DType) -> Result<(Arena, u32)> {
        let arena = parameters.read_only_arena(gpu, "text encoder", dtype)?;
        let mut sum = crc32fast::Hasher::new();
        for_each_value(self, parameters, "", |place, values| {
            sum.update(bytemuck::cast_slice(&values));
            arena.write_one(gpu, 0, place, &values).map_err(|error| match error {
                Error::Config(what) => {
                    let place = &self.places[&parameters.specs()[place].name].0;
                    Error::tensor(self.path(), place.names()[0].clone(), what)
                }
                other => other,
            })
        })?;
        Ok((arena, sum.finalize()))
    }

    fn place(&self, name: &str) -> Result<&(Place, Vec<usize>)> {
        let missing = || Error::tensor(self.path(), name, "is no parameter of the text encoder");
        self.places.get(name).ok_or_else(missing)
    }
}

impl TensorSource for Renamed<'_> {
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
