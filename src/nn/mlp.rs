//! A small network of linear layers for points instead of pictures, told a time and a class.

use crate::error::{Error, Result};
use crate::ops;
use crate::tensor::{Context, Tensor};

use super::layers::{Embedding, Linear};
use super::parameters::Parameters;
use super::weights::Weights;

/// What an [`Mlp`] is built of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MlpConfig {
    /// D: numbers a point, in and out.
    pub width: usize,
    /// Hidden layers, each followed by a SiLU.
    pub layers: usize,
    /// Channels of each.
    pub hidden: usize,
    /// Channels of the sinusoidal time embedding.
    pub time_channels: usize,
    /// Classes; the class embedding has one row more, for none.
    pub classes: usize,
}

/// h = SiLU(`in` x + `time` sin(t) + row of the class), more layers of SiLU(linear), and a linear one out.
#[derive(Clone, Debug)]
pub struct Mlp {
    config: MlpConfig,
    parameters: Parameters,
    input: Linear,
    time: Linear,
    classes: Embedding,
    hidden: Vec<Linear>,
    output: Linear,
}

impl Mlp {
    /// Declares the network.
    ///
    /// # Errors
    /// [`Error::Config`] when something of it has no extent.
    pub fn new(config: &MlpConfig) -> Result<Self> {
        let &MlpConfig { width, layers, hidden, time_channels, classes } = config;
        if width == 0 || layers == 0 || hidden == 0 || time_channels < 2 {
            return Err(Error::Config(format!(
                "an MLP needs a width, a hidden layer and 2 time channels: {config:?}"
            )));
        }
        let parameters = &mut Parameters::default();
        let input = Linear::new(parameters, "in", [width, hidden]);
        let time = Linear::new(parameters, "time", [time_channels, hidden]);
        let classes = Embedding::new(parameters, "class", classes + 1, hidden);
        let inner =
            (1..layers).map(|layer| Linear::new(parameters, &format!("hidden.{layer}"), [hidden, hidden]));
        let hidden = inner.collect();
        let output = Linear::new(parameters, "out", [config.hidden, width]);
        let (config, parameters) = (config.clone(), std::mem::take(parameters));
        Ok(Mlp { config, parameters, input, time, classes, hidden, output })
    }

    /// What it was built of.
    pub fn config(&self) -> &MlpConfig {
        &self.config
    }

    /// The declarations of its parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The label that stands for no class.
    pub fn null_label(&self) -> u32 {
        self.config.classes as u32
    }

