//! Sample batches as `.npz`, in the form that FID evaluators read: `arr_0` of u8 (N, H, W, 3), `arr_1` of i64
//! labels (N).

use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use npyz::WriterBuilder;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::AtomicFile;
use crate::error::{Error, Result};
use crate::shape::{Extent, Shape};

/// A header longer than this is no header of these arrays.
const MAX_HEADER: usize = 4096;

/// Writes images as they come; nothing is at the path until [`finish`](Self::finish).
pub struct NpzWriter {
    path: PathBuf,
    zip: ZipWriter<UntilFailure>,
    count: usize,
    size: Extent,
    labels: Vec<i64>,
}

impl NpzWriter {
    /// Starts a file of `count` images of `size`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: impl AsRef<Path>, count: usize, size: Extent) -> Result<NpzWriter> {
        let path = path.as_ref().to_owned();
        let zip = ZipWriter::new(UntilFailure::new(AtomicFile::create(&path)?));
        let mut writer = NpzWriter { path, zip, count, size, labels: Vec::new() };
        writer.start::<u8>("arr_0.npy", &Shape { channels: 3, extent: size }.nhwc(count))?;
        Ok(writer)
    }

    /// Puts notes, (keyword, value) each, into the archive's comment, which readers of arrays do not see.
    ///
    /// # Errors
    /// [`Error::Config`] when they are longer than a comment can be, 64 KiB.
    pub fn annotate(&mut self, text: &[(String, String)]) -> Result<()> {
        let comment = comment(&self.path, text)?;
        self.zip.set_raw_comment(comment).map_err(|error| Error::io(&self.path)(error.into()))
    }

    /// Appends `images`, (N, H, W, C) with C of 1 or 3, and their N labels. Grey is repeated to three channels.
    ///
    /// # Errors
    /// When the bytes do not fit the labels and the size, more images come than were announced, or the disk
    /// refuses.
    pub fn push(&mut self, images: &[u8], channels: usize, labels: &[u32]) -> Result<()> {
        let shape = Shape { channels, extent: self.size };
        let fits = matches!(channels, 1 | 3) && images.len() == labels.len() * shape.len();
        if !fits || self.labels.len() + labels.len() > self.count {
            let (bytes, more, have, count) = (images.len(), labels.len(), self.labels.len(), self.count);
            let what = format!(
                "{bytes} bytes of {more} images of {shape} were pushed; \
                 {have} of the announced {count} images had come before"
            );
            return Err(Error::shape("npz", what));
        }
        let written = if channels == 3 {
            self.zip.write_all(images)
        } else {
            let rgb: Vec<u8> = images.iter().flat_map(|&value| [value; 3]).collect();
            self.zip.write_all(&rgb)
        };
        written.map_err(Error::io(&self.path))?;
        self.labels.extend(labels.iter().map(|&label| i64::from(label)));
        Ok(())
    }

    /// Writes the labels and puts the file in its place.
    ///
    /// # Errors
    /// When fewer images came than were announced, or the disk refuses.
    pub fn finish(mut self) -> Result<()> {
        if self.labels.len() != self.count {
            let (have, count) = (self.labels.len(), self.count);
            return Err(Error::shape("npz", format!("{have} images came, but {count} were announced")));
        }
        self.start::<i64>("arr_1.npy", &[self.count])?;
        let labels: Vec<u8> = self.labels.iter().flat_map(|label| label.to_le_bytes()).collect();
        self.zip.write_all(&labels).map_err(Error::io(&self.path))?;
        let path = self.path;
        let written = self.zip.finish().map_err(|error| Error::io(&path)(error.into()))?;
        if written.failed {
            return Err(Error::io(&path)(io::Error::other("a part of it could not be written")));
        }
        written.file.commit()
    }

    /// Begins an array: its entry and its header. The elements are then written as they are.
    fn start<T: npyz::AutoSerialize>(&mut self, name: &str, shape: &[usize]) -> Result<()> {
        let bytes = shape.iter().fold(size_of::<T>() as u64, |bytes, &dim| bytes.saturating_mul(dim as u64));
        // Stored: samples hardly shrink, and readers can map them. Beyond 4 GiB, minus room for a header, zip64.
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(bytes > u64::from(u32::MAX) - (1 << 20));
        self.zip.start_file(name, options).map_err(|error| Error::io(&self.path)(error.into()))?;
        let shape: Vec<u64> = shape.iter().map(|&dim| dim as u64).collect();
        // The header goes through memory, as the array's elements are counted here and not by npyz.
        let mut header = Vec::new();
        npyz::WriteOptions::new_header_only()
            .dtype(T::default_dtype())
            .shape(&shape)
            .writer(&mut header)
            .write_header_only()
            .map_err(Error::io(&self.path))?;
        self.zip.write_all(&header).map_err(Error::io(&self.path))
    }
}

