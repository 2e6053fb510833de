//! Arenas: the parameters of a network packed into few large buffers, so that an optimiser step is one dispatch a chunk.

use half::slice::HalfFloatSliceExt;

use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu, Storage};
use crate::tensor::{DType, Tensor};

use super::parameters::{ParameterId, ParameterSpec, Parameters};
use super::weights::Weights;

/// Every parameter starts at a multiple of this many elements: 256 bytes in f16, WebGPU's default offset alignment.
const ALIGNMENT: usize = 128;

/// Where the parameters lie: a chunk and an element offset for each, and the chunks' lengths in elements and types.
#[derive(Clone, Debug)]
struct Packing {
    places: Vec<(usize, usize)>,
    chunks: Vec<usize>,
    types: Vec<DType>,
}

impl Parameters {
    /// Packs the parameters into chunks of at most `most` bytes, those that multiply activations in `matrices`.
    fn pack(&self, most: usize, matrices: DType) -> Packing {
        let mut packing = Packing { places: Vec::new(), chunks: Vec::new(), types: Vec::new() };
        for spec in self.specs() {
            let length = spec.len().next_multiple_of(ALIGNMENT);
            let dtype = stored(spec, matrices);
            let last = packing.types.iter().rposition(|&of| of == dtype);
            let fits = |chunk: &usize| (packing.chunks[*chunk] + length) * dtype.bytes() <= most;
            let chunk = last.filter(fits).unwrap_or_else(|| {
                packing.chunks.push(0);
                packing.types.push(dtype);
                packing.chunks.len() - 1
            });
            packing.places.push((chunk, packing.chunks[chunk]));
            packing.chunks[chunk] += length;
        }
        packing
    }

    /// An arena of zeros for one number per parameter. `copies` arenas lie behind one another in each chunk, as the
    /// averages of several rates do.
    ///
    /// # Errors
    /// [`Error::Limit`] naming the parameter that exceeds the device's largest binding, [`Error::OutOfMemory`].
    pub fn arena(&self, gpu: &Gpu, label: &str, copies: usize) -> Result<Arena> {
        // The same packing for every arena of a network, so that one dispatch can walk several of them: the
        // largest binding is shared among up to four averages.
        self.packed_for(gpu, label, copies, 4, DType::F32)
    }

    /// An arena of weights that are only read, each by itself: a parameter may take as much as a binding holds. Those that
    /// multiply activations lie in `matrices`, all others in f32.
    ///
    /// # Errors
    /// As [`Self::arena`]; [`Error::Config`] for f16 on a device without it.
    pub fn read_only_arena(&self, gpu: &Gpu, label: &str, matrices: DType) -> Result<Arena> {
        let device = gpu.capabilities();
        if matrices == DType::F16 && !device.f16 {
            return Err(Error::Config(format!("{} has no f16 in shaders; weights stay in f32", device.name)));
        }
        self.packed_for(gpu, label, 1, 1, matrices)
    }

    /// An arena whose chunks leave room in a binding for `most` copies.
    fn packed_for(
        &self,
        gpu: &Gpu,
        label: &str,
        copies: usize,
        most: usize,
        matrices: DType,
    ) -> Result<Arena> {
        let limits = &gpu.capabilities().limits;
        let allowed = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) / most as u64;
        for spec in self.specs() {
            let needed = crate::sizes::bytes(&spec.name, &spec.shape, stored(spec, matrices).bytes())?;
            if needed > allowed {
                let limit = match most {
                    1 => "max_storage_buffer_binding_size",
                    _ => "a quarter of max_storage_buffer_binding_size",
                };
                let what = format!("the weights {}", spec.name);
                return Err(Error::Limit { what, limit, needed, allowed });
            }
        }
        let packing = self.pack(allowed as usize, matrices);
        let chunk = |(length, dtype): (&usize, &DType)| {
            gpu.buffer(label, crate::sizes::bytes(label, &[*length, copies], dtype.bytes())?)
        };
        let chunks = packing.chunks.iter().zip(&packing.types).map(chunk);
        Ok(Arena { chunks: chunks.collect::<Result<_>>()?, copies, packing })
    }
}

