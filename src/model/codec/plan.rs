//! One half of an autoencoder, recorded for so many pictures of one size.

use crate::error::Result;
use crate::gpu::{Buffer, Gpu, Plan};
use crate::nn::{Codec, Weights};
use crate::shape::Shape;
use crate::tensor::{Context, DType, Tensor};

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To pictures.
    Decode,
    /// To latents: the mean, or where noise is given a sample.
    Encode { sampled: bool },
}

/// A recording with its input and its output, to be run any number of times.
pub struct CodecPlan {
    plan: Plan,
    input: Tensor,
    noise: Option<Tensor>,
    output: Buffer,
    shape: Shape,
    pictures: usize,
}

impl CodecPlan {
    pub(super) fn new(
        gpu: &Gpu,
        (codec, weights): (&dyn Codec, &Weights),
        way: Way,
        (from, pictures): (Shape, usize),
        dtype: DType,
    ) -> Result<CodecPlan> {
        let place = |label: &str, shape: Shape| {
            let buffer = gpu.buffer(label, (pictures * shape.len() * 4) as u64)?;
            Ok(Tensor::over(&buffer, &shape.nhwc(pictures), DType::F32))
        };
        let input = place("what is coded", from)?;
        let noise = match way {
            Way::Encode { sampled: true } => Some(place("noise", codec.latent_of(from)?)?),
            _ => None,
        };
        let mut cx = Context::new(gpu);
        let (made, shape) = match way {
            Way::Decode => (codec.decode(&mut cx, weights, &input, dtype)?, codec.pixels_of(from)),
            Way::Encode { .. } => {
                (codec.encode(&mut cx, weights, &input, noise.as_ref(), dtype)?, codec.latent_of(from)?)
            }
        };
        // A copy: what was made may lie behind another's beginning.
        let output = cx.copy(&made)?;
        cx.keep(&output);
        let plan = cx.finish(if way == Way::Decode { "decode" } else { "encode" })?;
        let output = plan.kept(output.storage()).expect("it was kept").clone();
        Ok(CodecPlan { plan, input, noise, output, shape, pictures })
    }

    /// What is coded, `[N, H, W, C]` f32: latents or pictures, in a buffer of its own.
    pub fn input(&self) -> &Tensor {
        &self.input
    }

    /// The standard normal noise of a sampled latent, `[N, h, w, c]` f32, where it is sampled.
    pub fn noise(&self) -> Option<&Tensor> {
        self.noise.as_ref()
    }

    /// What becomes of it, `[N, H, W, C]` f32: pictures, about [-1, 1] and not clipped, or latents.
    pub fn output(&self) -> Tensor {
        Tensor::over(&self.output, &self.shape.nhwc(self.pictures), DType::F32)
    }

    /// One of what it makes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Pictures at a time.
    pub fn pictures(&self) -> usize {
        self.pictures
    }

    /// The recording, to encode it into a host's encoder.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The memory that its values take, those shared with other plans included.
    pub fn bytes(&self) -> u64 {
        self.plan.bytes()
    }

    /// Submits it. Does not wait.
    ///
    /// # Errors
    /// What the device objects to.
    pub fn run(&self) -> Result<()> {
        self.plan.run()
    }
}
