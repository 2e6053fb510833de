//! The device: made headless, or borrowed from a host program.

use std::sync::{Arc, Mutex};

use crate::error::{Error, Result};

use super::adapter::{DeviceChoice, choose, instance};
use super::buffer::Pool;
use super::kernel::Pipelines;

/// A ladder of kernel variants; each adapter stands on one rung, and a dispatch's label names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rung {
    /// One invocation an output element: slow, simple, the reference of the others.
    Naive,
    /// Register tiles without workgroup memory or barriers: what suits software adapters.
    Cpu,
    /// Tiles in workgroup memory, f32 arithmetic, WebGPU's default limits.
    Tiled,
}

impl std::fmt::Display for Rung {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Rung::Naive => "naive",
            Rung::Cpu => "cpu",
            Rung::Tiled => "tiled",
        })
    }
}

/// What a device can do, read once.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// The adapter's name.
    pub name: String,
    /// Vulkan, Metal, DX12 or WebGPU.
    pub backend: wgpu::Backend,
    /// Discrete, integrated, software.
    pub kind: wgpu::DeviceType,
    /// f16 in shaders.
    pub f16: bool,
    /// GPU timestamps at pass boundaries.
    pub timestamps: bool,
    /// The device's limits.
    pub limits: wgpu::Limits,
    /// The kernels that run on it.
    pub rung: Rung,
}

impl Capabilities {
    pub(super) fn new(info: &wgpu::AdapterInfo, features: wgpu::Features, limits: wgpu::Limits) -> Self {
        let rung = if info.device_type == wgpu::DeviceType::Cpu { Rung::Cpu } else { Rung::Tiled };
        Capabilities {
            name: info.name.clone(),
            backend: info.backend,
            kind: info.device_type,
            f16: features.contains(wgpu::Features::SHADER_F16),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            limits,
            rung,
        }
    }
}

/// The optional features this library makes use of, of those the adapter has.
/// A device without any of them works too.
pub fn wanted_features(adapter: &wgpu::Adapter) -> wgpu::Features {
    adapter.features() & (wgpu::Features::SHADER_F16 | wgpu::Features::TIMESTAMP_QUERY)
}

/// The limits worth asking for: the adapter's own for sizes, WebGPU's defaults suffice for all else.
pub fn wanted_limits(adapter: &wgpu::Adapter) -> wgpu::Limits {
    adapter.limits()
}

pub(super) struct Inner {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub capabilities: Capabilities,
    pub pipelines: Pipelines,
    pub pool: Mutex<Pool>,
    /// The first failure outside an error scope: what an owned device reports, and what a readback meets on any.
    pub failure: Arc<Mutex<Option<String>>>,
}

/// A device, its queue, and what is shared among all plans on it: compiled kernels and pooled memory.
/// Cheap to clone.
#[derive(Clone)]
pub struct Gpu(pub(super) Arc<Inner>);

impl Gpu {
    /// A headless device on the chosen adapter, with all the features and limits that help.
    pub async fn new(choice: &DeviceChoice) -> Result<Gpu> {
        let instance = instance();
        let adapter = choose(&instance, choice).await?;
        let (features, limits) = (wanted_features(&adapter), wanted_limits(&adapter));
        Self::request(&adapter, features, limits).await
    }

    /// As [`Gpu::new`], waiting for it.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new_blocking(choice: &DeviceChoice) -> Result<Gpu> {
        pollster::block_on(Self::new(choice))
    }

    /// A device with exactly WebGPU's default limits and no optional feature: the floor every kernel works on.
    pub async fn with_default_limits(choice: &DeviceChoice) -> Result<Gpu> {
        let adapter = choose(&instance(), choice).await?;
        Self::request(&adapter, wgpu::Features::empty(), wgpu::Limits::default()).await
    }

    async fn request(
        adapter: &wgpu::Adapter,
        required_features: wgpu::Features,
        required_limits: wgpu::Limits,
    ) -> Result<Gpu> {
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("freeguide"),
            required_features,
            required_limits,
            ..Default::default()
        };
        let (device, queue) = adapter.request_device(&descriptor).await.map_err(|error| {
            Error::NoAdapter(format!("{}: no device could be made: {error}", adapter.get_info().name))
        })?;
        let failure = Arc::new(Mutex::new(None));
        // The device is ours, so nobody else's callbacks are replaced here.
        device.on_uncaptured_error(Arc::new({
            let failure = failure.clone();
            move |error: wgpu::Error| note(&failure, error.to_string())
        }));
        device.set_device_lost_callback({
            let failure = failure.clone();
            move |_, message| note(&failure, format!("device lost: {message}"))
        });
        Ok(Self::assemble(device, queue, failure))
    }

    /// A host's own device. No callback is installed on it.
    pub fn from_device(device: &wgpu::Device, queue: &wgpu::Queue) -> Gpu {
        Self::assemble(device.clone(), queue.clone(), Arc::default())
    }

    fn assemble(device: wgpu::Device, queue: wgpu::Queue, failure: Arc<Mutex<Option<String>>>) -> Gpu {
        let capabilities = Capabilities::new(&device.adapter_info(), device.features(), device.limits());
        Gpu(Arc::new(Inner {
            device,
            queue,
            capabilities,
            pipelines: Pipelines::default(),
            pool: Mutex::default(),
            failure,
        }))
    }

    /// The wgpu device.
    pub fn device(&self) -> &wgpu::Device {
        &self.0.device
    }

    /// The wgpu queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.0.queue
    }

    /// What the device can do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    /// [`Error::Device`] if the device has failed since it was made.
    pub fn check(&self) -> Result<()> {
        match self.0.failure.lock().expect("no holder panics").as_ref() {
            Some(what) => Err(Error::Device(what.clone())),
            None => Ok(()),
        }
    }

    /// Remembers a failure that shows on a borrowed device, whose callbacks are not ours.
    pub(super) fn fail(&self, what: String) -> Error {
        note(&self.0.failure, what.clone());
        Error::Device(what)
    }

    /// Waits until everything submitted is done. Not for frame loops.
    pub fn wait(&self) -> Result<()> {
        let polled = self.0.device.poll(wgpu::PollType::wait_indefinitely());
        polled.map_err(|error| self.fail(error.to_string()))?;
        self.check()
    }

    /// Runs `make` and turns what the device objects to into an error instead of a panic.
    pub(super) fn scoped<T>(&self, what: &str, bytes: u64, make: impl FnOnce() -> Result<T>) -> Result<T> {
        // A lost device makes nothing, and no error scope tells.
        self.check()?;
        let memory = self.0.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.0.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let made = make();
        let (invalid, exhausted) = (validation.pop(), memory.pop());
        // In a browser the answer comes later, through the device's own error event.
        #[cfg(not(target_arch = "wasm32"))]
        {
            let (invalid, exhausted) = (pollster::block_on(invalid), pollster::block_on(exhausted));
            if exhausted.is_some() {
                return Err(Error::OutOfMemory { what: what.to_owned(), bytes });
            }
            if let Some(error) = invalid {
                return Err(Error::Device(format!("{what}: {error}")));
            }
        }
        #[cfg(target_arch = "wasm32")]
        let _ = (invalid, exhausted, what, bytes);
        made
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({}, {:?})", self.0.capabilities.name, self.0.capabilities.backend)
    }
}

/// Keeps the first failure: those after it follow from it.
fn note(failure: &Mutex<Option<String>>, what: String) {
    failure.lock().expect("no holder panics").get_or_insert(what);
}
