//! Parameters: declared by layers, packed into few large arenas, so that an optimiser step is one dispatch a chunk.

use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu, Storage};
use crate::random;
use crate::tensor::{DType, Tensor};

use super::weights::Weights;

/// Every parameter starts at a multiple of this many elements: 256 bytes in f16, WebGPU's default offset alignment.
const ALIGNMENT: usize = 128;

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

/// Where the parameters lie: a chunk and an element offset for each, and the chunks' lengths in elements.
#[derive(Clone, Debug)]
struct Packing {
    places: Vec<(usize, usize)>,
    chunks: Vec<usize>,
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
        self.specs.push(ParameterSpec { name: name.into(), shape: shape.to_vec(), layout, init });
        ParameterId(self.specs.len() - 1)
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

    /// Packs the parameters into chunks of at most `most` elements.
    fn pack(&self, most: usize) -> Packing {
        let (mut places, mut chunks) = (Vec::new(), vec![0usize]);
        for spec in &self.specs {
            let length = spec.len().next_multiple_of(ALIGNMENT);
            let last = chunks.len() - 1;
            if chunks[last] > 0 && chunks[last] + length > most {
                chunks.push(0);
            }
            let last = chunks.len() - 1;
            places.push((last, chunks[last]));
            chunks[last] += length;
        }
        Packing { places, chunks }
    }

    /// An arena of zeros for one number per parameter. `copies` arenas lie behind one another in each chunk, as the
    /// averages of several rates do.
    ///
    /// # Errors
    /// [`Error::Limit`] naming the parameter that exceeds the device's largest binding, [`Error::OutOfMemory`].
    pub fn arena(&self, gpu: &Gpu, label: &str, copies: usize) -> Result<Arena> {
        // The same packing for every arena of a network, so that one dispatch can walk several of them: the
        // largest binding is shared among up to four averages.
        self.packed_for(gpu, label, copies, 4)
    }

    /// An arena of weights that are only read, each by itself: a parameter may take as much as a binding holds.
    ///
    /// # Errors
    /// As [`Self::arena`].
    pub fn read_only_arena(&self, gpu: &Gpu, label: &str) -> Result<Arena> {
        self.packed_for(gpu, label, 1, 1)
    }

    /// An arena whose chunks leave room in a binding for `most` copies.
    fn packed_for(&self, gpu: &Gpu, label: &str, copies: usize, most: usize) -> Result<Arena> {
        let limits = &gpu.capabilities().limits;
        let allowed = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) / most as u64;
        for spec in &self.specs {
            let needed = crate::sizes::bytes(&spec.name, &spec.shape, 4)?;
            if needed > allowed {
                let limit = match most {
                    1 => "max_storage_buffer_binding_size",
                    _ => "a quarter of max_storage_buffer_binding_size",
                };
                let what = format!("the weights {}", spec.name);
                return Err(Error::Limit { what, limit, needed, allowed });
            }
        }
        let packing = self.pack((allowed / 4) as usize);
        let bytes = |length: &usize| crate::sizes::bytes(label, &[*length, copies], 4);
        let chunks = packing.chunks.iter().map(|length| gpu.buffer(label, bytes(length)?));
        Ok(Arena { chunks: chunks.collect::<Result<_>>()?, copies, packing })
    }
}

/// One number for each parameter's element (values, gradients, a moment, averages), on the device.
#[derive(Clone, Debug)]
pub struct Arena {
    chunks: Vec<Buffer>,
    copies: usize,
    packing: Packing,
}

impl Arena {
    /// Each chunk as one flat tensor, padding included; several copies lie behind one another.
    pub fn flat(&self) -> Vec<Tensor> {
        let whole = |(buffer, length): (&Buffer, &usize)| {
            Tensor::new(Storage::Buffer(buffer.clone()), 0, &[length * self.copies], DType::F32)
        };
        self.chunks.iter().zip(&self.packing.chunks).map(whole).collect()
    }

    /// The tensor of one parameter in copy `copy`.
    pub fn tensor(&self, parameters: &Parameters, id: ParameterId, copy: usize) -> Tensor {
        let (chunk, offset) = self.packing.places[id.0];
        let offset = (copy * self.packing.chunks[chunk] + offset) * 4;
        let storage = Storage::Buffer(self.chunks[chunk].clone());
        Tensor::new(storage, offset as u64, &parameters.specs[id.0].shape, DType::F32)
    }

