//! The vectors of a batch on the device: what was not dropped of them.

use std::ops::Range;

use crate::data::vector_pieces;
use crate::diffusion::ConditionDropout;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu};
use crate::tensor::{DType, Tensor};

use super::draws::Draw;
use super::options::TrainOptions;

/// The bank of a microbatch, a row for each image.
pub(super) struct Vectors {
    /// `[N, D]` f32.
    values: Buffer,
    /// `[N]` u32: the image's own row, or past the last one where its vector was dropped.
    rows: Buffer,
    width: usize,
    /// Which numbers each attribute is.
    pieces: Vec<Range<usize>>,
    dropout: ConditionDropout,
    seed: u64,
}

impl Vectors {
    /// None of a network that takes none.
    pub fn new(gpu: &Gpu, options: &TrainOptions) -> Result<Option<Self>> {
        let (n, width) = (options.microbatch, options.unet.vector_width);
        if width == 0 {
            return Ok(None);
        }
        let bytes = crate::sizes::bytes("the vectors of a batch", &[n, width], 4)?;
        Ok(Some(Vectors {
            values: gpu.buffer("vectors", bytes)?,
            rows: gpu.buffer("vector rows", (n * 4) as u64)?,
            width,
            pieces: vector_pieces(&options.attributes).into_iter().map(|(_, piece)| piece).collect(),
            dropout: options.dropout(),
            seed: options.seed,
        }))
    }

    /// (rows, values) of n images.
    pub fn tensors(&self, n: usize) -> (Tensor, Tensor) {
        (Tensor::over(&self.rows, &[n], DType::U32), Tensor::over(&self.values, &[n, self.width], DType::F32))
    }

    /// Writes the vectors of images `first..`.
    ///
    /// # Errors
    /// [`Error::Config`] where there are not as many numbers as the network takes.
    pub fn write(&self, gpu: &Gpu, vectors: &[f32], draws: &[Draw], first: u64) -> Result<()> {
        if vectors.len() != draws.len() * self.width {
            return Err(Error::Config(format!(
                "{} numbers came as the vectors of {} images, of {} each",
                vectors.len(),
                draws.len(),
                self.width
            )));
        }
        let mut shown = vectors.to_vec();
        for (i, vector) in shown.chunks_mut(self.width).enumerate() {
            for (attribute, piece) in self.pieces.iter().enumerate() {
                if self.dropout.drops_attribute(self.seed, first + i as u64, attribute) {
                    vector[piece.clone()].fill(0.0);
                }
            }
        }
        let row = |(i, draw): (usize, &Draw)| if draw.dropped.vector { u32::MAX } else { i as u32 };
        let rows: Vec<u32> = draws.iter().enumerate().map(row).collect();
        gpu.write(&self.values, 0, bytemuck::cast_slice(&shown))?;
        gpu.write(&self.rows, 0, bytemuck::cast_slice(&rows))
    }
}
