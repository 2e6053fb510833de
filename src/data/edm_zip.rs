//! The zip of EDM and StyleGAN: image files, `dataset.json` with their labels, and optionally `classes.json`.
//!
//! `dataset.json` is `{"labels": [["00000/img00000000.png", 3], ...]}`, or `{"labels": null}` for a set without
//! labels; `classes.json` is an array with the name of each label.

use std::collections::HashMap;
use std::io::{Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use zip::ZipArchive;

use super::fingerprint::Fingerprint;
use super::{Image, KEEP_BYTES, ONLY_CLASS, Parts, Source, decode, short_name};
use crate::error::{Error, Result};

/// More classes than any set has: a label beyond is a damaged file, not a reason to make so many names.
const MAX_CLASSES: u64 = 1 << 20;
/// An entry larger than this is not read; a small zip can claim, and hold, very much.
const MAX_ENTRY: u64 = 1 << 30;
/// An image's size is nearly always told within this many bytes of its start.
const HEADER_BYTES: u64 = 1 << 16;

trait ReadSeek: Read + Seek + Send {}
impl<T: Read + Seek + Send> ReadSeek for T {}
type Archive = ZipArchive<Box<dyn ReadSeek>>;

#[derive(serde::Deserialize)]
struct DatasetJson {
    labels: Option<Vec<(String, serde_json::Value)>>,
}

pub fn accepts(spec: &str) -> bool {
    let path = Path::new(spec);
    let zipped = || {
        let mut magic = [0; 2];
        std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && &magic == b"PK"
    };
    path.is_file() && (spec.to_ascii_lowercase().ends_with(".zip") || zipped())
}

pub fn open(spec: &str) -> Result<Parts> {
    let path = Path::new(spec);
    let mut archive = open_archive(path)?;
    let (images, mut skipped) = list(&mut archive);
    let labels = read_labels(path, &mut archive)?;
    let labelled = labels.is_some();
    let mut labels = labels.unwrap_or_else(|| images.iter().map(|(name, _)| (name.clone(), 0)).collect());

    let (mut entries, mut kept_labels, mut sizes, mut hashed) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut all_grey = true;
    for (name, index) in images {
        let Some(label) = labels.remove(&name) else {
            skipped.push((name, "has no label in dataset.json".to_string()));
            continue;
        };
        match look(&mut archive, index) {
            Err(reason) => skipped.push((name, reason)),
            Ok((header, bytes, crc)) => {
                all_grey &= header.grey;
                sizes.push((header.width, header.height));
                kept_labels.push(label);
                hashed.push((name.clone(), bytes, crc));
                entries.push((name, index));
            }
        }
    }
    skipped
        .extend(labels.into_keys().map(|name| (name, "is in dataset.json, but not in the zip".to_string())));
    skipped.sort();
    if entries.is_empty() {
        let what = match skipped.first() {
            None => "holds no images (.png, .jpg, .jpeg, .webp, .bmp or .gif)".to_string(),
            Some((name, reason)) => {
                let count = skipped.len();
                format!("not one of its {count} images can be used; the first is {name}: {reason}")
            }
        };
        return Err(Error::format(path, what));
    }

    let class_names = class_names(path, &mut archive, labelled, &kept_labels)?;
    let mut hash = Fingerprint::new(&class_names, &kept_labels);
    for (name, bytes, crc) in &hashed {
        hash.text(name);
        hash.number(*bytes);
        hash.number(u64::from(*crc));
    }
    let channels = if all_grey { 1 } else { 3 };
    Ok(Parts {
        name: short_name(spec),
        channels,
        class_names,
        labels: kept_labels,
        sizes,
        skipped,
        fingerprint: hash.finish(),
        source: Box::new(Entries { path: path.to_owned(), channels, entries, archive: Mutex::new(archive) }),
    })
}

/// Opens the zip, whole in memory if it is small.
fn open_archive(path: &Path) -> Result<Archive> {
    let file = std::fs::File::open(path).map_err(Error::io(path))?;
    let bytes = file.metadata().map_err(Error::io(path))?.len();
    let reader: Box<dyn ReadSeek> = if bytes < KEEP_BYTES {
        Box::new(Cursor::new(std::fs::read(path).map_err(Error::io(path))?))
    } else {
        Box::new(std::io::BufReader::new(file))
    };
    ZipArchive::new(reader)
        .map_err(|error| Error::format(path, format!("is no zip, or a damaged one ({bytes} bytes): {error}")))
}

/// A list of (name, what is known of it).
type Named<T> = Vec<(String, T)>;

/// The image entries sorted by name, and those whose name cannot be read.
fn list(archive: &mut Archive) -> (Named<usize>, Named<String>) {
    let (mut images, mut skipped) = (Vec::new(), Vec::new());
    for index in 0..archive.len() {
        match archive.name_for_index(index) {
            Some(Ok(name)) if decode::is_image_name(&name) && !name.starts_with("__MACOSX/") => {
                images.push((name.into_owned(), index));
            }
            Some(Err(error)) => skipped.push((format!("entry {index}"), error.to_string())),
            _ => {}
        }
    }
    images.sort();
    (images, skipped)
}

/// The label of each file name, or None for a set without labels.
fn read_labels(path: &Path, archive: &mut Archive) -> Result<Option<HashMap<String, u32>>> {
    let bad = |what: String| Error::format(path, what);
    let Some(index) = archive.index_for_name("dataset.json") else {
        return Err(bad(
            "has no dataset.json; put in one with {\"labels\": [[\"file name\", label], ...]}, \
             or unpack it and give the folder"
                .into(),
        ));
    };
    let bytes =
        read_entry(archive, index, MAX_ENTRY).map_err(|error| bad(format!("dataset.json: {error}")))?;
    let parsed: DatasetJson =
        serde_json::from_slice(&bytes).map_err(|error| bad(format!("dataset.json: {error}")))?;
    let Some(labels) = parsed.labels else { return Ok(None) };
    let check = |(name, label): (String, serde_json::Value)| match label.as_u64() {
        Some(label) if label < MAX_CLASSES => Ok((name, label as u32)),
        _ => Err(bad(format!(
            "dataset.json labels {name} with {label}, but a label is a whole number from 0 and below {MAX_CLASSES}"
        ))),
    };
    labels.into_iter().map(check).collect::<Result<_>>().map(Some)
}

/// Names from classes.json, else the numbers.
fn class_names(path: &Path, archive: &mut Archive, labelled: bool, labels: &[u32]) -> Result<Vec<String>> {
    let bad = |what: String| Error::format(path, what);
    if !labelled {
        return Ok(vec![ONLY_CLASS.to_string()]);
    }
    let needed = labels.iter().max().map_or(1, |&label| label as usize + 1);
    let Some(index) = archive.index_for_name("classes.json") else {
        return Ok((0..needed).map(|class| class.to_string()).collect());
    };
    let bytes =
        read_entry(archive, index, MAX_ENTRY).map_err(|error| bad(format!("classes.json: {error}")))?;
    let names: Vec<String> = serde_json::from_slice(&bytes)
        .map_err(|error| bad(format!("classes.json is not an array of names: {error}")))?;
    if names.len() < needed {
        let (have, most) = (names.len(), needed - 1);
        return Err(bad(format!(
            "classes.json names {have} classes, but dataset.json has labels up to {most}"
        )));
    }
    Ok(names)
}

/// The header of an image entry, with its size in bytes and its checksum.
fn look(archive: &mut Archive, index: usize) -> Result<(decode::Header, u64, u32), String> {
    let (bytes, crc) = {
        let entry = archive.by_index(index).map_err(|error| error.to_string())?;
        (entry.size(), entry.crc32())
    };
    if bytes > MAX_ENTRY {
        return Err(format!("would be {bytes} bytes unpacked; at most {MAX_ENTRY} are read"));
    }
    let start = read_entry(archive, index, HEADER_BYTES)?;
    let header = match decode::header(Cursor::new(start)) {
        Err(_) if bytes > HEADER_BYTES => decode::header(Cursor::new(read_entry(archive, index, MAX_ENTRY)?)),
        header => header,
    };
    Ok((header?, bytes, crc))
}

/// The first `most` bytes of an entry, or all of it.
fn read_entry(archive: &mut Archive, index: usize, most: u64) -> Result<Vec<u8>, String> {
    let entry = archive.by_index(index).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    entry.take(most).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

struct Entries {
    path: PathBuf,
    channels: usize,
    entries: Vec<(String, usize)>,
    /// Reading an entry moves the reader; decoding happens outside of the lock.
    archive: Mutex<Archive>,
}

impl Source for Entries {
    fn decode(&self, index: usize) -> Result<Image> {
        let (name, entry) = &self.entries[index];
        let read =
            read_entry(&mut self.archive.lock().unwrap_or_else(PoisonError::into_inner), *entry, MAX_ENTRY);
        read.and_then(|bytes| decode::pixels(Cursor::new(bytes), self.channels))
            .map_err(|reason| Error::format(&self.path, format!("{name} cannot be decoded: {reason}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;
    use std::io::Write;
    use zip::write::{SimpleFileOptions, ZipWriter};

    fn png(grey: bool, value: u8) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let image: ::image::DynamicImage = if grey {
            ::image::GrayImage::from_pixel(5, 5, ::image::Luma([value])).into()
        } else {
            ::image::RgbImage::from_pixel(5, 5, ::image::Rgb([value, 1, 2])).into()
        };
        image.write_to(&mut bytes, ::image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn open_zip(files: &[(&str, &[u8])]) -> Result<Dataset> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set.zip");
        let mut writer = ZipWriter::new(std::fs::File::create(&path).unwrap());
        for (i, (name, bytes)) in files.iter().enumerate() {
            let method = [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated][i % 2];
            writer.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap();
        Dataset::open(path.to_str().unwrap(), None)
    }

    fn message(files: &[(&str, &[u8])]) -> String {
        open_zip(files).err().unwrap().to_string()
    }

    #[test]
    fn labels_names_and_what_is_left_out() {
        let json = br#"{"labels": [["0/b.png", 2], ["0/a.png", 0], ["0/gone.png", 1], ["0/bad.png", 1]]}"#;
        let (a, b) = (png(true, 50), png(false, 60));
        let mut files: Vec<(&str, &[u8])> = vec![
            ("dataset.json", json),
            ("0/b.png", &b),
            ("0/a.png", &a),
            ("0/bad.png", b"x"),
            ("0/c.png", &a),
        ];
        let set = open_zip(&files).unwrap();
        assert_eq!((set.labels(), set.num_classes(), set.channels), (&[0, 2][..], 3, 3));
        assert_eq!(set.class_names, ["0", "1", "2"]);
        assert_eq!(set.decode(0).unwrap().pixels, [50; 75]);
        assert_eq!(set.decode(1).unwrap().pixels[..3], [60, 1, 2]);
        let skipped: Vec<_> = set.skipped().iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(skipped, ["0/bad.png", "0/c.png", "0/gone.png"]);

        files.push(("classes.json", br#"["x & y", "z", "w", "none of these"]"#));
        let named = open_zip(&files).unwrap();
        assert_eq!((named.num_classes(), named.class_names[0].as_str()), (4, "x & y"));
        assert_ne!(named.fingerprint(), set.fingerprint());
    }

    #[test]
    fn without_labels_there_is_one_class() {
        let set = open_zip(&[("a.png", &png(true, 3)), ("dataset.json", br#"{"labels": null}"#)]).unwrap();
        assert_eq!((set.labels(), set.class_names[0].as_str(), set.channels), (&[0][..], "all", 1));
    }

    #[test]
    fn damage_is_named() {
        let a = png(true, 3);
        assert!(message(&[("a.png", &a)]).contains("no dataset.json"));
        assert!(message(&[("dataset.json", br#"{"labels": null}"#)]).contains("no images"));
        assert!(message(&[("a.png", &a), ("dataset.json", b"{")]).contains("dataset.json"));
        let negative = br#"{"labels": [["a.png", -1]]}"#;
        assert!(message(&[("a.png", &a), ("dataset.json", negative)]).contains("-1"));
        let far = br#"{"labels": [["a.png", 4000000000]]}"#;
        assert!(message(&[("a.png", &a), ("dataset.json", far)]).contains("4000000000"));
        let three = br#"{"labels": [["a.png", 3]]}"#;
        let files = [("a.png", &a[..]), ("dataset.json", three), ("classes.json", br#"["x"]"#)];
        assert!(message(&files).contains("up to 3"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.zip");
        std::fs::write(&path, b"PK\x03\x04 but no more").unwrap();
        assert!(Dataset::open(path.to_str().unwrap(), None).err().unwrap().to_string().contains("x.zip"));
    }
}
