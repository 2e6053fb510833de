//! What plans of a step share with whoever replays them: tensors over buffers, or over sections of one.

use crate::diffusion::guiders::{Guiders, Work, moments};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu, Storage};
use crate::ops::{self, GUIDER_ROW};
use crate::shape::Shape;
use crate::sizes;
use crate::tensor::{DType, Tensor};

use super::networks::Networks;
use super::other::derived;
use super::settled::Settled;
use super::step::{Combine, Which};
use super::walk::{Form, ROW, Walk};

/// What a host writes, and what a step keeps for the next one. N latents of `[H, W, C]`, T moves.
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
    /// The same for plans of the first evaluation alone, where theirs are others.
    pub moves_of_first: Option<Tensor>,
    /// `[K·N]` u32 where there are classes: rows of the network's own table, the first condition of all latents first.
    pub rows: Option<Tensor>,
    /// `[2N, L, D]` f32: the pictures' tokens, then those that stand for "nothing", a bank.
    pub tokens: Option<Tensor>,
    /// `[V·N, D]` f32: the pictures' vectors and what stays of each in parts, a bank.
    pub vectors: Option<Tensor>,
    /// `[N]` u32: the classes asked for; past the last where there is none.
    pub wanted: Option<Tensor>,
    /// `[N]` f32: the weight that distilled networks are told.
    pub told: Option<Tensor>,
    /// `[N, H', W', C']` f32: the small pictures of an upsampler.
    pub small: Option<Tensor>,
    /// `[T, 8]` f32: the guiders' table.
    pub guiders: Option<Tensor>,
    /// `[T, 2]` f32: noise on the condition.
    pub annealing: Option<Tensor>,
    /// `[N, H, W, C]` f32: APG's.
    pub momentum: Option<Tensor>,
    /// `[K]` f32: the parts of conditions that become one.
    pub mix: Option<Tensor>,
    /// `[N, H, W, C]` f32: where `guided_step` leaves x̂.
    pub preview: Option<Tensor>,
    /// `[N, H, W, C]` f32: where `sampler_step` leaves x̂ for the next move; a number before the first one.
    pub previous: Option<Tensor>,
    /// p(c given z).
    pub posterior: Option<Posterior>,
    /// `[N, H, W, C]` f32: noise of one's own instead of what the seeds give.
    pub noise: Option<Tensor>,
}

/// What the chain so far says of each picture's class.
pub(crate) struct Posterior {
    /// `[N, 2, K]` f32: its log, then itself.
    pub known: Tensor,
    /// `[T]` f32: the variance of each step, 0 in the last, of which nothing is learnt.
    pub variance: Tensor,
}