/// A file whose first failure is told once. After that it takes anything and is never put in its place: a zip writer
/// that is dropped tries to finish, and prints it where that fails too.
struct UntilFailure {
    file: AtomicFile,
    /// Where the next byte goes; counted here, as it goes on counting after a failure.
    position: u64,
    failed: bool,
}

impl UntilFailure {
    fn new(file: AtomicFile) -> Self {
        UntilFailure { file, position: 0, failed: false }
    }
}

impl Write for UntilFailure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = if self.failed { Ok(bytes.len()) } else { self.file.write(bytes) };
        self.failed |= written.is_err();
        self.position += *written.as_ref().unwrap_or(&0) as u64;
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = if self.failed { Ok(()) } else { self.file.flush() };
        self.failed |= flushed.is_err();
        flushed
    }
}

impl Seek for UntilFailure {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let moved = match to {
            // Devices that take bytes but do not seek say 0 to everything.
            SeekFrom::Current(0) => Ok(self.position),
            SeekFrom::Start(at) if self.failed => Ok(at),
            SeekFrom::Start(at) => self.file.seek(to).map(|_| at),
            _ if self.failed => Ok(self.position),
            _ => self.file.seek(to),
        };
        self.failed |= moved.is_err();
        self.position = *moved.as_ref().unwrap_or(&self.position);
        moved
    }
}

/// Images read back from a `.npz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NpzImages {
    /// N.
    pub count: usize,
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 1 or 3.
    pub channels: usize,
    /// (N, H, W, C).
    pub images: Vec<u8>,
    /// (N), or nothing where the file has no `arr_1`.
    pub labels: Option<Vec<i64>>,
}

/// Reads `arr_0` and `arr_1` of a `.npz`.
///
/// # Errors
/// When the file cannot be read, is damaged, or its arrays are not images (N, H, W, C) of u8 and N whole numbers.
pub fn read_npz_images(path: impl AsRef<Path>) -> Result<NpzImages> {
    let path = path.as_ref();
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    let mut zip = ZipArchive::new(std::io::BufReader::new(file))
        .map_err(|error| Error::format(path, format!("is no .npz, or a damaged one: {error}")))?;
    let Some(Array { shape, bytes: images, .. }) = read_array(path, &mut zip, "arr_0.npy", &["|u1"])? else {
        return Err(Error::format(path, "has no arr_0, where the images should be"));
    };
    let &[count, height, width, channels @ (1 | 3)] = shape.as_slice() else {
        return Err(Error::format(path, format!("arr_0 is {shape:?}, but images are (N, H, W, 1 or 3)")));
    };
    let labels = match read_array(path, &mut zip, "arr_1.npy", INTEGERS)? {
        Some(Array { shape, .. }) if shape != [count] && shape != [count, 1] => {
            let what = format!("arr_1 is {shape:?}, but there are {count} images to label");
            return Err(Error::format(path, what));
        }
        labels => labels.map(Array::into_integers),
    };
    Ok(NpzImages { count, width, height, channels, images, labels })
}

