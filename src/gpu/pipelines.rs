//! Compiled kernels. A pipeline's key is (kernel, entry, storage type, constants).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use super::kernel::{Elem, Kernel};

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
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
pub(super) type ModuleKey = (usize, Elem, bool);

/// Everything compiled so far on a device. The locks are held for look-ups alone, so that several threads compile.
#[derive(Default)]
pub(super) struct Pipelines {
    pub modules: Mutex<HashMap<ModuleKey, Arc<OnceLock<wgpu::ShaderModule>>>>,
    pub pipelines: Mutex<HashMap<Key, Arc<Pipeline>>>,
    /// The driver's own cache, where the device has one.
    pub saved: OnceLock<wgpu::PipelineCache>,
}

impl Pipelines {
    pub fn len(&self) -> usize {
        self.pipelines.lock().expect("no holder panics").len()
    }
}

impl Key {
    pub fn new(kernel: &'static Kernel, elem: Elem, params: bool, constants: &[(&'static str, f64)]) -> Key {
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
