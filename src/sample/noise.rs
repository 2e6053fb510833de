//! The noise that seeds stand for.

use crate::error::Result;
use crate::gpu::Gpu;
use crate::ops;
use crate::random::Stream;
use crate::shape::Shape;
use crate::tensor::{Context, DType};

use super::slots;

/// What pictures of these seeds begin with, `[N, H, W, C]`, standard normal: the same numbers on every device, but for rounding.
/// Waits for the device.
///
/// # Errors
/// What the device objects to.
pub fn noise_of(gpu: &Gpu, seeds: &[u64], shape: Shape) -> Result<Vec<f32>> {
    let words: Vec<[u32; 2]> = seeds.iter().map(|seed| [*seed as u32, (seed >> 32) as u32]).collect();
    let seeds = slots::filled(gpu, "seeds", &[words.len(), 2], DType::U32, bytemuck::cast_slice(&words))?;
    let made = slots::empty(gpu, "noise", &shape.nhwc(words.len()), DType::F32)?;
    let mut cx = Context::new(gpu);
    let noise = ops::normal_noise(&mut cx, &seeds, 0, Stream::InitialNoise, made.nhwc("noise")?)?;
    cx.copy_to(&noise, &made);
    cx.finish("noise")?.run()?;
    Ok(bytemuck::pod_collect_to_vec(&gpu.read(slots::buffer(&made)?, 0..made.bytes())?))
}
