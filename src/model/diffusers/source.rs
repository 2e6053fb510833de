//! Reading a `UNet2DModel`'s tensors as guided-diffusion's, and reordering the channels of joint projections.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::names::{Place, place};
use crate::error::{Error, Result};
use crate::io::{Dtype, TensorSource};
use crate::nn::{Layout, Parameters, UNetConfig};

/// The tensors of a diffusers folder under guided-diffusion's names, qkv in the new order.
pub(super) struct AsGuidedDiffusion {
    inner: Box<dyn TensorSource>,
    /// Where each name's tensor lies, and its shape in guided-diffusion's files.
    places: BTreeMap<String, (Place, Vec<usize>)>,
    /// Tensors that are no part of the network, by their own names.
    others: BTreeSet<String>,
}

impl AsGuidedDiffusion {
    pub fn new(inner: Box<dyn TensorSource>, config: &UNetConfig, parameters: &Parameters) -> Result<Self> {
        let mut others: BTreeSet<String> = inner.names().into_iter().collect();
        let mut places = BTreeMap::new();
        for spec in parameters.specs() {
            let found = place(config, &spec.name).expect("every parameter of a UNet has a place");
            for name in found.names() {
                if !others.remove(name) {
                    return Err(Error::tensor(inner.path(), name, "is missing"));
                }
                let (_, shape) = inner.about(name)?;
                let mut expected = spec.file_shape();
                if spec.layout == Layout::Conv1d {
                    expected.pop();
                }
                if let Place::Qkv(_) = found {
                    expected[0] /= 3;
                }
                if shape != expected {
                    let what = format!("is {shape:?}, but the configuration makes it {expected:?}");
                    return Err(Error::tensor(inner.path(), name, what));
                }
            }
            places.insert(spec.name.clone(), (found, spec.file_shape()));
        }
        Ok(AsGuidedDiffusion { inner, places, others })
    }
}

impl TensorSource for AsGuidedDiffusion {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.places.keys().chain(&self.others).cloned().collect();
        names.sort();
        names
    }

    fn opaque(&self) -> BTreeMap<String, String> {
        self.inner.opaque()
    }

    fn about(&self, name: &str) -> Result<(Dtype, Vec<usize>)> {
        match self.places.get(name) {
            Some((place, shape)) => Ok((self.inner.about(&place.names()[0])?.0, shape.clone())),
            None => self.inner.about(name),
        }
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let Some((place, _)) = self.places.get(name) else { return self.inner.bytes(name) };
        let first = self.inner.about(&place.names()[0])?.0;
        let mut bytes = Vec::new();
        for name in place.names() {
            let (dtype, _) = self.inner.about(name)?;
            if dtype != first {
                let what = format!("is of type {dtype:?}, but its neighbour of {first:?}");
                return Err(Error::tensor(self.path(), name, what));
            }
            bytes.extend(self.inner.bytes(name)?);
        }
        Ok(bytes)
    }
}

/// The rows of a joint projection in the other order: `[head][q, k, v][d]` (legacy) and `[q, k, v][head][d]` (new).
/// `bytes` are 3·heads·d rows of the same length.
pub(in crate::model) fn reorder_qkv(bytes: &[u8], heads: usize, to_new: bool) -> Vec<u8> {
    let block = bytes.len() / (3 * heads);
    let mut turned = Vec::with_capacity(bytes.len());
    for i in 0..3 * heads {
        let from = if to_new { (i % heads) * 3 + i / heads } else { (i % 3) * heads + i / 3 };
        turned.extend_from_slice(&bytes[from * block..(from + 1) * block]);
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_qkv_goes_there_and_back() {
        // Two heads of two channels, rows of one byte: the letter is the part, the digit the head.
        let legacy = b"qqkkvvQQKKVV";
        let new = b"qqQQkkKKvvVV";
        assert_eq!(reorder_qkv(legacy, 2, true), new);
        assert_eq!(reorder_qkv(new, 2, false), legacy);
        assert_eq!(reorder_qkv(b"qkv", 1, true), b"qkv");
    }
}
