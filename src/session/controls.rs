//! What a step reads beside its latent, in one buffer, changed by copies in the host's encoder: two calls in one encoder
//! each see what they were recorded with.

use crate::diffusion::guiders::{Guiders, moments};
use crate::error::Result;
use crate::gpu::{Buffer, Gpu, Storage};
use crate::model::Sequence;
use crate::nn::About;
use crate::ops::{self, GUIDER_ROW};
use crate::sample::slots::empty;
use crate::sample::{Combine, Form, ROW, Settled, Slots, Walk, Which, derived, has_momentum};
use crate::sizes::check_steps;
use crate::tensor::{DType, Tensor};

/// WebGPU's default alignment of a binding's offset.
const SECTION: u64 = 256;

/// Rows of conditions that a section has room for.
pub(super) const MOST_ROWS: usize = SECTION as usize / 4;

/// Where the first sections begin.
const ROWS: u64 = 0;
const MIX: u64 = SECTION;
const WEIGHT: u64 = 2 * SECTION;
const VECTOR: u64 = 3 * SECTION;

/// What may change between two steps.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Conditions {
    /// Rows of the mix's K classes, then those evaluated beside them.
    pub rows: Vec<u32>,
    /// K weights, of sum 1.
    pub mix: Vec<f32>,
    /// What is told and what stands for "nothing", where the network takes tokens.
    pub tokens: [Option<Sequence>; 2],
    /// `[V, D]`, where the network takes a vector: all of it, then what stays of it in parts.
    pub vectors: Vec<f32>,
    /// w, as the step's kernel or a distilled network reads it.
    pub weight: f32,
    /// `[T, 8]`: the guiders' table, where there are guiders.
    pub guiders: Vec<f32>,
}

/// The buffer. What changes with the conditions comes first, so that a change is one copy.
pub(super) struct Controls {
    gpu: Gpu,
    buffer: Buffer,
    max_steps: usize,
    /// Where the guiders' table begins, behind the vector.
    guiders: u64,
    /// Where the sections behind it begin, each for `max_steps` rows but the first.
    seed: u64,
    moves: u64,
    moves_of_first: u64,
    annealing: u64,
}

impl Controls {
    /// For requests of up to `max_steps` moves.
    pub fn new(gpu: &Gpu, settled: &Settled, max_steps: usize) -> Result<Controls> {
        check_steps(max_steps)?;
        let section = |words: usize, is: bool| {
            if is { ((max_steps * words * 4) as u64).next_multiple_of(SECTION) } else { 0 }
        };
        let width = (derived(&settled.others).len() * settled.conditions.vector_width() * 4) as u64;
        let (at, guiders) = (VECTOR + width.next_multiple_of(SECTION), &settled.options.guiders);
        let seed = at + section(GUIDER_ROW, !guiders.is_empty());
        let moves = seed + SECTION;
        let moves_of_first = moves + section(ROW, true);
        let annealing = moves_of_first + section(ROW, settled.walk.has_rows_of_first());
        let bytes = annealing + section(2, guiders.annealing().is_some());
        let buffer = gpu.buffer("session controls", bytes)?;
        let gpu = gpu.clone();
        Ok(Controls { gpu, buffer, max_steps, guiders: at, seed, moves, moves_of_first, annealing })
    }

    fn section(&self, offset: u64, shape: &[usize], dtype: DType) -> Tensor {
        Tensor::new(Storage::Buffer(self.buffer.clone()), offset, shape, dtype)
    }

