//! freeguide: train and sample class-conditional diffusion models with classifier-free guidance on any GPU.

pub mod data;
pub mod diffusion;
pub mod error;
pub mod io;
pub mod random;

pub use error::{Error, Result};
