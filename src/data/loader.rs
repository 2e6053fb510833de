//! Batches as a pure function of the seed and the number of images seen.
//!
//! Image `k` of a training is image `permutation[k % len]` of epoch `k / len`, so a training that resumes at
//! image `k` goes on exactly as one that never stopped. In the place of a damaged picture comes the next good one of the
//! epoch's order, which is a function of the pictures' bytes as well.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::transform::{CropOffset, prepare, stretch};
use super::{Dataset, Image, LeftOut};
use crate::error::{Error, Result};
use crate::random::{Stream, uniform, words};
use crate::shape::Extent;
use crate::sizes::MOST_BATCH;

/// Prepared images are kept when all of them together take no more than this.
const CACHE_BYTES: usize = 1 << 30;

/// What becomes of images of other proportions than are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Crop {
    /// Cropped in the middle.
    #[default]
    Center,
    /// Cropped anywhere along the side that is too long, anew each epoch.
    Random,
    /// Brought to size as a whole, stretched along one side.
    Stretch,
}

/// What a [`Loader`] does to images.
#[derive(Clone, Copy, Debug)]
pub struct LoaderOptions {
    /// The size in pixels of what comes out.
    pub image_size: Extent,
    /// Where to crop.
    pub crop: Crop,
    /// Mirror left to right with probability one half.
    pub flip: bool,
    /// Drives order, flips and crops.
    pub seed: u64,
}

/// Some images and their labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// (N, H, W, C) bytes of 0..=255.
    pub images: Vec<u8>,
    /// (N) labels.
    pub labels: Vec<u32>,
    /// (N, D) numbers that a network is told; empty where there are none.
    pub vectors: Vec<f32>,
    /// The number of images that came before, over all epochs.
    pub first_image: u64,
    /// Damaged pictures that would have been in this batch; others stand in their places.
    pub left_out: Vec<LeftOut>,
}

/// An epoch and its order.
type Epoch = (u64, Arc<Vec<u32>>);

/// Deals out a [`Dataset`] in batches.
pub struct Loader {
    dataset: Arc<Dataset>,
    options: LoaderOptions,
    /// The orders last used, latest last: a batch may reach from one epoch into the next.
    orders: Mutex<Vec<Epoch>>,
    /// Images cropped and resized but not flipped; empty where they are too many or crops vary.
    prepared: Vec<OnceLock<Image>>,
}

impl Loader {
    /// A loader of `dataset`.
    pub fn new(dataset: Arc<Dataset>, options: LoaderOptions) -> Loader {
        let size = options.image_size;
        let factors = [size.height(), size.width(), dataset.channels];
        let bytes = factors.into_iter().fold(dataset.len(), usize::saturating_mul);
        let cached = if options.crop != Crop::Random && bytes <= CACHE_BYTES { dataset.len() } else { 0 };
        let prepared = (0..cached).map(|_| OnceLock::new()).collect();
        Loader { dataset, options, orders: Mutex::default(), prepared }
    }

    /// The set behind this loader.
    pub fn dataset(&self) -> &Arc<Dataset> {
        &self.dataset
    }

    /// The `count` images after the first `first_image` ones, over epochs without end.
    ///
    /// # Errors
    /// When a file has changed or has gone away, and when not one picture of the set can be decoded.
    pub fn batch(&self, first_image: u64, count: usize) -> Result<Batch> {
        let size = self.options.image_size;
        if size.height() == 0 || size.width() == 0 || size.longer() > 1 << 15 {
            return Err(Error::Config(format!(
                "an image size of {size} is not between 1 and 32768 along each side"
            )));
        }
        if count > MOST_BATCH {
            return Err(Error::Config(format!(
                "a batch of {count} images; at most {MOST_BATCH} are possible"
            )));
        }
        if first_image.checked_add(count as u64).is_none() {
            return Err(Error::Config(format!("no training has seen {first_image} images")));
        }
        let mut batch = Batch { labels: Vec::with_capacity(count), first_image, ..Batch::default() };
        for image_index in first_image..first_image + count as u64 {
            let len = self.dataset.len() as u64;
            let order = self.order(image_index / len);
            let place = (image_index % len) as usize;
            // From the place on, and round: the first that can be decoded.
            let mut candidates = order[place..].iter().chain(&order[..place]).map(|&index| index as usize);
            let index = loop {
                let index = candidates.next().ok_or_else(|| {
                    let (name, len) = (&self.dataset.name, self.dataset.len());
                    Error::Config(format!("{name}: not one of its {len} pictures can be decoded"))
                })?;
                if self.append(image_index, index, &mut batch.images)? {
                    break index;
                }
                batch.left_out.extend(self.dataset.damage(index));
            };
            batch.labels.push(self.dataset.label(index));
            batch.vectors.extend(self.dataset.vector(index));
        }
        batch.left_out.sort();
        batch.left_out.dedup();
        Ok(batch)
    }

