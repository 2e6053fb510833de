//! IDX files, the form of MNIST: big-endian sizes, then bytes. Plain or gzipped, told by content.
//!
//! Images are (N, H, W), (N, H, W, 1) or (N, H, W, 3) of u8; labels are (N) of u8 in a file beside them.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::classes::{counts, empty};
use super::fingerprint::Fingerprint;
use super::image::Image;
use super::kind::{self, Kind, Other};
use super::parts::{DataOptions, Labelling, ONLY_CLASS, Parts, READABLE, Source, short_name};
use crate::error::{Error, Result};
use crate::io::FileKind;

/// Deflate cannot shrink by more than this, so a header that claims more bytes is refused unread.
const MAX_DEFLATE_RATIO: u64 = 1032;

/// Any file at all: this is the last row of the table, and a wrong magic number says what was expected.
pub fn accepts(spec: &str) -> bool {
    Path::new(spec).is_file()
}

pub fn open(spec: &str, options: &DataOptions) -> Result<Parts> {
    let path = Path::new(spec);
    if options.label.is_some() {
        return Err(Error::format(path, "an IDX file has no columns to take labels of"));
    }
    options.check_columns(path, &[])?;
    refuse_other_kinds(path)?;
    let images = std::fs::read(path).map_err(Error::io(path))?;
    let beside = labels_beside(path).filter(|_| options.labelling != Labelling::None);
    let Some(labels_path) = beside else {
        return from_bytes(&short_name(spec), (path, &images), None);
    };
    let labels = std::fs::read(&labels_path).map_err(Error::io(&labels_path))?;
    from_bytes(&short_name(spec), (path, &images), Some((&labels_path, &labels)))
}

/// Says of a file that is no IDX file what it is, before it is read.
fn refuse_other_kinds(path: &Path) -> Result<()> {
    let mut head = Vec::new();
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    file.take(kind::HEAD as u64).read_to_end(&mut head).map_err(Error::io(path))?;
    // IDX begins with two zeros; what is no text and of no known kind is left to the reader's own message.
    let what = match kind::of(&head) {
        Kind::Other(Other(FileKind::Idx | FileKind::Compressed("gzip") | FileKind::Unknown)) => return Ok(()),
        Kind::Other(what) => format!("is {what}"),
        Kind::Picture(_) => "is one picture, not a set of them: give the folder it lies in".to_owned(),
    };
    Err(Error::format(path, format!("{what}; {READABLE}")))
}

/// A set of the bytes of an images file and of a labels file, each with the path to name in errors.
pub fn from_bytes(name: &str, images: (&Path, &[u8]), labels: Option<(&Path, &[u8])>) -> Result<Parts> {
    let (path, bytes) = images;
    let (dims, pixels) = read(path, bytes, 3..=4)?;
    let channels = dims.get(3).copied().unwrap_or(1);
    if !matches!(channels, 1 | 3) {
        return Err(Error::format(path, format!("images have {channels} channels, but 1 or 3 are read")));
    }
    let (count, height, width) = (dims[0], dims[1], dims[2]);
    let label_source =
        labels.map(|(path, _)| format!("of {}", path.file_name().unwrap_or_default().to_string_lossy()));
    let (class_names, labels) = match labels {
        None => (vec![ONLY_CLASS.to_string()], vec![0; count]),
        Some((labels_path, bytes)) => {
            let (_, labels) = read(labels_path, bytes, 1..=1)?;
            if labels.len() != count {
                let have = labels.len();
                let images = path.display();
                let what = format!("{have} labels, but {images} has {count} images; they are not of one set");
                return Err(Error::format(labels_path, what));
            }
            let classes = labels.iter().max().map_or(1, |&label| usize::from(label) + 1);
            let labels = labels.into_iter().map(u32::from).collect();
            ((0..classes).map(|class| class.to_string()).collect(), labels)
        }
    };
    let mut hash = Fingerprint::new(&class_names, &labels);
    dims.iter().for_each(|&dim| hash.number(dim as u64));
    hash.bytes(&pixels);
    let warnings = empty(&class_names, &counts(class_names.len(), labels.iter())).into_iter().collect();
    Ok(Parts {
        name: name.to_string(),
        channels,
        is_unlabelled: label_source.is_none(),
        label_source: label_source.unwrap_or_else(|| "none".into()),
        class_names,
        labels,
        captions: Vec::new(),
        columns: Vec::new(),
        sizes: vec![(width, height)],
        left_out: Vec::new(),
        notes: Vec::new(),
        warnings,
        fingerprint: hash.finish(),
        earlier_fingerprint: None,
        source: Box::new(InMemory { path: path.to_owned(), width, height, channels, pixels }),
    })
}

struct InMemory {
    path: PathBuf,
    width: usize,
    height: usize,
    channels: usize,
    pixels: Vec<u8>,
}

impl Source for InMemory {
    fn decode(&self, index: usize) -> Result<Result<Image, String>> {
        let size = self.width * self.height * self.channels;
        let pixels = self.pixels[index * size..(index + 1) * size].to_vec();
        Image::new(self.width, self.height, self.channels, pixels).map(Ok)
    }

    fn name(&self, index: usize) -> String {
        format!("image {index}")
    }

    fn place(&self, _: usize) -> PathBuf {
        self.path.clone()
    }
}

