//! Reading results back: as a future, as something to poll from a loop, or by waiting.

use std::ops::Range;

use futures_channel::oneshot;

use crate::error::{Error, Result};

use super::buffer::Buffer;
use super::device::Gpu;

/// A copy on its way from the device.
pub struct Readback {
    gpu: Gpu,
    staging: wgpu::Buffer,
    #[cfg_attr(target_arch = "wasm32", expect(dead_code, reason = "only waiting takes it"))]
    submission: Option<wgpu::SubmissionIndex>,
    mapped: oneshot::Receiver<Result<(), wgpu::BufferAsyncError>>,
}

impl Gpu {
    /// Starts reading bytes `range` (multiples of 4) of a buffer; everything submitted before is seen.
    pub fn read_later(&self, buffer: &Buffer, range: Range<u64>) -> Result<Readback> {
        let bytes = range.end - range.start;
        let staging = self.scoped("readback", bytes, || {
            Ok(self.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("readback"),
                size: bytes,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }))
        })?;
        let mut encoder =
            self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("readback") });
        encoder.copy_buffer_to_buffer(buffer.raw(), range.start, &staging, 0, bytes);
        let submission = self.queue().submit([encoder.finish()]);
        // In a scope: mapping a buffer of a device that is lost, which nobody has told of yet, would else end the program.
        let readback = self.scoped("readback", bytes, || Ok(Readback::of(self, staging))).map_err(
            |error| match error {
                Error::Device(what) => self.fail(what),
                other => other,
            },
        )?;
        Ok(Readback { submission: Some(submission), ..readback })
    }

    /// Reads bytes `range` of a buffer, waiting for them. Not for frame loops.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(&self, buffer: &Buffer, range: Range<u64>) -> Result<Vec<u8>> {
        self.read_later(buffer, range)?.wait()
    }
}

impl Readback {
    pub(super) fn of(gpu: &Gpu, staging: wgpu::Buffer) -> Self {
        let (sender, mapped) = oneshot::channel();
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            // The reader may be gone; then nobody wants the answer.
            let _ = sender.send(result);
        });
        Readback { gpu: gpu.clone(), staging, submission: None, mapped }
    }

    /// Waits for the copy, not for what was submitted after it, and takes the bytes.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(mut self) -> Result<Vec<u8>> {
        let poll = wgpu::PollType::Wait { submission_index: self.submission.take(), timeout: None };
        let polled = self.gpu.device().poll(poll);
        polled.map_err(|error| self.gpu.fail(error.to_string()))?;
        pollster::block_on(self.take())
    }

    /// The bytes if they have arrived, without waiting; the readback itself if not.
    pub fn poll(mut self) -> Result<Result<Vec<u8>, Readback>> {
        let polled = self.gpu.device().poll(wgpu::PollType::Poll);
        polled.map_err(|error| self.gpu.fail(error.to_string()))?;
        match self.mapped.try_recv() {
            Ok(Some(result)) => self.bytes(result).map(Ok),
            Ok(None) => Ok(Err(self)),
            Err(_) => Err(self.gpu.fail("a readback was dropped by the device".into())),
        }
    }

    /// The bytes, as a future. On native something must poll the device meanwhile.
    pub async fn take(mut self) -> Result<Vec<u8>> {
        match (&mut self.mapped).await {
            Ok(result) => self.bytes(result),
            Err(_) => Err(self.gpu.fail("a readback was dropped by the device".into())),
        }
    }

    fn bytes(&self, mapped: Result<(), wgpu::BufferAsyncError>) -> Result<Vec<u8>> {
        self.gpu.check()?;
        mapped.map_err(|error| self.gpu.fail(format!("readback: {error}")))?;
        let view = self.staging.get_mapped_range(..);
        let view = view.map_err(|error| self.gpu.fail(format!("readback: {error}")))?;
        let bytes = view.to_vec();
        drop(view);
        self.staging.unmap();
        Ok(bytes)
    }
}
