//! A set of picture files, in a folder or in a zip.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::attributes::Column;
use super::decode::Header;
use super::fingerprint::Fingerprint;
use super::found::Found;
use super::image::Image;
use super::inspect;
use super::kind::PICTURES;
use super::known::Known;
use super::parts::{DataOptions, KEEP_BYTES, Parts, Source, short_name};
use super::tree::{Files, LeftOut, Tree, Unread};
use super::{archive, classes, folder, labels};
use crate::error::{Error, Result};

pub fn accepts(spec: &str) -> bool {
    Path::new(spec).is_dir() || archive::is_zip(Path::new(spec))
}

/// A picture of the set.
struct Picture {
    name: String,
    /// Its number for [`Files::read`].
    at: usize,
    hash: u128,
    header: Header,
    bytes: u64,
    crc: Option<u32>,
    kept: OnceLock<Vec<u8>>,
}

pub fn open(spec: &str, options: &DataOptions) -> Result<Parts> {
    let path = Path::new(spec);
    let mut tree =
        if path.is_dir() { folder::list(path, options.files_met.as_deref())? } else { archive::list(path)? };
    tree.look_inside();
    let keep = tree.entries.iter().map(|entry| entry.bytes).fold(0, u64::saturating_add) < KEEP_BYTES;
    let mut known = Known::load(options.cache.as_deref(), path);
    let looked = inspect::all(&tree, &known, keep);
    known.save(&tree, &looked);

    let (mut pictures, mut left_out) = (Vec::new(), std::mem::take(&mut tree.left_out));
    for (entry, looked) in tree.entries.iter().zip(looked) {
        let name = entry.name.clone();
        match looked.found {
            Found::Other(_) if labels::is_labels_file(&name) => {}
            Found::Other(reason) => left_out.push(LeftOut::new(name, reason)),
            Found::Damaged(reason) => left_out.push(LeftOut { name, reason, damaged: true }),
            Found::Picture(high, low, width, height, grey) => pictures.push(Picture {
                name,
                at: entry.at,
                hash: u128::from(high) << 64 | u128::from(low),
                header: Header { width, height, grey },
                bytes: entry.bytes,
                crc: entry.crc,
                kept: looked.bytes.map_or_else(OnceLock::new, OnceLock::from),
            }),
        }
    }
    tree.left_out = left_out;
    nothing_is_an_error(&tree, pictures.is_empty())?;
    let names: Vec<&str> = pictures.iter().map(|picture| picture.name.as_str()).collect();
    let classes = classes::of(&tree, &names, options)?;

    let mut left_out = std::mem::take(&mut tree.left_out);
    left_out.extend(classes.left_out);
    left_out.sort();
    tree.left_out = left_out;
    let is_in = |label: &Option<u32>| label.is_some();
    let captions: Vec<Option<String>> =
        classes.captions.into_iter().zip(&classes.labels).filter(|(_, l)| is_in(l)).map(|(c, _)| c).collect();
    let columns = classes.columns.into_iter().map(|Column { name, cells }| {
        let cells = cells.into_iter().zip(&classes.labels).filter(|(_, l)| is_in(l)).map(|(cell, _)| cell);
        Column { name, cells: cells.collect() }
    });
    let columns: Vec<Column> = columns.collect();
    let pictures: Vec<Picture> =
        pictures.into_iter().zip(&classes.labels).filter(|(_, l)| is_in(l)).map(|(p, _)| p).collect();
    let labels: Vec<u32> = classes.labels.into_iter().flatten().collect();
    nothing_is_an_error(&tree, pictures.is_empty())?;

    let (mut hash, mut listing) =
        (contents(&classes.names, &labels), Fingerprint::new(&classes.names, &labels));
    for Picture { name, bytes, crc, hash: of_file, .. } in &pictures {
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(&of_file.to_le_bytes());
        listing.text(name);
        listing.number(*bytes);
        crc.iter().for_each(|crc| listing.number(u64::from(*crc)));
    }
    let channels = if pictures.iter().all(|picture| picture.header.grey) { 1 } else { 3 };
    let mut notes = tree.notes;
    notes.extend(known.note.take());
    Ok(Parts {
        name: short_name(spec),
        channels,
        class_names: classes.names,
        labels,
        captions,
        columns,
        sizes: pictures.iter().map(|picture| (picture.header.width, picture.header.height)).collect(),
        left_out: tree.left_out,
        label_source: classes.source,
        is_unlabelled: classes.is_unlabelled,
        notes,
        warnings: classes.warnings,
        fingerprint: format!("{:032x}", hash.digest128()),
        earlier_fingerprint: Some(listing.finish()),
        source: Box::new(Pictures {
            path: tree.path,
            is_zip: tree.is_zip,
            channels,
            pictures,
            files: tree.files,
            keep,
            known: known.path().map(Path::to_owned),
        }),
    })
}

