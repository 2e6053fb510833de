//! The plans of a session: the noise a picture starts from, and one denoising step with one or with both evaluations.

use crate::diffusion::Clip;
use crate::error::Result;
use crate::gpu::{Buffer, Gpu, Plan, Storage};
use crate::model::Model;
use crate::nn::Weights;
use crate::nn::unet::Pass;
use crate::ops::{self, GuidedStep};
use crate::random::Stream;
use crate::tensor::{Context, DType, Tensor};

use super::controls::Controls;

/// What a session runs, and what its steps leave: buffers of the picture's shape `[1, H, W, C]` f32.
pub(super) struct Program {
    /// H, W, C.
    pub shape: [usize; 3],
    pub z: Buffer,
    /// x̃.
    pub picture: Buffer,
    pub counter: Buffer,
    pub start: Plan,
    /// A step of one evaluation for each class of the mix.
    pub single: Plan,
    /// A step with the unconditional evaluation too, where the network has one.
    pub guided: Option<Plan>,
}

/// What the recording of a step takes.
struct Parts<'a> {
    model: &'a Model,
    weights: &'a Weights,
    controls: &'a Controls,
    mixed: usize,
    clip: Clip,
    dtype: DType,
}

impl Program {
    pub fn new(
        gpu: &Gpu,
        model: &Model,
        controls: &Controls,
        mixed: usize,
        clip: Clip,
        dtype: DType,
    ) -> Result<Program> {
        let config = model.unet.config();
        let shape = [config.sample_size, config.sample_size, config.in_channels];
        let bytes = (shape.iter().product::<usize>() * 4) as u64;
        let z = gpu.buffer("session z", bytes)?;
        let picture = gpu.buffer("session picture", bytes)?;
        let counter = gpu.buffer("session step counter", 4)?;
        let of_shape = [1, shape[0], shape[1], shape[2]];

        let mut cx = Context::new(gpu);
        let noise = ops::normal_noise(&mut cx, &controls.seeds(), 0, Stream::InitialNoise, of_shape)?;
        cx.copy_to(&noise, &over(&z, &of_shape, DType::F32));
        let start = cx.finish("session start")?;

        let weights = &model.weights().fixed_in(gpu, dtype)?;
        let parts = Parts { model, weights, controls, mixed, clip, dtype };
        let tensors = [
            over(&z, &of_shape, DType::F32),
            over(&picture, &of_shape, DType::F32),
            over(&counter, &[1], DType::U32),
        ];
        let single = parts.step(gpu, &tensors, false)?;
        let guided = model.config.can_guide().then(|| parts.step(gpu, &tensors, true)).transpose()?;
        Ok(Program { shape, z, picture, counter, start, single, guided })
    }
}

impl Parts<'_> {
    /// The network on the latent once for every condition, then combine, clip, mean and noise.
    fn step(&self, gpu: &Gpu, [z, picture, counter]: &[Tensor; 3], guided: bool) -> Result<Plan> {
        let rows = self.mixed + usize::from(guided);
        let mut cx = Context::new(gpu);
        let (steps, guidance, seeds) =
            (self.controls.steps(), self.controls.guidance(), self.controls.seeds());
        let times = cx.output("times", &[rows], DType::F32)?;
        ops::step_times(&mut cx, &steps, counter, &times)?;
        let repeated = ops::repeat_batch(&mut cx, z, rows)?;
        let labels = self.model.unet.config().num_classes.map(|_| self.controls.labels(rows));
        let pass = Pass::inference(self.dtype);
        let unet = &self.model.unet;
        let mut eps = unet.forward(&mut cx, self.weights, &repeated, &times, labels.as_ref(), &pass)?;
        if self.mixed > 1 {
            eps = ops::mix_conditions(&mut cx, &eps, &self.controls.mix(), 1)?;
        }
        let step = GuidedStep {
            z,
            eps: &eps,
            steps: &steps,
            counter,
            guidance: &guidance,
            seeds: &seeds,
            clip: self.clip,
            preview: Some(picture),
        };
        ops::guided_step(&mut cx, step)?;
        ops::advance(&mut cx, counter)?;
        cx.finish(if guided { "session step, guided" } else { "session step" })
    }
}

fn over(buffer: &Buffer, shape: &[usize], dtype: DType) -> Tensor {
    Tensor::new(Storage::Buffer(buffer.clone()), 0, shape, dtype)
}
