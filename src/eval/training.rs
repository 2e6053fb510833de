//! Training the small classifier of `--features auto`.

use crate::data::transform::prepare;
use crate::data::{CropOffset, Dataset};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu};
use crate::nn::{Lesson, Loss, Optimised, StepRates, StepSettings, Weights, half_cosine};
use crate::ops::{self, AdamW};
use crate::random::{Stream, words};
use crate::shape::Shape;
use crate::sizes;
use crate::tensor::{Context, DType, Tensor};

use super::classifier::{ClassifierNetwork, ClassifierShape, PictureClassifier};
use super::network::{FeatureNetwork, Pictures, most_probable};

/// Pictures a step.
const BATCH: usize = 64;
/// The learning rate after its rise; it falls along a half cosine.
const LEARNING_RATE: f64 = 2e-3;
/// The share of the steps over which the learning rate rises.
const RISE: f64 = 0.02;
/// Decoupled weight decay.
const WEIGHT_DECAY: f64 = 0.05;
/// The largest norm of the gradient.
const GRAD_CLIP: f64 = 1.0;
/// The rate of the weights' moving average, which is the classifier.
const EMA_RATE: f64 = 0.99;
/// Steps that are submitted before the device is waited for.
const STEPS_AHEAD: usize = 16;
/// Every so many pictures one is left out of training, to judge by.
const HELD_OUT: usize = 10;
/// Held-out pictures that are judged at a time.
const JUDGED_AT_ONCE: usize = 512;

/// Pictures to train on where nothing else is asked for: each 15 times, within bounds.
pub fn default_images(dataset: &Dataset) -> usize {
    dataset.len().saturating_mul(15).clamp(2_000, 1_000_000)
}

/// Trains a classifier of `dataset` on `images` pictures; `on_step` is told of (pictures, in all) and may stop it with an
/// error. The same set, number and seed give the same classifier on one adapter.
///
/// # Errors
/// [`Error::Config`] when the set has fewer than two classes or 20 pictures; a file that has changed, and a set of which nothing can be decoded.
pub fn train_classifier(
    gpu: &Gpu,
    dataset: &Dataset,
    images: usize,
    seed: u64,
    mut on_step: impl FnMut(usize, usize) -> Result<()>,
) -> Result<PictureClassifier> {
    let shape = dataset_shape(dataset);
    if dataset.num_classes() < 2 || dataset.len() < 2 * HELD_OUT {
        let (classes, len) = (dataset.num_classes(), dataset.len());
        return Err(Error::Config(format!(
            "features of a classifier trained on the data need two classes and {} pictures; {} has {classes} and {len}: \
             give a network's weights with --features FILE",
            2 * HELD_OUT,
            dataset.name
        )));
    }
    let bytes = sizes::bytes("a batch of pictures", &shape.nhwc(BATCH), 4)?;
    sizes::check_host("a batch of pictures to learn features on", bytes, "bring them to a smaller size")?;
    let classes = dataset.num_classes();
    let network = ClassifierNetwork::new(ClassifierShape { pictures: shape, classes })?;
    let values = learnt(gpu, dataset, &network, images, seed, &mut on_step)?;
    let identity = format!(
        "classifier of {} ({}), {images} pictures, seed {seed}, average that warmed up",
        dataset.name,
        dataset.fingerprint()
    );
    let judge = PictureClassifier::new(gpu, network.clone(), values.clone(), identity.clone(), 0.0)?;
    let right = share_of_right(&judge, dataset)?;
    let trained = PictureClassifier::new(gpu, network, values, identity, right)?;
    Ok(trained.named(dataset.class_names.clone()))
}

/// What its pictures are brought to.
fn dataset_shape(dataset: &Dataset) -> Shape {
    Shape { channels: dataset.channels, extent: dataset.image_size() }
}

/// The classes of a batch of pictures, and the cross-entropy.
struct ClassesOfPictures<'a> {
    network: &'a ClassifierNetwork,
    /// `[N, H, W, C]`.
    shape: [usize; 4],
    /// Bytes, four a word.
    pictures: &'a Buffer,
    labels: &'a Buffer,
}

impl Lesson for ClassesOfPictures<'_> {
    fn record(&self, cx: &mut Context, weights: &Weights) -> Result<Loss> {
        let ClassesOfPictures { network, shape, pictures, labels } = self;
        let (n, count) = (shape[0], shape.iter().product::<usize>());
        let bytes = Tensor::over(pictures, &[count.div_ceil(4)], DType::U32);
        let x = ops::pixels(cx, &bytes, *shape)?;
        let recorded = network.forward(cx, weights, &x)?;
        let labels = Tensor::over(labels, &[n], DType::U32);
        let found = ops::cross_entropy(cx, &recorded.logits, &labels, 1.0 / n as f32)?;
        Ok(Loss { value: found.loss, read: Vec::new() })
    }
}

