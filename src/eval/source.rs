//! Where pictures to be measured come from, part by part: data, files of samples, a model.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::network::{FeatureNetwork, Pictures, Sizes};
use super::store::{Collected, Store};
use crate::data::transform::prepare;
use crate::data::{CropOffset, Dataset, Image};
use crate::error::{Error, Result};
use crate::io::NpzArrays;
use crate::sample::Request;
use crate::shape::Shape;
use crate::sizes;

/// Pictures of a part: what an interruption loses at most.
const PART: usize = 512;

/// What is called with each part's pictures and classes.
pub type See<'a> = &'a mut dyn FnMut(Pictures<'_>, Option<&[u32]>) -> Result<()>;

/// Pictures in an order that is the same each time.
pub trait PictureSource {
    /// How many.
    fn count(&self) -> usize;

    /// In words, what tells these pictures from all others.
    fn identity(&self) -> String;

    /// Calls `see` with the parts from `first_part` on.
    ///
    /// # Errors
    /// When a picture cannot be had; whatever `see` returns.
    fn for_parts(&mut self, first_part: usize, see: See<'_>) -> Result<()>;
}

/// Features of all pictures of a source, going on where a folder's parts end; `on_pictures` is told of (pictures done, in
/// all) and may stop it with an error.
///
/// # Errors
/// As the source, the network and the store.
pub fn collect(
    source: &mut dyn PictureSource,
    network: &dyn FeatureNetwork,
    dir: &Path,
    mut on_pictures: impl FnMut(usize, usize) -> Result<()>,
) -> Result<Collected> {
    let what = format!("{} through {}", source.identity(), network.identity());
    let mut store = Store::open(dir, &what, network.sizes())?;
    let (first, count) = (store.parts(), source.count());
    let Sizes { pooled, spatial, classes } = network.sizes();
    let bytes =
        sizes::bytes("the features", &[count, pooled.saturating_add(spatial).saturating_add(classes)], 4)?;
    sizes::check_host(
        &format!("the features of {count} pictures"),
        bytes,
        "measure fewer (a smaller count)",
    )?;
    on_pictures(store.pictures(), count)?;
    if store.pictures() < count {
        source.for_parts(first, &mut |pictures, labels| {
            store.push(&network.extract(pictures)?, labels)?;
            on_pictures(store.pictures(), count)
        })?;
    }
    store.collect()
}

/// The pictures of a data set, brought to its size. Damaged ones are left out; the set then knows which.
pub struct DataPictures<'a> {
    dataset: &'a Dataset,
    count: usize,
}

impl<'a> DataPictures<'a> {
    /// The first `most` of a set, or all.
    pub fn new(dataset: &'a Dataset, most: Option<usize>) -> Self {
        DataPictures { dataset, count: most.unwrap_or(usize::MAX).min(dataset.len()) }
    }
}

impl PictureSource for DataPictures<'_> {
    fn count(&self) -> usize {
        self.count
    }

    fn identity(&self) -> String {
        let Dataset { name, .. } = self.dataset;
        let (size, fingerprint) = (self.dataset.image_size(), self.dataset.fingerprint());
        format!("{} of {name} ({fingerprint}) at {size}", self.count)
    }

    fn for_parts(&mut self, first_part: usize, see: See<'_>) -> Result<()> {
        let size = self.dataset.image_size();
        let part = PART.min(self.count);
        let shape = Shape { channels: self.dataset.channels, extent: size };
        let bytes = sizes::bytes("the pictures of a part", &shape.nhwc(part), 1)?;
        sizes::check_host(&format!("{part} pictures of {size}"), bytes, "bring them to a smaller size")?;
        for first in (first_part * PART..self.count).step_by(PART) {
            let indices = first..(first + PART).min(self.count);
            let (mut pixels, mut labels) = (Vec::new(), Vec::new());
            for index in indices.clone() {
                let Some(image) = self.dataset.decode_good(index)? else { continue };
                pixels.extend(prepare(&image, size, CropOffset::CENTER, false).pixels);
                labels.push(self.dataset.label(index));
            }
            if labels.is_empty() {
                let (name, end) = (&self.dataset.name, indices.end - 1);
                let what = format!("{name}: not one of its pictures {first} to {end} can be decoded");
                return Err(Error::Config(what));
            }
            see(Pictures::of(&pixels, shape), Some(&labels))?;
        }
        Ok(())
    }
}

/// The pictures of a `.npz`: `arr_0` and, where there are any, classes in `arr_1`.
pub struct NpzPictures {
    path: PathBuf,
    count: usize,
    labels: Option<Vec<u32>>,
    /// Of the file.
    contents: String,
}

/// What a file holds, in words by which it is known again: its size and the CRC-32 of its bytes.
///
/// # Errors
/// When it cannot be read.
pub fn contents_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let (mut sum, mut bytes, mut part) = (crc32fast::Hasher::new(), 0, vec![0; 1 << 20]);
    loop {
        match file.read(&mut part).map_err(Error::io(path))? {
            0 => return Ok(format!("{bytes} bytes, {:08x}", sum.finalize())),
            read => {
                sum.update(&part[..read]);
                bytes += read as u64;
            }
        }
    }
}

