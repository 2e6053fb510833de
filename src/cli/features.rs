//! What `stats`, `eval` and `sweep` share: the network of the features, and collecting with a bar.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::eval::{
    Collected, Convention, DataPictures, FeatureNetwork, Inception, NpzPictures, PictureClassifier,
    PictureSource, Reference, collect, default_images, train_classifier,
};
use crate::gpu::Gpu;
use crate::io::SafetensorsFile;

use super::{interrupt, progress};

/// Which network the features are of.
#[derive(clap::Args, Clone, Debug)]
pub struct FeatureArgs {
    /// Inception-v3's weights as torchvision's or pytorch-fid's file has them, a classifier that `auto` trained before, or
    /// `auto`: train a small one on the reference data. Numbers of `auto` compare only with themselves.
    #[arg(long, value_name = "FILE|auto", default_value = "auto", help_heading = "Features")]
    features: String,
    /// How Inception's pictures are resized: as TensorFlow 1 does or as PyTorch does [default: as published numbers do].
    #[arg(long, value_name = "tensorflow|pytorch", help_heading = "Features")]
    resize: Option<String>,
}

/// Where the classifier of a file of statistics lies: `x.npz` has `x.classifier.safetensors` beside it.
pub fn classifier_beside(stats: &Path) -> PathBuf {
    stats.with_extension("classifier.safetensors")
}

impl FeatureArgs {
    fn in_file(&self, gpu: &Gpu, path: &Path) -> Result<Box<dyn FeatureNetwork>> {
        let convention = match self.resize.as_deref() {
            None => None,
            Some("tensorflow") => Some(Convention::TensorFlow),
            Some("pytorch") => Some(Convention::PyTorch),
            Some(other) => {
                return Err(Error::Config(format!("--resize {other}: it is tensorflow or pytorch")));
            }
        };
        let safetensors = path.extension().is_some_and(|extension| extension == "safetensors");
        if safetensors && PictureClassifier::is_in(&SafetensorsFile::open(path)?) {
            return Ok(Box::new(PictureClassifier::load(gpu, path)?));
        }
        Ok(Box::new(Inception::load(gpu, path, convention)?))
    }

    /// The network that is asked for. `auto` reads `kept` if it is of this data, else trains and writes it.
    pub fn network(&self, gpu: &Gpu, data: Option<&Dataset>, kept: &Path) -> Result<Box<dyn FeatureNetwork>> {
        if self.features != "auto" {
            return self.in_file(gpu, self.features.as_ref());
        }
        if kept.exists() {
            let network = PictureClassifier::load(gpu, kept)?;
            // The identity names the set by its fingerprint; that of another set is not this one's.
            let fits = |data: &Dataset| {
                network.identity().contains(&data.fingerprint()) && network.shape().size == data.image_size()
            };
            if data.is_none_or(fits) {
                return Ok(Box::new(network));
            }
            let what = "is a classifier of other data; delete it, or give another place";
            return Err(Error::format(kept, what));
        }
        let Some(data) = data else {
            let what = format!(
                "there is no {}: with statistics alone `--features auto` needs the classifier that made them",
                kept.display()
            );
            return Err(Error::Config(format!("{what}; give it as --features FILE, or --reference DATA")));
        };
        let (images, stop) = (default_images(data), interrupt::flag());
        eprintln!(
            "features: first a small classifier of {} is learnt from {images} pictures, as --features names no network; it is \
             kept in {}, so that this is done once",
            data.name,
            kept.display()
        );
        let bar = progress::bar("learning", "pictures", 0, images as u64);
        let network = train_classifier(gpu, data, images, 0, |done, _| {
            bar.set_position(done as u64);
            if stop.load(Ordering::SeqCst) { Err(Error::Interrupted) } else { Ok(()) }
        })?;
        bar.finish_and_clear();
        network.save(kept)?;
        eprintln!(
            "features: a classifier of {}, right on {:.1}% of pictures that it had not seen; its numbers compare only with \
             themselves (kept in {})",
            data.name,
            100.0 * network.accuracy(),
            kept.display()
        );
        Ok(Box::new(network))
    }
}

/// [`collect`] with a bar and Ctrl-C.
pub fn collected(
    what: &str,
    source: &mut dyn PictureSource,
    network: &dyn FeatureNetwork,
    dir: &Path,
) -> Result<Collected> {
    let (stop, count) = (interrupt::flag(), source.count() as u64);
    let bar = progress::bar(what, "pictures", 0, count);
    let collected = collect(source, network, dir, |done, _| {
        bar.set_position(done as u64);
        if stop.load(Ordering::SeqCst) && (done as u64) < count { Err(Error::Interrupted) } else { Ok(()) }
    })?;
    bar.finish_and_clear();
    Ok(collected)
}

/// What pictures are compared with, and the network of its features.
pub struct Compared {
    pub reference: Reference,
    pub network: Box<dyn FeatureNetwork>,
}

/// The reference that `spec` names: a file of statistics, or data, whose features are then collected. `size` is that of the
/// pictures to be compared; `work` keeps what is made on the way.
pub fn compared(
    gpu: &Gpu,
    spec: &str,
    features: &FeatureArgs,
    size: Option<usize>,
    work: &Path,
) -> Result<Compared> {
    let path = Path::new(spec);
    if path.extension().is_some_and(|extension| extension == "npz") {
        if !Reference::is_in(path) {
            return Err(Error::format(
                path,
                "has no mu and sigma, so it is no file of statistics; give the data itself (a folder, a zip, IDX), or what \
                 `freeguide stats DATA --out STATS.npz` made of it. A .npz of samples is for --samples",
            ));
        }
        let network = features.network(gpu, None, &classifier_beside(path))?;
        return Ok(Compared { reference: Reference::load(path)?, network });
    }
    let data = Dataset::open(spec, size)?;
    std::fs::create_dir_all(work).map_err(Error::io(work))?;
    let network = features.network(gpu, Some(&data), &work.join("classifier.safetensors"))?;
    let parts = work.join("reference");
    let collected = collected("reference", &mut DataPictures::new(&data, None), &*network, &parts)?;
    let reference = Reference::of(&collected, network.identity())?;
    Ok(Compared { reference, network })
}

/// The pictures that `spec` names: a `.npz` of samples, or data.
pub fn with_pictures<T>(
    spec: &str,
    size: Option<usize>,
    most: Option<usize>,
    then: impl FnOnce(&mut dyn PictureSource) -> Result<T>,
) -> Result<T> {
    let path = Path::new(spec);
    if path.extension().is_some_and(|extension| extension == "npz") {
        return then(&mut NpzPictures::open(path, most)?);
    }
    let data = Dataset::open(spec, size)?;
    then(&mut DataPictures::new(&data, most))
}
