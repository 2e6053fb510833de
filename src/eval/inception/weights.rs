//! The weights of Inception-v3 from the files people have, each batch norm folded into its convolution.

use crate::error::{Error, Result};
use crate::io::TensorSource;
use crate::tensor::{Context, DType, Tensor};

use super::variant::Variant;

/// Added to a batch norm's variance.
const NORM_EPS: f64 = 1e-3;

/// A convolution with its norm: y = patches·weights + bias.
struct Convolution {
    name: String,
    kernel: [usize; 2],
    /// `[Kh·Kw·C, K]`.
    weights: Vec<f32>,
    /// `[K]`.
    bias: Vec<f32>,
}

/// All convolutions of a network.
pub struct Convolutions {
    all: Vec<Convolution>,
}

/// The last layer, from features to classes.
pub struct Classes {
    /// `[2048, classes]`.
    pub weights: Vec<f32>,
    /// `[classes]`, or nothing where published scores leave it out.
    pub bias: Option<Vec<f32>>,
    /// How many.
    pub count: usize,
}

/// Which network a file holds: by the number of its classes.
///
/// # Errors
/// [`Error::Format`] when it is no Inception-v3.
pub fn variant(file: &dyn TensorSource) -> Result<Variant> {
    let name = "fc.weight";
    if !file.names().iter().any(|known| known == name)
        || !file.names().iter().any(|n| n == "Conv2d_1a_3x3.conv.weight")
    {
        let what = "holds no Inception-v3: it has no Conv2d_1a_3x3.conv.weight and fc.weight, as torchvision's and \
                    pytorch-fid's files do";
        return Err(Error::format(file.path(), what));
    }
    match file.about(name)?.1[..] {
        [1008, 2048] => Ok(Variant::Fid),
        [1000, 2048] => Ok(Variant::Torchvision),
        ref other => {
            let what = format!("is {other:?}; torchvision's is [1000, 2048], that of FID [1008, 2048]");
            Err(Error::tensor(file.path(), name, what))
        }
    }
}

fn vector(file: &dyn TensorSource, name: &str, len: usize) -> Result<Vec<f32>> {
    let (shape, values) = file.values(name)?;
    if shape != [len] {
        return Err(Error::tensor(file.path(), name, format!("is {shape:?}, expected [{len}]")));
    }
    finite(file, name, values)
}

fn finite(file: &dyn TensorSource, name: &str, values: Vec<f32>) -> Result<Vec<f32>> {
    match values.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(Error::tensor(file.path(), name, format!("holds {} at element {at}", values[at]))),
        None => Ok(values),
    }
}

impl Convolutions {
    /// Reads every convolution that stands outside of the auxiliary head.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a tensor that is missing or of another shape than its neighbours need.
    pub fn read(file: &dyn TensorSource) -> Result<Convolutions> {
        let mut all = Vec::new();
        for tensor in file.names() {
            let Some(name) =
                tensor.strip_suffix(".conv.weight").filter(|name| !name.starts_with("AuxLogits"))
            else {
                continue;
            };
            let (shape, values) = file.values(&tensor)?;
            let &[outputs, inputs, height, width] = shape.as_slice() else {
                let what = format!("is {shape:?}, expected four sizes");
                return Err(Error::tensor(file.path(), &tensor, what));
            };
            let values = finite(file, &tensor, values)?;
            let part = |part: &str| vector(file, &format!("{name}.bn.{part}"), outputs);
            let (gamma, beta) = (part("weight")?, part("bias")?);
            let (mean, variance) = (part("running_mean")?, part("running_var")?);
            let factors: Vec<f64> = gamma
                .iter()
                .zip(&variance)
                .map(|(&gamma, &variance)| f64::from(gamma) / (f64::from(variance) + NORM_EPS).sqrt())
                .collect();
            if let Some(at) = factors.iter().position(|factor| !factor.is_finite()) {
                let what = format!("is {} at element {at}, which is no variance", variance[at]);
                return Err(Error::tensor(file.path(), format!("{name}.bn.running_var"), what));
            }
            let bias =
                (0..outputs).map(|k| (f64::from(beta[k]) - f64::from(mean[k]) * factors[k]) as f32).collect();
            // [K, C, Kh, Kw] to [Kh·Kw·C, K].
            let taps = height * width;
            let weight = |i: usize| {
                let (k, c, tap) = (i % outputs, i / outputs % inputs, i / (outputs * inputs));
                (f64::from(values[(k * inputs + c) * taps + tap]) * factors[k]) as f32
            };
            let weights = (0..values.len()).map(weight).collect();
            all.push(Convolution { name: name.to_owned(), kernel: [height, width], weights, bias });
        }
        Ok(Convolutions { all })
    }

    /// (kernel, weights, bias) of a convolution, on the device.
    ///
    /// # Errors
    /// [`Error::Config`] when there is none of that name.
    pub fn get(&self, cx: &Context, name: &str) -> Result<([usize; 2], Tensor, Tensor)> {
        let Some(found) = self.all.iter().find(|one| one.name == name) else {
            return Err(Error::Config(format!("the Inception network's file has no {name}.conv.weight")));
        };
        let outputs = found.bias.len();
        let rows = found.weights.len() / outputs;
        let weights =
            cx.constant(name, &[rows, outputs], DType::F32, bytemuck::cast_slice(&found.weights))?;
        let bias = cx.constant(name, &[outputs], DType::F32, bytemuck::cast_slice(&found.bias))?;
        Ok((found.kernel, weights, bias))
    }
}

impl Classes {
    /// Reads the last layer. Published inception scores leave its bias out in the FID network.
    ///
    /// # Errors
    /// As [`Convolutions::read`].
    pub fn read(file: &dyn TensorSource, variant: Variant) -> Result<Classes> {
        let (shape, values) = file.values("fc.weight")?;
        let &[count, features] = shape.as_slice() else {
            return Err(Error::tensor(file.path(), "fc.weight", format!("is {shape:?}")));
        };
        let values = finite(file, "fc.weight", values)?;
        let weights = (0..values.len()).map(|i| values[i % count * features + i / count]).collect();
        let bias = match variant {
            Variant::Fid => None,
            Variant::Torchvision => Some(vector(file, "fc.bias", count)?),
        };
        Ok(Classes { weights, bias, count })
    }
}
