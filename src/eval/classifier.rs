//! A small classifier of a data set, for features where no published network's weights are there.
//!
//! Convolutions with group norms, halving until 4 pixels or an odd number are left, then 128 features and the classes.

use std::collections::BTreeMap;
use std::path::Path;

use super::network::{Extracted, FeatureNetwork, Pictures, Sizes};
use crate::error::{Error, Result, brief};
use crate::gpu::{Buffer, Gpu, Plan};
use crate::io::{Dtype, SafetensorsFile, TensorBytes, write_safetensors};
use crate::model::{load_values, model_tensors};
use crate::nn::layers::{Conv2d, Linear, Norm};
use crate::nn::{Arena, Parameters, Weights};
use crate::ops;
use crate::shape::{Extent, Shape};
use crate::tensor::{Context, DType, Tensor};

/// What a file of it says in `kind`.
const KIND: &str = "freeguide picture classifier";
/// Features of a picture.
const FEATURES: usize = 128;
/// Channels of the spatial features, as published evaluators take of theirs.
const SPATIAL_CHANNELS: usize = 7;
/// Pictures at a time.
const BATCH: usize = 64;

/// What it is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassifierShape {
    /// 1 or 3 channels, and the size in pixels.
    pub pictures: Shape,
    /// Classes.
    pub classes: usize,
}

/// The network.
#[derive(Clone, Debug)]
pub struct ClassifierNetwork {
    shape: ClassifierShape,
    parameters: Parameters,
    levels: Vec<(Conv2d, Norm)>,
    features: Linear,
    classes: Linear,
}

/// What it makes of pictures.
pub struct Recorded {
    /// `[N, classes]`.
    pub logits: Tensor,
    /// `[N, 128]`.
    pub features: Tensor,
    /// `[N, h, w, C]`.
    pub spatial: Tensor,
}

impl ClassifierNetwork {
    /// Declares it.
    ///
    /// # Errors
    /// [`Error::Config`] for fewer than two classes or pictures without pixels.
    pub fn new(shape: ClassifierShape) -> Result<Self> {
        let ClassifierShape { pictures: Shape { channels, extent }, classes } = shape;
        let shorter = |extent: Extent| extent.height().min(extent.width());
        if classes < 2 || shorter(extent) < 2 || channels == 0 {
            let what = format!("{classes} classes of pictures of {}", shape.pictures);
            return Err(Error::Config(format!("a classifier needs two classes and some pixels, not {what}")));
        }
        let mut parameters = Parameters::default();
        let p = &mut parameters;
        let (mut levels, mut map, mut inputs, mut outputs) = (Vec::new(), extent, channels, 32);
        loop {
            let name = format!("levels.{}", levels.len());
            let conv = Conv2d::new(p, &format!("{name}.conv"), [inputs, outputs], 3, false);
            levels.push((conv, Norm::new(p, &format!("{name}.norm"), outputs, 8, true)));
            inputs = outputs;
            let Some(half) = map.halved(1).filter(|_| shorter(map) > 4) else { break };
            map = half;
            outputs = (2 * outputs).min(128);
        }
        let features = Linear::new(p, "features", [map.places() * inputs, FEATURES]);
        let last = Linear::new(p, "classes", [FEATURES, classes]);
        Ok(ClassifierNetwork { shape, parameters, levels, features, classes: last })
    }

    /// What it is made for.
    pub fn shape(&self) -> ClassifierShape {
        self.shape
    }

