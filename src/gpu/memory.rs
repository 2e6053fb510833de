//! The device's memory: making buffers, writing them, and the slots that plans share.

use crate::error::{Error, Result};

use super::buffer::Buffer;
use super::device::Gpu;

impl Gpu {
    /// A buffer of at least `bytes` (rounded up to 16), zeroed.
    ///
    /// # Errors
    /// [`Error::Limit`] above the device's buffer or binding size, [`Error::OutOfMemory`] when there is no room.
    pub fn buffer(&self, label: &str, bytes: u64) -> Result<Buffer> {
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
        Ok(Buffer::new(raw))
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

    /// Hands on to the device what was written so far, and takes back what it is done with: copies of much that is written one
    /// after the other would otherwise all lie in memory until the next submission. Waits for nothing.
    pub(crate) fn hand_on(&self) {
        self.queue().submit([]);
        // What it has to say is said by the next call that submits.
        let _ = self.device().poll(wgpu::PollType::Poll);
    }

    /// Slots for a plan's transient values, one for each wanted size, shared with other plans; `kept` bytes more are to be
    /// taken beside them.
    ///
    /// # Errors
    /// As [`Gpu::check_room`] and [`Gpu::buffer`].
    pub(super) fn slots(&self, label: &str, sizes: &[u64], kept: u64) -> Result<Vec<Buffer>> {
        let room = |bytes: u64| self.check_room(label, bytes.saturating_add(kept));
        let make = |bytes: u64| self.buffer(&format!("{label} slot of {bytes} bytes"), bytes);
        self.0.pool.lock().expect("no holder panics").take(sizes, room, make)
    }

    /// Forgets pooled memory; plans that use it keep it until they are dropped.
    pub fn trim(&self) {
        self.0.pool.lock().expect("no holder panics").clear();
    }
}
