//! Features of many pictures in a folder, part by part, so that an interrupted evaluation goes on where it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::network::{Extracted, Sizes, most_probable};
use super::{Features, InceptionScore, Moments, SPLIT};
use crate::error::{Error, Result};
use crate::io::{
    Dtype, SafetensorsFile, TensorBytes, WorkFolder, is_work_folder, write_atomic, write_safetensors,
};

/// What a store's pictures and network are called in.
const NOTE: &str = "features.txt";

/// A work folder of parts.
pub struct Store {
    dir: PathBuf,
    sizes: Sizes,
    counts: Vec<usize>,
}

/// What a store adds up to.
#[derive(Clone, Debug)]
pub struct Collected {
    /// Pooled features of every picture.
    pub features: Features,
    /// Sums of pooled features.
    pub pooled: Moments,
    /// Sums of spatial features.
    pub spatial: Moments,
    /// Sums for the inception score.
    pub score: InceptionScore,
    /// The class of each picture, where all have one.
    pub labels: Option<Vec<u32>>,
    /// The class that the network takes each picture for.
    pub taken_for: Vec<u32>,
}

impl Store {
    /// Opens or begins the store of `what` in `dir`: pictures and network in words, by which it is known again.
    ///
    /// # Errors
    /// [`Error::Config`] when the folder holds the features of something else, or is somebody else's.
    pub fn open(dir: &Path, what: &str, sizes: Sizes) -> Result<Store> {
        WorkFolder::open(dir)?;
        let note = dir.join(NOTE);
        match std::fs::read_to_string(&note) {
            Ok(known) if known == what => {}
            Ok(known) => {
                return Err(Error::Config(format!(
                    "{} holds features of other pictures or of another network:\n  there: {known}\n  asked: {what}\n\
                     delete it, or give another folder",
                    dir.display()
                )));
            }
            Err(_) => {
                write_atomic(&note, |writer| writer.write_all(what.as_bytes()).map_err(Error::io(&note)))?
            }
        }
        let mut store = Store { dir: dir.to_owned(), sizes, counts: Vec::new() };
        while let Some(part) = store.read(store.counts.len())? {
            store.counts.push(part.0.pooled.len() / sizes.pooled.max(1));
        }
        Ok(store)
    }

    /// Removes what stores have written in `dir`, and the folder if that is all there is.
    ///
    /// # Errors
    /// [`Error::Config`] when it is somebody else's folder; when a file cannot be removed.
    pub fn discard(dir: &Path) -> Result<()> {
        WorkFolder::open(dir)?.discard(|name| name == NOTE || part_of(name).is_some())
    }

    /// Removes what was written in `dir` for a store that came to no part; any other folder stays as it is.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn discard_empty(dir: &Path) -> Result<()> {
        match is_work_folder(dir) && !dir.join(part_name(0)).exists() && dir.join(NOTE).exists() {
            true => Store::discard(dir),
            false => Ok(()),
        }
    }

    /// Parts that are there.
    pub fn parts(&self) -> usize {
        self.counts.len()
    }

    /// Pictures that are there.
    pub fn pictures(&self) -> usize {
        self.counts.iter().sum()
    }

    fn path(&self, part: usize) -> PathBuf {
        self.dir.join(part_name(part))
    }

    /// Writes the next part. `labels` are given for all pictures or for none.
    ///
    /// # Errors
    /// [`Error::Shape`] when the rows do not fit one another; when the disk refuses.
    pub fn push(&mut self, extracted: &Extracted, labels: Option<&[u32]>) -> Result<()> {
        let Sizes { pooled, spatial, classes } = self.sizes;
        let count = extracted.pooled.len() / pooled.max(1);
        let fits = extracted.pooled.len() == count * pooled
            && extracted.spatial.len() == count * spatial
            && extracted.probabilities.len() == count * classes
            && labels.is_none_or(|labels| labels.len() == count);
        if !fits {
            return Err(Error::shape("features", format!("{count} pictures, but rows of other numbers")));
        }
        // Labels are whole numbers far below 2^24, so f32 holds them.
        let labels: Vec<f32> = labels.unwrap_or_default().iter().map(|&label| label as f32).collect();
        let tensor =
            |name, shape, values: &'_ [f32]| (name, shape, bytemuck::cast_slice::<f32, u8>(values).to_vec());
        let tensors = [
            tensor("pooled", [count, pooled], &extracted.pooled),
            tensor("spatial", [count, spatial], &extracted.spatial),
            tensor("probabilities", [count, classes], &extracted.probabilities),
            tensor("labels", [labels.len(), 1], &labels),
        ];
        let views: Vec<TensorBytes<'_>> = tensors
            .iter()
            .map(|(name, shape, bytes)| TensorBytes { name, dtype: Dtype::F32, shape, bytes })
            .collect();
        write_safetensors(self.path(self.counts.len()), &views, &BTreeMap::new())?;
        self.counts.push(count);
        Ok(())
    }

    /// A part and its labels; nothing if it is not there.
    fn read(&self, part: usize) -> Result<Option<(Extracted, Option<Vec<u32>>)>> {
        let path = self.path(part);
        if !path.exists() {
            return Ok(None);
        }
        let file = SafetensorsFile::open(&path)?;
        let rows = |name: &str, width: usize| {
            let (shape, values) = file.to_f32(name)?;
            match shape[..] {
                [_, wide] if wide == width => Ok(values),
                _ => Err(Error::tensor(&path, name, format!("is {shape:?}, but rows have {width} numbers"))),
            }
        };
        let Sizes { pooled, spatial, classes } = self.sizes;
        let extracted = Extracted {
            pooled: rows("pooled", pooled)?,
            spatial: rows("spatial", spatial)?,
            probabilities: rows("probabilities", classes)?,
        };
        let labels: Vec<u32> = rows("labels", 1)?.iter().map(|&label| label as u32).collect();
        let count = extracted.pooled.len() / pooled.max(1);
        Ok(Some((extracted, (labels.len() == count).then_some(labels))))
    }

    /// All parts together, reading one at a time.
    ///
    /// # Errors
    /// When a part is damaged.
    pub fn collect(&self) -> Result<Collected> {
        let Sizes { pooled, spatial, classes } = self.sizes;
        let mut all = Collected {
            features: Features::new(pooled),
            pooled: Moments::new(pooled),
            spatial: Moments::new(spatial),
            score: InceptionScore::new(classes, SPLIT),
            labels: Some(Vec::new()),
            taken_for: Vec::new(),
        };
        for part in 0..self.counts.len() {
            let Some((extracted, labels)) = self.read(part)? else {
                return Err(Error::format(self.path(part), "was there and is gone"));
            };
            all.pooled.push(&extracted.pooled)?;
            all.spatial.push(&extracted.spatial)?;
            all.score.push(&extracted.probabilities)?;
            all.taken_for.extend(extracted.probabilities.chunks(classes).map(most_probable));
            all.features.values.extend(extracted.pooled);
            all.labels = all.labels.zip(labels).map(|(mut all, labels)| {
                all.extend(labels);
                all
            });
        }
        Ok(all)
    }
}

fn part_name(part: usize) -> String {
    format!("part-{part:05}.safetensors")
}

/// Which part a file of this name is.
fn part_of(name: &str) -> Option<usize> {
    let number = name.strip_prefix("part-")?.strip_suffix(".safetensors")?.parse().ok()?;
    (part_name(number) == name).then_some(number)
}
