//! The operations: one file and one shader each, forward and backward together.
//!
//! Every operation has the same five beats: check shapes, choose the variant, make the output, dispatch, push the
//! backward. Activations are `[N, H, W, C]`; sums are f32 whatever the storage type.
//!
//! Invariants: an operation never names a layer of a network, a file or a clock.

mod add;
mod conv2d;
mod group_norm;
mod linear;
mod silu;

pub use add::{add, add_into};
pub use conv2d::conv2d;
pub use group_norm::{GroupNorm, group_norm};
pub use linear::linear;
pub use silu::silu;
