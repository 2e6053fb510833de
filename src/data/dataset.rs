//! A data set as trainings and measures see it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::attributes::{Attribute, Column, vector_pieces, vector_width};
use super::fingerprint::Fingerprint;
use super::image::Image;
use super::parts::{CLASS, DataOptions, Parts};
use super::tree::LeftOut;
use super::{FORMATS, inspect};
use crate::error::{Error, Result, brief};
use crate::shape::Extent;
use crate::sizes::MOST_SIDE;

/// A set of labelled images, opened and checked; pixels are decoded one image at a time.
pub struct Dataset {
    /// A short name: `digits`, or the file's or folder's own name.
    pub name: String,
    /// 1 (grey) or 3 (RGB), for every image of the set.
    pub channels: usize,
    /// The name of each class; the label is the position.
    pub class_names: Vec<String>,
    pub(super) parts: Parts,
    image_size: Extent,
    attributes: Vec<Attribute>,
    /// `[N, D]`.
    vectors: Vec<f32>,
    /// Images that were met and could not be decoded.
    damaged: Mutex<BTreeMap<usize, LeftOut>>,
}

impl Dataset {
    /// Opens the set that `spec` names: `digits`, a folder, a `.zip`, or an IDX images file.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn open(spec: &str, image_size: Option<Extent>) -> Result<Dataset> {
        Dataset::open_with(spec, &DataOptions { image_size, ..DataOptions::default() })
    }

    /// Opens the set that `spec` names in a way of one's own.
    ///
    /// # Errors
    /// When there is no such file, when it is damaged, when not one image of it is readable, when what stands for labels
    /// is none, and when images are not of one size and no `image_size` says what to do about that.
    pub fn open_with(spec: &str, options: &DataOptions) -> Result<Dataset> {
        let format = FORMATS.iter().find(|format| (format.accepts)(spec)).ok_or_else(|| {
            let known: Vec<_> = FORMATS.iter().map(|format| format.what).collect();
            Error::format(spec, format!("no such file or folder; give {}", known.join(", ")))
        })?;
        let parts = (format.open)(spec, options)?;
        let image_size = match options.image_size {
            Some(size) if size.is_line() => {
                return Err(Error::Config(format!(
                    "{spec}: pictures have two sides, and are not brought to {size}"
                )));
            }
            Some(size) if size.places() == 0 => {
                return Err(Error::Config(format!("an image size of {size} pixels is no size")));
            }
            Some(size) if size.longer() > MOST_SIDE => {
                return Err(Error::Config(format!(
                    "an image size of {size} pixels is beyond {MOST_SIDE} along a side, the most that pictures are brought to"
                )));
            }
            Some(size) => size,
            None => one_size(spec, &parts.sizes)?,
        };
        let (attributes, vectors) = told(spec, &parts, options)?;
        let dataset = Dataset {
            name: parts.name.clone(),
            channels: parts.channels,
            class_names: parts.class_names.clone(),
            parts,
            image_size,
            attributes,
            vectors,
            damaged: Mutex::default(),
        };
        if options.strict {
            dataset.refuse_damage(spec)?;
        }
        Ok(dataset)
    }

    /// Decodes every image.
    fn refuse_damage(&self, spec: &str) -> Result<()> {
        inspect::each(self.len(), |index| self.decode_good(index).map(drop))
            .into_iter()
            .collect::<Result<()>>()?;
        let mut damaged: Vec<LeftOut> = self.left_out().iter().filter(|file| file.damaged).cloned().collect();
        damaged.extend(self.damaged());
        let Some(LeftOut { name, reason, .. }) = damaged.first() else { return Ok(()) };
        let what = match damaged.len() {
            1 => "a picture of it is".to_owned(),
            count => format!("{count} pictures of it are"),
        };
        Err(Error::format(spec, format!("{what} damaged, which `strict` does not allow: {name} {reason}")))
    }

    /// The number of images, at least 1.
    #[allow(clippy::len_without_is_empty, reason = "an empty set does not open")]
    pub fn len(&self) -> usize {
        self.parts.labels.len()
    }

    /// The number of classes, at least 1.
    pub fn num_classes(&self) -> usize {
        self.class_names.len()
    }

    /// The label of image `index` (below [`len`](Self::len)); it is below [`num_classes`](Self::num_classes).
    pub fn label(&self, index: usize) -> u32 {
        self.parts.labels[index]
    }

    /// Every image's label, in order.
    pub fn labels(&self) -> &[u32] {
        &self.parts.labels
    }

    /// What is said of image `index` (below [`len`](Self::len)) in words, where a labels file has a column `text`.
    pub fn caption(&self, index: usize) -> Option<&str> {
        self.parts.captions.get(index)?.as_deref()
    }

    /// What was asked for of pictures in numbers and names.
    pub fn attributes(&self) -> &[Attribute] {
        &self.attributes
    }

    /// What a network is told of image `index` (below [`len`](Self::len)): `D` numbers, none where nothing was asked for.
    pub fn vector(&self, index: usize) -> &[f32] {
        let width = vector_width(&self.attributes);
        &self.vectors[index * width..(index + 1) * width]
    }

    /// A hash of what networks are told of all pictures; none where nothing was asked for.
    pub fn vectors_fingerprint(&self) -> Option<String> {
        (!self.vectors.is_empty()).then(|| {
            let mut hash = Fingerprint::new(&[], &[]);
            self.attributes.iter().for_each(|attribute| hash.text(&attribute.name));
            self.vectors.iter().for_each(|x| hash.bytes(&x.to_le_bytes()));
            hash.finish()
        })
    }

    /// Whether the set has no labels: then there is one class, which says nothing.
    pub fn is_unlabelled(&self) -> bool {
        self.parts.is_unlabelled
    }

    /// The pixels of image `index` in the size it was stored, with the set's number of channels.
    ///
    /// # Errors
    /// When `index` is out of range, and when the file is damaged past its header, has changed or has gone away.
    pub fn decode(&self, index: usize) -> Result<Image> {
        self.checked(index)?;
        self.parts.source.decode(index)?.map_err(|reason| {
            Error::format(self.parts.source.place(index), format!("cannot be decoded: {reason}"))
        })
    }

    /// The same, and `None` for a damaged picture, which is then among [`damaged`](Self::damaged). Which are, depends on
    /// their bytes alone.
    ///
    /// # Errors
    /// When `index` is out of range, and when the file has changed or has gone away.
    pub fn decode_good(&self, index: usize) -> Result<Option<Image>> {
        self.checked(index)?;
        match self.parts.source.decode(index)? {
            Ok(image) => Ok(Some(image)),
            Err(reason) => {
                let name = self.parts.source.name(index);
                let left_out =
                    LeftOut { name, reason: format!("cannot be decoded: {reason}"), damaged: true };
                self.damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(index, left_out);
                Ok(None)
            }
        }
    }

    fn checked(&self, index: usize) -> Result<()> {
        if index >= self.len() {
            let (name, len) = (&self.name, self.len());
            return Err(Error::Config(format!("{name}: there is no image {index}, it has {len}")));
        }
        Ok(())
    }

    /// The pictures of the set that [`decode_good`](Self::decode_good) could not decode so far.
    pub fn damaged(&self) -> Vec<LeftOut> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// What is known of image `index` by now, if it was damaged.
    pub(super) fn damage(&self, index: usize) -> Option<LeftOut> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).get(&index).cloned()
    }

    /// (width, height) in pixels of the first image as stored.
    pub fn native_size(&self) -> (usize, usize) {
        self.parts.sizes[0]
    }

    /// The size in pixels that images are to be brought to: what was asked for at opening, or the native size.
    pub fn image_size(&self) -> Extent {
        self.image_size
    }

    /// Files that lie where the set does and are not in it.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.parts.left_out
    }

    /// What a person should know before trusting the labels.
    pub fn warnings(&self) -> &[String] {
        &self.parts.warnings
    }

    /// A stable hash over names, labels and contents, the same wherever the set lies on disk: equal fingerprints mean
    /// that a training may be resumed on this set.
    pub fn fingerprint(&self) -> String {
        self.parts.fingerprint.clone()
    }

    /// The hash that an earlier version of this program had of this set: of names, labels and sizes of files, without
    /// their contents. None where it is the same still.
    pub fn earlier_fingerprint(&self) -> Option<&str> {
        self.parts.earlier_fingerprint.as_deref()
    }

    /// Whether a text names this set by its fingerprint, or by that of an earlier version.
    pub fn is_named_in(&self, text: &str) -> bool {
        text.contains(&self.parts.fingerprint)
            || self.earlier_fingerprint().is_some_and(|earlier| text.contains(earlier))
    }
}

