//! A buffer that outlives a plan.

use std::sync::atomic::{AtomicU64, Ordering};

/// A buffer on the device with an identity, so that plans know when two bindings share memory.
/// Cheap to clone; freed when the last clone is gone.
#[derive(Clone, Debug)]
pub struct Buffer {
    id: u64,
    raw: wgpu::Buffer,
}

impl Buffer {
    /// Gives a buffer of wgpu's an identity that no other of the process has.
    pub(super) fn new(raw: wgpu::Buffer) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Buffer { id: NEXT.fetch_add(1, Ordering::Relaxed), raw }
    }

    /// Its identity within the process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The wgpu buffer.
    pub fn raw(&self) -> &wgpu::Buffer {
        &self.raw
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.raw.size()
    }
}