    /// All parameters of one copy, to run a network with.
    pub fn weights(&self, parameters: &Parameters, copy: usize) -> Weights {
        let all = 0..parameters.specs.len();
        let chunk = |(buffer, &length): (&Buffer, &usize)| {
            let offset = (copy * length * 4) as u64;
            Tensor::new(Storage::Buffer(buffer.clone()), offset, &[length], DType::F32)
        };
        Weights {
            tensors: all.map(|i| self.tensor(parameters, ParameterId(i), copy)).collect(),
            halves: Vec::new(),
            chunks: self.chunks.iter().zip(&self.packing.chunks).map(chunk).collect(),
            places: self.packing.places.clone(),
        }
    }

    /// Writes the values of every parameter, in the kernels' order, into one copy.
    pub fn write(&self, gpu: &Gpu, copy: usize, values: &[Vec<f32>]) -> Result<()> {
        for ((chunk, offset), values) in self.packing.places.iter().zip(values) {
            let offset = (copy * self.packing.chunks[*chunk] + offset) * 4;
            gpu.write(&self.chunks[*chunk], offset as u64, bytemuck::cast_slice(values))?;
        }
        Ok(())
    }

    /// Writes the values of one parameter, the `place`-th that was declared, in the kernels' order, into one copy.
    pub fn write_one(&self, gpu: &Gpu, copy: usize, place: usize, values: &[f32]) -> Result<()> {
        let (chunk, offset) = self.packing.places[place];
        let offset = (copy * self.packing.chunks[chunk] + offset) * 4;
        gpu.write(&self.chunks[chunk], offset as u64, bytemuck::cast_slice(values))
    }

    /// Reads the values of every parameter of one copy, in the kernels' order. Waits for the device.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(&self, gpu: &Gpu, parameters: &Parameters, copy: usize) -> Result<Vec<Vec<f32>>> {
        let mut chunks = Vec::new();
        for (buffer, length) in self.chunks.iter().zip(&self.packing.chunks) {
            let (start, end) = (copy * length * 4, (copy + 1) * length * 4);
            let bytes = gpu.read(buffer, start as u64..end as u64)?;
            chunks.push(bytemuck::pod_collect_to_vec::<u8, f32>(&bytes));
        }
        let cut = |(spec, (chunk, offset)): (&ParameterSpec, &(usize, usize))| {
            chunks[*chunk][*offset..offset + spec.len()].to_vec()
        };
        Ok(parameters.specs.iter().zip(&self.packing.places).map(cut).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Parameters {
        let mut parameters = Parameters::default();
        parameters.declare("a.weight", &[3, 3, 2, 5], Layout::Conv2d, Init::Uniform(0.5));
        parameters.declare("a.bias", &[5], Layout::Plain, Init::Zero);
        parameters.declare("b.weight", &[7, 4], Layout::Linear, Init::Normal);
        parameters.declare("c.weight", &[4, 6], Layout::Conv1d, Init::One);
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
        assert_eq!(
            some().specs()[2].to_file(&(0..28).map(|i| i as f32).collect::<Vec<_>>())[..3],
            [0.0, 4.0, 8.0]
        );
    }

    #[test]
    fn an_arena_keeps_its_copies_apart() {
        let gpu = crate::testing::gpu();
        let parameters = some();
        let arena = parameters.arena(gpu, "test", 2).unwrap();
        let (first, second) = (parameters.initial_values(1), parameters.initial_values(2));
        arena.write(gpu, 0, &first).unwrap();
        arena.write(gpu, 1, &second).unwrap();
        assert_eq!(arena.read(gpu, &parameters, 0).unwrap(), first);
        assert_eq!(arena.read(gpu, &parameters, 1).unwrap(), second);
        assert_ne!(first[0], second[0]);
    }

    #[test]
    fn packing_respects_the_largest_chunk() {
        let packing = some().pack(128);
        assert!(packing.chunks.len() > 1 && packing.chunks.iter().all(|&length| length <= 128));
        assert!(packing.places.iter().all(|(_, offset)| offset % ALIGNMENT == 0));
    }
}
