//! Sixteen bytes an invocation: how operations that do little more than move memory come near the speed of memory.
//! Four f32 or eight f16 are one load and one store (`shaders/pack_f32.wgsl`); 256 invocations are a workgroup, because a
//! GPU starts about one workgroup a clock.

use crate::gpu::{Kernel, Rung};
use crate::tensor::{Context, DType};

/// Invocations of a workgroup of a kernel that takes packs.
pub(super) const WORKGROUP: usize = 256;

/// Elements of a pack.
pub(super) fn lanes(dtype: DType) -> usize {
    16 / dtype.bytes()
}

/// A kernel chosen, and what one of its invocations takes.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    pub kernel: &'static Kernel,
    /// Elements an invocation.
    pub lanes: usize,
    /// Invocations a workgroup.
    pub size: usize,
}

/// The kernel for packs where each of `extents` is made of whole ones; the one for single elements, 64 of its invocations
/// a workgroup, elsewhere and on the naive rung.
pub(super) fn choose(
    cx: &Context,
    dtype: DType,
    extents: &[usize],
    packed: &'static Kernel,
    scalar: &'static Kernel,
) -> Choice {
    let lanes = lanes(dtype);
    if cx.rung() != Rung::Naive && extents.iter().all(|extent| extent.is_multiple_of(lanes)) {
        return Choice { kernel: packed, lanes, size: WORKGROUP };
    }
    Choice { kernel: scalar, lanes: 1, size: 64 }
}

impl Choice {
    /// For the label of a dispatch.
    pub fn variant(&self, pass: &str) -> String {
        format!("x{} {pass}", self.lanes).trim_end().to_owned()
    }
}
