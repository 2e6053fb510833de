//! GPU timestamps of what is recorded into the host's encoder, read when they have arrived.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::Result;
use crate::gpu::Gpu;

/// Passes that one call can time.
pub(super) const MOST_PASSES: usize = 64;
/// Calls under way at a time; those beyond are not timed.
const TIMERS: usize = 4;
const BYTES: u64 = (MOST_PASSES * 2 * 8) as u64;

const FREE: u8 = 0;
const RECORDED: u8 = 1;
const ARRIVED: u8 = 2;

/// Sets a timer free unless the numbers have arrived: also when the host drops the encoder without submitting it.
struct Answer(Arc<AtomicU8>);

impl Drop for Answer {
    fn drop(&mut self) {
        let _ = self.0.compare_exchange(RECORDED, FREE, Ordering::AcqRel, Ordering::Acquire);
    }
}

struct Timer {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
    state: Arc<AtomicU8>,
    /// What was timed, pass by pass.
    passes: Vec<Pass>,
}

/// A timed pass: dispatches `first..last` of plan `plan`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pass {
    pub plan: usize,
    pub first: usize,
    pub last: usize,
}

/// A few timers in turn; none on a device without timestamps.
pub(super) struct Timers {
    timers: Vec<Timer>,
    seconds_per_tick: f64,
}

impl Timers {
    pub fn new(gpu: &Gpu) -> Result<Timers> {
        let count = if gpu.capabilities().timestamps { TIMERS } else { 0 };
        let timers = (0..count).map(|_| Timer::new(gpu)).collect::<Result<_>>()?;
        Ok(Timers { timers, seconds_per_tick: f64::from(gpu.queue().get_timestamp_period()) * 1e-9 })
    }

    pub fn exist(&self) -> bool {
        !self.timers.is_empty()
    }

    /// The number of one that is not under way.
    pub fn free(&self) -> Option<usize> {
        self.timers.iter().position(|timer| timer.state.load(Ordering::Acquire) == FREE)
    }

    /// The timestamps around pass number `pass` of timer `at`, in the order of their recording.
    pub fn around(&mut self, at: usize, what: Pass) -> wgpu::ComputePassTimestampWrites<'_> {
        let timer = &mut self.timers[at];
        let query = 2 * timer.passes.len() as u32;
        timer.passes.push(what);
        wgpu::ComputePassTimestampWrites {
            query_set: &timer.queries,
            beginning_of_pass_write_index: Some(query),
            end_of_pass_write_index: Some(query + 1),
        }
    }

    /// Records the way back of timer `at`'s numbers.
    pub fn finish(&mut self, at: usize, encoder: &mut wgpu::CommandEncoder) {
        let timer = &mut self.timers[at];
        let queries = 2 * timer.passes.len() as u32;
        if queries == 0 {
            return;
        }
        encoder.resolve_query_set(&timer.queries, 0..queries, &timer.resolved, 0);
        let bytes = u64::from(queries) * 8;
        encoder.copy_buffer_to_buffer(&timer.resolved, 0, &timer.staging, 0, bytes);
        timer.state.store(RECORDED, Ordering::Release);
        let answer = Answer(timer.state.clone());
        encoder.map_buffer_on_submit(&timer.staging, wgpu::MapMode::Read, 0..bytes, move |result| {
            if result.is_ok() {
                answer.0.store(ARRIVED, Ordering::Release);
            }
        });
    }

    /// What has arrived since the last call: passes and their seconds.
    pub fn collect(&mut self) -> Vec<(Pass, f64)> {
        let mut found = Vec::new();
        for timer in &mut self.timers {
            match timer.state.load(Ordering::Acquire) {
                ARRIVED => {}
                // Never submitted, or the device is gone.
                FREE => {
                    timer.passes.clear();
                    continue;
                }
                _ => continue,
            }
            let bytes = (timer.passes.len() * 16) as u64;
            if let Ok(view) = timer.staging.get_mapped_range(0..bytes) {
                let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&view);
                let seconds = |pair: &[u64]| pair[1].saturating_sub(pair[0]) as f64 * self.seconds_per_tick;
                found.extend(timer.passes.iter().copied().zip(ticks.chunks_exact(2).map(seconds)));
            }
            timer.staging.unmap();
            timer.passes.clear();
            timer.state.store(FREE, Ordering::Release);
        }
        found
    }
}

impl Timer {
    fn new(gpu: &Gpu) -> Result<Timer> {
        let label = "session timestamps";
        gpu.scoped(label, BYTES, || {
            let buffer = |usage| {
                let descriptor = wgpu::BufferDescriptor {
                    label: Some(label),
                    size: BYTES,
                    usage,
                    mapped_at_creation: false,
                };
                gpu.device().create_buffer(&descriptor)
            };
            Ok(Timer {
                queries: gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some(label),
                    ty: wgpu::QueryType::Timestamp,
                    count: 2 * MOST_PASSES as u32,
                }),
                resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
                staging: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
                state: Arc::new(AtomicU8::new(FREE)),
                passes: Vec::new(),
            })
        })
    }
}