/// The type that a parameter is stored in.
fn stored(spec: &ParameterSpec, matrices: DType) -> DType {
    if spec.multiplies { matrices } else { DType::F32 }
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
        let chunks = self.chunks.iter().zip(&self.packing.chunks).zip(&self.packing.types);
        let whole = |((buffer, length), dtype): ((&Buffer, &usize), &DType)| {
            Tensor::new(Storage::Buffer(buffer.clone()), 0, &[length * self.copies], *dtype)
        };
        chunks.map(whole).collect()
    }

    /// The chunk of a parameter, its first byte there and its type.
    fn place(&self, index: usize, copy: usize) -> (&Buffer, u64, DType) {
        let (chunk, offset) = self.packing.places[index];
        let dtype = self.packing.types[chunk];
        let first = (copy * self.packing.chunks[chunk] + offset) * dtype.bytes();
        (&self.chunks[chunk], first as u64, dtype)
    }

    /// The tensor of one parameter in copy `copy`.
    pub fn tensor(&self, parameters: &Parameters, id: ParameterId, copy: usize) -> Tensor {
        let (buffer, first, dtype) = self.place(id.0, copy);
        Tensor::new(Storage::Buffer(buffer.clone()), first, &parameters.specs()[id.0].shape, dtype)
    }

    /// All parameters of one copy, to run a network with.
    pub fn weights(&self, parameters: &Parameters, copy: usize) -> Weights {
        let all = 0..parameters.specs().len();
        let chunks = self.chunks.iter().zip(&self.packing.chunks).zip(&self.packing.types);
        let chunk = |((buffer, &length), &dtype): ((&Buffer, &usize), &DType)| {
            let offset = (copy * length * dtype.bytes()) as u64;
            Tensor::new(Storage::Buffer(buffer.clone()), offset, &[length], dtype)
        };
        Weights {
            tensors: all.map(|i| self.tensor(parameters, ParameterId(i), copy)).collect(),
            halves: Vec::new(),
            chunks: chunks.map(chunk).collect(),
            places: self.packing.places.clone(),
        }
    }

    /// Writes the values of every parameter, in the kernels' order, into one copy.
    pub fn write(&self, gpu: &Gpu, copy: usize, values: &[Vec<f32>]) -> Result<()> {
        values.iter().enumerate().try_for_each(|(place, values)| self.write_one(gpu, copy, place, values))
    }

    /// Writes the values of one parameter, the `place`-th that was declared, in the kernels' order, into one copy;
    /// rounded to the nearest where it is stored in f16.
    ///
    /// # Errors
    /// [`Error::Config`] naming a value that f16 cannot hold.
    pub fn write_one(&self, gpu: &Gpu, copy: usize, place: usize, values: &[f32]) -> Result<()> {
        let (buffer, first, dtype) = self.place(place, copy);
        if dtype != DType::F16 {
            gpu.write(buffer, first, bytemuck::cast_slice(values))?;
            gpu.hand_on();
            return Ok(());
        }
        // Whole words are written.
        let mut halves = vec![half::f16::ZERO; values.len().next_multiple_of(2)];
        halves[..values.len()].convert_from_f32_slice(values);
        if let Some(at) = halves.iter().position(|half| !half.is_finite()) {
            let value = values[at];
            return Err(Error::Config(format!("holds {value}, more than f16 can: use f32 (precision)")));
        }
        gpu.write(buffer, first, bytemuck::cast_slice(&halves))?;
        gpu.hand_on();
        Ok(())
    }

    /// Reads the values of every parameter of one copy, in the kernels' order, as f32 whatever they are stored in. Waits
    /// for the device.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(&self, gpu: &Gpu, parameters: &Parameters, copy: usize) -> Result<Vec<Vec<f32>>> {
        let mut chunks = Vec::new();
        for ((buffer, length), dtype) in self.chunks.iter().zip(&self.packing.chunks).zip(&self.packing.types)
        {
            let bytes = length * dtype.bytes();
            let bytes = gpu.read(buffer, (copy * bytes) as u64..((copy + 1) * bytes) as u64)?;
            chunks.push(match dtype {
                DType::F16 => {
                    let halves = bytemuck::pod_collect_to_vec::<u8, half::f16>(&bytes);
                    halves.into_iter().map(f32::from).collect()
                }
                _ => bytemuck::pod_collect_to_vec::<u8, f32>(&bytes),
            });
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
        let packing = some().pack(4 * 128, DType::F32);
        assert!(packing.chunks.len() > 1 && packing.chunks.iter().all(|&length| length <= 128));
        assert!(packing.places.iter().all(|(_, offset)| offset % ALIGNMENT == 0));
    }
}
