//! The parameters that a network is run with: views into an arena, and, where activations are f16, copies in f16.

use crate::error::{Error, Result};
use crate::gpu::{Gpu, Storage};
use crate::ops;
use crate::tensor::{Context, DType, Tensor};

use super::parameters::ParameterId;

/// The parameters of a network as tensors. The default is those of a closed form: none.
#[derive(Clone, Debug, Default)]
pub struct Weights {
    pub(super) tensors: Vec<Tensor>,
    /// The same in f16; empty until they are made.
    pub(super) halves: Vec<Tensor>,
    /// What the parameters are views into: flat, padding included.
    pub(super) chunks: Vec<Tensor>,
    /// Each parameter's chunk, and its first element there.
    pub(super) places: Vec<(usize, usize)>,
}

impl Weights {
    /// One parameter.
    pub fn get(&self, id: ParameterId) -> &Tensor {
        &self.tensors[id.0]
    }

    /// A matrix or convolution kernel for activations of `dtype`: in f16 for f16 where such copies were made, or where it
    /// lies in f16 alone.
    pub fn matrix(&self, id: ParameterId, dtype: DType) -> &Tensor {
        match (dtype, self.halves.get(id.0)) {
            (DType::F16, Some(half)) => half,
            _ => self.get(id),
        }
    }

    /// All of them, in the order of their declaration.
    pub fn iter(&self) -> impl Iterator<Item = &Tensor> {
        self.tensors.iter()
    }

    /// Makes every parameter a leaf of the tape whose gradient is added to the same place of `gradients`.
    pub fn track(&self, cx: &mut Context, gradients: &Weights) {
        for copy in [&self.tensors, &self.halves] {
            for (parameter, gradient) in copy.iter().zip(&gradients.tensors) {
                cx.track_parameter(parameter, gradient);
            }
        }
    }

    /// The same parameters with copies in f16, made anew each time the recording runs: for training, where they change.
    ///
    /// # Errors
    /// [`Error::Config`] on a device without f16.
    pub fn with_halves(&self, cx: &mut Context) -> Result<Weights> {
        let chunks = self.narrow(cx)?;
        Ok(self.halved(&chunks))
    }

    /// Whether its matrices lie in f16 alone.
    pub fn is_narrow(&self) -> bool {
        self.chunks.iter().any(|chunk| chunk.dtype() == DType::F16)
    }

    /// Whether a network may be evaluated with activations of `dtype`.
    ///
    /// # Errors
    /// [`Error::Config`] where that is f32 and the matrices were loaded in f16.
    pub fn check_serve(&self, dtype: DType) -> Result<()> {
        if dtype != DType::F16 && self.is_narrow() {
            let what = "its weights were loaded in f16, and it is to be evaluated in f32: load it in f32 (precision)";
            return Err(Error::Config(what.into()));
        }
        Ok(())
    }

    /// The parameters as sampling in `dtype` wants them: with copies in f16, made now, where that is f16 and they are not
    /// there alone.
    ///
    /// # Errors
    /// [`Error::Config`] on a device without f16, or as [`Self::check_serve`]; [`Error::OutOfMemory`].
    pub fn fixed_in(&self, gpu: &Gpu, dtype: DType) -> Result<Weights> {
        self.check_serve(dtype)?;
        if dtype != DType::F16 || self.is_narrow() || self.tensors.is_empty() {
            return Ok(self.clone());
        }
        let mut cx = Context::new(gpu);
        let mut chunks = self.narrow(&mut cx)?;
        chunks.iter().for_each(|chunk| cx.keep(chunk));
        let plan = cx.finish("weights in f16")?;
        plan.run()?;
        for chunk in &mut chunks {
            let buffer = plan.kept(chunk.storage()).expect("it was kept").clone();
            *chunk = Tensor::new(Storage::Buffer(buffer), 0, chunk.shape(), DType::F16);
        }
        Ok(self.halved(&chunks))
    }

    fn narrow(&self, cx: &mut Context) -> Result<Vec<Tensor>> {
        self.chunks.iter().map(|chunk| ops::cast_constant(cx, chunk, DType::F16)).collect()
    }

    /// Views of the parameters into `chunks`, copies of this one's in f16.
    fn halved(&self, chunks: &[Tensor]) -> Weights {
        let view = |(parameter, &(chunk, first)): (&Tensor, &(usize, usize))| {
            let offset = chunks[chunk].offset() + (first * DType::F16.bytes()) as u64;
            Tensor::new(chunks[chunk].storage().clone(), offset, parameter.shape(), DType::F16)
        };
        Weights { halves: self.tensors.iter().zip(&self.places).map(view).collect(), ..self.clone() }
    }
}
