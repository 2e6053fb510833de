//! Safetensors files that know their own checksum.
//!
//! The CRC-32 (IEEE 802.3) of the whole file stands in its metadata, eight digits that count as zeros while it is taken.
//! The file is an ordinary one to everybody else. A CRC-32 finds every change of up to 32 bits in a row, so of any byte.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use crc32fast::Hasher;

use super::{SafetensorsFile, TensorBytes, write_safetensors_to};
use crate::error::{Error, Result};

/// Where the checksum stands in the metadata.
const KEY: &str = "checksum";
/// Says that there is one, so that a damaged [`KEY`] does not pass for a file that never had any.
const MARK: (&str, &str) = ("checksum_of", "file");
const ZEROS: &str = "crc32:00000000";
/// Bytes read at a time.
const PIECE: usize = 1 << 20;

/// A writer that keeps nothing but the checksum.
struct Sum(Hasher);

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn text(hasher: Hasher) -> String {
    format!("crc32:{:08x}", hasher.finalize())
}

/// [`write_safetensors_to`], with the checksum of the whole file in its metadata.
///
/// # Errors
/// Those of [`write_safetensors_to`].
pub fn write_checked_to(
    writer: &mut dyn Write,
    path: &Path,
    tensors: &[TensorBytes],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let mut metadata = metadata.clone();
    metadata.insert(MARK.0.into(), MARK.1.into());
    metadata.insert(KEY.into(), ZEROS.into());
    let mut sum = Sum(Hasher::new());
    write_safetensors_to(&mut sum, path, tensors, &metadata)?;
    metadata.insert(KEY.into(), text(sum.0));
    write_safetensors_to(writer, path, tensors, &metadata)
}

impl SafetensorsFile {
    /// Reads the whole file and compares it with the checksum that [`write_checked_to`] wrote into it. False where it
    /// carries none.
    ///
    /// # Errors
    /// [`Error::Format`] when they differ, or the checksum itself is damaged.
    pub fn verify(&self) -> Result<bool> {
        let path = self.path();
        let metadata = self.metadata();
        let claimed = match (metadata.get(KEY), metadata.get(MARK.0)) {
            (None, None) => return Ok(false),
            (Some(claimed), Some(_)) => claimed,
            _ => return Err(Error::format(path, "is damaged: a part of its checksum is missing")),
        };
        let found = self.sum(claimed)?;
        if found == *claimed {
            return Ok(true);
        }
        let what = format!("is damaged: its checksum is {found}, it was written with {claimed:?}");
        Err(Error::format(path, what))
    }

    /// The checksum, with zeros in the place of what the header claims it to be.
    fn sum(&self, claimed: &str) -> Result<String> {
        let path = self.path();
        let (start, end) = self.extent();
        let mut head = self.piece(0..start)?;
        // As it is written: no name of a tensor and no other note can hold unescaped quotes.
        let written = format!("\"{KEY}\":\"{claimed}\"");
        let place = head.windows(written.len()).position(|window| window == written.as_bytes());
        let place = place.filter(|_| claimed.len() == ZEROS.len());
        let place = place.ok_or_else(|| Error::format(path, "is damaged: its checksum cannot be found"))?;
        let last = place + written.len() - 1;
        head[last - claimed.len()..last].copy_from_slice(ZEROS.as_bytes());
        let mut hasher = Hasher::new();
        hasher.update(&head);
        for from in (start..end).step_by(PIECE) {
            hasher.update(&self.piece(from..end.min(from + PIECE as u64))?);
        }
        Ok(text(hasher))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::io::{Dtype, write_atomic};

    fn write(path: &Path) -> Vec<u8> {
        let bytes: Vec<u8> = (0..24u8).flat_map(|x| f32::from(x).to_le_bytes()).collect();
        let tensors = [
            TensorBytes { name: "checksum", dtype: Dtype::F32, shape: &[2, 10], bytes: &bytes[..80] },
            TensorBytes { name: "b", dtype: Dtype::F32, shape: &[4], bytes: &bytes[80..] },
        ];
        let metadata = BTreeMap::from([("images".to_owned(), "128".to_owned())]);
        write_atomic(path, |writer| write_checked_to(writer, path, &tensors, &metadata)).unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn a_whole_file_is_verified_and_one_without_checksum_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.safetensors");
        let bytes = write(&path);
        let file = SafetensorsFile::open(&path).unwrap();
        assert!(file.verify().unwrap());
        assert_eq!(file.metadata()["images"], "128");
        assert_eq!(file.to_f32("b").unwrap().1, [20.0, 21.0, 22.0, 23.0]);
        // The published crate reads the very same.
        assert_eq!(::safetensors::SafeTensors::deserialize(&bytes).unwrap().names().len(), 2);

        crate::io::write_safetensors(&path, &[], &BTreeMap::new()).unwrap();
        assert!(!SafetensorsFile::open(&path).unwrap().verify().unwrap());
    }

    #[test]
    fn any_byte_changed_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.safetensors");
        let whole = write(&path);
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            SafetensorsFile::open(&path).and_then(|file| file.verify()).is_err()
        };
        // Every byte in turn, one bit of it; then up to four in a row, and lengths, at random.
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            assert!(refused(&bytes), "byte {at}");
        }
        let size = whole.len();
        proptest!(ProptestConfig::with_cases(256), |(
            at in 0..size - 3,
            change in any::<[u8; 4]>().prop_filter("no change", |change| *change != [0; 4]),
            cut in 0..size,
        )| {
            let mut bytes = whole.clone();
            bytes[at..at + 4].iter_mut().zip(change).for_each(|(byte, change)| *byte ^= change);
            prop_assert!(refused(&bytes), "bytes {} to {}: {:?}", at, at + 4, change);
            prop_assert!(refused(&whole[..cut]), "cut to {}", cut);
        });
    }
}
