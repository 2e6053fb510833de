//! A plan: a finished recording, ready to run any number of times.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};

use super::buffer::Buffer;
use super::device::Gpu;
use super::liveness::{Lifetime, assign};
use super::pipelines::Pipeline;
#[cfg(not(target_arch = "wasm32"))]
use super::profiler::{Profile, Profiler};
use super::recording::{Dispatch, Recording, Storage};

/// WebGPU's default alignment of uniform offsets; no device asks for more.
const UNIFORM_ALIGNMENT: usize = 256;

struct Step {
    pipeline: Arc<Pipeline>,
    bindings: wgpu::BindGroup,
    groups: [u32; 3],
    label: String,
}

/// Pipelines, bind groups and memory of a recording. Replaying it costs the host about a microsecond a dispatch.
pub struct Plan {
    label: String,
    gpu: Gpu,
    steps: Vec<Step>,
    kept: HashMap<u32, Buffer>,
    bytes: u64,
}

impl Plan {
    /// Compiles what is not compiled yet, assigns memory by liveness and builds every bind group.
    ///
    /// # Errors
    /// [`Error::Limit`] naming the value or dispatch that exceeds the device, [`Error::NoRoom`], [`Error::OutOfMemory`],
    /// [`Error::Device`] if a shader does not compile.
    pub fn new(gpu: &Gpu, recording: Recording, label: &str) -> Result<Plan> {
        gpu.check()?;
        // Kept values get a buffer of their own.
        let lives = recording.lifetimes();
        let Recording { transients, dispatches } = recording;
        // Before the dispatches: a value's own name says more than the binding it comes in.
        for value in &transients {
            let allowed = gpu.capabilities().limits.max_storage_buffer_binding_size;
            if value.bytes > allowed {
                let limit = "max_storage_buffer_binding_size";
                return Err(Error::Limit { what: value.label.clone(), limit, needed: value.bytes, allowed });
            }
        }
        check_limits(gpu, &dispatches)?;
        let shared: Vec<Option<Lifetime>> =
            lives.iter().zip(&transients).map(|(life, value)| life.filter(|_| !value.keep)).collect();
        let (slot_of, sizes) = assign(&shared);
        let kept_bytes: u64 = transients.iter().filter(|value| value.keep).map(|value| value.bytes).sum();
        let bytes = sizes.iter().sum::<u64>() + kept_bytes;
        if gpu.0.estimates {
            return Err(Error::Device(format!("{label}: a device for estimates runs nothing")));
        }
        let slots = gpu.slots(label, &sizes, kept_bytes)?;
        let mut kept = HashMap::new();
        for (index, value) in transients.iter().enumerate().filter(|(_, value)| value.keep) {
            kept.insert(index as u32, gpu.buffer(&format!("{label}: {}", value.label), value.bytes)?);
        }

        // All parameters in one uniform buffer, each at its own aligned offset.
        let mut params: Vec<u8> = Vec::new();
        let offsets: Vec<usize> = dispatches
            .iter()
            .map(|dispatch| {
                let at = params.len().next_multiple_of(UNIFORM_ALIGNMENT);
                if !dispatch.params.is_empty() {
                    params.resize(at, 0);
                    params.extend_from_slice(&dispatch.params);
                }
                at
            })
            .collect();
        params.resize(params.len().next_multiple_of(16).max(16), 0);
        let uniforms = gpu.scoped(label, params.len() as u64, || {
            let buffer = gpu.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some(&format!("{label} parameters")),
                size: params.len() as u64,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            gpu.queue().write_buffer(&buffer, 0, &params);
            Ok(buffer)
        })?;

        let place = |storage: &Storage| match storage {
            Storage::Buffer(buffer) => buffer.clone(),
            Storage::Transient(index) => match slot_of[*index as usize] {
                Some(slot) => slots[slot].clone(),
                None => kept[index].clone(),
            },
        };
        #[cfg(not(target_arch = "wasm32"))]
        gpu.compile_all(&dispatches)?;
        let mut steps = Vec::with_capacity(dispatches.len());
        for (dispatch, offset) in dispatches.into_iter().zip(offsets) {
            steps.push(build_step(gpu, dispatch, &place, &uniforms, offset as u64)?);
        }
        gpu.check()?;
        Ok(Plan { label: label.to_owned(), gpu: gpu.clone(), steps, kept, bytes })
    }