impl NpzPictures {
    /// The first `most` of a file, or all.
    ///
    /// # Errors
    /// When the file has no pictures, or is damaged.
    pub fn open(path: &Path, most: Option<usize>) -> Result<Self> {
        let mut file = NpzArrays::open(path)?;
        let all = file.pictures()?;
        let labels = if file.has("arr_1") { file.i64("arr_1")? } else { None };
        let labels: Option<Vec<u32>> = labels.map(|labels| {
            labels.values.iter().map(|&label| u32::try_from(label).unwrap_or(u32::MAX)).collect()
        });
        let count = most.unwrap_or(usize::MAX).min(all);
        let labels = labels.filter(|labels| labels.len() == all);
        Ok(NpzPictures { path: path.to_owned(), count, labels, contents: contents_of(path)? })
    }
}

impl PictureSource for NpzPictures {
    fn count(&self) -> usize {
        self.count
    }

    fn identity(&self) -> String {
        // By contents alone: the same path may hold other pictures tomorrow, and another path the same.
        format!("{} of a .npz of {}", self.count, self.contents)
    }

    fn for_parts(&mut self, first_part: usize, see: See<'_>) -> Result<()> {
        let (mut part, count, labels) = (0, self.count, &self.labels);
        NpzArrays::open(&self.path)?.for_pictures(PART, |bytes, (width, height, channels)| {
            let one = width * height * channels;
            let first = part * PART;
            let now = (bytes.len() / one).min(count - first.min(count));
            part += 1;
            if part > first_part && now > 0 {
                let pictures = Pictures { pixels: &bytes[..now * one], width, height, channels };
                see(pictures, labels.as_ref().map(|labels| &labels[first..first + now]))?;
            }
            Ok(part * PART < count)
        })
    }
}

/// Makes the pictures of some requests.
pub type Draw<'a> = Box<dyn FnMut(&[Request]) -> Result<Vec<Image>> + 'a>;

/// Pictures that a sampler makes as they are needed.
pub struct SampledPictures<'a> {
    count: usize,
    classes: Option<u32>,
    identity: String,
    draw: Draw<'a>,
}

impl<'a> SampledPictures<'a> {
    /// `count` pictures, the classes in turn and each picture with its own number as seed. `identity` says in words which
    /// model and which options make them.
    pub fn new(count: usize, classes: Option<u32>, identity: &str, draw: Draw<'a>) -> Self {
        SampledPictures { count, classes, identity: format!("{count} of {identity}"), draw }
    }
}

impl PictureSource for SampledPictures<'_> {
    fn count(&self) -> usize {
        self.count
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn for_parts(&mut self, first_part: usize, see: See<'_>) -> Result<()> {
        let classes = self.classes;
        let class = |i: usize| classes.map(|classes| (i as u64 % u64::from(classes.max(1))) as u32);
        for first in (0..self.count).step_by(PART).skip(first_part) {
            let places = first..(first + PART).min(self.count);
            let requests: Vec<Request> = places.map(|i| Request::new(class(i), i as u64)).collect();
            let images = (self.draw)(&requests)?;
            let Some(Image { width, height, channels, .. }) = images.first().cloned() else {
                return Err(Error::Config("a sampler gave no pictures".into()));
            };
            let pixels: Vec<u8> = images.iter().flat_map(|image| image.pixels.iter().copied()).collect();
            let labels: Option<Vec<u32>> = requests.iter().map(|request| request.condition.class).collect();
            see(Pictures { pixels: &pixels, width, height, channels }, labels.as_deref())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::network::Sizes;
    use super::*;
    use crate::io::{NpzValues, write_npz_arrays};

    #[test]
    fn features_of_other_pictures_in_a_file_of_the_same_name_and_size_are_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("samples.npz");
        let identity = |value: u8| {
            write_npz_arrays(&path, &[("arr_0", &[2, 1, 1, 3], NpzValues::U8(&[value; 6]))]).unwrap();
            NpzPictures::open(&path, None).unwrap().identity()
        };
        let (first, other, again) = (identity(1), identity(2), identity(1));
        assert_eq!(first, again);
        let moved = dir.path().join("moved.npz");
        std::fs::rename(&path, &moved).unwrap();
        assert_eq!(NpzPictures::open(&moved, None).unwrap().identity(), first, "wherever it lies");
        assert_ne!(NpzPictures::open(&moved, Some(1)).unwrap().identity(), first, "fewer of them");
        let sizes = Sizes { pooled: 1, spatial: 1, classes: 1 };
        let store = |what: &str| Store::open(&dir.path().join("parts"), what, sizes).map(drop);
        store(&first).unwrap();
        store(&again).unwrap();
        let message = store(&other).unwrap_err().to_string();
        assert!(message.contains("other pictures") && message.contains(&other), "{message}");
    }
}
