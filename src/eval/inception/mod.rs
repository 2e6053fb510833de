//! The Inception-v3 of published numbers, from weights that the user has.

mod graph;
#[cfg(test)]
mod tests;
mod variant;
mod weights;

use std::path::Path;
use std::sync::Mutex;

pub use variant::Variant;

use super::network::{Extracted, FeatureNetwork, Pictures, Sizes};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu, Plan};
use crate::io::{PtFile, SafetensorsFile, TensorSource};
use crate::ops::{self, Resize};
use crate::tensor::{Context, DType, Tensor};
use graph::Recorder;
use weights::{Classes, Convolutions};

/// The side of what the network looks at.
const SIDE: usize = 299;
/// Channels of the spatial features that sFID is of, of a map of 17x17.
const SPATIAL: [usize; 3] = [17, 17, 7];
/// Bytes of the largest value, for one picture: the patches of the second convolution.
const LARGEST: u64 = 147 * 147 * 288 * 4;
/// Pictures at a time, at most.
const MOST: usize = 32;

/// Where a resized picture's places are, and how bytes become numbers.
///
/// Published numbers look through TensorFlow 1's resize and (x - 128)/128; pytorch-fid through PyTorch's and 2x/255 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    /// TensorFlow 1's.
    TensorFlow,
    /// PyTorch's.
    PyTorch,
}

/// Inception-v3 on a device.
pub struct Inception {
    gpu: Gpu,
    identity: String,
    convention: Convention,
    variant: Variant,
    convolutions: Convolutions,
    classes: Classes,
    batch: usize,
    /// The plan for pictures of one size, made at the first of that size.
    recorded: Mutex<Option<Recorded>>,
}

struct Recorded {
    shape: [usize; 4],
    plan: Plan,
    input: Buffer,
    outputs: [Buffer; 3],
}

/// Opens a file of tensors: PyTorch's or safetensors.
fn open(path: &Path) -> Result<Box<dyn TensorSource>> {
    if path.extension().is_some_and(|extension| extension == "safetensors") {
        return Ok(Box::new(SafetensorsFile::open(path)?));
    }
    Ok(Box::new(PtFile::open(path)?))
}

impl Inception {
    /// Reads the network of a `.pth` or `.safetensors` file in torchvision's or pytorch-fid's layout. Without a convention
    /// that of published numbers is taken: TensorFlow's for the FID network, PyTorch's for torchvision's.
    ///
    /// # Errors
    /// When the file holds something else, or a part of it is missing.
    pub fn load(gpu: &Gpu, path: &Path, convention: Option<Convention>) -> Result<Inception> {
        Self::of(gpu, &*open(path)?, convention)
    }

    /// As [`load`](Self::load), of tensors.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn of(gpu: &Gpu, file: &dyn TensorSource, convention: Option<Convention>) -> Result<Inception> {
        let variant = weights::variant(file)?;
        let of_variant = match variant {
            Variant::Fid => Convention::TensorFlow,
            Variant::Torchvision => Convention::PyTorch,
        };
        let convention = convention.unwrap_or(of_variant);
        let network = match variant {
            Variant::Fid => "Inception-v3 of FID",
            Variant::Torchvision => "torchvision's Inception-v3",
        };
        let resize = match convention {
            Convention::TensorFlow => "resized as TensorFlow 1 does",
            Convention::PyTorch => "resized as PyTorch does",
        };
        let name = file.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let classes = Classes::read(file, variant)?;
        let largest = gpu.capabilities().limits.max_storage_buffer_binding_size;
        Ok(Inception {
            gpu: gpu.clone(),
            identity: format!("{network} ({name}), {resize}"),
            convention,
            variant,
            convolutions: Convolutions::read(file)?,
            classes,
            batch: ((largest / LARGEST) as usize).clamp(1, MOST),
            recorded: Mutex::new(None),
        })
    }

    fn record(&self, shape: [usize; 4]) -> Result<Recorded> {
        let count: usize = shape.iter().product();
        let input = self.gpu.buffer("pictures", count.next_multiple_of(4) as u64)?;
        let mut cx = Context::new(&self.gpu);
        let bytes = Tensor::over(&input, &[count.div_ceil(4)], DType::U32);
        let (centred, factor, shift) = match self.convention {
            Convention::TensorFlow => (false, 1.0 / 128.0, -1.0),
            Convention::PyTorch => (true, 2.0 / 255.0, -1.0),
        };
        let x = ops::resize_pictures(&mut cx, &bytes, shape, Resize { size: SIDE, centred, factor, shift })?;
        let mut recorder = Recorder { cx: &mut cx, convolutions: &self.convolutions, variant: self.variant };
        let graph::FeatureMaps { pooled, spatial } = recorder.forward(&x)?;
        let features = pooled.shape()[1];
        let weights = cx.constant_f32("fc", &[features, self.classes.count], &self.classes.weights)?;
        let bias = match &self.classes.bias {
            Some(bias) => Some(cx.constant_f32("fc", &[self.classes.count], bias)?),
            None => None,
        };
        let logits = ops::linear(&mut cx, &pooled, &weights, bias.as_ref())?;
        let probabilities = ops::softmax(&mut cx, &logits)?;
        let kept = [&pooled, &spatial, &probabilities];
        kept.iter().for_each(|tensor| cx.keep(tensor));
        let plan = cx.finish("inception")?;
        let outputs = kept.map(|tensor| plan.kept(tensor.storage()).cloned().expect("it was kept"));
        Ok(Recorded { shape, plan, input, outputs })
    }
}

impl FeatureNetwork for Inception {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn sizes(&self) -> Sizes {
        Sizes { pooled: 2048, spatial: SPATIAL.iter().product(), classes: self.classes.count }
    }

    fn extract(&self, pictures: Pictures<'_>) -> Result<Extracted> {
        let mut extracted = Extracted::default();
        if pictures.is_empty() {
            return Ok(extracted);
        }
        let pixels = pictures.with_channels(3)?;
        let one = pictures.width * pictures.height * 3;
        let batch = self.batch.min(pixels.len() / one);
        let shape = [batch, pictures.height, pictures.width, 3];
        let mut recorded =
            self.recorded.lock().map_err(|_| Error::Config("an extraction failed before".into()))?;
        // A smaller last part runs in the plan of the parts before it.
        let fits = |recorded: &Recorded| recorded.shape[1..] == shape[1..] && recorded.shape[0] >= batch;
        if !recorded.as_ref().is_some_and(fits) {
            *recorded = Some(self.record(shape)?);
        }
        let Some(Recorded { shape, plan, input, outputs }) = &*recorded else {
            unreachable!("it was just made")
        };
        for part in pixels.chunks(shape[0] * one) {
            let count = part.len() / one;
            let mut padded = part.to_vec();
            padded.resize((shape[0] * one).next_multiple_of(4), 0);
            self.gpu.write(input, 0, &padded)?;
            plan.run()?;
            let read = |buffer: &Buffer, one: usize| -> Result<Vec<f32>> {
                let bytes = self.gpu.read(buffer, 0..(count * one * 4) as u64)?;
                Ok(bytemuck::pod_collect_to_vec(&bytes))
            };
            let [height, width, kept] = SPATIAL;
            let channels = 192;
            extracted.pooled.extend(read(&outputs[0], 2048)?);
            let map = read(&outputs[1], height * width * channels)?;
            extracted.spatial.extend(map.chunks(channels).flat_map(|pixel| &pixel[..kept]));
            extracted.probabilities.extend(read(&outputs[2], self.classes.count)?);
        }
        Ok(extracted)
    }
}