/// What was asked for of the pictures, and the vectors that say it.
fn told(spec: &str, parts: &Parts, options: &DataOptions) -> Result<(Vec<Attribute>, Vec<f32>)> {
    let bad = |what: String| Error::format(spec, what);
    let (mut attributes, mut columns) = (Vec::new(), Vec::new());
    for (i, name) in options.attributes.iter().enumerate() {
        if options.attributes[..i].contains(name) {
            return Err(Error::Config(format!("attributes: {} is named twice", brief(name))));
        }
        let is_class = name == CLASS;
        if is_class && parts.is_unlabelled {
            return Err(bad("has no labels to be the attribute `class`".into()));
        }
        let own = || Column {
            name: name.clone(),
            cells: parts
                .labels
                .iter()
                .map(|label| Some(parts.class_names[*label as usize].clone()))
                .collect(),
        };
        let found = parts.columns.iter().find(|column| column.name == *name).filter(|_| !is_class);
        let column = match found {
            Some(column) => Cow::Borrowed(column),
            None => Cow::Owned(own()),
        };
        let attribute = column.attribute(is_class.then_some(&parts.class_names));
        attributes.push(attribute.map_err(|what| bad(format!("the column `{}` {what}", brief(name))))?);
        columns.push(column);
    }
    let width = vector_width(&attributes);
    let pieces = vector_pieces(&attributes);
    let mut vectors = vec![0.0; width * parts.labels.len()];
    for ((attribute, column), (_, piece)) in attributes.iter().zip(&columns).zip(&pieces) {
        for (vector, cell) in vectors.chunks_mut(width).zip(&column.cells) {
            if let Some(cell) = cell {
                attribute.put(cell, &mut vector[piece.clone()])?;
            }
        }
    }
    Ok((attributes, vectors))
}

/// The size of images that are all of one.
pub(super) fn one_size(spec: &str, sizes: &[(usize, usize)]) -> Result<Extent> {
    let first = *sizes.first().ok_or_else(|| Error::format(spec, "holds no images"))?;
    match sizes.iter().find(|size| **size != first) {
        None => Ok(extent_of(first)),
        Some(other) => Err(Error::format(
            spec,
            format!(
                "images differ in size ({} and {}, height first); give an image size to bring them to",
                extent_of(first),
                extent_of(*other)
            ),
        )),
    }
}

/// Of (width, height).
pub(super) fn extent_of((width, height): (usize, usize)) -> Extent {
    Extent::Plane { height, width }
}