/// The average of the weights after all steps.
fn learnt(
    gpu: &Gpu,
    dataset: &Dataset,
    network: &ClassifierNetwork,
    images: usize,
    seed: u64,
    on_step: &mut impl FnMut(usize, usize) -> Result<()>,
) -> Result<Vec<Vec<f32>>> {
    let shape = dataset_shape(dataset).nhwc(BATCH);
    let bytes = shape.iter().product::<usize>().next_multiple_of(4);
    let pictures = gpu.buffer("pictures", bytes as u64)?;
    let labels = gpu.buffer("labels", (BATCH * 4) as u64)?;
    let optimised = Optimised::new(gpu, network.parameters(), 1, seed)?;
    let lesson = ClassesOfPictures { network, shape, pictures: &pictures, labels: &labels };
    let settings = StepSettings {
        name: "classifier training",
        dtype: DType::F32,
        in_parts: false,
        adam: AdamW::default(),
        ema_rates: &[EMA_RATE],
    };
    let recorded = optimised.record(gpu, &lesson, settings)?;
    let trained_on: Vec<usize> =
        (0..dataset.len()).filter(|index| index % HELD_OUT != HELD_OUT - 1).collect();
    let steps = images.div_ceil(BATCH).max(1);
    for step in 0..steps {
        let (mut pixels, mut batch_labels) = (Vec::with_capacity(bytes), Vec::with_capacity(BATCH));
        for place in 0..BATCH {
            // Drawn with replacement: as even as an epoch's order over so many draws, and simpler.
            let word = words(seed, (place / 4) as u32, step as u64, Stream::Shuffle)[place % 4];
            let drawn = ((u64::from(word) * trained_on.len() as u64) >> 32) as usize;
            let (index, picture) = good_from(dataset, &trained_on, drawn)?;
            pixels.extend(picture);
            batch_labels.push(dataset.label(index));
        }
        pixels.resize(bytes, 0);
        let learning_rate = half_cosine(LEARNING_RATE, step, steps, RISE);
        let rates = StepRates { learning_rate, weight_decay: WEIGHT_DECAY, grad_clip: GRAD_CLIP };
        gpu.write(&pictures, 0, &pixels)?;
        gpu.write(&labels, 0, bytemuck::cast_slice(&batch_labels))?;
        optimised.set_rates(gpu, rates)?;
        recorded.gradients.run()?;
        if step % STEPS_AHEAD == STEPS_AHEAD - 1 {
            gpu.wait()?;
        }
        on_step(((step + 1) * BATCH).min(images), images)?;
    }
    optimised.averages.read(gpu, network.parameters(), 0)
}

/// The pixels of a picture at the set's size; none where it is damaged.
fn decoded(dataset: &Dataset, index: usize) -> Result<Option<Vec<u8>>> {
    let image = dataset.decode_good(index)?;
    Ok(image.map(|image| prepare(&image, dataset.image_size(), CropOffset::CENTER, false).pixels))
}

/// The first good picture of `order` from `place` on.
fn good_from(dataset: &Dataset, order: &[usize], place: usize) -> Result<(usize, Vec<u8>)> {
    for &index in order[place..].iter().chain(&order[..place]) {
        if let Some(pixels) = decoded(dataset, index)? {
            return Ok((index, pixels));
        }
    }
    Err(Error::Config(format!("{}: not one of its pictures can be decoded", dataset.name)))
}

/// The share of the held-out pictures whose class a classifier finds.
fn share_of_right(judge: &PictureClassifier, dataset: &Dataset) -> Result<f64> {
    let shape = dataset_shape(dataset);
    let held_out: Vec<usize> = (HELD_OUT - 1..dataset.len()).step_by(HELD_OUT).collect();
    let (mut right, mut judged) = (0, 0);
    for part in held_out.chunks(JUDGED_AT_ONCE) {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for &index in part {
            if let Some(picture) = decoded(dataset, index)? {
                pixels.extend(picture);
                labels.push(dataset.label(index));
            }
        }
        if labels.is_empty() {
            continue;
        }
        judged += labels.len();
        let said = judge.extract(Pictures::of(&pixels, shape))?;
        let taken_for = said.probabilities.chunks(dataset.num_classes()).map(most_probable);
        right += labels.iter().zip(taken_for).filter(|(label, class)| **label == *class).count();
    }
    Ok(right as f64 / judged.max(1) as f64)
}
