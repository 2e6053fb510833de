//! freeguide: train and sample class-conditional diffusion models with classifier-free guidance on any GPU.

pub mod autograd;
pub mod data;
pub mod diffusion;
pub mod error;
pub mod gpu;
pub mod io;
pub mod ops;
pub mod random;
pub mod tensor;
#[cfg(test)]
mod testing;

pub use error::{Error, Result};
pub use wgpu;