/// The dimensions and the bytes of one IDX file, gzipped or not.
fn read(path: &Path, bytes: &[u8], ranks: std::ops::RangeInclusive<usize>) -> Result<(Vec<usize>, Vec<u8>)> {
    let bad = |what: String| Error::format(path, what);
    let gzipped = bytes.starts_with(&[0x1f, 0x8b]);
    let mut reader: Box<dyn Read> =
        if gzipped { Box::new(flate2::read::MultiGzDecoder::new(bytes)) } else { Box::new(bytes) };
    let mut take = |count: u64, what: &str| -> Result<Vec<u8>> {
        // Grows as bytes come, so that a claim costs nothing until it is true.
        let mut taken = Vec::new();
        let result = reader.by_ref().take(count).read_to_end(&mut taken);
        result.map_err(|error| bad(format!("the gzip stream is damaged in the {what}: {error}")))?;
        Ok(taken)
    };

    let magic = take(4, "magic number")?;
    let &[0, 0, 0x08, rank] = magic.as_slice() else {
        return Err(bad(format!(
            "starts with {magic:02x?}, but an IDX file of bytes starts with [00, 00, 08, number of dimensions]"
        )));
    };
    let rank = usize::from(rank);
    if !ranks.contains(&rank) {
        let (least, most) = (ranks.start(), ranks.end());
        return Err(bad(format!("has {rank} dimensions, but {least} to {most} are expected")));
    }
    let header = take(4 * rank as u64, "header")?;
    if header.len() < 4 * rank {
        return Err(bad(format!("ends within the header: {} of {} bytes", header.len() + 4, 4 + 4 * rank)));
    }
    let dims: Vec<u64> =
        header.as_chunks::<4>().0.iter().map(|dim| u32::from_be_bytes(*dim).into()).collect();
    let needed = dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
    let most = if gzipped { bytes.len() as u64 * MAX_DEFLATE_RATIO } else { bytes.len() as u64 };
    let needed = match needed {
        Some(0) => return Err(bad(format!("holds nothing: its dimensions are {dims:?}"))),
        Some(needed) if needed <= most => needed,
        _ => {
            let len = bytes.len();
            return Err(bad(format!("claims dimensions {dims:?}, which a file of {len} bytes cannot hold")));
        }
    };
    let data = take(needed + 1, "data")?;
    if data.len() as u64 != needed {
        let have = if data.len() as u64 > needed { "more".to_string() } else { data.len().to_string() };
        return Err(bad(format!("dimensions {dims:?} need {needed} bytes of data, but it has {have}")));
    }
    Ok((dims.into_iter().map(|dim| dim as usize).collect(), data))
}

/// The labels file by the usual naming: `x-images-idx3-ubyte` has `x-labels-idx1-ubyte`, with or without .gz.
fn labels_beside(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_str()?;
    if !name.contains("images") {
        return None;
    }
    let labels = name.replace("images", "labels").replace("idx3", "idx1").replace("idx4", "idx1");
    let other = match labels.strip_suffix(".gz") {
        Some(plain) => plain.to_string(),
        None => format!("{labels}.gz"),
    };
    [labels, other].into_iter().map(|name| images.with_file_name(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;
    use crate::shape::Extent;
    use std::io::Write;

    fn idx(dims: &[u32], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, dims.len() as u8];
        dims.iter().for_each(|dim| bytes.extend(dim.to_be_bytes()));
        bytes.extend(data);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn message(bytes: &[u8], labels: Option<&[u8]>) -> String {
        let labels = labels.map(|labels| (Path::new("labels"), labels));
        from_bytes("x", (Path::new("images"), bytes), labels).err().unwrap().to_string()
    }

    #[test]
    fn plain_gzipped_grey_and_colour() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.to_str().unwrap().to_string()
        };
        let data: Vec<u8> = (0..3 * 5 * 7).collect();
        let grey = write("a-images-idx3-ubyte", &idx(&[3, 5, 7], &data));
        write("a-labels-idx1-ubyte.gz", &gzip(&idx(&[3], &[2, 0, 2])));
        let set = Dataset::open(&grey, Some(Extent::square(5))).unwrap();
        assert_eq!((set.native_size(), set.labels(), set.num_classes()), ((7, 5), &[2, 0, 2][..], 3));
        assert_eq!(set.decode(1).unwrap().pixels, data[35..70]);
        assert_eq!(set.name, "a-images-idx3-ubyte");

        let colour = write("b.images.idx4", &gzip(&idx(&[1, 5, 7, 3], &data)));
        let set = Dataset::open(&colour, Some(Extent::square(5))).unwrap();
        assert_eq!((set.channels, set.num_classes(), set.class_names[0].as_str()), (3, 1, "all"));
        let dotted = write("t10k-images.idx3-ubyte", &idx(&[1, 1, 1], &[9]));
        write("t10k-labels.idx1-ubyte", &idx(&[1], &[4]));
        assert_eq!(Dataset::open(&dotted, None).unwrap().labels(), [4]);
    }

    #[test]
    fn claims_are_not_believed() {
        let huge = idx(&[1_000_000_000, 28, 28], &[0; 50]);
        assert!(message(&huge, None).contains("1000000000"));
        assert!(message(&gzip(&huge), None).contains("cannot hold"));
        assert!(message(&idx(&[u32::MAX, u32::MAX, u32::MAX], &[]), None).contains("4294967295"));
        assert!(message(&idx(&[2, 2, 2], &[0; 7]), None).contains("need 8 bytes of data, but it has 7"));
        assert!(message(&idx(&[1, 2, 2], &[0; 7]), None).contains("more"));
        assert!(message(&idx(&[0, 2, 2], &[]), None).contains("nothing"));
        assert!(message(&idx(&[1, 2, 2, 2], &[0; 8]), None).contains("channels"));
        assert!(message(b"\x89PNG----", None).contains("IDX"));
        let two = idx(&[2, 1, 1], &[0; 2]);
        let text = message(&two, Some(&idx(&[3], &[0; 3])));
        assert!(text.contains("3 labels") && text.contains("2 images"), "{text}");
    }
}