/// The types of whole numbers, as an array's header names them.
pub(super) const INTEGERS: &[&str] = &["<i8", "<i4", "<i2", "|i1", "|u1", "<u2", "<u4", "<u8"];

/// An array as it was read: in C order, little-endian, whatever its file has.
pub(super) struct Array {
    pub shape: Vec<usize>,
    /// One of the types that were asked for.
    pub dtype: &'static str,
    pub bytes: Vec<u8>,
}

impl Array {
    /// The elements of an array of [`INTEGERS`]; one beyond 63 bits, as no label is, becomes -1.
    pub fn into_integers(self) -> Vec<i64> {
        fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> i64) -> Vec<i64> {
            bytes.as_chunks::<N>().0.iter().map(|bytes| value(*bytes)).collect()
        }
        let bytes = &self.bytes;
        match self.dtype {
            "<i8" => each(bytes, i64::from_le_bytes),
            "<u8" => each(bytes, |x| i64::try_from(u64::from_le_bytes(x)).unwrap_or(-1)),
            "<i4" => each(bytes, |x| i32::from_le_bytes(x).into()),
            "<u4" => each(bytes, |x| u32::from_le_bytes(x).into()),
            "<i2" => each(bytes, |x| i16::from_le_bytes(x).into()),
            "<u2" => each(bytes, |x| u16::from_le_bytes(x).into()),
            "|i1" => each(bytes, |x| i8::from_le_bytes(x).into()),
            _ => each(bytes, |[x]| x.into()),
        }
    }
}

