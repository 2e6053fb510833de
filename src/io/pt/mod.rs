//! PyTorch's `.pt` files, the zip of today and the older stream of pickles.
//!
//! Read as data: the pickle machine knows numbers, texts, containers and tensors. Objects of other types beside the tensors
//! (NumPy's scalars, a Namespace of options) are never made; what is kept of them is the name of their type. Opening reads
//! the names alone; a tensor's elements are read, and its view of the storage resolved, when they are asked for.

mod archive;
mod flatten;
mod heap;
mod legacy;
mod pickle;
mod rebuild;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

pub(super) use legacy::accepts as begins_like_one;
pub use value::Plain;

use super::pieces::Pieces;
use super::tensor_source::places;
use super::{Dtype, FileKind, TensorSource};
use crate::error::{Error, Result};
use flatten::Entries;
use value::View;

/// A `.pt` file: its tensors and plain values, nested names joined by `/`.
#[derive(Debug)]
pub struct PtFile {
    file: Pieces,
    entries: Entries,
    /// Where each storage's bytes lie.
    storages: BTreeMap<String, Range<u64>>,
}

impl PtFile {
    /// Opens a file of either format, and checks every tensor against the bytes that are there.
    ///
    /// # Errors
    /// [`Error::Format`] for what is neither, is cut short, or is no pickle of values;
    /// [`Error::Tensor`] for a tensor that does not fit its storage.
    pub fn open(path: impl AsRef<Path>) -> Result<PtFile> {
        let file = Pieces::open(path.as_ref())?;
        let bad = |what: String| Error::format(file.path(), what);
        let start = file.read(0..file.length().min(512))?;
        let mut heap = heap::Heap::default();
        let (entries, storages) = if start.starts_with(b"PK") {
            let archive = archive::open(&file)?;
            let (root, _) = pickle::load(&archive.pickle, &mut heap).map_err(bad)?;
            (flatten::flatten(&heap, root).map_err(bad)?, archive.storages)
        } else if legacy::accepts(&start) {
            let stream = legacy::open(&file, &mut heap)?;
            let entries = flatten::flatten(&heap, stream.root).map_err(bad)?;
            let mut widths = BTreeMap::new();
            for storage in heap.storages() {
                widths.insert(storage.key.as_str(), width(storage.dtype));
            }
            let storages = legacy::storages(&file, &stream, &widths)?;
            (entries, storages)
        } else if start.get(257..262) == Some(b"ustar") {
            return Err(bad(
                "is a tar of PyTorch before 0.2, which is not read; save it again with a newer one".into(),
            ));
        } else {
            return Err(bad(match FileKind::of_start(&start) {
                FileKind::Unknown => {
                    "is no PyTorch file: it begins with neither a zip nor PyTorch's magic number".into()
                }
                kind => kind.instead_of("a PyTorch file"),
            }));
        };
        let pt = PtFile { file, entries, storages };
        for (name, view) in &pt.entries.tensors {
            pt.place(name, view)?;
        }
        Ok(pt)
    }

    /// What it holds beside tensors.
    pub fn plain(&self) -> &BTreeMap<String, Plain> {
        &self.entries.plain
    }

    fn view(&self, name: &str) -> Result<&View> {
        self.entries.tensors.get(name).ok_or_else(|| {
            if let Some(kind) = self.entries.opaque.get(name) {
                return Error::tensor(
                    self.file.path(),
                    name,
                    format!("is of the type `{kind}`, which is not read"),
                );
            }
            let count = self.entries.tensors.len();
            Error::tensor(self.file.path(), name, format!("is not in the file, which holds {count} tensors"))
        })
    }

