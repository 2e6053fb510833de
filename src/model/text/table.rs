//! The table of tokens, which stays in its file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::io::TensorSource;
use crate::io::tensor_source::widen;

/// A table whose rows are read when they are needed.
pub(super) struct Table {
    pub source: Arc<dyn TensorSource>,
    pub name: String,
    pub width: usize,
}

impl Table {
    /// The rows of tokens, one behind the other.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a token past the table, or numbers that are not finite; when the file cannot be read any more.
    pub fn rows<'a>(&self, ids: impl Iterator<Item = &'a u32>) -> Result<Vec<f32>> {
        let mut known: HashMap<u32, Vec<f32>> = HashMap::new();
        let mut values = Vec::new();
        for id in ids {
            match known.entry(*id) {
                Entry::Occupied(row) => values.extend_from_slice(row.get()),
                Entry::Vacant(place) => values.extend_from_slice(place.insert(self.row(*id)?)),
            }
        }
        Ok(values)
    }

    fn row(&self, id: u32) -> Result<Vec<f32>> {
        let (dtype, _) = self.source.about(&self.name)?;
        let first = id as usize * self.width;
        let row = widen(dtype, &self.source.part(&self.name, first..first + self.width)?);
        row.filter(|row| row.iter().all(|value| value.is_finite())).ok_or_else(|| {
            let what = format!("has no finite numbers in row {id}, or is of type {dtype:?}");
            Error::tensor(self.source.path(), self.name.clone(), what)
        })
    }
}
