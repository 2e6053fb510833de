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

/// An autoencoder, ready to encode and decode.
pub struct CodecModel {
    /// Where it was read from.
    pub path: PathBuf,
    checkpoint: CodecCheckpoint,
    pub(super) codec: Arc<dyn Codec>,
    pub(super) gpu: Gpu,
    /// The type that is wanted for its activations.
    dtype: DType,
    /// Weights for that, and those in f32 once they were needed.
    arenas: Mutex<[Option<Arena>; 2]>,
    /// Whether f16 cannot hold what it computes.
    pub(super) overflows: AtomicBool,
    notes: Vec<String>,
    checksum: u32,
    /// The last recording of one that waits.
    #[cfg_attr(target_arch = "wasm32", expect(dead_code, reason = "only waiting takes it"))]
    pub(super) recorded: Mutex<Option<(Key, Arc<CodecPlan>)>>,
}

/// What a recording is of: which way, of which size, how many, in which type.
pub(super) type Key = (Way, Shape, usize, DType);

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

    pub(super) fn plan(&self, (way, shape, pictures, dtype): Key) -> Result<CodecPlan> {
        check_batch(pictures, shape)?;
        let weights = self.weights(dtype)?;
        CodecPlan::new(&self.gpu, (self.codec.as_ref(), &weights), way, (shape, pictures), dtype)
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
