//! freeguide: train and sample class-conditional diffusion models with classifier-free guidance on any GPU.

pub mod autograd;
#[cfg(feature = "cli")]
pub mod cli;
pub mod data;
pub mod diffusion;
pub mod error;
pub mod gpu;
pub mod io;
pub mod model;
pub mod nn;
pub mod ops;
pub mod random;
pub mod sample;
pub mod tensor;
#[cfg(test)]
mod testing;

pub mod toy;
pub mod train;

pub use error::{Error, Result};
pub use wgpu;
