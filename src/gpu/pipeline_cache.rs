//! What the driver compiled, to be kept between runs of a program. Where it is kept is the program's business.

use crate::error::{Error, Result};

use super::device::Gpu;

/// Marks the bytes as this library's; the number is the layout's.
const MAGIC: [u8; 8] = *b"fgpipe01";
/// Magic and checksum.
const HEADER: usize = 12;

impl Gpu {
    /// A file name for this device's compiled kernels; `None` where its driver does not give them out.
    pub fn pipelines_key(&self) -> Option<String> {
        let device = self.device();
        let has = device.features().contains(wgpu::Features::PIPELINE_CACHE);
        has.then(|| wgpu::util::pipeline_cache_key(&device.adapter_info())).flatten()
    }

    /// Takes up what [`Gpu::compiled_pipelines`] gave an earlier run, or, without `bytes`, begins to collect. To be
    /// called once, before anything is recorded. Does nothing on a device without a [`Gpu::pipelines_key`].
    ///
    /// # Errors
    /// [`Error::Config`] when the bytes are damaged; the device collects anew all the same.
    ///
    /// # Safety
    /// Drivers trust their caches. `bytes` must be what [`Gpu::compiled_pipelines`] returned, as the checksum confirms
    /// against accidents; whoever can forge them can make the driver run anything.
    pub unsafe fn use_compiled_pipelines(&self, bytes: Option<&[u8]>) -> Result<()> {
        if self.pipelines_key().is_none() {
            return Ok(());
        }
        let data = bytes.map(unwrap).transpose();
        let descriptor = wgpu::PipelineCacheDescriptor {
            label: Some("freeguide"),
            data: *data.as_ref().unwrap_or(&None),
            // Of another driver's version: begin anew.
            fallback: true,
        };
        // Sound by this function's own promise.
        let cache = unsafe { self.device().create_pipeline_cache(&descriptor) };
        // A second call changes nothing: kernels may have been compiled with the first cache.
        let _ = self.0.pipelines.saved.set(cache);
        data.map(drop)
    }

    /// The kernels compiled so far, for [`Gpu::use_compiled_pipelines`] of a later run.
    pub fn compiled_pipelines(&self) -> Option<Vec<u8>> {
        let data = self.0.pipelines.saved.get()?.get_data()?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend(checksum(&data).to_le_bytes());
        bytes.extend(data);
        Some(bytes)
    }

    /// How many kernels were compiled on this device.
    pub fn pipeline_count(&self) -> usize {
        self.0.pipelines.len()
    }
}

fn checksum(data: &[u8]) -> u32 {
    let mut sum = flate2::Crc::new();
    sum.update(data);
    sum.sum()
}

fn unwrap(bytes: &[u8]) -> Result<&[u8]> {
    let Some((header, data)) = bytes.split_at_checked(HEADER) else {
        return Err(Error::Config(format!("compiled kernels: {} bytes are too few", bytes.len())));
    };
    if header[..8] != MAGIC || header[8..] != checksum(data).to_le_bytes() {
        return Err(Error::Config("compiled kernels: the checksum does not fit".into()));
    }
    Ok(data)
}