    /// Its parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Records it: `x` `[N, H, W, C]` f32 in [-1, 1].
    ///
    /// # Errors
    /// [`Error::Shape`] when the pictures are of another size.
    pub fn forward(&self, cx: &mut Context, weights: &Weights, x: &Tensor) -> Result<Recorded> {
        let mut h = x.clone();
        for (i, (conv, norm)) in self.levels.iter().enumerate() {
            if i > 0 {
                h = ops::average_pool2(cx, &h)?;
            }
            h = conv.forward(cx, weights, &h)?;
            h = norm.forward(cx, weights, &h, None)?;
        }
        let spatial = h;
        let flat = spatial.reshape(&[spatial.shape()[0], spatial.len() / spatial.shape()[0]])?;
        let features = self.features.forward(cx, weights, &flat)?;
        let features = ops::silu(cx, &features)?;
        let logits = self.classes.forward(cx, weights, &features)?;
        Ok(Recorded { logits, features, spatial })
    }
}

/// A trained classifier on a device.
pub struct PictureClassifier {
    gpu: Gpu,
    network: ClassifierNetwork,
    values: Vec<Vec<f32>>,
    identity: String,
    class_names: Vec<String>,
    accuracy: f64,
    spatial: [usize; 3],
    plan: Plan,
    input: Buffer,
    outputs: [Buffer; 3],
    _arena: Arena,
}

impl PictureClassifier {
    /// A network with these weights. `accuracy` is what it got right of pictures it was not trained on.
    ///
    /// # Errors
    /// Whatever the device objects to.
    pub fn new(
        gpu: &Gpu,
        network: ClassifierNetwork,
        values: Vec<Vec<f32>>,
        identity: String,
        accuracy: f64,
    ) -> Result<Self> {
        let arena = network.parameters.arena(gpu, "classifier", 1)?;
        arena.write(gpu, 0, &values)?;
        let shape = network.shape.pictures.nhwc(BATCH);
        let count: usize = shape.iter().product();
        let input = gpu.buffer("pictures", count.next_multiple_of(4) as u64)?;
        let mut cx = Context::new(gpu);
        let bytes = Tensor::over(&input, &[count.div_ceil(4)], DType::U32);
        let x = ops::pixels(&mut cx, &bytes, shape)?;
        let weights = arena.weights(&network.parameters, 0);
        let Recorded { logits, features, spatial } = network.forward(&mut cx, &weights, &x)?;
        let probabilities = ops::softmax(&mut cx, &logits)?;
        let kept = [&features, &spatial, &probabilities];
        kept.iter().for_each(|tensor| cx.keep(tensor));
        let plan = cx.finish("classifier")?;
        let outputs = kept.map(|tensor| plan.kept(tensor.storage()).cloned().expect("it was kept"));
        let &[_, h, w, c] = spatial.shape() else { unreachable!("a feature map is NHWC") };
        let gpu = gpu.clone();
        Ok(PictureClassifier {
            gpu,
            network,
            values,
            identity,
            class_names: Vec::new(),
            accuracy,
            spatial: [h, w, c],
            plan,
            input,
            outputs,
            _arena: arena,
        })
    }

    /// The same with the names of its classes, in the order of their labels.
    #[must_use]
    pub fn named(self, class_names: Vec<String>) -> Self {
        PictureClassifier { class_names, ..self }
    }

    /// What it got right of pictures it was not trained on, from 0 to 1.
    pub fn accuracy(&self) -> f64 {
        self.accuracy
    }

    /// What it is made for.
    pub fn shape(&self) -> ClassifierShape {
        self.network.shape
    }

