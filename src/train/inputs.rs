//! What the host writes before each microbatch.

use crate::diffusion::LossRow;
use crate::error::Result;
use crate::gpu::{Buffer, Gpu};
use crate::sizes;
use crate::tensor::{DType, Tensor};

use super::distill::Teaching;
use super::draws::Draw;
use super::options::TrainOptions;
use super::trained::Trained;
use super::vectors::Vectors;

/// The buffers that it writes, each of as many images as a microbatch has.
pub struct HostBuffers {
    images: Buffer,
    scalars: Buffer,
    times: Buffer,
    image_index: Buffer,
    labels: Buffer,
    /// Each sample's numbers of the loss; the default's are the same for all.
    rows: Option<Buffer>,
    /// The factor of z in what a preconditioned network sees.
    input_factors: Option<Buffer>,
    /// Of a network that takes vectors.
    pub vectors: Option<Vectors>,
    /// Of a distillation.
    pub teaching: Option<Teaching>,
}

impl HostBuffers {
    pub fn new(gpu: &Gpu, network: Trained<'_>, options: &TrainOptions) -> Result<Self> {
        let n = options.microbatch as u64;
        let shape = options.unet.shape().nhwc(options.microbatch);
        let pixels = sizes::bytes("the pixels of a batch", &shape, 1)?;
        Ok(HostBuffers {
            images: gpu.buffer("images", pixels.next_multiple_of(4))?,
            scalars: gpu.buffer("sample scalars", n * 16)?,
            times: gpu.buffer("times", n * 4)?,
            image_index: gpu.buffer("image indices", n * 8)?,
            labels: gpu.buffer("labels", n * 4)?,
            rows: match options.objective.is_default() || options.distillation.is_some() {
                true => None,
                false => Some(gpu.buffer("loss rows", n * size_of::<LossRow>() as u64)?),
            },
            input_factors: match options.objective.prediction.scales_input() {
                true => Some(gpu.buffer("input factors", n * 4)?),
                false => None,
            },
            vectors: Vectors::new(gpu, options)?,
            teaching: match network {
                Trained::Student(_, teacher) => Some(Teaching::new(gpu, options, teacher)?),
                _ => None,
            },
        })
    }

    /// The decisions of Algorithm 1 for images `first..`: λ and the label drops, in f64 on the host.
    pub fn write(
        &self,
        gpu: &Gpu,
        draws: &[Draw],
        options: &TrainOptions,
        images: &[u8],
        labels: &[u32],
        first: u64,
    ) -> Result<()> {
        let (mut scalars, mut times) = (Vec::new(), Vec::new());
        let (mut indices, mut shown) = (Vec::new(), Vec::new());
        for (i, label) in labels.iter().enumerate() {
            let index = first + i as u64;
            let draw = &draws[i];
            scalars.push([draw.alpha, draw.sigma, draw.log_snr, draw.time].map(|x| x as f32));
            times.push(draw.time as f32);
            indices.push([index as u32, (index >> 32) as u32]);
            shown.push(if draw.dropped.class { options.unet.null_label() } else { *label });
        }
        if let Some(rows) = &self.rows {
            let all: Vec<LossRow> = draws.iter().map(|draw| draw.row).collect();
            gpu.write(rows, 0, bytemuck::cast_slice(&all))?;
        }
        if let Some(factors) = &self.input_factors {
            let all: Vec<f32> = draws.iter().map(|draw| draw.input as f32).collect();
            gpu.write(factors, 0, bytemuck::cast_slice(&all))?;
        }
        if let Some(teaching) = &self.teaching {
            teaching.write(gpu, draws, &shown, first)?;
        }
        gpu.write(&self.images, 0, images)?;
        gpu.write(&self.scalars, 0, bytemuck::cast_slice(&scalars))?;
        gpu.write(&self.times, 0, bytemuck::cast_slice(&times))?;
        gpu.write(&self.image_index, 0, bytemuck::cast_slice(&indices))?;
        gpu.write(&self.labels, 0, bytemuck::cast_slice(&shown))
    }

    /// The bytes of pictures of `shape`, four a word.
    pub fn bytes(&self, shape: [usize; 4]) -> Tensor {
        Tensor::over(&self.images, &[shape.iter().product::<usize>().div_ceil(4)], DType::U32)
    }

    /// `[N, 4]` f32: α, σ, λ and the time.
    pub fn scalars(&self, n: usize) -> Tensor {
        Tensor::over(&self.scalars, &[n, 4], DType::F32)
    }

    /// `[N]` f32: what the network is told of the level.
    pub fn times(&self, n: usize) -> Tensor {
        Tensor::over(&self.times, &[n], DType::F32)
    }

    /// `[N]` f32: the factor of z in what the network sees, where that is another than z.
    pub fn input_factors(&self, n: usize) -> Option<Tensor> {
        self.input_factors.as_ref().map(|factors| Tensor::over(factors, &[n], DType::F32))
    }

    /// `[N, 2]` u32: low and high half of each image's index.
    pub fn image_index(&self, n: usize) -> Tensor {
        Tensor::over(&self.image_index, &[n, 2], DType::U32)
    }

    /// `[N]` u32: the classes, or the null label.
    pub fn labels(&self, n: usize) -> Tensor {
        Tensor::over(&self.labels, &[n], DType::U32)
    }

    /// `[N, 16]` f32: [`LossRow`]s, where the objective has any.
    pub fn rows(&self, n: usize) -> Option<Tensor> {
        self.rows.as_ref().map(|rows| Tensor::over(rows, &[n, size_of::<LossRow>() / 4], DType::F32))
    }
}
