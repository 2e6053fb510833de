//! Pictures, batch by batch.

use std::collections::VecDeque;

use crate::data::{Image, to_u8};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::sizes;
use crate::tensor::Tensor;

use super::options::Request;
use super::run::Run;
use super::slots;

/// Steps submitted beyond the one that the host waits for: the device is never without work, and progress and Ctrl-C still
/// mean something.
const AHEAD: usize = 3;

/// A sampler, as far as running it is concerned.
pub(super) struct Batches<'a> {
    pub gpu: &'a Gpu,
    /// The pictures under way, `[N, H, W, C]` f32.
    pub z: &'a Tensor,
}

impl Batches<'_> {
    /// The first `count` pictures as they are now. Waits for the device.
    pub fn read(&self, count: usize) -> Result<Vec<f32>> {
        let one = self.z.shape()[1..].iter().product::<usize>() * 4;
        let bytes = self.gpu.read(slots::buffer(self.z)?, 0..(count * one) as u64)?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }

    /// Makes a picture of each request: `start` begins a batch, `on_step` may stop it with an error.
    pub fn sample<'s>(
        &self,
        requests: &[Request],
        start: impl Fn(&[Request]) -> Result<Run<'s>>,
        on_step: impl FnMut() -> Result<()>,
    ) -> Result<Vec<Image>> {
        let [_, height, width, channels] = self.z.nhwc("sampler")?;
        let values = self.values(requests, start, on_step)?;
        let picture = |values: &[f32]| Image::new(width, height, channels, to_u8(values));
        values.chunks(height * width * channels).map(picture).collect()
    }

    /// The same, as numbers.
    pub fn values<'s>(
        &self,
        requests: &[Request],
        start: impl Fn(&[Request]) -> Result<Run<'s>>,
        mut on_step: impl FnMut() -> Result<()>,
    ) -> Result<Vec<f32>> {
        let [_, height, width, channels] = self.z.nhwc("sampler")?;
        let factors = [requests.len(), height, width, channels];
        let what = format!("{} pictures at a time", requests.len());
        let bytes = sizes::bytes(&what, &factors, 4)?;
        sizes::check_host(
            &what,
            bytes,
            "ask for fewer of them at once (fewer seeds, classes or a smaller count)",
        )?;
        let mut all = Vec::with_capacity(sizes::product(&what, &factors)?);
        for batch in requests.chunks(self.z.shape()[0]) {
            let mut run = start(batch)?;
            let mut under_way = VecDeque::new();
            while !run.finished() {
                run.step()?;
                under_way.push_back(self.gpu.mark());
                if under_way.len() > AHEAD
                    && let Some(oldest) = under_way.pop_front()
                {
                    self.gpu.wait_for(oldest)?;
                }
                on_step()?;
            }
            let values = self.read(batch.len())?;
            if let Some(at) = values.iter().position(|x| !x.is_finite()) {
                return Err(Error::Device(format!("a picture holds {} at element {at}", values[at])));
            }
            all.extend(values);
        }
        Ok(all)
    }
}