/// One array of one of these types, brought to C order and little-endian; None if there is none of that name.
pub(super) fn read_array<R: Read + Seek>(
    path: &Path,
    zip: &mut ZipArchive<R>,
    name: &str,
    dtypes: &[&'static str],
) -> Result<Option<Array>> {
    let bad = |what: String| Error::format(path, format!("{name} {what}"));
    let Some(index) = zip.index_for_name(name) else { return Ok(None) };
    let mut entry = zip.by_index(index).map_err(|error| bad(format!("cannot be read: {error}")))?;
    read_entry(path, name, &mut entry, dtypes).map(Some)
}

/// The array that `entry` begins, of one of these types, brought to C order and little-endian; `name` is what errors call it.
pub(super) fn read_entry(
    path: &Path,
    name: &str,
    entry: &mut impl Read,
    dtypes: &[&'static str],
) -> Result<Array> {
    let bad = |what: String| Error::format(path, format!("{name} {what}"));
    let parsed = read_header(path, name, entry)?;
    let found = parsed.dtype().descr();
    let found = found.trim_matches('\'');
    // The other byte order is the same type.
    let (turned, little) = match found.strip_prefix('>') {
        Some(rest) => (true, format!("<{rest}")),
        None => (false, found.to_owned()),
    };
    let Some(dtype) = dtypes.iter().find(|dtype| **dtype == little).copied() else {
        return Err(bad(format!("is of type '{found}', but '{}' is needed", dtypes.join("' or '"))));
    };
    let shape: Vec<usize> = parsed.shape().iter().map(|&dim| dim as usize).collect();
    let width = u64::from(dtype.as_bytes()[2] - b'0');
    let needed = shape.iter().map(|&dim| dim as u64).product::<u64>() * width;
    // Grows as bytes come, so that a claim costs nothing until it is true.
    let mut bytes = Vec::new();
    entry.take(needed + 1).read_to_end(&mut bytes).map_err(|error| bad(format!("is damaged: {error}")))?;
    if bytes.len() as u64 != needed {
        let have = bytes.len();
        return Err(bad(format!("of shape {shape:?} needs {needed} bytes, but has {have} or more")));
    }
    if turned {
        bytes.chunks_exact_mut(width as usize).for_each(<[u8]>::reverse);
    }
    if parsed.order() == npyz::Order::Fortran {
        bytes = to_c_order(&bytes, &shape, width as usize);
    }
    Ok(Array { shape, dtype, bytes })
}

/// The elements of an array whose first index runs fastest, in the order in which the last one does.
fn to_c_order(bytes: &[u8], shape: &[usize], width: usize) -> Vec<u8> {
    let mut turned = Vec::with_capacity(bytes.len());
    let mut index = vec![0usize; shape.len()];
    let steps: Vec<usize> = (0..shape.len()).map(|d| shape[..d].iter().product::<usize>() * width).collect();
    let mut at = 0;
    while turned.len() < bytes.len() {
        turned.extend_from_slice(&bytes[at..at + width]);
        for ((i, dim), step) in index.iter_mut().zip(shape).zip(&steps).rev() {
            *i += 1;
            at += step;
            if *i < *dim {
                break;
            }
            at -= *i * step;
            *i = 0;
        }
    }
    turned
}

/// Notes as the comment of an archive: a JSON list of pairs.
pub(super) fn comment(path: &Path, text: &[(String, String)]) -> Result<Box<[u8]>> {
    let json = serde_json::to_vec(text).map_err(|error| Error::format(path, error.to_string()))?;
    match u16::try_from(json.len()) {
        Ok(_) => Ok(json.into()),
        Err(_) => Err(Error::Config(format!(
            "{}: notes of {} bytes do not fit into a .npz, which takes {}",
            path.display(),
            json.len(),
            u16::MAX
        ))),
    }
}

/// The notes in a `.npz`: (keyword, value) each; none where another program wrote it.
///
/// # Errors
/// When it cannot be read or is no `.npz`.
pub fn read_npz_text(path: impl AsRef<Path>) -> Result<Vec<(String, String)>> {
    let path = path.as_ref();
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    let zip = ZipArchive::new(io::BufReader::new(file))
        .map_err(|error| Error::format(path, format!("is no .npz, or a damaged one: {error}")))?;
    Ok(serde_json::from_slice(zip.comment()).unwrap_or_default())
}

/// The header of an array; `entry` then stands at its elements.
pub(super) fn read_header(path: &Path, name: &str, entry: &mut impl Read) -> Result<npyz::NpyHeader> {
    let bad = |what: String| Error::format(path, format!("{name} {what}"));
    let mut start = [0; 12];
    entry.read_exact(&mut start).map_err(|error| bad(format!("ends too soon: {error}")))?;
    // Version 1 has a length of two bytes and the text begins after ten; later ones have four.
    let (text, length) = match start[6] {
        1 => (10, usize::from(u16::from_le_bytes([start[8], start[9]]))),
        _ => (12, u32::from_le_bytes([start[8], start[9], start[10], start[11]]) as usize),
    };
    if length > MAX_HEADER {
        return Err(bad(format!("has a header of {length} bytes, or is no .npy")));
    }
    let mut header = start.to_vec();
    let rest = (text + length).saturating_sub(start.len()) as u64;
    entry.by_ref().take(rest).read_to_end(&mut header).map_err(|error| bad(error.to_string()))?;
    let elements = claimed_elements(&header);
    if elements.is_none_or(|elements| elements > u64::MAX >> 8) {
        return Err(bad("has a header whose shape makes no sense".into()));
    }
    npyz::NpyHeader::from_reader(Cursor::new(&header)).map_err(|error| bad(format!("is damaged: {error}")))
}

/// The product of the numbers after `shape` in an array's header; None if it overflows, which npyz, that
/// multiplies them unchecked, must not see.
fn claimed_elements(header: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(header);
    let shape = text.split_once("shape").map_or("", |(_, after)| after);
    let shape = shape.split_once(')').map_or(shape, |(inside, _)| inside);
    let numbers = shape.split(|c: char| !c.is_ascii_digit()).filter(|number| !number.is_empty());
    // A size of 0 must not hide the overflow of the others.
    numbers
        .map(|number| number.parse::<u64>().ok())
        .try_fold(1u64, |product, dim| product.checked_mul(dim?.max(1)))
}

#[cfg(test)]
mod tests;
