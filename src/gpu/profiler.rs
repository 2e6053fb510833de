//! GPU timestamps: the time of each dispatch, summed by kernel.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

use super::device::Gpu;
use super::readback::Readback;

/// A query set holds at most this many timestamps.
const MOST_QUERIES: usize = 4096;

/// The time one kernel took over a whole plan.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelTime {
    /// The dispatches' label.
    pub label: String,
    /// How many there were.
    pub dispatches: usize,
    /// Their time in all.
    pub seconds: f64,
}

/// Where a plan's time goes.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// Slowest first.
    pub kernels: Vec<KernelTime>,
}

impl Profile {
    /// The sum over all kernels.
    pub fn total_seconds(&self) -> f64 {
        self.kernels.iter().map(|kernel| kernel.seconds).sum()
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let total = self.total_seconds();
        writeln!(f, "{:>10}  {:>6}  {:>5}  kernel", "ms", "share", "count")?;
        for KernelTime { label, dispatches, seconds } in &self.kernels {
            let share = 100.0 * seconds / total.max(f64::MIN_POSITIVE);
            writeln!(f, "{:>10.3}  {share:>5.1}%  {dispatches:>5}  {label}", seconds * 1e3)?;
        }
        write!(f, "{:>10.3}  in all", total * 1e3)
    }
}

pub(super) struct Profiler {
    gpu: Gpu,
    sets: Vec<wgpu::QuerySet>,
    count: usize,
    staging: Option<wgpu::Buffer>,
}

impl Profiler {
    pub fn new(gpu: &Gpu, count: usize) -> Result<Self> {
        if !gpu.capabilities().timestamps {
            return Err(Error::Device("this device has no GPU timestamps (TIMESTAMP_QUERY)".into()));
        }
        let queries = 2 * count;
        let sets = (0..queries.div_ceil(MOST_QUERIES))
            .map(|at| {
                gpu.device().create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("profile"),
                    ty: wgpu::QueryType::Timestamp,
                    count: (queries - at * MOST_QUERIES).min(MOST_QUERIES) as u32,
                })
            })
            .collect();
        Ok(Profiler { gpu: gpu.clone(), sets, count, staging: None })
    }

    /// The timestamps at the start and end of pass `at`.
    pub fn around(&self, at: usize) -> wgpu::ComputePassTimestampWrites<'_> {
        let query = 2 * at;
        let inside = (query % MOST_QUERIES) as u32;
        wgpu::ComputePassTimestampWrites {
            query_set: &self.sets[query / MOST_QUERIES],
            beginning_of_pass_write_index: Some(inside),
            end_of_pass_write_index: Some(inside + 1),
        }
    }

    pub fn resolve(&mut self, encoder: &mut wgpu::CommandEncoder) {
        let size = (self.sets.len() * MOST_QUERIES * 8) as u64;
        let make = |usage| {
            let label = Some("profile");
            self.gpu.device().create_buffer(&wgpu::BufferDescriptor {
                label,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        let resolved = make(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC);
        let staging = make(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        for (at, set) in self.sets.iter().enumerate() {
            let queries = (2 * self.count - at * MOST_QUERIES).min(MOST_QUERIES) as u32;
            encoder.resolve_query_set(set, 0..queries, &resolved, (at * MOST_QUERIES * 8) as u64);
        }
        encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, size);
        self.staging = Some(staging);
    }

    pub fn read<'a>(mut self, labels: impl Iterator<Item = &'a str>) -> Result<Profile> {
        let staging = self.staging.take().expect("resolved before it is read");
        let readback = Readback::of(&self.gpu, staging);
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&readback.wait()?);
        let period = f64::from(self.gpu.queue().get_timestamp_period()) * 1e-9;
        let mut by_label: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
        for (pair, label) in ticks.chunks_exact(2).zip(labels) {
            let entry = by_label.entry(label).or_default();
            entry.0 += 1;
            entry.1 += pair[1].saturating_sub(pair[0]) as f64 * period;
        }
        let mut kernels: Vec<KernelTime> = by_label
            .into_iter()
            .map(|(label, (dispatches, seconds))| KernelTime { label: label.to_owned(), dispatches, seconds })
            .collect();
        kernels.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        Ok(Profile { kernels })
    }
}