    /// How many dispatches it has.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether it does nothing.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The bytes its values take, shared ones included.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The labels of its dispatches, in order: kernel and variant.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(|step| step.label.as_str())
    }

    /// Workgroups of its dispatches, in order.
    pub fn workgroups(&self) -> impl Iterator<Item = u64> {
        self.steps.iter().map(|step| step.groups.iter().map(|&groups| u64::from(groups)).product())
    }

    /// The buffer of a value that was kept.
    pub fn kept<'a>(&'a self, storage: &'a Storage) -> Option<&'a Buffer> {
        match storage {
            Storage::Transient(index) => self.kept.get(index),
            Storage::Buffer(buffer) => Some(buffer),
        }
    }

    /// Encodes dispatches `range` into a compute pass of the caller's encoder.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder, range: Range<usize>) {
        self.encode_timed(encoder, range, None);
    }

    /// As [`Plan::encode`], with timestamps at both ends of the pass.
    pub fn encode_timed(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        range: Range<usize>,
        timestamp_writes: Option<wgpu::ComputePassTimestampWrites<'_>>,
    ) {
        let mut pass = encoder
            .begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some(&self.label), timestamp_writes });
        for step in &self.steps[range] {
            encode_step(&mut pass, step);
        }
    }

    /// Encodes and submits all of it. Does not wait.
    pub fn run(&self) -> Result<()> {
        self.run_times(1)
    }

    /// Encodes it `times` in a row into one submission. Does not wait.
    pub fn run_times(&self, times: usize) -> Result<()> {
        self.gpu.check()?;
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some(&self.label) };
        let mut encoder = self.gpu.device().create_command_encoder(&descriptor);
        for _ in 0..times {
            self.encode(&mut encoder, 0..self.len());
        }
        self.gpu.queue().submit([encoder.finish()]);
        self.gpu.check()
    }

    /// Runs it once with a timestamp around every dispatch, and waits. Slower than [`Plan::run`].
    ///
    /// # Errors
    /// [`Error::Device`] where the device has no timestamps.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn profile(&self) -> Result<Profile> {
        let mut profiler = Profiler::new(&self.gpu, self.steps.len())?;
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        for (at, step) in self.steps.iter().enumerate() {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some(&step.label),
                timestamp_writes: Some(profiler.around(at)),
            });
            encode_step(&mut pass, step);
        }
        profiler.resolve(&mut encoder);
        self.gpu.queue().submit([encoder.finish()]);
        profiler.read(self.steps.iter().map(|step| step.label.as_str()))
    }

    /// Runs it `times` in one pass between two timestamps and waits; seconds for one run on the GPU.
    ///
    /// # Errors
    /// [`Error::Device`] where the device has no timestamps.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn seconds(&self, times: usize) -> Result<f64> {
        self.seconds_of(0..self.len(), times)
    }

    /// As [`Plan::seconds`], for the dispatches of `range` alone.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn seconds_of(&self, range: Range<usize>, times: usize) -> Result<f64> {
        let mut profiler = Profiler::new(&self.gpu, 1)?;
        let mut encoder = self.gpu.device().create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some(&self.label),
                timestamp_writes: Some(profiler.around(0)),
            });
            for _ in 0..times {
                for step in &self.steps[range.clone()] {
                    encode_step(&mut pass, step);
                }
            }
        }
        profiler.resolve(&mut encoder);
        self.gpu.queue().submit([encoder.finish()]);
        Ok(profiler.read(std::iter::once(self.label.as_str()))?.total_seconds() / times as f64)
    }
}

fn encode_step(pass: &mut wgpu::ComputePass<'_>, step: &Step) {
    pass.set_pipeline(&step.pipeline.raw);
    pass.set_bind_group(0, &step.bindings, &[]);
    let [x, y, z] = step.groups;
    pass.dispatch_workgroups(x, y, z);
}

fn build_step(
    gpu: &Gpu,
    dispatch: Dispatch,
    place: &dyn Fn(&Storage) -> Buffer,
    uniforms: &wgpu::Buffer,
    offset: u64,
) -> Result<Step> {
    let params = !dispatch.params.is_empty();
    let pipeline = gpu.pipeline(dispatch.kernel, dispatch.elem, params, &dispatch.constants)?;
    let buffers: Vec<Buffer> = dispatch.bindings.iter().map(|binding| place(&binding.storage)).collect();
    let range = |buffer, offset, bytes| {
        let size = std::num::NonZeroU64::new(bytes);
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size })
    };
    let storage = buffers.iter().zip(&dispatch.bindings).map(|(buffer, binding)| {
        // Padded to a whole vec4<f32>; every buffer is allocated so.
        range(buffer.raw(), binding.offset, binding.bytes.max(4).next_multiple_of(16))
    });
    let uniform = params.then(|| range(uniforms, offset, dispatch.params.len() as u64));
    let entries: Vec<wgpu::BindGroupEntry<'_>> = storage
        .chain(uniform)
        .enumerate()
        .map(|(binding, resource)| wgpu::BindGroupEntry { binding: binding as u32, resource })
        .collect();
    let bindings = gpu.scoped(&dispatch.label, 0, || {
        Ok(gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&dispatch.label),
            layout: &pipeline.layout,
            entries: &entries,
        }))
    })?;
    Ok(Step { pipeline, bindings, groups: dispatch.groups, label: dispatch.label })
}

fn check_limits(gpu: &Gpu, dispatches: &[Dispatch]) -> Result<()> {
    for dispatch in dispatches {
        let allowed = u64::from(gpu.capabilities().limits.max_compute_workgroups_per_dimension);
        for groups in dispatch.groups.map(u64::from) {
            if groups > allowed {
                let limit = "max_compute_workgroups_per_dimension";
                return Err(Error::Limit { what: dispatch.label.clone(), limit, needed: groups, allowed });
            }
        }
        let (needed, limits) = (dispatch.bindings.len() as u64, &gpu.capabilities().limits);
        let allowed = u64::from(limits.max_storage_buffers_per_shader_stage);
        if needed > allowed {
            let limit = "max_storage_buffers_per_shader_stage";
            return Err(Error::Limit { what: dispatch.label.clone(), limit, needed, allowed });
        }
        for (i, binding) in dispatch.bindings.iter().enumerate() {
            let allowed = gpu.capabilities().limits.max_storage_buffer_binding_size;
            let limit = "max_storage_buffer_binding_size";
            if binding.bytes > allowed {
                let what = format!("binding {i} of {}", dispatch.label);
                return Err(Error::Limit { what, limit, needed: binding.bytes, allowed });
            }
        }
    }
    Ok(())
}
