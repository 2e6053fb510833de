//! What is taught in a step, each as a [`Lesson`]: to denoise, to classify noisy pictures, to imitate a teacher.

use crate::error::{Error, Result};
use crate::model::Model;
use crate::nn::{Bank, Classifier, Denoiser, Dropout, Lesson, Loss, Pass, Told, UNet, Weights};
use crate::ops::{self, Images, LossInputs};
use crate::tensor::{Context, Tensor};

use super::inputs::HostBuffers;
use super::options::TrainOptions;
use super::trained::Trained;

/// The lesson of a training.
///
/// # Errors
/// [`Error::Config`] for a student whose options say nothing of a teacher.
pub fn lesson<'a>(
    network: Trained<'a>,
    options: &'a TrainOptions,
    inputs: &'a HostBuffers,
) -> Result<Box<dyn Lesson + 'a>> {
    let step = Step { options, inputs };
    Ok(match network {
        Trained::Denoiser(network) => Box::new(Denoise { step, network }),
        Trained::Classifier(classifier) => Box::new(Classify { step, classifier }),
        Trained::Student(student, teacher) => Box::new(Imitate { step, student, teacher }),
    })
}

/// What all lessons know.
#[derive(Clone, Copy)]
struct Step<'a> {
    options: &'a TrainOptions,
    inputs: &'a HostBuffers,
}

/// Noisy pictures.
struct Noised {
    /// Where the pictures' bytes lie.
    bytes: Tensor,
    /// `[N, H, W, C]`.
    shape: [usize; 4],
    z: Tensor,
    eps: Tensor,
    times: Tensor,
    dropout: Dropout,
}

impl Step<'_> {
    /// Algorithm 1, lines 2 to 5: (x, c), λ, ε, z = αx + σε. What is random per sample came from the host.
    fn noised(&self, cx: &mut Context) -> Result<Noised> {
        let options = self.options;
        let n = options.microbatch;
        let shape = options.unet.shape().nhwc(n);
        let (bytes, scalars) = (self.inputs.bytes(shape), self.inputs.scalars(n));
        let image_index = self.inputs.image_index(n);
        let images = Images { bytes: &bytes, scalars: &scalars, image_index: &image_index, shape };
        let (z, eps) = ops::noised(cx, images, options.seed)?;
        let dropout = Dropout { seed: options.seed, image_index };
        Ok(Noised { bytes, shape, z, eps, times: self.inputs.times(n), dropout })
    }

    fn pass<'b>(&self, noised: &'b Noised) -> Pass<'b> {
        Pass { dtype: self.options.dtype(), dropout: Some(&noised.dropout) }
    }

    /// The classes, of networks that are told any.
    fn condition(&self) -> Option<Tensor> {
        self.options.unet.num_classes.map(|_| self.inputs.labels(self.options.microbatch))
    }

    /// A sample's part of a mean over the whole batch.
    fn share(&self) -> f32 {
        1.0 / self.options.batch as f32
    }
}

/// ε_θ(z, c), or whatever else the network predicts, and its loss (CFG, equation 5).
struct Denoise<'a> {
    step: Step<'a>,
    network: &'a dyn Denoiser,
}

impl Lesson for Denoise<'_> {
    fn record(&self, cx: &mut Context, weights: &Weights) -> Result<Loss> {
        let Denoise { step, network } = self;
        let noised = step.noised(cx)?;
        let Noised { bytes, shape, z, eps, times, .. } = &noised;
        let seen = match step.inputs.input_factors(shape[0]) {
            None => z.clone(),
            Some(factors) => ops::scale_per_sample(cx, z, &factors)?,
        };
        // An upsampler sees the same picture small: the mean over each of its pixels' areas.
        let small = match step.options.upsample_from {
            None => None,
            Some(small) => {
                let mut low = ops::pixels(cx, bytes, *shape)?;
                while low.shape()[2] > small.width() {
                    low = ops::average_pool2(cx, &low)?;
                }
                Some(low)
            }
        };
        let condition = step.condition();
        let vectors = step.inputs.vectors.as_ref().map(|vectors| vectors.tensors(shape[0]));
        let vector = vectors.as_ref().map(|(rows, values)| Bank { rows, values });
        let told = Told { class: condition.as_ref(), vector, picture: small.as_ref(), ..Told::default() };
        let out = network.record(cx, weights, &seen, times, told, &step.pass(&noised))?;
        let Some(rows) = step.inputs.rows(shape[0]) else {
            let (value, per_sample) = ops::mse_per_sample(cx, &out, eps, step.share())?;
            return Ok(Loss { value, read: vec![per_sample] });
        };
        let x = ops::pixels(cx, bytes, *shape)?;
        let inputs = LossInputs { out: &out, x: &x, z, eps, rows: &rows };
        let losses = ops::diffusion_loss(cx, inputs, step.options.objective.weights(step.options.batch))?;
        Ok(Loss { value: losses.loss, read: vec![losses.totals] })
    }
}

/// The class of a noisy picture, and its cross-entropy (ADM, section 4).
struct Classify<'a> {
    step: Step<'a>,
    classifier: &'a Classifier,
}

impl Lesson for Classify<'_> {
    fn record(&self, cx: &mut Context, weights: &Weights) -> Result<Loss> {
        let Classify { step, classifier } = self;
        let noised = step.noised(cx)?;
        let logits = classifier.forward(cx, weights, &noised.z, &noised.times, &step.pass(&noised))?;
        let labels = step.inputs.labels(noised.shape[0]);
        let found = ops::cross_entropy(cx, &logits, &labels, step.share())?;
        Ok(Loss { value: found.loss, read: vec![found.per_sample, found.terms] })
    }
}

/// What a teacher says of the same latent (`distill/`), and the squared distance to it.
struct Imitate<'a> {
    step: Step<'a>,
    student: &'a UNet,
    teacher: &'a Model,
}

impl Lesson for Imitate<'_> {
    fn record(&self, cx: &mut Context, weights: &Weights) -> Result<Loss> {
        let Imitate { step, student, teacher } = self;
        let Some(teaching) = &step.inputs.teaching else {
            return Err(Error::Config("a student's options must say what it is taught".into()));
        };
        let noised = step.noised(cx)?;
        let Noised { z, times, .. } = &noised;
        let target = teaching.target(cx, teacher, z, times, step.options.dtype())?;
        let (w, condition) = (teaching.weights(times.len()), step.condition());
        let told = Told { class: condition.as_ref(), guidance: Some(&w), ..Told::default() };
        let out = student.record(cx, weights, z, times, told, &step.pass(&noised))?;
        let (value, per_sample) = ops::mse_per_sample(cx, &out, &target, step.share())?;
        Ok(Loss { value, read: vec![per_sample] })
    }
}
