//! What an adapter can do: its features and limits, whether it has matrices, and the rung it stands on.

use super::processors;

/// A ladder of kernel variants; each adapter stands on one rung, and a dispatch's label names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rung {
    /// One invocation an output element: slow, simple, the reference of the others.
    Naive,
    /// Register tiles without workgroup memory or barriers: what suits software adapters.
    Cpu,
    /// Tiles in workgroup memory, f32 arithmetic, WebGPU's default limits.
    Tiled,
    /// Cooperative matrices: f16 products, f32 sums, 16x16x16 at a time. What has no such variant runs as [`Tiled`].
    ///
    /// [`Tiled`]: Rung::Tiled
    Coop,
}

impl Rung {
    /// Whether kernels that keep tiles in workgroup memory suit the adapter.
    pub fn is_tiled(self) -> bool {
        matches!(self, Rung::Tiled | Rung::Coop)
    }
}

impl std::fmt::Display for Rung {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Rung::Naive => "naive",
            Rung::Cpu => "cpu",
            Rung::Tiled => "tiled",
            Rung::Coop => "coop",
        })
    }
}

/// What a device can do, read once.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// The adapter's name.
    pub name: String,
    /// Vulkan, Metal, DX12 or WebGPU.
    pub backend: wgpu::Backend,
    /// Discrete, integrated, software.
    pub kind: wgpu::DeviceType,
    /// f16 in shaders.
    pub f16: bool,
    /// 64-bit integers in shaders: random numbers come faster.
    pub int64: bool,
    /// GPU timestamps at pass boundaries.
    pub timestamps: bool,
    /// The device's limits.
    pub limits: wgpu::Limits,
    /// The kernels that run on it.
    pub rung: Rung,
    /// Its multiprocessors, or a guess: tiles are chosen by it.
    pub processors: u32,
}

impl Capabilities {
    /// `matrices` says that the adapter has cooperative matrices of the one shape that kernels use.
    pub(super) fn new(
        info: &wgpu::AdapterInfo,
        features: wgpu::Features,
        limits: wgpu::Limits,
        matrices: bool,
    ) -> Self {
        let rung = match info.device_type {
            wgpu::DeviceType::Cpu => Rung::Cpu,
            _ if matrices && can_use_matrices(info, features, &limits) => Rung::Coop,
            _ => Rung::Tiled,
        };
        Capabilities {
            name: info.name.clone(),
            backend: info.backend,
            kind: info.device_type,
            f16: features.contains(wgpu::Features::SHADER_F16),
            int64: features.contains(wgpu::Features::SHADER_INT64),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            limits,
            rung,
            processors: processors::of(&info.name),
        }
    }
}

/// What kernels on cooperative matrices need of a device.
const MATRIX_FEATURES: wgpu::Features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
    .union(wgpu::Features::SHADER_F16)
    .union(wgpu::Features::SHADER_I16)
    .union(wgpu::Features::SUBGROUP);

/// The most workgroup memory and invocations that such a kernel takes.
const MATRIX_WORKGROUP_BYTES: u32 = 48 * 1024;
const MATRIX_INVOCATIONS: u32 = 256;

/// Whether kernels on cooperative matrices run on a device, given that it has matrices of their shape: they count on
/// subgroups of 32.
fn can_use_matrices(info: &wgpu::AdapterInfo, features: wgpu::Features, limits: &wgpu::Limits) -> bool {
    info.backend == wgpu::Backend::Vulkan
        && features.contains(MATRIX_FEATURES)
        && (info.subgroup_min_size, info.subgroup_max_size) == (32, 32)
        && limits.max_compute_workgroup_storage_size >= MATRIX_WORKGROUP_BYTES
        && limits.max_compute_invocations_per_workgroup >= MATRIX_INVOCATIONS
        && limits.max_compute_workgroup_size_x >= MATRIX_INVOCATIONS
}

/// Whether an adapter multiplies f16 matrices of 16x16x16 into f32 sums: of the shapes that WGSL can name, the one that
/// NVIDIA has.
pub(super) fn has_matrices(adapter: &wgpu::Adapter) -> bool {
    use wgpu::wgt::CooperativeScalarType::{F16, F32};
    adapter.cooperative_matrix_properties().iter().any(|shape| {
        (shape.m_size, shape.n_size, shape.k_size) == (16, 16, 16)
            && (shape.ab_type, shape.cr_type) == (F16, F32)
    })
}

/// The optional features this library makes use of, of those the adapter has.
/// A device without any of them works too.
pub fn wanted_features(adapter: &wgpu::Adapter) -> wgpu::Features {
    use wgpu::Features;
    let wanted = Features::SHADER_F16 | Features::SHADER_INT64;
    adapter.features() & (wanted | Features::TIMESTAMP_QUERY | Features::PIPELINE_CACHE)
}

/// What f16 kernels on cooperative matrices need beside [`wanted_features`], or nothing where the adapter's matrices are
/// not of their shape. One of these features is experimental: a host that requests them must pass
/// [`wgpu::ExperimentalFeatures::enabled`] too. Without them other kernels run.
pub fn matrix_features(adapter: &wgpu::Adapter) -> wgpu::Features {
    let usable =
        has_matrices(adapter) && can_use_matrices(&adapter.get_info(), adapter.features(), &adapter.limits());
    if usable { MATRIX_FEATURES } else { wgpu::Features::empty() }
}

/// The limits worth asking for: the adapter's own for sizes, WebGPU's defaults suffice for all else.
pub fn wanted_limits(adapter: &wgpu::Adapter) -> wgpu::Limits {
    adapter.limits()
}
