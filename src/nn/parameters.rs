//! Parameters as layers declare them: names, shapes, how files hold them, how they start.

use crate::random;

/// A parameter's place in the list of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterId(pub(super) usize);

/// How a parameter lies in files, against how kernels read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The same in both.
    Plain,
    /// `[out, in]` in files, `[in, out]` here.
    Linear,
    /// `[out, in, Kh, Kw]` in files, `[Kh, Kw, in, out]` here.
    Conv2d,
    /// `[out, in, 1]` in files (a 1-d convolution of width 1), `[in, out]` here.
    Conv1d,
    /// `[out, in, k]` in files (a 1-d convolution), `[1, k, in, out]` here.
    ConvLine,
}

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zero.
    Zero,
    /// All one.
    One,
    /// Uniform in ±bound.
    Uniform(f32),
    /// Standard normal.
    Normal,
}

/// A declared parameter.
#[derive(Clone, Debug)]
pub struct ParameterSpec {
    /// Its name in files.
    pub name: String,
    /// Its shape as kernels read it.
    pub shape: Vec<usize>,
    /// How files hold it.
    pub layout: Layout,
    /// How it starts.
    pub init: Init,
    /// Whether it multiplies activations, and so is read in their type; all else is read in f32.
    pub multiplies: bool,
}

impl ParameterSpec {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its shape in files.
    pub fn file_shape(&self) -> Vec<usize> {
        let s = &self.shape;
        match self.layout {
            Layout::Plain => s.clone(),
            Layout::Linear => vec![s[1], s[0]],
            Layout::Conv2d => vec![s[3], s[2], s[0], s[1]],
            Layout::Conv1d => vec![s[1], s[0], 1],
            Layout::ConvLine => vec![s[3], s[2], s[1]],
        }
    }

    /// From the order of files to the order of kernels.
    pub fn from_file(&self, values: &[f32]) -> Vec<f32> {
        match self.layout {
            Layout::Plain => values.to_vec(),
            _ => {
                let (taps, inputs, outputs) = self.extents();
                let mut packed = vec![0.0; values.len()];
                // Sixteen outputs at a time: a line of memory is written whole, and as many are read in their order.
                for first in (0..outputs).step_by(16) {
                    let block = first..outputs.min(first + 16);
                    for c in 0..inputs {
                        for tap in 0..taps {
                            let row = &mut packed[(tap * inputs + c) * outputs..][block.clone()];
                            for (x, k) in row.iter_mut().zip(block.clone()) {
                                *x = values[(k * inputs + c) * taps + tap];
                            }
                        }
                    }
                }
                packed
            }
        }
    }

    /// From the order of kernels to the order of files.
    pub fn to_file(&self, values: &[f32]) -> Vec<f32> {
        match self.layout {
            Layout::Plain => values.to_vec(),
            _ => {
                let (taps, inputs, outputs) = self.extents();
                let mut unpacked = vec![0.0; values.len()];
                for tap in 0..taps {
                    for c in 0..inputs {
                        for k in 0..outputs {
                            unpacked[(k * inputs + c) * taps + tap] =
                                values[(tap * inputs + c) * outputs + k];
                        }
                    }
                }
                unpacked
            }
        }
    }

    /// Taps, inputs and outputs of a weight.
    fn extents(&self) -> (usize, usize, usize) {
        match self.shape[..] {
            [kh, kw, c, k] => (kh * kw, c, k),
            [c, k] => (1, c, k),
            _ => unreachable!(
                "only weights have a layout, and layers declare them with two or four dimensions"
            ),
        }
    }
}

/// The parameters of a network: their declarations and where each lies in an arena.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    specs: Vec<ParameterSpec>,
}

impl Parameters {
    /// Declares a parameter.
    pub fn declare(
        &mut self,
        name: impl Into<String>,
        shape: &[usize],
        layout: Layout,
        init: Init,
    ) -> ParameterId {
        self.specs.push(ParameterSpec {
            name: name.into(),
            shape: shape.to_vec(),
            layout,
            init,
            multiplies: false,
        });
        ParameterId(self.specs.len() - 1)
    }

    /// Declares a parameter that multiplies activations and is read in their type.
    pub fn declare_matrix(
        &mut self,
        name: impl Into<String>,
        shape: &[usize],
        layout: Layout,
        init: Init,
    ) -> ParameterId {
        let id = self.declare(name, shape, layout, init);
        self.specs[id.0].multiplies = true;
        id
    }

    /// The declarations, in order.
    pub fn specs(&self) -> &[ParameterSpec] {
        &self.specs
    }

    /// The number of numbers, over all parameters.
    pub fn count(&self) -> usize {
        self.specs.iter().map(ParameterSpec::len).sum()
    }

    /// The values that training starts from, functions of (seed, place in the list).
    pub fn initial_values(&self, seed: u64) -> Vec<Vec<f32>> {
        let start = |(i, spec): (usize, &ParameterSpec)| match spec.init {
            Init::Zero => vec![0.0; spec.len()],
            Init::One => vec![1.0; spec.len()],
            Init::Uniform(bound) => random::init_uniform(seed, i as u64, spec.len(), bound),
            Init::Normal => random::init_normal(seed, i as u64, spec.len(), 1.0),
        };
        self.specs.iter().enumerate().map(start).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn some() -> Parameters {
        let mut parameters = Parameters::default();
        parameters.declare("a.weight", &[3, 3, 2, 5], Layout::Conv2d, Init::Uniform(0.5));
        parameters.declare("a.bias", &[5], Layout::Plain, Init::Zero);
        parameters.declare("b.weight", &[7, 4], Layout::Linear, Init::Normal);
        parameters.declare("c.weight", &[4, 6], Layout::Conv1d, Init::One);
        parameters.declare("d.weight", &[1, 3, 2, 5], Layout::ConvLine, Init::Normal);
        parameters
    }

    #[test]
    fn file_order_and_back_is_the_identity() {
        for spec in some().specs() {
            let values: Vec<f32> = (0..spec.len()).map(|i| i as f32).collect();
            assert_eq!(spec.from_file(&spec.to_file(&values)), values, "{}", spec.name);
            assert_eq!(spec.file_shape().iter().product::<usize>(), spec.len());
        }
        assert_eq!(some().specs()[0].file_shape(), [5, 2, 3, 3]);
        assert_eq!(some().specs()[4].file_shape(), [5, 2, 3]);
        let line: Vec<f32> = (0..30).map(|i| i as f32).collect();
        assert_eq!(some().specs()[4].to_file(&line)[..4], [0.0, 10.0, 20.0, 5.0]);
        assert_eq!(
            some().specs()[2].to_file(&(0..28).map(|i| i as f32).collect::<Vec<_>>())[..3],
            [0.0, 4.0, 8.0]
        );
    }
}
