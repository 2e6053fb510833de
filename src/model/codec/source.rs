//! Files' tensors under the names of an autoencoder's parameters.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::names::{Root, names_of};
use crate::error::{Error, Result};
use crate::io::{Dtype, TensorSource};
use crate::nn::Parameters;

/// The parameters of an autoencoder, wherever its files keep them. Other tensors are not seen.
pub(super) struct AsCodec<'a> {
    path: &'a Path,
    /// Where each parameter lies, and its shape in files.
    places: BTreeMap<String, (&'a dyn TensorSource, String, Vec<usize>)>,
}

impl<'a> AsCodec<'a> {
    /// # Errors
    /// [`Error::Tensor`] for a tensor that is missing or of another shape, by the file's own name.
    pub fn new(files: &[(&'a dyn TensorSource, &Root)], parameters: &Parameters) -> Result<Self> {
        let (first, _) = files[0];
        let sorted: Vec<BTreeSet<String>> =
            files.iter().map(|(file, _)| file.names().into_iter().collect()).collect();
        let mut places = BTreeMap::new();
        for spec in parameters.specs() {
            let candidates = files.iter().zip(&sorted).flat_map(|((file, root), names)| {
                let all = names_of(root.naming, &spec.name).into_iter();
                all.map(move |name| (*file, names, format!("{}{name}", root.prefix)))
            });
            let Some((file, _, name)) = candidates.clone().find(|(_, names, name)| names.contains(name))
            else {
                let (file, name) = match candidates.clone().next() {
                    Some((file, _, name)) => (file, name),
                    None => (first, spec.name.clone()),
                };
                return Err(Error::tensor(file.path(), name, "is missing"));
            };
            let expected = spec.file_shape();
            if !fits(file, &name, &expected) {
                let (_, shape) = file.about(&name)?;
                let what = format!("is {shape:?}, but the configuration makes it {expected:?}");
                return Err(Error::tensor(file.path(), name, what));
            }
            places.insert(spec.name.clone(), (file, name, expected));
        }
        Ok(AsCodec { path: first.path(), places })
    }

    /// The files' own names of all parameters.
    pub fn own_names(&self) -> impl Iterator<Item = &str> {
        self.places.values().map(|(_, name, _)| name.as_str())
    }

    fn place(&self, name: &str) -> Result<&(&'a dyn TensorSource, String, Vec<usize>)> {
        self.places
            .get(name)
            .ok_or_else(|| Error::tensor(self.path, name, "is no parameter of the autoencoder"))
    }
}

/// Whether a tensor has this shape, or is the 1x1 convolution that a matrix of it is: families mix both.
fn fits(file: &dyn TensorSource, name: &str, expected: &[usize]) -> bool {
    let Ok((_, shape)) = file.about(name) else { return false };
    shape == expected || (expected.len() == 2 && shape == [expected, &[1, 1]].concat())
}

impl TensorSource for AsCodec<'_> {
    fn path(&self) -> &Path {
        self.path
    }

    fn names(&self) -> Vec<String> {
        self.places.keys().cloned().collect()
    }

    fn about(&self, name: &str) -> Result<(Dtype, Vec<usize>)> {
        let (file, own, shape) = self.place(name)?;
        Ok((file.about(own)?.0, shape.clone()))
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let (file, own, _) = self.place(name)?;
        file.bytes(own)
    }
}
