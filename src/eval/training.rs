//! Training the small classifier of `--features auto`.

use crate::autograd::backprop;
use crate::data::transform::prepare;
use crate::data::{CropOffset, Dataset};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::nn::Arena;
use crate::ops::{self, AdamW, Controls, OptimizerArena, OptimizerState};
use crate::random::{Stream, words};
use crate::shape::Shape;
use crate::sizes;
use crate::tensor::{Context, DType, Tensor};

use super::classifier::{ClassifierNetwork, ClassifierShape, PictureClassifier};
use super::network::{FeatureNetwork, Pictures};

/// Pictures a step.
const BATCH: usize = 64;
/// The learning rate after its rise; it falls along a half cosine.
const LEARNING_RATE: f64 = 2e-3;
/// Every so many pictures one is left out of training, to judge by.
const HELD_OUT: usize = 10;

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
    let shape = Shape { channels: dataset.channels, extent: dataset.image_size() };
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
    let parameters = network.parameters().clone();
    let [params, gradients, first, second, average] =
        ["parameters", "gradients", "first moment", "second moment", "average"]
            .map(|label| parameters.arena(gpu, label, 1));
    let (params, gradients, first, second, average) = (params?, gradients?, first?, second?, average?);
    let values = parameters.initial_values(seed);
    params.write(gpu, 0, &values)?;
    average.write(gpu, 0, &values)?;

    // One step: the network, its loss, its gradients, AdamW and the average.
    let count = BATCH * shape.len();
    let pictures = gpu.buffer("pictures", count.next_multiple_of(4) as u64)?;
    let labels = gpu.buffer("labels", (BATCH * 4) as u64)?;
    let hyper = gpu.buffer("learning rate, weight decay, clip", 16)?;
    let mut cx = Context::with_tape(gpu);
    let weights = params.weights(&parameters, 0);
    weights.track(&mut cx, &gradients.weights(&parameters, 0));
    let bytes = Tensor::over(&pictures, &[count.div_ceil(4)], DType::U32);
    let x = ops::pixels(&mut cx, &bytes, shape.nhwc(BATCH))?;
    let recorded = network.forward(&mut cx, &weights, &x)?;
    let labels_tensor = Tensor::over(&labels, &[BATCH], DType::U32);
    let loss = ops::cross_entropy(&mut cx, &recorded.logits, &labels_tensor, 1.0 / BATCH as f32)?.loss;
    backprop(&mut cx, &loss)?;
    let mut controls = Controls::new(&cx, &OptimizerState::new(false), false)?;
    controls.hyper = Tensor::over(&hyper, &[4], DType::F32);
    let flat = [&params, &gradients, &first, &second, &average].map(Arena::flat);
    let arena = |i: usize| OptimizerArena {
        params: &flat[0][i],
        grads: &flat[1][i],
        first_moments: &flat[2][i],
        second_moments: &flat[3][i],
        ema: Some(&flat[4][i]),
    };
    let arenas: Vec<_> = (0..flat[0].len()).map(arena).collect();
    AdamW::default().step(&mut cx, &arenas, &controls, &[0.99])?;
    let plan = cx.finish("classifier training step")?;

    let decoded = |index: usize| -> Result<Option<Vec<u8>>> {
        let image = dataset.decode_good(index)?;
        Ok(image.map(|image| prepare(&image, shape.extent, CropOffset::CENTER, false).pixels))
    };
    let trained_on: Vec<usize> =
        (0..dataset.len()).filter(|index| index % HELD_OUT != HELD_OUT - 1).collect();
    // In the place of a damaged picture, the next good one.
    let good_from = |place: usize| -> Result<(usize, Vec<u8>)> {
        for &index in trained_on[place..].iter().chain(&trained_on[..place]) {
            if let Some(pixels) = decoded(index)? {
                return Ok((index, pixels));
            }
        }
        Err(Error::Config(format!("{}: not one of its pictures can be decoded", dataset.name)))
    };
    let steps = images.div_ceil(BATCH).max(1);
    for step in 0..steps {
        let (mut pixels, mut batch_labels) = (Vec::with_capacity(count), Vec::with_capacity(BATCH));
        for place in 0..BATCH {
            // Drawn with replacement: as even as an epoch's order over so many draws, and simpler.
            let word = words(seed, (place / 4) as u32, step as u64, Stream::Shuffle)[place % 4];
            let (index, picture) = good_from(((u64::from(word) * trained_on.len() as u64) >> 32) as usize)?;
            pixels.extend(picture);
            batch_labels.push(dataset.label(index));
        }
        pixels.resize(count.next_multiple_of(4), 0);
        let rise = ((step + 1) as f64 / (0.02 * steps as f64).max(1.0)).min(1.0);
        let fall = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / steps as f64).cos());
        let rates = [(LEARNING_RATE * rise * fall) as f32, 0.05, 1.0, 0.0];
        gpu.write(&pictures, 0, &pixels)?;
        gpu.write(&labels, 0, bytemuck::cast_slice(&batch_labels))?;
        gpu.write(&hyper, 0, bytemuck::cast_slice(&rates))?;
        plan.run()?;
        if step % 16 == 15 {
            gpu.wait()?;
        }
        on_step(((step + 1) * BATCH).min(images), images)?;
    }

    let values = average.read(gpu, &parameters, 0)?;
    let identity = format!(
        "classifier of {} ({}), {images} pictures, seed {seed}, average that warmed up",
        dataset.name,
        dataset.fingerprint()
    );
    let judge = PictureClassifier::new(gpu, network.clone(), values.clone(), identity.clone(), 0.0)?;
    let held_out: Vec<usize> = (HELD_OUT - 1..dataset.len()).step_by(HELD_OUT).collect();
    let (mut right, mut judged) = (0, 0);
    for part in held_out.chunks(512) {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for &index in part {
            if let Some(picture) = decoded(index)? {
                pixels.extend(picture);
                labels.push(dataset.label(index));
            }
        }
        if labels.is_empty() {
            continue;
        }
        judged += labels.len();
        let said = judge.extract(Pictures::of(&pixels, shape))?;
        let taken_for = said.probabilities.chunks(dataset.num_classes()).map(super::network::most_probable);
        right += labels.iter().zip(taken_for).filter(|(label, class)| **label == *class).count();
    }
    let right = right as f64 / judged.max(1) as f64;
    let trained = PictureClassifier::new(gpu, network, values, identity, right)?;
    Ok(trained.named(dataset.class_names.clone()))
}