    /// `[N, D]` to the same. `times` is `[N]` f32, or `[1]` for all; `labels` `[N]` u32.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes do not fit.
    pub fn forward(
        &self,
        cx: &mut Context,
        weights: &Weights,
        x: &Tensor,
        times: &Tensor,
        labels: &Tensor,
    ) -> Result<Tensor> {
        let (hidden, samples) = (self.config.hidden, labels.len());
        if x.shape() != [samples, self.config.width] {
            let what = format!("x is {:?}, expected [{samples}, {}]", x.shape(), self.config.width);
            return Err(Error::shape("mlp", what));
        }
        let h = self.input.forward(cx, weights, x)?;
        let class = self.classes.forward(cx, weights, labels)?;
        let h = ops::add(cx, &h, &class, 1.0)?;
        let time = ops::timestep_embedding(cx, times, self.config.time_channels)?;
        let time = self.time.forward(cx, weights, &time)?;
        // One time for all: the points are the pixels of one sample.
        let rows = [times.len(), 1, samples / times.len().max(1), hidden];
        let h = ops::add_per_sample(cx, &h.reshape(&rows)?, &time)?;
        let mut h = ops::silu(cx, &h.reshape(&[samples, hidden])?)?;
        for layer in &self.hidden {
            h = layer.forward(cx, weights, &h)?;
            h = ops::silu(cx, &h)?;
        }
        self.output.forward(cx, weights, &h)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::backprop_from;
    use crate::tensor::DType;
    use crate::testing::{Array, download, gpu};

    fn small() -> Mlp {
        Mlp::new(&MlpConfig { width: 2, layers: 3, hidden: 12, time_channels: 8, classes: 3 }).unwrap()
    }

    /// The network of `values`, in f64.
    fn reference(values: &[Vec<f32>], x: &[f32], time: f64, label: usize) -> [f64; 2] {
        let linear = |x: &[f64], w: &[f32], bias: &[f32]| -> Vec<f64> {
            let column =
                |k: usize| x.iter().enumerate().map(move |(c, x)| x * f64::from(w[c * bias.len() + k]));
            bias.iter().enumerate().map(|(k, &bias)| f64::from(bias) + column(k).sum::<f64>()).collect()
        };
        let silu = |x: Vec<f64>| x.into_iter().map(|x| x / (1.0 + (-x).exp())).collect::<Vec<f64>>();
        let waves: Vec<f64> = (0..4).map(|i| time * 1e4f64.powf(-f64::from(i) / 4.0)).collect();
        let waves: Vec<f64> = waves.iter().map(|x| x.cos()).chain(waves.iter().map(|x| x.sin())).collect();
        let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let [from_x, from_time] =
            [linear(&x, &values[0], &values[1]), linear(&waves, &values[2], &values[3])];
        let row = &values[4][label * 12..];
        let mut h = silu((0..12).map(|k| from_x[k] + from_time[k] + f64::from(row[k])).collect());
        for layer in [5, 7] {
            h = silu(linear(&h, &values[layer], &values[layer + 1]));
        }
        linear(&h, &values[9], &values[10]).try_into().unwrap()
    }

    #[test]
    fn matches_a_reference_and_every_parameter_has_a_gradient() {
        let mlp = small();
        let values = mlp.parameters().initial_values(3);
        let arena = mlp.parameters().arena(gpu(), "test", 2).unwrap();
        arena.write(gpu(), 0, &values).unwrap();
        let x = Array::random(&[5, 2], 1);
        let labels = [0, 3, 1, 2, 0];
        for times in [vec![3.0, 200.0, 999.0, 0.0, 51.5], vec![77.0]] {
            let mut cx = Context::with_tape(gpu());
            let weights = arena.weights(mlp.parameters(), 0);
            weights.track(&mut cx, &arena.weights(mlp.parameters(), 1));
            let input = x.upload(&cx, DType::F32);
            let at = cx.constant_f32("times", &[times.len()], &times).unwrap();
            let classes = cx.constant_u32("labels", &[5], &labels).unwrap();
            let y = mlp.forward(&mut cx, &weights, &input, &at, &classes).unwrap();
            let upstream = Array::random(&[5, 2], 2).upload(&cx, DType::F32);
            backprop_from(&mut cx, &y, &upstream).unwrap();
            cx.keep(&y);
            let plan = cx.finish("mlp").unwrap();
            plan.run().unwrap();
            let want = (0..5).flat_map(|i| {
                let time = f64::from(times[i % times.len()]);
                reference(&values, &x.data[2 * i..2 * i + 2], time, labels[i] as usize)
            });
            let want = Array::new(&[5, 2], want.map(|x| x as f32).collect());
            download(&plan, &y).check("y", &want, DType::F32);
        }
        let gradients = arena.read(gpu(), mlp.parameters(), 1).unwrap();
        for (spec, gradient) in mlp.parameters().specs().iter().zip(&gradients) {
            assert!(gradient.iter().any(|g| *g != 0.0), "{}", spec.name);
        }
    }

    #[test]
    fn misfits_are_errors() {
        assert!(Mlp::new(&MlpConfig { layers: 0, ..small().config().clone() }).is_err());
        let mlp = small();
        let arena = mlp.parameters().arena(gpu(), "test", 1).unwrap();
        let mut cx = Context::new(gpu());
        let x = Array::random(&[5, 3], 1).upload(&cx, DType::F32);
        let labels = cx.constant_u32("labels", &[5], &[0; 5]).unwrap();
        let weights = arena.weights(mlp.parameters(), 0);
        let error = mlp.forward(&mut cx, &weights, &x, &x, &labels).unwrap_err();
        assert_eq!(error.to_string(), "mlp: x is [5, 3], expected [5, 2]");
    }
}
