//! The device and what runs on it: kernels, recordings, plans, memory, readback, timing.
//!
//! A [`Recording`] is plain data: kernels, values, workgroup counts. A [`Plan`] is a finished recording whose
//! buffers were assigned by liveness and whose bind groups were built once; running it encodes
//! `set_pipeline, set_bind_group, dispatch` and nothing else.
//!
//! Invariants: this layer never names a tensor, a shape or a layer of a network. It never installs a callback
//! on a borrowed device and never waits unless a function's name says so (`read`, `wait`).

mod adapter;
mod buffer;
mod capabilities;
mod compile;
mod device;
#[cfg(test)]
mod emulation;
mod kernel;
mod liveness;
mod memory;
mod pipeline_cache;
mod pipelines;
mod plan;
mod pool;
mod processors;
#[cfg(not(target_arch = "wasm32"))]
mod profiler;
mod readback;
mod recording;
pub mod source;

pub use adapter::{AdapterReport, DeviceChoice, adapters};
pub use buffer::Buffer;
pub use capabilities::{Capabilities, Rung, matrix_features, wanted_features, wanted_limits};
pub use device::Gpu;
pub use kernel::{Access, Elem, Kernel};
pub use plan::Plan;
#[cfg(not(target_arch = "wasm32"))]
pub use profiler::{KernelTime, Profile};
pub use readback::Readback;
pub use recording::{Binding, Dispatch, Recording, Storage, groups_over};

/// The text of `shaders/NAME.wgsl`, embedded in the program.
#[macro_export]
macro_rules! wgsl {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $name, ".wgsl"))
    };
}