    /// The slots of a step, most of them sections of the buffer, and where it leaves x̃. Rows of the tables behind those of a
    /// request are left from earlier ones.
    pub fn slots(&self, gpu: &Gpu, about: &About, settled: &Settled) -> Result<(Slots, Tensor)> {
        let shape = settled.shape.nhwc(1);
        let (z, picture) = (
            empty(gpu, "session z", &shape, DType::F32)?,
            empty(gpu, "session picture", &shape, DType::F32)?,
        );
        let guiders = match settled.combine() {
            Combine::Guiders(guiders) => Some(guiders),
            Combine::InStep | Combine::Posterior => None,
        };
        let weight = self.section(WEIGHT, &[1], DType::F32);
        let rows = settled.mixed + settled.others.len();
        let table = |offset: u64, words: usize, dtype| self.section(offset, &[self.max_steps, words], dtype);
        let ancestral = settled.walk.form == Form::Ancestral;
        let momentum = guiders.is_some_and(has_momentum);
        let slots = Slots {
            z,
            seeds: self.section(self.seed, &[1, 2], DType::U32),
            counter: empty(gpu, "session step counter", &[1], DType::U32)?,
            // Guiders write it, and what is written cannot lie in a buffer that is read beside it.
            weight: match guiders {
                Some(_) => empty(gpu, "session guidance weight", &[1], DType::F32)?,
                None => weight.clone(),
            },
            moves: table(self.moves, ROW, DType::U32),
            moves_of_first: settled
                .walk
                .has_rows_of_first()
                .then(|| table(self.moves_of_first, ROW, DType::U32)),
            rows: about.takes.class.map(|_| self.section(ROWS, &[rows], DType::U32)),
            tokens: settled
                .token_bank(&about.takes)
                .map(|bank| empty(gpu, "session tokens", &bank, DType::F32))
                .transpose()?,
            vectors: about.takes.vector.map(|vector| {
                let bank = [derived(&settled.others).len(), vector.width];
                self.section(VECTOR, &bank, DType::F32)
            }),
            wanted: None,
            told: settled.distilled.map(|_| weight),
            small: None,
            guiders: guiders.map(|_| table(self.guiders, GUIDER_ROW, DType::F32)),
            annealing: guiders.and_then(Guiders::annealing).map(|_| table(self.annealing, 2, DType::F32)),
            momentum: momentum.then(|| empty(gpu, "session momentum", &shape, DType::F32)).transpose()?,
            mix: (settled.mixed > 1).then(|| self.section(MIX, &[settled.mixed], DType::F32)),
            preview: ancestral.then(|| picture.clone()),
            // The entry of its kernel that leaves x̂, whether or not a move reads it.
            previous: (!ancestral).then(|| picture.clone()),
            posterior: None,
            noise: None,
        };
        Ok((slots, picture))
    }

    /// Records the change to other conditions.
    pub fn change(&self, encoder: &mut wgpu::CommandEncoder, conditions: &Conditions) -> Result<()> {
        self.copy(encoder, &self.conditions_bytes(conditions))
    }

    /// Records the change to another request.
    pub fn begin(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        conditions: &Conditions,
        seed: u64,
        walk: &Walk,
        settled: &Settled,
    ) -> Result<()> {
        let mut bytes = self.conditions_bytes(conditions);
        let mut put = |offset: u64, words: &[u32]| {
            bytes.resize(offset as usize, 0);
            bytes.extend_from_slice(bytemuck::cast_slice(words));
        };
        put(self.seed, &[seed as u32, (seed >> 32) as u32]);
        put(self.moves, &walk.rows(Which::All));
        if walk.has_rows_of_first() {
            put(self.moves_of_first, &walk.rows(Which::First));
        }
        if let Some(annealing) = settled.options.guiders.annealing() {
            let rows = ops::annealing_rows(&annealing, &moments(&walk.steps));
            put(self.annealing, bytemuck::cast_slice(&rows));
        }
        self.copy(encoder, &bytes)
    }

    /// Records the change to other tokens.
    pub fn tell(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        bank: &Buffer,
        tokens: &[Option<Sequence>; 2],
    ) -> Result<()> {
        let half = bank.bytes() / 2;
        let mut at = 0;
        for sequence in tokens {
            if let Some(sequence) = sequence {
                self.copy_into(encoder, bank, at, bytemuck::cast_slice(sequence.values()))?;
            }
            at += half;
        }
        Ok(())
    }

    fn copy(&self, encoder: &mut wgpu::CommandEncoder, bytes: &[u8]) -> Result<()> {
        self.copy_into(encoder, &self.buffer, 0, bytes)
    }

    /// A buffer that is filled as it is made, and a copy out of it: the only write that keeps its place among the
    /// commands of an encoder. It is gone when the submission is.
    fn copy_into(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        target: &Buffer,
        offset: u64,
        bytes: &[u8],
    ) -> Result<()> {
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
        encoder.copy_buffer_to_buffer(&staged, 0, target.raw(), offset, size);
        Ok(())
    }

    fn conditions_bytes(&self, conditions: &Conditions) -> Vec<u8> {
        let mut bytes = bytemuck::cast_slice(&conditions.rows).to_vec();
        let mut put = |offset: u64, numbers: &[f32]| {
            bytes.resize(offset as usize, 0);
            bytes.extend_from_slice(bytemuck::cast_slice(numbers));
        };
        put(MIX, &conditions.mix);
        put(WEIGHT, &[conditions.weight]);
        if !conditions.vectors.is_empty() {
            put(VECTOR, &conditions.vectors);
        }
        if !conditions.guiders.is_empty() {
            put(self.guiders, &conditions.guiders);
        }
        bytes
    }
}