    /// Writes it.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn save(&self, path: &Path) -> Result<()> {
        let tensors = model_tensors(&self.network.parameters, &self.values, "");
        let views: Vec<TensorBytes<'_>> = tensors
            .iter()
            .map(|(name, shape, bytes)| TensorBytes { name, dtype: Dtype::F32, shape, bytes })
            .collect();
        let ClassifierShape { pictures: Shape { channels, extent }, classes } = self.network.shape;
        let metadata = BTreeMap::from(
            [
                ("kind", KIND.to_owned()),
                ("identity", self.identity.clone()),
                ("accuracy", self.accuracy.to_string()),
                ("size", serde_json::json!(extent).to_string()),
                ("channels", channels.to_string()),
                ("classes", classes.to_string()),
                ("class_names", serde_json::json!(self.class_names).to_string()),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        write_safetensors(path, &views, &metadata)
    }

    /// Whether a file says that it holds one.
    pub fn is_in(file: &SafetensorsFile) -> bool {
        file.metadata().get("kind").is_some_and(|kind| kind == KIND)
    }

    /// Reads one back.
    ///
    /// # Errors
    /// When the file holds something else, or is damaged.
    pub fn load(gpu: &Gpu, path: &Path) -> Result<Self> {
        let file = SafetensorsFile::open(path)?;
        if !Self::is_in(&file) {
            return Err(Error::format(path, "holds no picture classifier of `--features auto`"));
        }
        let text = |key: &str| {
            let missing = || Error::format(path, format!("does not say its `{key}`"));
            file.metadata().get(key).cloned().ok_or_else(missing)
        };
        let number = |key: &str| {
            let text = text(key)?;
            let bad = |_| Error::format(path, format!("says {text:?} for its `{key}`"));
            text.parse::<usize>().map_err(bad)
        };
        let size = text("size")?;
        let extent: Extent = serde_json::from_str(&size)
            .map_err(|_| Error::format(path, format!("says {:?} for its `size`", brief(&size))))?;
        let pictures = Shape { channels: number("channels")?, extent };
        let shape = ClassifierShape { pictures, classes: number("classes")? };
        if extent.is_line() || extent.longer() > 4096 || shape.classes > 1 << 20 || pictures.channels > 3 {
            return Err(Error::format(path, format!("says {shape:?}, which is no picture classifier")));
        }
        let network = ClassifierNetwork::new(shape)?;
        let values = load_values(&file, &network.parameters, "")?;
        let accuracy = text("accuracy")?.parse().unwrap_or(0.0);
        // Files of earlier versions have no names.
        let names = text("class_names").ok().and_then(|names| serde_json::from_str(&names).ok());
        Ok(Self::new(gpu, network, values, text("identity")?, accuracy)?.named(names.unwrap_or_default()))
    }
}

impl FeatureNetwork for PictureClassifier {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn knows_the_labels(&self) -> bool {
        true
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn sizes(&self) -> Sizes {
        let [h, w, c] = self.spatial;
        let spatial = h * w * c.min(SPATIAL_CHANNELS);
        Sizes { pooled: FEATURES, spatial, classes: self.network.shape.classes }
    }

    fn extract(&self, pictures: Pictures<'_>) -> Result<Extracted> {
        let own = self.network.shape.pictures;
        if pictures.extent() != own.extent {
            let (found, takes) = (pictures.extent(), own.extent);
            let what = format!("pictures of {found} pixels, but this classifier takes {takes}");
            return Err(Error::shape("features", what));
        }
        let pixels = pictures.with_channels(own.channels)?;
        let mut extracted = Extracted::default();
        let wide = self.spatial[2];
        for batch in pixels.chunks(BATCH * own.len()) {
            let count = batch.len() / own.len();
            let mut padded = batch.to_vec();
            padded.resize((BATCH * own.len()).next_multiple_of(4), 0);
            self.gpu.write(&self.input, 0, &padded)?;
            self.plan.run()?;
            let read = |buffer: &Buffer, one: usize| -> Result<Vec<f32>> {
                let bytes = self.gpu.read(buffer, 0..(count * one * 4) as u64)?;
                Ok(bytemuck::pod_collect_to_vec(&bytes))
            };
            let sizes = self.sizes();
            extracted.pooled.extend(read(&self.outputs[0], sizes.pooled)?);
            let map = read(&self.outputs[1], self.spatial.iter().product())?;
            extracted.spatial.extend(map.chunks(wide).flat_map(|pixel| &pixel[..wide.min(SPATIAL_CHANNELS)]));
            extracted.probabilities.extend(read(&self.outputs[2], sizes.classes)?);
        }
        Ok(extracted)
    }
}