    /// Checks a view against its storage: where the storage lies, the number of its elements, and those the view spans.
    fn place(&self, name: &str, view: &View) -> Result<(Range<u64>, usize, Range<u64>)> {
        let bad = |what: String| Error::tensor(self.file.path(), name, what);
        let storage = &view.storage;
        let range = self.storages.get(&storage.key);
        let range = range.ok_or_else(|| bad(format!("is of a storage {} that is not there", storage.key)))?;
        let (held, width) = ((range.end - range.start), width(storage.dtype));
        let end = storage.start.checked_add(storage.elements).and_then(|end| end.checked_mul(width));
        if end.is_none_or(|end| if storage.start == 0 { end != held } else { end > held }) {
            let (elements, start) = (storage.elements, storage.start);
            return Err(bad(format!(
                "is of a storage of {elements} elements of {width} bytes from element {start}, but {held} bytes are there"
            )));
        }

        let shape = &view.shape;
        let count = shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim as u64));
        // A size of 0 must not hide the others.
        let count =
            count.filter(|_| shape.iter().try_fold(1usize, |p, &dim| p.checked_mul(dim.max(1))).is_some());
        let Some(count) = count.filter(|count| *count <= storage.elements) else {
            return Err(bad(format!(
                "of shape {shape:?} has more elements than its storage of {}",
                storage.elements
            )));
        };
        let reach = shape.iter().zip(&view.strides).try_fold(view.offset, |reach, (&dim, stride)| {
            reach.checked_add((dim as u64).saturating_sub(1).checked_mul(*stride)?)
        });
        let last = if count == 0 { Some(view.offset) } else { reach.and_then(|reach| reach.checked_add(1)) };
        let Some(last) = last.filter(|last| count == 0 || *last <= storage.elements) else {
            let (strides, offset) = (&view.strides, view.offset);
            return Err(bad(format!(
                "of shape {shape:?}, strides {strides:?} and offset {offset} goes past its storage of {} elements",
                storage.elements
            )));
        };
        let span = if count == 0 { 0..0 } else { view.offset..last };
        Ok((range.clone(), count as usize, span))
    }
}

impl TensorSource for PtFile {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn names(&self) -> Vec<String> {
        self.entries.tensors.keys().cloned().collect()
    }

    fn opaque(&self) -> BTreeMap<String, String> {
        self.entries.opaque.clone()
    }

    fn about(&self, name: &str) -> Result<(Dtype, Vec<usize>)> {
        let view = self.view(name)?;
        Ok((view.storage.dtype, view.shape.clone()))
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let view = self.view(name)?;
        let (range, count, span) = self.place(name, view)?;
        let width = width(view.storage.dtype);
        let start = range.start + (view.storage.start + span.start) * width;
        let bytes = self.file.read(start..start + (span.end - span.start) * width)?;
        if is_contiguous(view) || count == 0 {
            return Ok(bytes);
        }
        Ok(gathered(&bytes, view, count, width as usize))
    }

    fn part(&self, name: &str, elements: Range<usize>) -> Result<Vec<u8>> {
        let part = places(self, name, elements)?;
        let view = self.view(name)?;
        if !is_contiguous(view) {
            return Ok(self.bytes(name)?[part].to_vec());
        }
        let (range, _, span) = self.place(name, view)?;
        let first = range.start + (view.storage.start + span.start) * width(view.storage.dtype);
        self.file.read(first + part.start as u64..first + part.end as u64)
    }
}

/// Bytes an element.
fn width(dtype: Dtype) -> u64 {
    (dtype.bitsize() / 8) as u64
}

fn is_contiguous(view: &View) -> bool {
    let mut step = 1;
    view.shape.iter().zip(&view.strides).rev().all(|(&dim, &stride)| {
        let fits = dim == 1 || stride == step;
        step *= dim as u64;
        fits
    })
}

/// The elements of a view row by row, from the bytes between its first and its last.
fn gathered(bytes: &[u8], view: &View, count: usize, width: usize) -> Vec<u8> {
    let mut gathered = Vec::with_capacity(count * width);
    let mut index = vec![0usize; view.shape.len()];
    let mut at = 0;
    for _ in 0..count {
        gathered.extend_from_slice(&bytes[at * width..(at + 1) * width]);
        // The next place: the last dimension runs fastest.
        for (i, (&dim, &stride)) in index.iter_mut().zip(view.shape.iter().zip(&view.strides)).rev() {
            *i += 1;
            at += stride as usize;
            if *i < dim {
                break;
            }
            at -= *i * stride as usize;
            *i = 0;
        }
    }
    gathered
}
