//! What plans of a step share with whoever replays them: tensors over buffers, or over sections of one.

use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu, Storage};
use crate::tensor::{DType, Tensor};

use super::checks::Settled;
use super::networks::Networks;
use super::walk::Form;

/// What a host writes, and what a step keeps for the next one. N latents of `[H, W, C]`.
pub(crate) struct Slots {
    /// `[N, H, W, C]` f32.
    pub z: Tensor,
    /// `[N, 2]` u32: low and high half of each picture's seed.
    pub seeds: Tensor,
    /// `[1]` u32: the move.
    pub counter: Tensor,
    /// `[1]` f32: w.
    pub weight: Tensor,
    /// `[T, 12]` u32: the rows of the walk.
    pub moves: Tensor,
    /// `[K·N]` u32 where there are classes: rows of the network's own table, the first condition of all latents first.
    pub rows: Option<Tensor>,
    /// `[N]` u32: the classes asked for, of what guides by them; past the last where there is none.
    pub wanted: Option<Tensor>,
    /// `[N]` f32: the weight that distilled networks are told.
    pub told: Option<Tensor>,
    /// `[N, side, side, C']` f32: the small pictures of an upsampler.
    pub small: Option<Tensor>,
    /// `[N, H, W, C]` f32: the x̂ of the move before; a number before the first move.
    pub previous: Option<Tensor>,
    /// `[N, H, W, C]` f32: noise of one's own instead of what the seeds give.
    pub noise: Option<Tensor>,
}

impl Slots {
    /// Slots of their own for a sampler.
    ///
    /// # Errors
    /// What the device objects to.
    pub fn new(gpu: &Gpu, networks: &Networks<'_>, settled: &Settled) -> Result<Slots> {
        let (config, n) = (networks.unet.config(), settled.options.batch);
        let shape = [n, config.sample_size, config.sample_size, config.in_channels];
        let some = |label: &str, shape: &[usize], dtype, is: bool| {
            is.then(|| empty(gpu, label, shape, dtype)).transpose()
        };
        let rows = [(1 + settled.others.len()) * n];
        let multistep = matches!(settled.walk.form, Form::Moves { multistep: true, .. });
        let small = networks.low_res.map(|(buffer, side)| {
            over(buffer, &[n, side, side, config.low_res_channels], DType::F32)
        });
        Ok(Slots {
            z: empty(gpu, "z", &shape, DType::F32)?,
            seeds: empty(gpu, "seeds", &[n, 2], DType::U32)?,
            counter: empty(gpu, "step counter", &[1], DType::U32)?,
            weight: empty(gpu, "guidance weight", &[1], DType::F32)?,
            moves: settled.walk.table(gpu)?,
            rows: some("labels", &rows, DType::U32, config.num_classes.is_some())?,
            wanted: some("classes wanted", &[n], DType::U32, networks.guide.is_some())?,
            told: some("guidance weights", &[n], DType::F32, settled.distilled.is_some())?,
            small,
            // Zero before the first move, as buffers are: what lies there is multiplied by zero.
            previous: some("previous x", &shape, DType::F32, multistep)?,
            noise: None,
        })
    }
}

/// A tensor over the whole of a buffer.
pub(crate) fn over(buffer: &Buffer, shape: &[usize], dtype: DType) -> Tensor {
    Tensor::new(Storage::Buffer(buffer.clone()), 0, shape, dtype)
}

/// A tensor over a buffer of its own.
pub(crate) fn empty(gpu: &Gpu, label: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
    let bytes = crate::sizes::bytes(label, shape, dtype.bytes())?;
    Ok(over(&gpu.buffer(label, bytes)?, shape, dtype))
}

/// The same, holding `data`.
pub(crate) fn filled(gpu: &Gpu, label: &str, shape: &[usize], dtype: DType, data: &[u8]) -> Result<Tensor> {
    let tensor = empty(gpu, label, shape, dtype)?;
    write(gpu, &tensor, data)?;
    Ok(tensor)
}

/// The buffer that a slot lies in.
///
/// # Errors
/// [`Error::Shape`] for a value of a recording, which no host can write.
pub(crate) fn buffer(tensor: &Tensor) -> Result<&Buffer> {
    match tensor.storage() {
        Storage::Buffer(buffer) => Ok(buffer),
        Storage::Transient(_) => Err(Error::shape("slot", "a slot must lie in a buffer".to_owned())),
    }
}

/// Writes a slot before the next submission.
pub(crate) fn write(gpu: &Gpu, tensor: &Tensor, data: &[u8]) -> Result<()> {
    gpu.write(buffer(tensor)?, tensor.offset(), data)
}

/// The first `count` elements of a slot.
pub(crate) fn first(tensor: &Tensor, count: usize) -> Tensor {
    Tensor::new(tensor.storage().clone(), tensor.offset(), &[count], tensor.dtype())
}
