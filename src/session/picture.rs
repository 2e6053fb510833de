//! A picture on its way to the host.

use std::future::Future;
use std::pin::Pin;
use std::task::{Poll, ready};

use futures_channel::oneshot;

use crate::data::Image;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu};
use crate::sample::to_u8;

/// A picture that arrives after the encoder it was recorded in was submitted: a future, on native and in browsers. On
/// native the device must be polled meanwhile, which every submission does. If the encoder is dropped instead, the future
/// ends with an error.
pub struct PictureLater {
    gpu: Gpu,
    staging: wgpu::Buffer,
    shape: [usize; 3],
    mapped: oneshot::Receiver<Result<(), wgpu::BufferAsyncError>>,
}

impl PictureLater {
    /// Records the copy of `[H, W, C]` f32 values.
    pub(super) fn record(
        gpu: &Gpu,
        encoder: &mut wgpu::CommandEncoder,
        buffer: &Buffer,
        shape: [usize; 3],
    ) -> Result<PictureLater> {
        let bytes = (shape.iter().product::<usize>() * 4) as u64;
        let staging = gpu.scoped("session readback", bytes, || {
            Ok(gpu.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("session readback"),
                size: bytes,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }))
        })?;
        encoder.copy_buffer_to_buffer(buffer.raw(), 0, &staging, 0, bytes);
        let (sender, mapped) = oneshot::channel();
        encoder.map_buffer_on_submit(&staging, wgpu::MapMode::Read, .., move |result| {
            // The reader may be gone; then nobody wants the answer.
            let _ = sender.send(result);
        });
        Ok(PictureLater { gpu: gpu.clone(), staging, shape, mapped })
    }

    /// The picture if it has arrived.
    ///
    /// # Errors
    /// As the future.
    pub fn try_take(&mut self) -> Result<Option<Image>> {
        match self.mapped.try_recv() {
            Ok(None) => Ok(None),
            Ok(Some(result)) => self.image(Ok(result)).map(Some),
            Err(error) => self.image(Err(error)).map(Some),
        }
    }

    fn image(&self, mapped: Result<Result<(), wgpu::BufferAsyncError>, oneshot::Canceled>) -> Result<Image> {
        let mapped = mapped.map_err(|_| {
            Error::Device("a picture was asked for in an encoder that was never submitted".into())
        })?;
        mapped.map_err(|error| self.gpu.fail(format!("session readback: {error}")))?;
        let view = self.staging.get_mapped_range(..);
        let view = view.map_err(|error| self.gpu.fail(format!("session readback: {error}")))?;
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(&view);
        drop(view);
        self.staging.unmap();
        if let Some(at) = values.iter().position(|x| !x.is_finite()) {
            return Err(Error::Device(format!("a picture holds {} at element {at}", values[at])));
        }
        let [height, width, channels] = self.shape;
        Image::new(width, height, channels, to_u8(&values))
    }
}

impl Future for PictureLater {
    type Output = Result<Image>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Self::Output> {
        let mapped = ready!(Pin::new(&mut self.mapped).poll(cx));
        Poll::Ready(self.image(mapped))
    }
}
