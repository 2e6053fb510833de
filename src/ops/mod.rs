//! The operations: one file and one shader each, forward and backward together.
//!
//! Every operation has the same five beats: check shapes, choose the variant, make the output, dispatch, push the
//! backward. Activations are `[N, H, W, C]`; sums are f32 whatever the storage type.
//!
//! Invariants: an operation never names a layer of a network, a file or a clock.

mod add;
mod attention;
mod group_norm;
mod silu;
mod softmax;

pub use add::{add, add_into};
pub use attention::{QkvOrder, attention};
pub use group_norm::{GroupNorm, group_norm};
pub use silu::silu;
pub use softmax::softmax;
