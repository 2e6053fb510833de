//! Safetensors: reading through the crate of that name, writing so that the same input gives the same bytes.
//!
//! The crate keeps metadata in a hash map, whose order differs from run to run, so the header is laid out here.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use ::safetensors::tensor::{Metadata, TensorInfo};
use serde::de::{IgnoredAny, MapAccess, Visitor};

use super::kind_of_file::LOOKED_AT;
use super::pieces::Pieces;
use super::tensor_source::places;
use super::{FileKind, TensorSource, write_atomic};
use crate::error::{Error, Result};

pub use super::Dtype;
pub(super) use super::bounds::MOST_HEADER;

/// One tensor to be written.
#[derive(Clone, Copy, Debug)]
pub struct TensorBytes<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// F32 or F16.
    pub dtype: Dtype,
    /// Sizes, slowest first.
    pub shape: &'a [usize],
    /// The elements, little-endian, row by row.
    pub bytes: &'a [u8],
}

/// Writes a file of `tensors` and `metadata`, all or nothing. The same input gives the same bytes, in whatever
/// order the tensors come.
///
/// # Errors
/// When a tensor's bytes do not fit its shape, a name comes twice, or the disk refuses.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    tensors: &[TensorBytes],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let path = path.as_ref();
    write_atomic(path, |writer| write_safetensors_to(writer, path, tensors, metadata))
}

/// [`write_safetensors`] into any writer; `path` is what errors name.
///
/// # Errors
/// Those of [`write_safetensors`].
pub fn write_safetensors_to(
    writer: &mut dyn Write,
    path: &Path,
    tensors: &[TensorBytes],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let mut order: Vec<&TensorBytes> = tensors.iter().collect();
    // Wide elements first keeps every tensor aligned to its element; then by name.
    order.sort_by(|a, b| b.dtype.bitsize().cmp(&a.dtype.bitsize()).then(a.name.cmp(b.name)));
    let json = |error: serde_json::Error| Error::Tensor {
        path: path.to_owned(),
        tensor: "header".into(),
        what: error.to_string(),
    };

    let mut header: BTreeMap<&str, serde_json::Value> = BTreeMap::new();
    if !metadata.is_empty() {
        header.insert("__metadata__", serde_json::to_value(metadata).map_err(json)?);
    }
    let mut start = 0;
    for tensor in &order {
        check(path, tensor)?;
        let data_offsets = (start, start + tensor.bytes.len());
        start = data_offsets.1;
        let info = TensorInfo { dtype: tensor.dtype, shape: tensor.shape.to_vec(), data_offsets };
        if header.insert(tensor.name, serde_json::to_value(info).map_err(json)?).is_some() {
            return Err(Error::tensor(path, tensor.name, "comes twice, or has the name kept for metadata"));
        }
    }
    let mut header = serde_json::to_vec(&header).map_err(json)?;
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut put = |bytes: &[u8]| writer.write_all(bytes).map_err(Error::io(path));
    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    order.iter().try_for_each(|tensor| put(tensor.bytes))
}

fn check(path: &Path, tensor: &TensorBytes) -> Result<()> {
    let bits = tensor.shape.iter().try_fold(tensor.dtype.bitsize(), |product, &dim| product.checked_mul(dim));
    if bits != tensor.bytes.len().checked_mul(8) {
        let TensorBytes { name, dtype, shape, bytes } = tensor;
        let what = format!("of shape {shape:?} and type {dtype:?} was given {} bytes", bytes.len());
        return Err(Error::tensor(path, *name, what));
    }
    if tensor.name == "__metadata__" {
        return Err(Error::tensor(path, tensor.name, "has the name that is kept for metadata"));
    }
    Ok(())
}

/// A file of tensors. Opening it reads and checks the header; each tensor is read when it is asked for.
#[derive(Debug)]
pub struct SafetensorsFile {
    file: Pieces,
    /// Where the tensors begin.
    start: u64,
    header: Metadata,
    metadata: BTreeMap<String, String>,
}

impl SafetensorsFile {
    /// Reads the header of the file at `path` and checks it against the file's size.
    ///
    /// # Errors
    /// When it cannot be read, is cut short, or its header and its data do not fit each other.
    pub fn open(path: impl AsRef<Path>) -> Result<SafetensorsFile> {
        Self::read(Pieces::open(path.as_ref())?)
    }

