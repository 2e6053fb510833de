//! What `stats`, `eval` and `sweep` share: the network of the features, and collecting with a bar.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::data::{DataOptions, Dataset};
use crate::error::{Error, Result};
use crate::eval::{
    Collected, Convention, DataPictures, FeatureNetwork, Inception, NpzPictures, PictureClassifier,
    PictureSource, Reference, Store, collect, contents_of, default_images, train_classifier,
};
use crate::gpu::Gpu;
use crate::io::{FileKind, NpzArrays, SafetensorsFile, WorkFolder, is_work_folder};
use crate::shape::Extent;

use super::data::{self, DataArgs};
use super::{interrupt, progress};

/// Which network the features are of.
#[derive(clap::Args, Clone, Debug)]
pub struct FeatureArgs {
    /// Inception-v3's weights as torchvision's or pytorch-fid's file has them, a classifier that `auto` trained before, or
    /// `auto`: train a small one on the reference data. Numbers of `auto` compare only with themselves.
    #[arg(long, value_name = "FILE|auto", default_value = "auto", help_heading = "Features")]
    features: String,
    /// How Inception's pictures are resized: as TensorFlow 1 does or as PyTorch does [default: as published numbers do].
    #[arg(
        long,
        value_name = "tensorflow|pytorch",
        value_parser = ["tensorflow", "pytorch"],
        hide_possible_values = true,
        help_heading = "Features"
    )]
    resize: Option<String>,
    /// Take no labels of the data.
    #[arg(long, conflicts_with = "label", help_heading = "Data")]
    unlabelled: bool,
    #[command(flatten)]
    reading: DataArgs,
}

/// Where the classifier of a file of statistics lies: `x.npz` has `x.classifier.safetensors` beside it.
pub fn classifier_beside(stats: &Path) -> PathBuf {
    stats.with_extension("classifier.safetensors")
}

impl FeatureArgs {
    /// How the data to measure, or to compare with, is read.
    pub fn reading(&self, image_size: Option<Extent>) -> DataOptions {
        self.reading.options(image_size, self.unlabelled)
    }

    fn in_file(&self, gpu: &Gpu, path: &Path) -> Result<Box<dyn FeatureNetwork>> {
        let convention = self.resize.as_deref().map(|resize| match resize {
            "tensorflow" => Convention::TensorFlow,
            _ => Convention::PyTorch,
        });
        let safetensors = path.extension().is_some_and(|extension| extension == "safetensors");
        if safetensors && PictureClassifier::is_in(&SafetensorsFile::open(path)?) {
            self.check_no_resize("the features are of a classifier")?;
            return Ok(Box::new(PictureClassifier::load(gpu, path)?));
        }
        Ok(Box::new(Inception::load(gpu, path, convention)?))
    }

    fn check_no_resize(&self, why: &str) -> Result<()> {
        match &self.resize {
            None => Ok(()),
            Some(_) => Err(Error::Config(format!("--resize is of Inception's pictures, and {why}"))),
        }
    }

    /// Whether anything of features or of how data is read was asked for.
    pub fn is_given(&self) -> bool {
        self.features != "auto" || self.resize.is_some() || self.reads_data_its_way()
    }

    /// Whether anything was asked of how data is read.
    fn reads_data_its_way(&self) -> bool {
        self.unlabelled || self.reading.is_given()
    }

