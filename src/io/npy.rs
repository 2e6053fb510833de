//! One array in a `.npy`: noise, as people hand it from one engine to another.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use npyz::WriterBuilder;

use super::npz::{Array, read_entry};
use super::write_atomic;
use crate::error::{Error, Result};

/// Reads float32, or float64 narrowed, of any shape: sizes, slowest first, and elements in C order.
///
/// # Errors
/// When it cannot be read, is no `.npy`, of another type, damaged, or holds a number that is none.
pub fn read_npy(path: &Path) -> Result<(Vec<usize>, Vec<f32>)> {
    let file = File::open(path).map_err(Error::io(path))?;
    let Array { shape, dtype, bytes } =
        read_entry(path, "its array", &mut BufReader::new(file), &["<f4", "<f8"])?;
    let values: Vec<f32> = match dtype {
        "<f8" => bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        _ => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    };
    match values.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(Error::format(path, format!("holds {} at element {at}", values[at]))),
        None => Ok((shape, values)),
    }
}

/// Writes float32 of this shape, all or nothing.
///
/// # Errors
/// [`Error::Shape`] when values do not fill their shape; when the disk refuses.
pub fn write_npy(path: &Path, shape: &[usize], values: &[f32]) -> Result<()> {
    if shape.iter().product::<usize>() != values.len() {
        return Err(Error::shape("npy", format!("{} values do not fill {shape:?}", values.len())));
    }
    let shape: Vec<u64> = shape.iter().map(|side| *side as u64).collect();
    write_atomic(path, |writer| {
        let failed = Error::io(path);
        let write = || -> std::io::Result<()> {
            let mut npy =
                npyz::WriteOptions::new().default_dtype().shape(&shape).writer(writer).begin_nd()?;
            npy.extend(values.iter().copied())?;
            npy.finish()
        };
        write().map_err(failed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("noise.npy");
        let values: Vec<f32> = (0..24).map(|i| i as f32 * 0.5).collect();
        write_npy(&path, &[2, 3, 4], &values).unwrap();
        assert_eq!(read_npy(&path).unwrap(), (vec![2, 3, 4], values.clone()));
        // numpy's own header: version 1, C order.
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
        assert!(write_npy(&path, &[5], &values).is_err());
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_npy(&path).unwrap_err().to_string()
        };
        assert!(refused(&bytes[..100]).contains("its array"));
        assert!(refused(b"no array at all").contains("no .npy"));
        let mut other = bytes.clone();
        let at = other.windows(3).position(|three| three == b"<f4").unwrap();
        other[at..at + 3].copy_from_slice(b"<i4");
        assert!(refused(&other).contains("<i4"));
        let mut none = bytes;
        let last = none.len() - 4;
        none[last..].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(refused(&none).contains("element 23"));
    }
}
