//! What a step reads beside its latent, in one buffer, changed by copies in the host's encoder: two calls in one encoder
//! each see what they were recorded with.

use crate::diffusion::StepScalars;
use crate::error::Result;
use crate::gpu::{Buffer, Gpu, Storage};
use crate::sizes::check_steps;
use crate::tensor::{DType, Tensor};

/// WebGPU's default alignment of a binding's offset.
const SECTION: u64 = 256;

/// Classes that a section of labels or weights has room for; one label more stands for no condition.
pub(super) const MOST_CLASSES: usize = 63;

/// Where the sections begin.
const LABELS: u64 = 0;
const MIX: u64 = SECTION;
const GUIDANCE: u64 = 2 * SECTION;
const SEED: u64 = 3 * SECTION;
const STEPS: u64 = 4 * SECTION;

/// What may change between two steps.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Conditions {
    /// K labels, then the null label.
    pub labels: Vec<u32>,
    /// K weights, of sum 1.
    pub mix: Vec<f32>,
    /// w.
    pub guidance: f32,
}

/// The buffer.
pub(super) struct Controls {
    gpu: Gpu,
    buffer: Buffer,
    mixed: usize,
    max_steps: usize,
}

impl Controls {
    pub fn new(gpu: &Gpu, mixed: usize, max_steps: usize) -> Result<Controls> {
        check_steps(max_steps)?;
        let bytes = STEPS + (max_steps * size_of::<StepScalars>()) as u64;
        let buffer = gpu.buffer("session controls", bytes)?;
        Ok(Controls { gpu: gpu.clone(), buffer, mixed, max_steps })
    }

    fn section(&self, offset: u64, shape: &[usize], dtype: DType) -> Tensor {
        Tensor::new(Storage::Buffer(self.buffer.clone()), offset, shape, dtype)
    }

    /// `[rows]`: the conditions' labels, with the null label behind them where `rows` is one more.
    pub fn labels(&self, rows: usize) -> Tensor {
        self.section(LABELS, &[rows], DType::U32)
    }

    /// `[K]`.
    pub fn mix(&self) -> Tensor {
        self.section(MIX, &[self.mixed], DType::F32)
    }

    /// `[1]`.
    pub fn guidance(&self) -> Tensor {
        self.section(GUIDANCE, &[1], DType::F32)
    }

    /// `[1, 2]`.
    pub fn seeds(&self) -> Tensor {
        self.section(SEED, &[1, 2], DType::U32)
    }

    /// `[max_steps, 12]`; rows behind those of a request are left from earlier ones.
    pub fn steps(&self) -> Tensor {
        self.section(STEPS, &[self.max_steps, size_of::<StepScalars>() / 4], DType::U32)
    }

    /// Records the change to other conditions.
    pub fn change(&self, encoder: &mut wgpu::CommandEncoder, conditions: &Conditions) -> Result<()> {
        self.copy(encoder, &conditions_bytes(conditions))
    }

    /// Records the change to another request.
    pub fn begin(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        conditions: &Conditions,
        seed: u64,
        steps: &[StepScalars],
    ) -> Result<()> {
        let mut bytes = conditions_bytes(conditions);
        bytes.resize(SEED as usize, 0);
        bytes.extend_from_slice(bytemuck::bytes_of(&[seed as u32, (seed >> 32) as u32]));
        bytes.resize(STEPS as usize, 0);
        bytes.extend_from_slice(bytemuck::cast_slice(steps));
        self.copy(encoder, &bytes)
    }

    /// A buffer that is filled as it is made, and a copy out of it: the only write that keeps its place among the
    /// commands of an encoder. It is gone when the submission is.
    fn copy(&self, encoder: &mut wgpu::CommandEncoder, bytes: &[u8]) -> Result<()> {
        let label = "session controls, staged";
        let size = bytes.len().next_multiple_of(4) as u64;
        let staged = self.gpu.scoped(label, size, || {
            let staged = self.gpu.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size,
                usage: wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: true,
            });
            {
                let view = staged.get_mapped_range_mut(..);
                let mut view = view.map_err(|error| self.gpu.fail(format!("{label}: {error}")))?;
                view.slice(..bytes.len()).copy_from_slice(bytes);
            }
            staged.unmap();
            Ok(staged)
        })?;
        encoder.copy_buffer_to_buffer(&staged, 0, self.buffer.raw(), 0, size);
        Ok(())
    }
}

fn conditions_bytes(conditions: &Conditions) -> Vec<u8> {
    let mut bytes = bytemuck::cast_slice(&conditions.labels).to_vec();
    bytes.resize(MIX as usize, 0);
    bytes.extend_from_slice(bytemuck::cast_slice(&conditions.mix));
    bytes.resize(GUIDANCE as usize, 0);
    bytes.extend_from_slice(bytemuck::bytes_of(&conditions.guidance));
    bytes
}
