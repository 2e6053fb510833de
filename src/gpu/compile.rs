//! Compiling kernels: at their first use or, for a plan, all that are missing at the same time.

#[cfg(not(target_arch = "wasm32"))]
use std::collections::HashMap;
use std::sync::Arc;
#[cfg(not(target_arch = "wasm32"))]
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::Result;

use super::device::Gpu;
use super::kernel::{Access, Elem, Kernel};
use super::pipelines::{Key, Pipeline};
#[cfg(not(target_arch = "wasm32"))]
use super::recording::Dispatch;
use super::source::{self, Dialect};

impl Gpu {
    /// The pipeline of a kernel, compiled at its first use.
    pub(super) fn pipeline(
        &self,
        kernel: &'static Kernel,
        elem: Elem,
        params: bool,
        constants: &[(&'static str, f64)],
    ) -> Result<Arc<Pipeline>> {
        let key = Key::new(kernel, elem, params, constants);
        let pipelines = &self.0.pipelines;
        if let Some(found) = pipelines.pipelines.lock().expect("no holder panics").get(&key) {
            return Ok(found.clone());
        }
        let made = Arc::new(self.scoped(kernel.name, 0, || {
            let module = self.module(kernel, elem);
            Ok(compile(self.device(), kernel, &module, params, constants, pipelines.saved.get()))
        })?);
        pipelines.pipelines.lock().expect("no holder panics").insert(key, made.clone());
        Ok(made)
    }

    fn module(&self, kernel: &'static Kernel, elem: Elem) -> wgpu::ShaderModule {
        let key = (kernel.source.as_ptr() as usize, elem, kernel.trusted);
        let slot = self.0.pipelines.modules.lock().expect("no holder panics").entry(key).or_default().clone();
        let make = || {
            let dialect = Dialect { elem, int64: self.capabilities().int64 };
            let text = source::join(kernel.source, dialect);
            #[cfg(test)]
            let emulated = self.0.emulates_matrices && text.contains("enable wgpu_cooperative_matrix;");
            #[cfg(test)]
            let text = if emulated { super::emulation::emulate(&text) } else { text };
            let descriptor = wgpu::ShaderModuleDescriptor {
                label: Some(kernel.name),
                source: wgpu::ShaderSource::Wgsl(text.into()),
            };
            #[cfg(test)]
            if emulated {
                return self.device().create_shader_module(descriptor);
            }
            if !kernel.trusted {
                return self.device().create_shader_module(descriptor);
            }
            let checks = wgpu::ShaderRuntimeChecks::unchecked();
            // Sound by the promise of `Kernel::trusted`.
            unsafe { self.device().create_shader_module_trusted(descriptor, checks) }
        };
        slot.get_or_init(make).clone()
    }

    /// Compiles what the dispatches need and is not there yet, on all processors: a network's kernels take seconds one
    /// after the other.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn compile_all(&self, dispatches: &[Dispatch]) -> Result<()> {
        let mut wanted: HashMap<Key, &Dispatch> = HashMap::new();
        for dispatch in dispatches {
            let params = !dispatch.params.is_empty();
            wanted.insert(Key::new(dispatch.kernel, dispatch.elem, params, &dispatch.constants), dispatch);
        }
        {
            let made = self.0.pipelines.pipelines.lock().expect("no holder panics");
            wanted.retain(|key, _| !made.contains_key(key));
        }
        let wanted: Vec<&Dispatch> = wanted.into_values().collect();
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(wanted.len());
        if threads < 2 {
            return Ok(()); // they are compiled where they are used
        }
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let work = || -> Result<()> {
                while let Some(dispatch) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let params = !dispatch.params.is_empty();
                    self.pipeline(dispatch.kernel, dispatch.elem, params, &dispatch.constants)?;
                }
                Ok(())
            };
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("compiling does not panic"))
        })
    }
}

fn compile(
    device: &wgpu::Device,
    kernel: &Kernel,
    module: &wgpu::ShaderModule,
    params: bool,
    constants: &[(&'static str, f64)],
    cache: Option<&wgpu::PipelineCache>,
) -> Pipeline {
    let entry = |binding: usize, ty: wgpu::BufferBindingType| wgpu::BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    let storage =
        kernel.access.iter().enumerate().map(|(i, access)| {
            entry(i, wgpu::BufferBindingType::Storage { read_only: *access == Access::Read })
        });
    let uniform = params.then(|| entry(kernel.access.len(), wgpu::BufferBindingType::Uniform));
    let entries: Vec<_> = storage.chain(uniform).collect();
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some(kernel.name),
        entries: &entries,
    });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(kernel.name),
        bind_group_layouts: &[Some(&layout)],
        ..Default::default()
    });
    let raw = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(kernel.name),
        layout: Some(&pipeline_layout),
        module,
        entry_point: Some(kernel.entry),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants,
            // Every kernel writes its workgroup memory before it reads it.
            zero_initialize_workgroup_memory: false,
        },
        cache,
    });
    Pipeline { raw, layout }
}