    /// The network that is asked for. `auto` reads `kept` if it is of this data, else trains and writes it.
    pub fn network(&self, gpu: &Gpu, data: Option<&Dataset>, kept: &Path) -> Result<Box<dyn FeatureNetwork>> {
        if self.features != "auto" {
            return self.in_file(gpu, self.features.as_ref());
        }
        self.check_no_resize("--features names none")?;
        if kept.exists() {
            let network = PictureClassifier::load(gpu, kept)?;
            // The identity names the set by its fingerprint; that of another set is not this one's.
            let fits = |data: &Dataset| {
                data.is_named_in(network.identity()) && network.shape().pictures.extent == data.image_size()
            };
            if data.is_none_or(fits) {
                return Ok(Box::new(network));
            }
            let what = "is a classifier of other data; delete it, or give another place";
            return Err(Error::format(kept, what));
        }
        let Some(data) = data else {
            let what = format!(
                "there is no {}: `--features auto` learns from data, and of a .npz it needs the classifier that was made \
                 with it",
                kept.display()
            );
            return Err(Error::Config(format!(
                "{what}; give it, or Inception's weights, as --features FILE, or the data in place of the .npz"
            )));
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
    /// What the reference was made of, in words by which it is known again.
    pub contents: String,
    /// The names of its classes, where it is data: a file has labels alone.
    pub class_names: Option<Vec<String>>,
}

/// Whether a path names a file of arrays (`.npz`).
pub fn is_arrays(path: &Path) -> bool {
    let named = path.extension().is_some_and(|extension| extension == "npz");
    !path.is_dir() && (named || FileKind::of(path).is_ok_and(|kind| kind == FileKind::Npz))
}

/// The reference that `spec` names: a file of statistics, or data, whose features are then collected. `size` is that of the
/// pictures to be compared; `work` keeps what is made on the way.
pub fn compared(
    gpu: &Gpu,
    spec: &str,
    features: &FeatureArgs,
    size: Option<Extent>,
    work: &Path,
) -> Result<Compared> {
    let path = Path::new(spec);
    if is_arrays(path) {
        std::fs::metadata(path).map_err(Error::io(path))?;
        // Of pictures that are drawn; those of --samples are data.
        if size.is_some() && features.reads_data_its_way() {
            let what = "is a file of statistics: --label, --unlabelled and --strict-data are of data";
            return Err(Error::format(path, what));
        }
        let network = features.network(gpu, None, &classifier_beside(path))?;
        if Reference::is_in(path) {
            let (reference, contents) = (Reference::load(path)?, contents_of(path)?);
            return Ok(Compared { reference, network, contents, class_names: None });
        }
        if !NpzArrays::open(path)?.has("arr_0") {
            return Err(Error::format(path, "has neither statistics (mu and sigma) nor pictures (arr_0)"));
        }
        let mut pictures = NpzPictures::open(path, None)?;
        WorkFolder::open(work)?;
        let collected = collected("reference", &mut pictures, &*network, &work.join(REFERENCE))?;
        let reference = Reference::of(&collected, network.identity())?;
        return Ok(Compared { reference, network, contents: pictures.identity(), class_names: None });
    }
    let data = data::open(spec, &features.reading(size))?;
    WorkFolder::open(work)?;
    let network = features.network(gpu, Some(&data), &work.join("classifier.safetensors"))?;
    let parts = work.join(REFERENCE);
    let mut pictures = DataPictures::new(&data, None);
    let collected = collected("reference", &mut pictures, &*network, &parts)?;
    data::warn_of_damage(&data);
    let mut reference = Reference::of(&collected, network.identity())?;
    let contents = pictures.identity();
    if data.is_unlabelled() {
        reference.labels = None;
    }
    Ok(Compared { reference, network, contents, class_names: Some(data.class_names.clone()) })
}

/// Pictures that are there to be measured.
pub enum Given {
    /// A `.npz` of samples.
    Arrays(NpzPictures),
    /// Data, of which the first so many.
    Data(Arc<Dataset>, Option<usize>),
}

impl Given {
    /// Opens what `spec` names, of which the first `most` are to be measured, or all.
    pub fn open(spec: &str, most: Option<usize>) -> Result<Given> {
        let path = Path::new(spec);
        if is_arrays(path) {
            return Ok(Given::Arrays(NpzPictures::open(path, most)?));
        }
        Ok(Given::Data(data::open(spec, &data::trusting(None))?, most))
    }

    /// The names of their classes, none where their labels are numbers; nothing where they have no labels.
    pub fn class_names(&self) -> Option<Vec<String>> {
        match self {
            Given::Arrays(_) => Some(Vec::new()),
            Given::Data(data, _) => (!data.is_unlabelled()).then(|| data.class_names.clone()),
        }
    }

    /// Gives them to `then`, and warns of damage that shows on the way.
    pub fn with<T>(self, then: impl FnOnce(&mut dyn PictureSource) -> Result<T>) -> Result<T> {
        match self {
            Given::Arrays(mut pictures) => then(&mut pictures),
            Given::Data(data, most) => {
                let done = then(&mut DataPictures::new(&data, most));
                data::warn_of_damage(&data);
                done
            }
        }
    }
}

/// In a work folder, the features of the pictures that are measured.
pub const PARTS: &str = "pictures";

/// In a work folder, the features of the reference.
const REFERENCE: &str = "reference";

/// Does `work`, which may open the work folder `dir`. Where it fails before anything has come of it, all that it has made is
/// taken away again.
pub fn or_nothing<T>(dir: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let was_ours = is_work_folder(dir);
    let new = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let made: Vec<&Path> = dir.ancestors().take_while(new).collect();
    let done = work();
    if done.is_err() {
        // What cannot be taken away is no reason for another error than the one that is told.
        for store in [dir.to_owned(), dir.join(REFERENCE), dir.join(PARTS)] {
            let _ = Store::discard_empty(&store);
        }
        if !was_ours && is_work_folder(dir) {
            let _ = WorkFolder::open(dir).and_then(WorkFolder::unmark);
        }
        made.iter().for_each(|path| drop(std::fs::remove_dir(path)));
    }
    done
}
