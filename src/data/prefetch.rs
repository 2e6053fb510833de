//! Decoding ahead on a thread of its own, so that the device need not wait for images.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use super::{Batch, Loader};
use crate::error::{Error, Result};

/// Batches in order, made ahead of need. Dropping it ends the thread.
pub struct Prefetch {
    /// Taken on drop: with no receiver, the thread's next send fails and it ends.
    batches: Option<Receiver<Result<Batch>>>,
    thread: Option<JoinHandle<()>>,
}

impl Prefetch {
    /// Starts making batches of `batch` images from image `first_image` on, at most `depth` (at least 1) ahead.
    pub fn new(loader: Arc<Loader>, first_image: u64, batch: usize, depth: usize) -> Prefetch {
        let (sender, receiver) = sync_channel(depth.max(1));
        let work = move || {
            let mut first = first_image;
            loop {
                let made = loader.batch(first, batch);
                let failed = made.is_err();
                if sender.send(made).is_err() || failed {
                    return;
                }
                first += batch as u64;
            }
        };
        let spawned = std::thread::Builder::new().name("prefetch".into()).spawn(work);
        Prefetch { batches: Some(receiver), thread: spawned.ok() }
    }

    /// The next batch, waiting for it if need be.
    ///
    /// # Errors
    /// What [`Loader::batch`] said; after an error there are no more batches.
    #[allow(clippy::should_implement_trait, reason = "the stream never ends, so there is no None")]
    pub fn next(&mut self) -> Result<Batch> {
        let stopped = || Error::Config("the loading thread has stopped; no more images come".into());
        self.batches.as_ref().ok_or_else(stopped)?.recv().map_err(|_| stopped())?
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        drop(self.batches.take());
        if let Some(thread) = self.thread.take() {
            // A panic over there has already shown itself as a stopped thread.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tests::hollow;
    use crate::data::{Crop, Dataset, LoaderOptions};
    use crate::shape::Extent;

    fn loader(dataset: Dataset) -> Arc<Loader> {
        let options =
            LoaderOptions { image_size: Extent::square(5), crop: Crop::Center, flip: true, seed: 1 };
        Arc::new(Loader::new(Arc::new(dataset), options))
    }

    #[test]
    fn gives_what_the_loader_gives_and_ends() {
        let loader = loader(Dataset::open("digits", None).unwrap());
        let mut ahead = Prefetch::new(loader.clone(), 1793, 3, 2);
        for first in [1793, 1796, 1799] {
            assert_eq!(ahead.next().unwrap(), loader.batch(first, 3).unwrap());
        }
        drop(ahead);
        assert_eq!(Arc::strong_count(&loader), 1);
    }

    #[test]
    fn errors_come_through() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("hollow.png"), hollow()).unwrap();
        let mut ahead =
            Prefetch::new(loader(Dataset::open(dir.path().to_str().unwrap(), None).unwrap()), 0, 1, 4);
        assert!(ahead.next().unwrap_err().to_string().contains("not one of its 1 pictures"));
        assert!(ahead.next().unwrap_err().to_string().contains("stopped"));
    }
}
