//! Kernels and their compiled pipelines. A pipeline's key is (kernel, entry, storage type, constants).

use std::collections::HashMap;
#[cfg(not(target_arch = "wasm32"))]
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use crate::error::Result;

use super::device::Gpu;
#[cfg(not(target_arch = "wasm32"))]
use super::recording::Dispatch;
use super::source::{self, Dialect};

/// How a kernel uses a storage binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Only read.
    Read,
    /// Every element is written, none read.
    Write,
    /// Read and written: accumulated into or changed in place.
    Update,
}

/// The storage type that a kernel's `elem` stands for. Arithmetic is f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Elem {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats; the device must have `SHADER_F16`.
    F16,
}

impl Elem {
    /// Its name in WGSL.
    pub fn wgsl(self) -> &'static str {
        match self {
            Elem::F32 => "f32",
            Elem::F16 => "f16",
        }
    }
}

/// An entry point of a shader file and how it uses its bindings: storage buffers at bindings 0, 1, … of group 0
/// in this order and, where the dispatch has parameters, one uniform buffer at the next binding.
#[derive(Debug)]
pub struct Kernel {
    /// The name that profiles and labels show.
    pub name: &'static str,
    /// The file's text, from [`wgsl!`](crate::wgsl).
    pub source: &'static str,
    /// The entry point.
    pub entry: &'static str,
    /// One for each storage binding.
    pub access: &'static [Access],
    /// Compiled without checks of bounds and loops; see [`Kernel::trusted`].
    pub trusted: bool,
}

impl Kernel {
    /// A kernel; made as a `const` beside its operation.
    pub const fn new(
        name: &'static str,
        source: &'static str,
        entry: &'static str,
        access: &'static [Access],
    ) -> Self {
        Kernel { name, source, entry, access, trusted: false }
    }

    /// Leaves out the checks that wgpu adds to every access by index and every loop; about an eighth of the time of
    /// kernels on cooperative matrices.
    ///
    /// # Safety
    /// No access of the shader is out of bounds, and every loop ends, for any launch that operations record. The
    /// shader's header says why.
    pub const unsafe fn trusted(self) -> Self {
        Kernel { trusted: true, ..self }
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    source: usize,
    entry: &'static str,
    elem: Elem,
    trusted: bool,
    params: bool,
    constants: Vec<(&'static str, u64)>,
}

/// A compiled kernel and the layout of its bindings.
pub(super) struct Pipeline {
    pub raw: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

/// Text on its way to the driver: (address of the source, storage type, trusted).
type ModuleKey = (usize, Elem, bool);

/// Everything compiled so far on a device. The locks are held for look-ups alone, so that several threads compile.
#[derive(Default)]
pub(super) struct Pipelines {
    modules: Mutex<HashMap<ModuleKey, Arc<OnceLock<wgpu::ShaderModule>>>>,
    pipelines: Mutex<HashMap<Key, Arc<Pipeline>>>,
    /// The driver's own cache, where the device has one.
    pub(super) saved: OnceLock<wgpu::PipelineCache>,
}

impl Pipelines {
    pub(super) fn len(&self) -> usize {
        self.pipelines.lock().expect("no holder panics").len()
    }
}

impl Key {
    fn new(kernel: &'static Kernel, elem: Elem, params: bool, constants: &[(&'static str, f64)]) -> Key {
        Key {
            // The text is static, so its address is its identity.
            source: kernel.source.as_ptr() as usize,
            entry: kernel.entry,
            elem,
            trusted: kernel.trusted,
            params,
            constants: constants.iter().map(|(name, value)| (*name, value.to_bits())).collect(),
        }
    }
}

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
