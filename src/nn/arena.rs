//! Arenas: the parameters of a network packed into few large buffers, so that an optimiser step is one dispatch a chunk.

use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu, Storage};
use crate::tensor::{DType, Tensor};

use super::parameters::{ParameterId, ParameterSpec, Parameters};
use super::weights::Weights;

/// Every parameter starts at a multiple of this many elements: 256 bytes in f16, WebGPU's default offset alignment.
const ALIGNMENT: usize = 128;

/// Where the parameters lie: a chunk and an element offset for each, and the chunks' lengths in elements.
#[derive(Clone, Debug)]
struct Packing {
    places: Vec<(usize, usize)>,
    chunks: Vec<usize>,
}

impl Parameters {
    /// Packs the parameters into chunks of at most `most` elements.
    fn pack(&self, most: usize) -> Packing {
        let (mut places, mut chunks) = (Vec::new(), vec![0usize]);
        for spec in self.specs() {
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
        for spec in self.specs() {
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
        Tensor::new(storage, offset as u64, &parameters.specs()[id.0].shape, DType::F32)
    }

    /// All parameters of one copy, to run a network with.
    pub fn weights(&self, parameters: &Parameters, copy: usize) -> Weights {
        let all = 0..parameters.specs().len();
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
        Ok(parameters.specs().iter().zip(&self.packing.places).map(cut).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::parameters::tests::some;

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