    /// Appends image `index` of the set, cropped and flipped as image `image_index` of the training; false for a damaged
    /// one.
    fn append(&self, image_index: u64, index: usize, out: &mut Vec<u8>) -> Result<bool> {
        if self.dataset.damage(index).is_some() {
            return Ok(false);
        }
        let chance = words(self.options.seed, 0, image_index, Stream::FlipCrop);
        let flip = self.options.flip && uniform(chance[0]) < 0.5;
        let size = self.options.image_size;
        let prepare = |image: &Image, flip: bool| match self.options.crop {
            Crop::Center => prepare(image, size, CropOffset::CENTER, flip),
            Crop::Random => {
                prepare(image, size, CropOffset { u: uniform(chance[1]), v: uniform(chance[2]) }, flip)
            }
            Crop::Stretch => stretch(image, size, flip),
        };
        let Some(slot) = self.prepared.get(index) else {
            let Some(image) = self.dataset.decode_good(index)? else { return Ok(false) };
            out.extend(prepare(&image, flip).pixels);
            return Ok(true);
        };
        let image = match slot.get() {
            Some(image) => image,
            None => {
                let Some(image) = self.dataset.decode_good(index)? else { return Ok(false) };
                let image = prepare(&image, false);
                slot.get_or_init(|| image)
            }
        };
        if flip {
            out.extend(prepare(image, true).pixels);
        } else {
            out.extend(&image.pixels);
        }
        Ok(true)
    }

    /// The order of `epoch`.
    fn order(&self, epoch: u64) -> Arc<Vec<u32>> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = orders.iter().find(|(known, _)| *known == epoch) {
            return order.clone();
        }
        let order = Arc::new(permutation(self.dataset.len(), self.options.seed, epoch));
        if orders.len() == 2 {
            orders.remove(0);
        }
        orders.push((epoch, order.clone()));
        order
    }
}

/// A Fisher-Yates shuffle of `0..len`, keyed by seed and epoch.
fn permutation(len: usize, seed: u64, epoch: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..len as u32).collect();
    for i in (1..len).rev() {
        let word = words(seed, (i / 4) as u32, epoch, Stream::Shuffle)[i % 4];
        // All 32 bits scaled to 0..=i: a float of 24 bits would not reach every place of a large set.
        let j = (u64::from(word) * (i as u64 + 1)) >> 32;
        order.swap(i, j as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loader(flip: bool, crop: Crop, side: usize, seed: u64) -> Loader {
        let image_size = Extent::square(side);
        let dataset = Arc::new(Dataset::open("digits", Some(image_size)).unwrap());
        Loader::new(dataset, LoaderOptions { image_size, crop, flip, seed })
    }

    #[test]
    fn every_epoch_is_a_new_order_of_all() {
        for len in [1, 2, 3, 5, 97] {
            let first = permutation(len, 3, 0);
            let mut sorted = first.clone();
            sorted.sort();
            assert_eq!(sorted, (0..len as u32).collect::<Vec<_>>());
            assert_eq!(first, permutation(len, 3, 0));
            if len == 97 {
                assert_ne!(first, permutation(len, 3, 1));
                assert_ne!(first, permutation(len, 4, 0));
            }
        }
    }

    #[test]
    fn places_are_even() {
        // Where image 0 of 5 lands over 2000 epochs: 400 each, four standard deviations are 72.
        let mut counts = [0; 5];
        for epoch in 0..2000 {
            counts[permutation(5, 11, epoch).iter().position(|&i| i == 0).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (328..=472).contains(count)), "{counts:?}");
    }

    #[test]
    fn batches_do_not_depend_on_how_they_are_cut() {
        for (crop, size) in [(Crop::Center, 8), (Crop::Random, 5)] {
            let whole = loader(true, crop, size, 7).batch(1790, 13).unwrap();
            let parts = loader(true, crop, size, 7);
            let late = parts.batch(1797, 6).unwrap();
            let early = parts.batch(1790, 7).unwrap();
            assert_eq!(whole.images, [early.images, late.images].concat());
            assert_eq!(whole.labels, [early.labels, late.labels].concat());
            assert_eq!(whole.images.len(), 13 * size * size);
            // A second pass, which finds images prepared, gives the same.
            assert_eq!(parts.batch(1790, 7).unwrap(), parts.batch(1790, 7).unwrap());
        }
    }

    #[test]
    fn sizes_that_are_not_square_come_out_whole_or_stretched() {
        let image_size = Extent::Plane { height: 8, width: 16 };
        let dataset = Arc::new(Dataset::open("digits", Some(image_size)).unwrap());
        let batch = |crop, flip| {
            let options = LoaderOptions { image_size, crop, flip, seed: 7 };
            Loader::new(dataset.clone(), options).batch(0, 50).unwrap()
        };
        let (cropped, stretched) = (batch(Crop::Center, false), batch(Crop::Stretch, false));
        assert_eq!((cropped.images.len(), stretched.images.len()), (50 * 128, 50 * 128));
        assert_ne!(cropped.images, stretched.images);
        assert_eq!(cropped.labels, stretched.labels);
        assert_ne!(batch(Crop::Stretch, true).images, stretched.images);
        assert_ne!(batch(Crop::Random, false).images, cropped.images);
    }

    #[test]
    fn flips_about_half() {
        let plain = loader(false, Crop::Center, 8, 7).batch(0, 301).unwrap();
        let flipped = loader(true, Crop::Center, 8, 7).batch(0, 301).unwrap();
        assert_eq!(plain.labels, flipped.labels);
        let differ = plain.images.chunks(64).zip(flipped.images.chunks(64)).filter(|(a, b)| a != b).count();
        assert!((115..=186).contains(&differ), "{differ} of 301");
        assert_ne!(plain.labels, loader(false, Crop::Center, 8, 8).batch(0, 301).unwrap().labels);
        assert!(Dataset::open("digits", Some(Extent::square(40_000))).is_err());
    }
}