impl Slots {
    /// Slots for a sampler, each a buffer of its own.
    ///
    /// # Errors
    /// What the device objects to.
    pub fn new(gpu: &Gpu, networks: &Networks<'_>, settled: &Settled) -> Result<Slots> {
        let (about, n, walk) = (networks.network.about(), settled.options.batch, &settled.walk);
        let shape = settled.shape.nhwc(n);
        let some = |label: &str, shape: &[usize], dtype, is: bool| {
            is.then(|| empty(gpu, label, shape, dtype)).transpose()
        };
        let guiders = match settled.combine() {
            Combine::Guiders(guiders) => Some(guiders),
            _ => None,
        };
        let annealing = guiders.and_then(Guiders::annealing).map(|annealing| {
            let rows = ops::annealing_rows(&annealing, &moments(&walk.steps));
            filled(gpu, "annealing", &[walk.len(), 2], DType::F32, bytemuck::cast_slice(&rows))
        });
        let conditions = settled.prior.as_ref().map_or(settled.mixed + settled.others.len(), Vec::len);
        let vectors = [derived(&settled.others).len() * n, about.takes.vector_width()];
        let multistep = matches!(walk.form, Form::Moves { multistep: true, .. });
        let by_class = networks.guide.is_some() || settled.prior.is_some();
        let small = networks.low_res.zip(about.takes.picture).map(|((buffer, extent), picture)| {
            over(buffer, &Shape { channels: picture.channels, extent }.nhwc(n), DType::F32)
        });
        let posterior = settled.prior.as_ref().map(|prior| Posterior::new(gpu, n, prior.len(), walk));
        Ok(Slots {
            moves_of_first: walk.has_rows_of_first().then(|| table(gpu, walk, Which::First)).transpose()?,
            rows: some("labels", &[conditions * n], DType::U32, about.takes.class.is_some())?,
            tokens: settled
                .token_bank(&about.takes)
                .map(|bank| empty(gpu, "tokens", &bank, DType::F32))
                .transpose()?,
            vectors: some("vectors", &vectors, DType::F32, about.takes.vector.is_some())?,
            wanted: some("classes wanted", &[n], DType::U32, by_class)?,
            told: some("guidance weights", &[n], DType::F32, settled.distilled.is_some())?,
            small,
            guiders: some("guiders", &[walk.len(), GUIDER_ROW], DType::F32, guiders.is_some())?,
            annealing: annealing.transpose()?,
            momentum: some("momentum", &shape, DType::F32, guiders.is_some_and(has_momentum))?,
            // Zero before the first move, as buffers are: what lies there is multiplied by zero.
            previous: some("previous x", &shape, DType::F32, multistep)?,
            posterior: posterior.transpose()?,
            ..Slots::plain(gpu, shape, walk)?
        })
    }

    /// What every step needs, each a buffer of its own.
    ///
    /// # Errors
    /// What the device objects to.
    pub fn plain(gpu: &Gpu, shape: [usize; 4], walk: &Walk) -> Result<Slots> {
        Ok(Slots {
            z: empty(gpu, "z", &shape, DType::F32)?,
            seeds: empty(gpu, "seeds", &[shape[0], 2], DType::U32)?,
            counter: empty(gpu, "step counter", &[1], DType::U32)?,
            weight: empty(gpu, "guidance weight", &[1], DType::F32)?,
            moves: table(gpu, walk, Which::All)?,
            moves_of_first: None,
            rows: None,
            tokens: None,
            vectors: None,
            wanted: None,
            told: None,
            small: None,
            guiders: None,
            annealing: None,
            momentum: None,
            mix: None,
            preview: None,
            previous: None,
            posterior: None,
            noise: None,
        })
    }
}

impl Posterior {
    fn new(gpu: &Gpu, samples: usize, classes: usize, walk: &Walk) -> Result<Posterior> {
        let known = empty(gpu, "class posterior", &[samples, 2, classes], DType::F32)?;
        let variance: Vec<f32> = walk.steps.iter().map(|step| step.noise_sd.powi(2) as f32).collect();
        let variance =
            filled(gpu, "step variances", &[walk.len()], DType::F32, bytemuck::cast_slice(&variance))?;
        Ok(Posterior { known, variance })
    }
}

/// Whether guiders keep a momentum from step to step.
pub(crate) fn has_momentum(guiders: &Guiders) -> bool {
    guiders.work().iter().any(|work| matches!(work, Work::Apg { .. }))
}

fn table(gpu: &Gpu, walk: &Walk, which: Which) -> Result<Tensor> {
    filled(gpu, "moves", &[walk.len(), ROW], DType::U32, bytemuck::cast_slice(&walk.rows(which)))
}

/// A tensor over the whole of a buffer.
pub(crate) fn over(buffer: &Buffer, shape: &[usize], dtype: DType) -> Tensor {
    Tensor::new(Storage::Buffer(buffer.clone()), 0, shape, dtype)
}

/// A tensor over a buffer of its own, zeros.
pub(crate) fn empty(gpu: &Gpu, label: &str, shape: &[usize], dtype: DType) -> Result<Tensor> {
    let bytes = sizes::bytes(label, shape, dtype.bytes())?;
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
        Storage::Transient(_) => Err(Error::shape("slot", "a slot must lie in a buffer")),
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
