//! Sampling: one denoising step is a plan; T steps replay it T times.
//!
//! Invariants: a picture is a function of (model, seed, class, guidance, steps, v, clip) alone: not of the batch it
//! was made in, nor of its neighbours. Nothing here reads a clock.

mod sampler;

pub use sampler::{Request, Sampler, SamplerOptions, to_u8};
