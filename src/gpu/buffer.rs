//! Buffers that outlive a plan, and the pool that plans take their slots from.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

use super::device::Gpu;

/// A buffer on the device with an identity, so that plans know when two bindings share memory.
/// Cheap to clone; freed when the last clone is gone.
#[derive(Clone, Debug)]
pub struct Buffer {
    id: u64,
    raw: wgpu::Buffer,
}

impl Buffer {
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

impl Gpu {
    /// A buffer of at least `bytes` (rounded up to 16), zeroed.
    ///
    /// # Errors
    /// [`Error::Limit`] above the device's buffer or binding size, [`Error::OutOfMemory`] when there is no room.
    pub fn buffer(&self, label: &str, bytes: u64) -> Result<Buffer> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let size = bytes.max(1).checked_next_multiple_of(16).unwrap_or(u64::MAX);
        let limits = &self.capabilities().limits;
        for (limit, allowed) in [
            ("max_storage_buffer_binding_size", limits.max_storage_buffer_binding_size),
            ("max_buffer_size", limits.max_buffer_size),
        ] {
            if size > allowed {
                return Err(Error::Limit { what: label.to_owned(), limit, needed: size, allowed });
            }
        }
        let size = if self.0.estimates { 16 } else { size };
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let raw = self.scoped(label, size, || {
            let descriptor =
                wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
            Ok(self.device().create_buffer(&descriptor))
        })?;
        Ok(Buffer { id: NEXT.fetch_add(1, Ordering::Relaxed), raw })
    }

    /// Refuses what this machine has no room for where its own memory is the device's: some software adapters never report
    /// that memory is out, and the system kills the program instead. A GPU reports it when a buffer is made.
    ///
    /// # Errors
    /// [`Error::NoRoom`] with both figures.
    pub fn check_room(&self, what: &str, bytes: u64) -> Result<()> {
        if self.capabilities().kind != wgpu::DeviceType::Cpu {
            return Ok(());
        }
        let way_out = "the adapter is a software one and takes it from there; a smaller batch or microbatch, smaller pictures \
                       or fewer channels take less";
        crate::sizes::check_host(what, bytes, way_out)
    }

    /// A buffer holding `data`.
    pub fn buffer_with(&self, label: &str, data: &[u8]) -> Result<Buffer> {
        let buffer = self.buffer(label, data.len() as u64)?;
        self.write(&buffer, 0, data)?;
        Ok(buffer)
    }

    /// Writes `data` at `offset` (a multiple of 4) before the next submission. Two writes to one place before a
    /// submission leave only the last.
    ///
    /// # Errors
    /// [`Error::Device`] when the range lies outside the buffer.
    pub fn write(&self, buffer: &Buffer, offset: u64, data: &[u8]) -> Result<()> {
        if self.0.estimates {
            return Ok(());
        }
        let end = offset + data.len().next_multiple_of(4) as u64;
        if !offset.is_multiple_of(4) || end > buffer.bytes() {
            return Err(Error::Device(format!(
                "write of {} bytes at {offset} into a buffer of {}",
                data.len(),
                buffer.bytes()
            )));
        }
        self.check()?;
        let whole = data.len() / 4 * 4;
        self.queue().write_buffer(buffer.raw(), offset, &data[..whole]);
        if whole < data.len() {
            let mut tail = [0u8; 4];
            tail[..data.len() - whole].copy_from_slice(&data[whole..]);
            self.queue().write_buffer(buffer.raw(), offset + whole as u64, &tail);
        }
        Ok(())
    }
}

/// Memory for the transient values of plans. Plans never run at the same time and leave nothing behind in
/// their slots, so all plans of a device share it.
#[derive(Default)]
pub(super) struct Pool {
    slots: Vec<Buffer>,
}

impl Pool {
    /// One buffer for each wanted size, the same ones as other plans where they are large enough; `kept` bytes more are to
    /// be taken beside them.
    pub fn take(&mut self, gpu: &Gpu, label: &str, sizes: &[u64], kept: u64) -> Result<Vec<Buffer>> {
        let mut free: Vec<Buffer> = self.slots.clone();
        free.sort_by_key(Buffer::bytes);
        let mut order: Vec<usize> = (0..sizes.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(sizes[i]));
        let mut taken: Vec<Option<Buffer>> = vec![None; sizes.len()];
        for &i in &order {
            // The smallest that fits, unless it wastes more than it saves.
            let fit =
                free.iter().position(|b| b.bytes() >= sizes[i] && b.bytes() / 4 <= sizes[i].max(1 << 20));
            taken[i] = fit.map(|at| free.remove(at));
        }
        // All that is missing is known before any of it is made.
        let missing = || order.iter().copied().filter(|&i| taken[i].is_none());
        gpu.check_room(label, missing().map(|i| sizes[i]).fold(kept, u64::saturating_add))?;
        for i in missing().collect::<Vec<_>>() {
            let made = gpu.buffer(&format!("{label} slot of {} bytes", sizes[i]), sizes[i])?;
            self.slots.push(made.clone());
            taken[i] = Some(made);
        }
        Ok(taken.into_iter().map(|slot| slot.expect("every size was served")).collect())
    }
}

impl Gpu {
    /// Forgets pooled memory; plans that use it keep it until they are dropped.
    pub fn trim(&self) {
        self.0.pool.lock().expect("no holder panics").slots.clear();
    }
}
