//! Coding pictures and latents and waiting for them: several at a time, and in f32 where f16 holds too little.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::model::{CodecModel, Key};
use super::plan::{CodecPlan, Way};
use crate::error::{Error, Result};
use crate::gpu::Storage;
use crate::shape::Shape;
use crate::tensor::{Context, DType, Tensor};

/// Working memory up to which several pictures are coded together.
const WORKING_BYTES: u64 = 1 << 30;

/// What came of coding pictures or latents.
#[derive(Clone, Debug, PartialEq)]
pub struct Coded {
    /// `[N, H, W, C]`: pictures, about [-1, 1] and not clipped, or latents as a denoiser sees them.
    pub values: Vec<f32>,
    /// One of them.
    pub shape: Shape,
    /// What is to be told: that f16 could not hold it.
    pub note: Option<String>,
}

impl CodecModel {
    /// How many of `wanted` pictures are coded together: what working memory of a GiB is enough for.
    fn at_once(&self, way: Way, shape: Shape, wanted: usize, dtype: DType) -> Result<usize> {
        if wanted == 1 {
            return Ok(1);
        }
        let gpu = self.gpu.estimating();
        let parameters = self.codec.parameters();
        let weights = parameters.read_only_arena(&gpu, "weights", dtype)?.weights(parameters, 0);
        let mut cx = Context::new(&gpu);
        let one = |cx: &mut Context, shape: Shape| cx.output("one", &shape.nhwc(1), DType::F32);
        match way {
            Way::Decode => {
                let z = one(&mut cx, shape)?;
                self.codec.decode(&mut cx, &weights, &z, dtype)?;
            }
            Way::Encode { .. } => {
                let x = one(&mut cx, shape)?;
                self.codec.encode(&mut cx, &weights, &x, None, dtype)?;
            }
        }
        Ok(((WORKING_BYTES / cx.transient_bytes().max(1)) as usize).clamp(1, wanted))
    }

    /// Pictures of latents `[N, h, w, c]`, each of `latent`. Where f16 cannot hold them they are decoded again in f32, from then
    /// on always, and what comes back says so. Waits for the device.
    ///
    /// # Errors
    /// [`Error::Config`] for numbers that are no whole latents or not finite; [`Error::Format`] where f32 gives none either;
    /// as [`CodecModel::decoder`].
    pub fn decode(&self, latents: &[f32], latent: Shape) -> Result<Coded> {
        self.code(Way::Decode, latents, None, latent, self.codec.pixels_of(latent))
    }

    /// Latents of pictures `[N, H, W, C]` in [-1, 1], each of `picture`: the mean of each, or what standard normal `noise`
    /// `[N, h, w, c]` makes of it. Otherwise as [`CodecModel::decode`].
    ///
    /// # Errors
    /// As [`CodecModel::decode`].
    pub fn encode(&self, pictures: &[f32], picture: Shape, noise: Option<&[f32]>) -> Result<Coded> {
        let way = Way::Encode { sampled: noise.is_some() };
        self.code(way, pictures, noise, picture, self.codec.latent_of(picture)?)
    }

    fn code(&self, way: Way, values: &[f32], noise: Option<&[f32]>, from: Shape, to: Shape) -> Result<Coded> {
        let what = if way == Way::Decode { "latents" } else { "pictures" };
        let count = values.len() / from.len().max(1);
        if count == 0 || count * from.len() != values.len() {
            let (got, each) = (values.len(), from.len());
            return Err(Error::Config(format!(
                "{got} numbers are no {what} of {from}, which have {each} each"
            )));
        }
        if let Some(noise) = noise
            && noise.len() != count * to.len()
        {
            let (got, want) = (noise.len(), count * to.len());
            return Err(Error::Config(format!(
                "{got} numbers of noise for {count} latents of {to}, which have {want}"
            )));
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::Config(format!("{what} hold {} at element {at}", values[at])));
        }
        let dtype = self.dtype();
        let made = self.code_in(way, values, noise, (from, to, count), dtype)?;
        if made.iter().all(|value| value.is_finite()) {
            return Ok(Coded { values: made, shape: to, note: None });
        }
        let again = match dtype {
            DType::F16 => self.code_in(way, values, noise, (from, to, count), DType::F32)?,
            _ => made,
        };
        if !again.iter().all(|value| value.is_finite()) {
            let what = format!("makes of these {what} numbers that are not finite, in f32 too");
            return Err(Error::format(&self.path, what));
        }
        self.overflows.store(true, Ordering::Relaxed);
        let note = "the autoencoder computes numbers that f16 cannot hold: it is run in f32";
        Ok(Coded { values: again, shape: to, note: Some(note.into()) })
    }

    fn code_in(
        &self,
        way: Way,
        values: &[f32],
        noise: Option<&[f32]>,
        (from, to, count): (Shape, Shape, usize),
        dtype: DType,
    ) -> Result<Vec<f32>> {
        let at_once = self.at_once(way, from, count, dtype)?;
        let plan = self.recorded((way, from, at_once, dtype))?;
        let write = |tensor: &Tensor, values: &[f32]| match tensor.storage() {
            Storage::Buffer(buffer) => self.gpu.write(buffer, 0, bytemuck::cast_slice(values)),
            Storage::Transient(_) => unreachable!("a plan's inputs are buffers"),
        };
        let output = plan.output();
        let Storage::Buffer(buffer) = output.storage() else { unreachable!("it is a buffer") };
        let mut made = Vec::with_capacity(count * to.len());
        for first in (0..count).step_by(at_once) {
            let some = first..count.min(first + at_once);
            write(plan.input(), &values[some.start * from.len()..some.end * from.len()])?;
            if let (Some(place), Some(noise)) = (plan.noise(), noise) {
                write(place, &noise[some.start * to.len()..some.end * to.len()])?;
            }
            plan.run()?;
            let bytes = self.gpu.read(buffer, 0..(some.len() * to.len() * 4) as u64)?;
            made.extend(bytemuck::pod_collect_to_vec::<u8, f32>(&bytes));
        }
        Ok(made)
    }

    /// The last recording, or another in its place.
    fn recorded(&self, key: Key) -> Result<Arc<CodecPlan>> {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, plan)) = &*recorded
            && *known == key
        {
            return Ok(Arc::clone(plan));
        }
        // What is there goes first, so that its memory serves the next.
        *recorded = None;
        let plan = Arc::new(self.plan(key)?);
        *recorded = Some((key, Arc::clone(&plan)));
        Ok(plan)
    }
}
