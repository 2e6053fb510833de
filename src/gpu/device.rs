//! The device: made headless, or borrowed from a host program.

use std::sync::{Arc, Mutex};

use crate::error::{Error, Result};

use super::adapter::{DeviceChoice, choose, instance};
#[cfg(test)]
use super::capabilities::Rung;
use super::capabilities::{Capabilities, has_matrices, matrix_features, wanted_features, wanted_limits};
use super::pipelines::Pipelines;
use super::pool::Pool;

pub(super) struct Inner {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub capabilities: Capabilities,
    pub pipelines: Arc<Pipelines>,
    pub pool: Mutex<Pool>,
    /// Whether buffers take no memory, as no plan will run.
    pub estimates: bool,
    #[cfg(test)]
    pub emulates_matrices: bool,
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
        let features = wanted_features(&adapter) | matrix_features(&adapter);
        let limits = wanted_limits(&adapter);
        Self::request(&adapter, features, limits).await
    }

    /// A device on which kernels on cooperative matrices run with their matrices written out (see `emulation.rs`); `None`
    /// where the adapter lacks 16-bit types.
    #[cfg(test)]
    pub(crate) fn emulating_matrices(choice: &DeviceChoice) -> Option<Gpu> {
        let adapter = pollster::block_on(choose(&instance(), choice)).expect("the tests need a GPU adapter");
        let types = wgpu::Features::SHADER_F16 | wgpu::Features::SHADER_I16;
        if !adapter.features().contains(types) {
            return None;
        }
        let request = Self::request(&adapter, wanted_features(&adapter) | types, wanted_limits(&adapter));
        let mut gpu = pollster::block_on(request).expect("a device with these features");
        let inner = Arc::get_mut(&mut gpu.0).expect("nobody else holds it yet");
        inner.capabilities.rung = Rung::Coop;
        inner.emulates_matrices = true;
        Some(gpu)
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
            // Sound: cooperative matrices are the only experimental feature ever asked for, and the kernels that use
            // them keep to the shape the adapter lists, load and store within their buffers, and are run by whole
            // subgroups in uniform control flow.
            experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
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
        Ok(Self::assemble(device, queue, failure, has_matrices(adapter)))
    }

    /// A host's own device. No callback is installed on it.
    pub fn from_device(device: &wgpu::Device, queue: &wgpu::Queue) -> Gpu {
        // A device does not say which shapes of matrices it has. All of NVIDIA's with the feature have the one needed.
        const NVIDIA: u32 = 0x10de;
        let matrices = device.adapter_info().vendor == NVIDIA;
        Self::assemble(device.clone(), queue.clone(), Arc::default(), matrices)
    }

    fn assemble(
        device: wgpu::Device,
        queue: wgpu::Queue,
        failure: Arc<Mutex<Option<String>>>,
        matrices: bool,
    ) -> Gpu {
        let capabilities =
            Capabilities::new(&device.adapter_info(), device.features(), device.limits(), matrices);
        Gpu(Arc::new(Inner {
            device,
            queue,
            capabilities,
            pipelines: Arc::default(),
            pool: Mutex::default(),
            estimates: false,
            #[cfg(test)]
            emulates_matrices: false,
            failure,
        }))
    }

    /// The same device with transient memory of its own. Plans made of it never share a slot with plans made of
    /// another, so they may stop half way and others may run in between.
    pub fn with_own_pool(&self) -> Gpu {
        self.twin(self.0.estimates)
    }

    /// The same device for recordings that are measured and never run: its buffers take no memory, whatever their size,
    /// what is written to them is lost, and a plan is refused.
    pub fn estimating(&self) -> Gpu {
        self.twin(true)
    }

    /// Whether it is of [`Gpu::estimating`].
    pub fn is_estimating(&self) -> bool {
        self.0.estimates
    }

    fn twin(&self, estimates: bool) -> Gpu {
        let shared = &*self.0;
        Gpu(Arc::new(Inner {
            device: shared.device.clone(),
            queue: shared.queue.clone(),
            capabilities: shared.capabilities.clone(),
            pipelines: shared.pipelines.clone(),
            pool: Mutex::default(),
            estimates,
            #[cfg(test)]
            emulates_matrices: shared.emulates_matrices,
            failure: shared.failure.clone(),
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
    pub(crate) fn fail(&self, what: String) -> Error {
        note(&self.0.failure, what.clone());
        Error::Device(what)
    }

    /// Waits until everything submitted is done. Not for frame loops.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(&self) -> Result<()> {
        let polled = self.0.device.poll(wgpu::PollType::wait_indefinitely());
        polled.map_err(|error| self.fail(error.to_string()))?;
        self.check()
    }

    /// A mark behind everything submitted so far, for [`Gpu::wait_for`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn mark(&self) -> wgpu::SubmissionIndex {
        self.0.queue.submit([])
    }

    /// Waits until everything submitted before a [`Gpu::mark`] is done; what came after it goes on meanwhile.
    ///
    /// # Errors
    /// [`Error::Device`] when the device is lost.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait_for(&self, mark: wgpu::SubmissionIndex) -> Result<()> {
        let polled = self.0.device.poll(wgpu::PollType::Wait { submission_index: Some(mark), timeout: None });
        polled.map_err(|error| self.fail(error.to_string()))?;
        self.check()
    }

    /// Runs `make` and turns what the device objects to into an error instead of a panic.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn scoped<T>(&self, what: &str, bytes: u64, make: impl FnOnce() -> Result<T>) -> Result<T> {
        // A lost device makes nothing, and no error scope tells.
        self.check()?;
        let memory = self.0.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.0.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let made = make();
        let (invalid, exhausted) = (validation.pop(), memory.pop());
        let (invalid, exhausted) = (pollster::block_on(invalid), pollster::block_on(exhausted));
        if exhausted.is_some() {
            return Err(Error::OutOfMemory { what: what.to_owned(), bytes });
        }
        if let Some(error) = invalid {
            return Err(Error::Device(format!("{what}: {error}")));
        }
        made
    }

    /// Runs `make`. A browser answers an error scope when nobody waits for it any more, and keeps what it caught from the
    /// device's own error event; so there is none, and that event tells.
    #[cfg(target_arch = "wasm32")]
    pub(crate) fn scoped<T>(&self, _: &str, _: u64, make: impl FnOnce() -> Result<T>) -> Result<T> {
        self.check()?;
        make()
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
