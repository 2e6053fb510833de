//! Random numbers that are functions of what they are for: (seed, element, step or image, stream).
//!
//! This layer knows the counter-based generator, its streams, and how a word becomes a uniform or a normal number.
//! It is the host's twin of `shaders/philox.wgsl` and `shaders/normal.wgsl`, bit for bit.
//!
//! Invariant: nothing here has a state, reads a clock, or calls a float function whose result may differ between
//! machines; and nothing here knows what the numbers are used for, be it an image, a schedule or a layer.

mod init;
mod normal;
mod philox;

pub use init::{init_normal, init_uniform};
pub use normal::{fill_normal, normal, normal_table};
pub use philox::{Stream, dropout_words, philox4x32_10, uniform, words};