/// The start of the hash of a set's contents: XXH3 of 128 bits, whose values are fixed for good.
fn contents(class_names: &[String], labels: &[u32]) -> Xxh3 {
    let mut hash = Xxh3::new();
    hash.update(&(class_names.len() as u64).to_le_bytes());
    for name in class_names {
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
    }
    hash.update(&(labels.len() as u64).to_le_bytes());
    labels.iter().for_each(|label| hash.update(&label.to_le_bytes()));
    hash
}

/// An error that says what there is, if there is no picture.
fn nothing_is_an_error(tree: &Tree, nothing: bool) -> Result<()> {
    if !nothing {
        return Ok(());
    }
    let left_out = &tree.left_out;
    // What looks like a picture says more than what does not.
    let first = left_out
        .iter()
        .find(|file| file.damaged)
        .or_else(|| left_out.iter().find(|file| file.reason != "is hidden"));
    let what = match first.or(left_out.first()) {
        None => format!("holds no images, neither itself nor in sub-folders; {PICTURES} are read"),
        Some(LeftOut { name, reason, damaged }) => {
            let damaged =
                if *damaged { left_out.iter().filter(|file| file.damaged).count() } else { left_out.len() };
            format!(
                "not one of its {damaged} files is an image that can be read; the first is {name}: {reason}"
            )
        }
    };
    Err(Error::format(&tree.path, what))
}

struct Pictures {
    path: PathBuf,
    is_zip: bool,
    channels: usize,
    pictures: Vec<Picture>,
    files: Box<dyn Files>,
    /// Whether bytes that were read stay in memory.
    keep: bool,
    /// What is known of the files, to be forgotten if it was wrong.
    known: Option<PathBuf>,
}

impl Source for Pictures {
    fn decode(&self, index: usize) -> Result<Result<Image, String>> {
        let picture = &self.pictures[index];
        let decoded = |bytes: &[u8]| super::decode::pixels(bytes, self.channels);
        if let Some(bytes) = picture.kept.get() {
            return Ok(decoded(bytes));
        }
        let bytes = match self.files.read(picture.at, &|_| true) {
            Ok(bytes) => bytes,
            Err(Unread::Damaged(what)) => return Ok(Err(what)),
            Err(Unread::System(error)) => return Err(Error::io(self.files.place(picture.at))(error)),
        };
        if xxh3_128(&bytes) != picture.hash {
            // Either it was replaced just now, or in a way that left its times as they were.
            if let Some(known) = &self.known {
                let _ = std::fs::remove_file(known);
            }
            let what =
                "is not what it was when the data set was opened; run the same command again to read it anew";
            return Err(Error::format(self.place(index), what));
        }
        let image = decoded(&bytes);
        if self.keep {
            let _ = picture.kept.set(bytes);
        }
        Ok(image)
    }

    fn name(&self, index: usize) -> String {
        self.pictures[index].name.clone()
    }

    fn place(&self, index: usize) -> PathBuf {
        if self.is_zip {
            self.path.join(&self.pictures[index].name)
        } else {
            self.files.place(self.pictures[index].at)
        }
    }
}