    /// As [`SafetensorsFile::open`], of a file that lies in memory; errors call it `name`.
    ///
    /// # Errors
    /// Those of [`SafetensorsFile::open`].
    pub fn from_bytes(name: &str, bytes: impl Into<Vec<u8>>) -> Result<SafetensorsFile> {
        Self::read(Pieces::of_bytes(name, bytes.into()))
    }

    fn read(file: Pieces) -> Result<SafetensorsFile> {
        let length = file.length();
        let begins = file.read(0..length.min(LOOKED_AT as u64))?;
        match FileKind::of_start(&begins) {
            FileKind::Safetensors | FileKind::Unknown => {}
            kind => return Err(Error::format(file.path(), kind.instead_of("a safetensors file"))),
        }
        let damaged = |error: String| {
            let what =
                format!("is no safetensors file, or is cut short or damaged ({length} bytes): {error}");
            Error::format(file.path(), what)
        };
        let head = file.read(0..length.min(8))?;
        let head: [u8; 8] = head.try_into().map_err(|_| damaged("it has no header".into()))?;
        let claimed = u64::from_le_bytes(head);
        let start = claimed.checked_add(8).filter(|start| claimed <= MOST_HEADER && *start <= length);
        let start = start.ok_or_else(|| damaged(format!("its header claims {claimed} bytes")))?;
        let text = file.read(8..start)?;
        // The crate's own reading keeps the last of several tensors of one name.
        serde_json::from_slice::<EachOnce>(&text).map_err(|error| damaged(error.to_string()))?;
        let header: Metadata = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        let held = header.data_len() as u64;
        if start.checked_add(held) != Some(length) {
            return Err(damaged(format!("its tensors take {held} bytes, but {} are there", length - start)));
        }
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(SafetensorsFile { file, start, header, metadata })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names = self.header.offset_keys();
        names.sort();
        names
    }

    /// The file's own notes.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Type, shape and little-endian bytes of a tensor.
    ///
    /// # Errors
    /// When there is none of that name, or reading fails.
    pub fn tensor(&self, name: &str) -> Result<(Dtype, &[usize], Vec<u8>)> {
        let info = self.info(name)?;
        let (from, to) = info.data_offsets;
        let bytes = self.file.read(self.start + from as u64..self.start + to as u64)?;
        Ok((info.dtype, &info.shape, bytes))
    }

    /// Shape and values of a tensor of f32, f16, bf16 or f64.
    ///
    /// # Errors
    /// When there is none of that name, or it is of another type.
    pub fn to_f32(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        self.values(name)
    }

    /// Where the tensors begin, and where the file ends.
    pub(super) fn extent(&self) -> (u64, u64) {
        (self.start, self.file.length())
    }

    /// Bytes of the file as they are.
    pub(super) fn piece(&self, range: Range<u64>) -> Result<Vec<u8>> {
        self.file.read(range)
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.header.info(name).ok_or_else(|| {
            let count = self.header.tensors().len();
            Error::tensor(self.path(), name, format!("is not in the file, which holds {count} tensors"))
        })
    }
}

impl TensorSource for SafetensorsFile {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn names(&self) -> Vec<String> {
        SafetensorsFile::names(self)
    }

    fn about(&self, name: &str) -> Result<(Dtype, Vec<usize>)> {
        let info = self.info(name)?;
        Ok((info.dtype, info.shape.clone()))
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        self.tensor(name).map(|(_, _, bytes)| bytes)
    }

    fn part(&self, name: &str, elements: Range<usize>) -> Result<Vec<u8>> {
        let range = places(self, name, elements)?;
        let first = self.start + self.info(name)?.data_offsets.0 as u64;
        self.file.read(first + range.start as u64..first + range.end as u64)
    }
}

/// A map whose keys come once each.
struct EachOnce;

impl<'de> serde::Deserialize<'de> for EachOnce {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = EachOnce;

            fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                to.write_str("a map of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<EachOnce, A::Error> {
                let mut seen = std::collections::HashSet::new();
                while let Some((key, IgnoredAny)) = map.next_entry::<String, _>()? {
                    if !seen.insert(key.clone()) {
                        return Err(serde::de::Error::custom(format!("`{key}` comes twice")));
                    }
                }
                Ok(EachOnce)
            }
        }
        from.deserialize_map(Keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::safetensors::SafeTensors;

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn f16s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect()
    }

    fn notes() -> BTreeMap<String, String> {
        ["z", "config", "a", "\"quoted\"", "ß"].map(|key| (key.into(), format!("{key} \n value"))).into()
    }

    #[test]
    fn comes_back_and_is_the_same_in_any_order() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let (w, h, s) = (f32s(&[1.0, -2.5, 3.0, 0.1, 7.0, 8.0]), f16s(&[0.5, 2.0, -1.0]), f32s(&[9.0]));
        let tensors = [
            TensorBytes { name: "a.half", dtype: Dtype::F16, shape: &[3], bytes: &h },
            TensorBytes { name: "w", dtype: Dtype::F32, shape: &[3, 2], bytes: &w },
            TensorBytes { name: "b", dtype: Dtype::F32, shape: &[], bytes: &s },
            TensorBytes { name: "none", dtype: Dtype::F32, shape: &[0, 5], bytes: &[] },
        ];
        write_safetensors(&one, &tensors, &notes()).unwrap();
        let mut turned = tensors;
        turned.reverse();
        write_safetensors(&two, &turned, &notes()).unwrap();
        assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());

        let file = SafetensorsFile::open(&one).unwrap();
        assert_eq!(file.names(), ["a.half", "b", "none", "w"]);
        assert_eq!(file.metadata(), &notes());
        assert_eq!(file.to_f32("w").unwrap(), (vec![3, 2], vec![1.0, -2.5, 3.0, 0.1, 7.0, 8.0]));
        assert_eq!(file.to_f32("a.half").unwrap(), (vec![3], vec![0.5, 2.0, -1.0]));
        assert_eq!(file.to_f32("b").unwrap(), (vec![], vec![9.0]));
        assert_eq!(file.to_f32("none").unwrap(), (vec![0, 5], vec![]));
        assert!(file.tensor("x").unwrap_err().to_string().contains("`x`"));
        assert_eq!(file.part("a.half", 1..3).unwrap(), f16s(&[2.0, -1.0]));
        assert!(file.part("w", 6..6).unwrap().is_empty());
        assert!(file.part("w", 5..7).unwrap_err().to_string().contains("6 elements"));
        // The published crate reads the very same.
        let bytes = std::fs::read(&one).unwrap();
        assert_eq!(SafeTensors::deserialize(&bytes).unwrap().tensor("w").unwrap().data(), w);
    }

    #[test]
    fn wider_and_narrower_types_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let wide: Vec<u8> = [0.25f64, -3.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let brain = half::bf16::from_f32(1.5).to_le_bytes();
        let tensors = [
            TensorBytes { name: "brain", dtype: Dtype::BF16, shape: &[1], bytes: &brain },
            TensorBytes { name: "wide", dtype: Dtype::F64, shape: &[2], bytes: &wide },
            TensorBytes { name: "ints", dtype: Dtype::I32, shape: &[1], bytes: &[1, 0, 0, 0] },
        ];
        write_safetensors(&path, &tensors, &BTreeMap::new()).unwrap();
        let file = SafetensorsFile::open(&path).unwrap();
        assert_eq!(file.to_f32("brain").unwrap().1, [1.5]);
        assert_eq!(file.to_f32("wide").unwrap().1, [0.25, -3.0]);
        assert!(file.to_f32("ints").unwrap_err().to_string().contains("I32"));
        assert!(file.metadata().is_empty());
    }

    #[test]
    fn nonsense_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let write = |tensors: &[TensorBytes]| write_safetensors(&path, tensors, &BTreeMap::new());
        let short = TensorBytes { name: "w", dtype: Dtype::F32, shape: &[3], bytes: &[0; 8] };
        assert!(write(&[short]).unwrap_err().to_string().contains("8 bytes"));
        let good = TensorBytes { name: "w", dtype: Dtype::F32, shape: &[2], bytes: &[0; 8] };
        assert!(write(&[good, good]).unwrap_err().to_string().contains("twice"));
        assert!(write(&[TensorBytes { name: "__metadata__", ..good }]).is_err());
        assert!(!path.exists());
        std::fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
        assert!(SafetensorsFile::open(&path).unwrap_err().to_string().contains("8 bytes"));
    }
}
