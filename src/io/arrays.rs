//! Arrays of numbers by name in a `.npz`, and its pictures one part at a time.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use npyz::WriterBuilder;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::npz::{Array, INTEGERS, comment, read_array, read_header};
use super::write_atomic;
use crate::error::{Error, Result};

/// An array in C order.
#[derive(Clone, Debug, PartialEq)]
pub struct NpzArray<T> {
    /// Sizes, slowest first.
    pub shape: Vec<usize>,
    /// The elements.
    pub values: Vec<T>,
}

/// What is to be written.
#[derive(Clone, Copy, Debug)]
pub enum NpzValues<'a> {
    /// 64-bit floats.
    F64(&'a [f64]),
    /// 32-bit floats.
    F32(&'a [f32]),
    /// 64-bit integers.
    I64(&'a [i64]),
    /// Bytes.
    U8(&'a [u8]),
}

/// Writes arrays (name, shape, values), all or nothing.
///
/// # Errors
/// [`Error::Shape`] when values do not fill their shape; when the disk refuses.
pub fn write_npz_arrays(path: impl AsRef<Path>, arrays: &[(&str, &[usize], NpzValues<'_>)]) -> Result<()> {
    write_npz_arrays_with(path, arrays, &[])
}

/// The same with notes, which [`read_npz_text`](super::read_npz_text) reads.
///
/// # Errors
/// As [`write_npz_arrays`]; [`Error::Config`] for notes that are too long.
pub fn write_npz_arrays_with(
    path: impl AsRef<Path>,
    arrays: &[(&str, &[usize], NpzValues<'_>)],
    text: &[(String, String)],
) -> Result<()> {
    let path = path.as_ref();
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let failed = |error: zip::result::ZipError| Error::io(path)(error.into());
    if !text.is_empty() {
        zip.set_raw_comment(comment(path, text)?).map_err(failed)?;
    }
    for (name, shape, values) in arrays {
        let (bytes, len): (&[u8], usize) = match values {
            NpzValues::F64(x) => (bytemuck::cast_slice(x), x.len()),
            NpzValues::F32(x) => (bytemuck::cast_slice(x), x.len()),
            NpzValues::I64(x) => (bytemuck::cast_slice(x), x.len()),
            NpzValues::U8(x) => (x, x.len()),
        };
        if shape.iter().product::<usize>() != len {
            return Err(Error::shape("npz", format!("{name}: {len} values do not fill {shape:?}")));
        }
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        let options = options.large_file(bytes.len() as u64 > u64::from(u32::MAX) - (1 << 20));
        zip.start_file(format!("{name}.npy"), options).map_err(failed)?;
        let dims: Vec<u64> = shape.iter().map(|&dim| dim as u64).collect();
        let mut header = Vec::new();
        write_header(&mut header, values, &dims).map_err(Error::io(path))?;
        zip.write_all(&header).and_then(|()| zip.write_all(bytes)).map_err(Error::io(path))?;
    }
    let bytes = zip.finish().map_err(failed)?.into_inner();
    write_atomic(path, |writer| writer.write_all(&bytes).map_err(Error::io(path)))
}

fn write_header(header: &mut Vec<u8>, values: &NpzValues<'_>, shape: &[u64]) -> std::io::Result<()> {
    fn of<T: npyz::AutoSerialize>(header: &mut Vec<u8>, shape: &[u64]) -> std::io::Result<()> {
        let options = npyz::WriteOptions::new_header_only().dtype(T::default_dtype()).shape(shape);
        options.writer(header).write_header_only().map(drop)
    }
    match values {
        NpzValues::F64(_) => of::<f64>(header, shape),
        NpzValues::F32(_) => of::<f32>(header, shape),
        NpzValues::I64(_) => of::<i64>(header, shape),
        NpzValues::U8(_) => of::<u8>(header, shape),
    }
}

/// A `.npz` whose arrays are read by name.
pub struct NpzArrays {
    zip: ZipArchive<BufReader<File>>,
    path: std::path::PathBuf,
}

impl NpzArrays {
    /// Opens it.
    ///
    /// # Errors
    /// When it cannot be read or is no `.npz`.
    pub fn open(path: impl AsRef<Path>) -> Result<NpzArrays> {
        let path = path.as_ref();
        let file = File::open(path).map_err(Error::io(path))?;
        let zip = ZipArchive::new(BufReader::new(file))
            .map_err(|error| Error::format(path, format!("is no .npz, or a damaged one: {error}")))?;
        Ok(NpzArrays { zip, path: path.to_owned() })
    }

    /// Whether there is an array of this name.
    pub fn has(&self, name: &str) -> bool {
        self.zip.index_for_name(&format!("{name}.npy")).is_some()
    }

    /// An array of f64, or of f32 widened; nothing if there is none of that name.
    ///
    /// # Errors
    /// When it is of another type, or damaged.
    pub fn f64(&mut self, name: &str) -> Result<Option<NpzArray<f64>>> {
        let found = self.read(name, &["<f8", "<f4"])?;
        Ok(found.map(|Array { shape, dtype, bytes }| NpzArray {
            shape,
            values: match dtype {
                "<f8" => bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
                _ => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect(),
            },
        }))
    }

    fn read(&mut self, name: &str, dtypes: &[&'static str]) -> Result<Option<Array>> {
        read_array(&self.path, &mut self.zip, &format!("{name}.npy"), dtypes)
    }

    /// An array of f32.
    ///
    /// # Errors
    /// As [`f64`](Self::f64).
    pub fn f32(&mut self, name: &str) -> Result<Option<NpzArray<f32>>> {
        let found = self.read(name, &["<f4"])?;
        Ok(found.map(|Array { shape, bytes, .. }| NpzArray {
            shape,
            values: bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        }))
    }

    /// An array of whole numbers of any type.
    ///
    /// # Errors
    /// As [`f64`](Self::f64).
    pub fn i64(&mut self, name: &str) -> Result<Option<NpzArray<i64>>> {
        let found = self.read(name, INTEGERS)?;
        Ok(found.map(|array| NpzArray { shape: array.shape.clone(), values: array.into_integers() }))
    }

    /// An array of bytes as text.
    ///
    /// # Errors
    /// As [`f64`](Self::f64).
    pub fn text(&mut self, name: &str) -> Result<Option<String>> {
        let found = self.read(name, &["|u1"])?;
        Ok(found.map(|array| String::from_utf8_lossy(&array.bytes).into_owned()))
    }

    /// The pictures of `arr_0` in order, `part` at a time: `see` gets each part's bytes and (width, height, channels), and
    /// says whether to go on. Only one part is in memory, but of an array in Fortran order, whose pictures lie among one
    /// another, all.
    ///
    /// # Errors
    /// When there is no `arr_0` of u8 (N, H, W, 1 or 3), or it is damaged; whatever `see` returns.
    pub fn for_pictures(
        &mut self,
        part: usize,
        mut see: impl FnMut(&[u8], (usize, usize, usize)) -> Result<bool>,
    ) -> Result<()> {
        let path = self.path.clone();
        let bad = |what: String| Error::format(&path, format!("arr_0 {what}"));
        let Some(index) = self.zip.index_for_name("arr_0.npy") else {
            return Err(Error::format(&path, "has no arr_0, where the images should be"));
        };
        let mut entry = self.zip.by_index(index).map_err(|error| bad(format!("cannot be read: {error}")))?;
        let header = read_header(&path, "arr_0", &mut entry)?;
        let shape: Vec<usize> = header.shape().iter().map(|&dim| dim as usize).collect();
        let found = header.dtype().descr();
        let &[count, height, width, channels @ (1 | 3)] = shape.as_slice() else {
            return Err(bad(format!("is {shape:?}, but images are (N, H, W, 1 or 3)")));
        };
        let one = height.checked_mul(width).and_then(|area| area.checked_mul(channels));
        let Some(one) = one.filter(|&one| one > 0 && one < 1 << 30) else {
            return Err(bad(format!("is {shape:?}, which are no pictures")));
        };
        if found.trim_matches('\'') != "|u1" {
            return Err(bad(format!("is of type {found}, but '|u1' is needed")));
        }
        if header.order() == npyz::Order::Fortran {
            drop(entry);
            let bytes = self.read("arr_0", &["|u1"])?.map_or_else(Vec::new, |array| array.bytes);
            for part in bytes.chunks(part.max(1).saturating_mul(one)) {
                if !see(part, (width, height, channels))? {
                    break;
                }
            }
            return Ok(());
        }
        let mut seen = 0;
        while seen < count {
            let now = part.max(1).min(count - seen);
            let mut bytes = Vec::new();
            let needed = (now * one) as u64;
            entry.by_ref().take(needed).read_to_end(&mut bytes).map_err(|error| bad(error.to_string()))?;
            if bytes.len() as u64 != needed {
                return Err(bad(format!("ends after {seen} of {count} pictures")));
            }
            seen += now;
            if !see(&bytes, (width, height, channels))? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The number of pictures in `arr_0`.
    ///
    /// # Errors
    /// When there is no `arr_0`, or its header is damaged.
    pub fn pictures(&mut self) -> Result<usize> {
        let path = self.path.clone();
        let Some(index) = self.zip.index_for_name("arr_0.npy") else {
            return Err(Error::format(&path, "has no arr_0, where the images should be"));
        };
        let bad = |error: String| Error::format(&path, format!("arr_0 is damaged: {error}"));
        let mut entry = self.zip.by_index(index).map_err(|error| bad(error.to_string()))?;
        let header = read_header(&path, "arr_0", &mut entry)?;
        Ok(header.shape().first().map_or(0, |&count| count as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stats.npz");
        let pictures: Vec<u8> = (0..5 * 2 * 3 * 3).collect();
        write_npz_arrays(
            &path,
            &[
                ("mu", &[3], NpzValues::F64(&[1.0, -2.5, 1e-300])),
                ("features", &[2, 2], NpzValues::F32(&[0.5, 1.0, 2.0, 3.0])),
                ("labels", &[2], NpzValues::I64(&[7, -1])),
                ("network", &[5], NpzValues::U8(b"small")),
                ("arr_0", &[5, 2, 3, 3], NpzValues::U8(&pictures)),
            ],
        )
        .unwrap();
        let mut file = NpzArrays::open(&path).unwrap();
        assert_eq!(file.f64("mu").unwrap().unwrap().values, [1.0, -2.5, 1e-300]);
        let features = file.f32("features").unwrap().unwrap();
        assert_eq!((features.shape, features.values), (vec![2, 2], vec![0.5, 1.0, 2.0, 3.0]));
        assert_eq!(file.f64("features").unwrap().unwrap().values, [0.5, 1.0, 2.0, 3.0]);
        assert_eq!(file.i64("labels").unwrap().unwrap().values, [7, -1]);
        assert_eq!(file.text("network").unwrap().unwrap(), "small");
        assert!(file.has("mu") && !file.has("sigma") && file.f64("sigma").unwrap().is_none());
        assert!(file.f64("labels").unwrap_err().to_string().contains("labels"));
        assert_eq!(file.pictures().unwrap(), 5);
        let mut seen = Vec::new();
        let mut sizes = Vec::new();
        file.for_pictures(2, |bytes, size| {
            sizes.push((bytes.len() / 18, size));
            seen.extend_from_slice(bytes);
            Ok(true)
        })
        .unwrap();
        assert_eq!(seen, pictures);
        assert_eq!(sizes, [(2, (3, 2, 3)), (2, (3, 2, 3)), (1, (3, 2, 3))]);
        assert!(write_npz_arrays(&path, &[("x", &[4], NpzValues::U8(b"abc"))]).is_err());
    }
}
