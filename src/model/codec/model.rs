//! An autoencoder with its weights on a device.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::checkpoint::{CodecCheckpoint, CodecChoice};
use super::plan::{CodecPlan, Way};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::model::values::for_each_value;
use crate::nn::{Arena, Codec, CodecAbout, Weights};
use crate::shape::Shape;
use crate::sizes::check_batch;
use crate::tensor::{Context, DType, Tensor};

/// Working memory up to which several pictures are coded together.
const WORKING_BYTES: u64 = 1 << 30;

/// An autoencoder, ready to encode and decode.
pub struct CodecModel {
    /// Where it was read from.
    pub path: PathBuf,
    checkpoint: CodecCheckpoint,
    codec: Arc<dyn Codec>,
    gpu: Gpu,
    /// The type that is wanted for its activations.
    dtype: DType,
    /// Weights for that, and those in f32 once they were needed.
    arenas: Mutex<[Option<Arena>; 2]>,
    /// Whether f16 cannot hold what it computes.
    overflows: AtomicBool,
    notes: Vec<String>,
    checksum: u32,
    recorded: Mutex<Option<(Key, Arc<CodecPlan>)>>,
}

/// What a recording is of: which way, of which size, how many, in which type.
type Key = (Way, Shape, usize, DType);

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
    /// Opens the autoencoder of a path, with activations of `dtype`: see [`CodecCheckpoint::open`].
    ///
    /// # Errors
    /// As [`CodecCheckpoint::open`] and [`CodecModel::of`].
    pub fn open(gpu: &Gpu, path: &Path, dtype: DType, choice: &CodecChoice) -> Result<CodecModel> {
        CodecModel::of(gpu, CodecCheckpoint::open(path, choice)?, dtype)
    }

    /// Brings the weights of an autoencoder to a device; with [`DType::F16`] its matrices lie there in f16. Weights that f16
    /// cannot hold are taken in f32, and a note says so.
    ///
    /// # Errors
    /// [`Error::Tensor`] for weights that are not finite; [`Error::Config`] for f16 on a device without it; [`Error::Limit`],
    /// [`Error::OutOfMemory`].
    pub fn of(gpu: &Gpu, checkpoint: CodecCheckpoint, dtype: DType) -> Result<CodecModel> {
        CodecModel::with(gpu, checkpoint, dtype, None)
    }

    /// As [`CodecModel::of`], with feature maps in strips of at most so many bytes.
    ///
    /// # Errors
    /// As [`CodecModel::of`].
    pub fn in_strips_of(
        gpu: &Gpu,
        checkpoint: CodecCheckpoint,
        dtype: DType,
        bytes: u64,
    ) -> Result<CodecModel> {
        CodecModel::with(gpu, checkpoint, dtype, Some(bytes))
    }

    fn with(gpu: &Gpu, checkpoint: CodecCheckpoint, dtype: DType, strips: Option<u64>) -> Result<CodecModel> {
        let codec = checkpoint.codec(strips)?;
        let mut notes = checkpoint.notes.clone();
        let (first, overflows) = match upload(gpu, &checkpoint, codec.as_ref(), dtype) {
            Err(Error::Tensor { tensor, what, .. }) if dtype == DType::F16 && what.contains("f16") => {
                notes.push(format!("its tensor {tensor} {what}: it is run in f32"));
                (upload(gpu, &checkpoint, codec.as_ref(), DType::F32)?, true)
            }
            other => (other?, false),
        };
        let (arena, checksum) = first;
        let narrow = dtype == DType::F16 && !overflows;
        let arenas = if narrow { [Some(arena), None] } else { [None, Some(arena)] };
        Ok(CodecModel {
            path: checkpoint.file.clone(),
            codec,
            gpu: gpu.clone(),
            dtype,
            arenas: Mutex::new(arenas),
            overflows: AtomicBool::new(overflows),
            notes,
            checksum,
            recorded: Mutex::new(None),
            checkpoint,
        })
    }

    /// What it takes and gives.
    pub fn about(&self) -> &CodecAbout {
        self.codec.about()
    }

    /// The network.
    pub fn codec(&self) -> &dyn Codec {
        self.codec.as_ref()
    }

    /// The files that it was opened from, and why.
    pub fn checkpoint(&self) -> &CodecCheckpoint {
        &self.checkpoint
    }

    /// What was taken for granted, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The device its weights lie on.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The CRC-32 of the weights that it uses, f32 in the kernels' order.
    pub fn checksum(&self) -> u32 {
        self.checksum
    }

    /// The type of its activations: what was asked for, or f32 since f16 was seen to hold too little.
    pub fn dtype(&self) -> DType {
        if self.overflows.load(Ordering::Relaxed) { DType::F32 } else { self.dtype }
    }

    /// Its weights for activations of `dtype`, read from its files where they are not there yet.
    ///
    /// # Errors
    /// As [`CodecModel::of`].
    pub fn weights(&self, dtype: DType) -> Result<Weights> {
        let mut arenas = self.arenas.lock().unwrap_or_else(PoisonError::into_inner);
        let place = &mut arenas[usize::from(dtype != DType::F16)];
        if place.is_none() {
            *place = Some(upload(&self.gpu, &self.checkpoint, self.codec.as_ref(), dtype)?.0);
        }
        Ok(place.as_ref().expect("it was made").weights(self.codec.parameters(), 0))
    }

    /// Records pictures of latents z `[N, h, w, c]` f32 into a plan of the caller's, in [`CodecModel::dtype`].
    ///
    /// # Errors
    /// As [`Codec::decode`].
    pub fn record_decode(&self, cx: &mut Context, z: &Tensor) -> Result<Tensor> {
        self.codec.decode(cx, &self.weights(self.dtype())?, z, self.dtype())
    }

    /// A plan that decodes `pictures` latents of one size at a time.
    ///
    /// # Errors
    /// As [`Codec::decode`]; [`Error::Limit`], [`Error::OutOfMemory`].
    pub fn decoder(&self, latent: Shape, pictures: usize) -> Result<CodecPlan> {
        self.plan((Way::Decode, latent, pictures, self.dtype()))
    }

    /// A plan that encodes `pictures` pictures of one size at a time: their means, or where `sampled` what noise makes of them.
    ///
    /// # Errors
    /// As [`Codec::encode`]; [`Error::Limit`], [`Error::OutOfMemory`].
    pub fn encoder(&self, picture: Shape, pictures: usize, sampled: bool) -> Result<CodecPlan> {
        self.plan((Way::Encode { sampled }, picture, pictures, self.dtype()))
    }

    fn plan(&self, (way, shape, pictures, dtype): Key) -> Result<CodecPlan> {
        check_batch(pictures, shape)?;
        let weights = self.weights(dtype)?;
        CodecPlan::new(&self.gpu, (self.codec.as_ref(), &weights), way, (shape, pictures), dtype)
    }

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
    #[cfg(not(target_arch = "wasm32"))]
    pub fn decode(&self, latents: &[f32], latent: Shape) -> Result<Coded> {
        self.code(Way::Decode, latents, None, latent, self.codec.pixels_of(latent))
    }

    /// Latents of pictures `[N, H, W, C]` in [-1, 1], each of `picture`: the mean of each, or what standard normal `noise`
    /// `[N, h, w, c]` makes of it. Otherwise as [`CodecModel::decode`].
    ///
    /// # Errors
    /// As [`CodecModel::decode`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn encode(&self, pictures: &[f32], picture: Shape, noise: Option<&[f32]>) -> Result<Coded> {
        let way = Way::Encode { sampled: noise.is_some() };
        self.code(way, pictures, noise, picture, self.codec.latent_of(picture)?)
    }

    #[cfg(not(target_arch = "wasm32"))]
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

    #[cfg(not(target_arch = "wasm32"))]
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
            crate::gpu::Storage::Buffer(buffer) => self.gpu.write(buffer, 0, bytemuck::cast_slice(values)),
            crate::gpu::Storage::Transient(_) => unreachable!("a plan's inputs are buffers"),
        };
        let output = plan.output();
        let crate::gpu::Storage::Buffer(buffer) = output.storage() else { unreachable!("it is a buffer") };
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
    #[cfg(not(target_arch = "wasm32"))]
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

/// Brings the weights to the device one by one: the host holds no more than the largest. With their checksum.
fn upload(gpu: &Gpu, checkpoint: &CodecCheckpoint, codec: &dyn Codec, dtype: DType) -> Result<(Arena, u32)> {
    let parameters = codec.parameters();
    let source = checkpoint.source(parameters)?;
    let arena = parameters.read_only_arena(gpu, "autoencoder", dtype)?;
    let mut sum = crc32fast::Hasher::new();
    for_each_value(&source, parameters, "", |place, values| {
        sum.update(bytemuck::cast_slice(&values));
        arena.write_one(gpu, 0, place, &values).map_err(|error| match error {
            Error::Config(what) => {
                Error::tensor(&checkpoint.file, parameters.specs()[place].name.clone(), what)
            }
            other => other,
        })
    })?;
    Ok((arena, sum.finalize()))
}
