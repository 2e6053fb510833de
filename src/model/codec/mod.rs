//! Autoencoders of latents: which files they are in, under which names, and with which factors.
//!
//! Factors differ from family to family and look alike: pictures of a wrong one are pictures. Where a file does not say its own,
//! what was assumed is in [`CodecCheckpoint::notes`].

mod checkpoint;
#[cfg(not(target_arch = "wasm32"))]
mod coding;
mod config;
#[cfg(test)]
mod golden;
mod infer;
mod locate;
mod model;
mod names;
mod plan;
mod source;
#[cfg(test)]
mod traps;

pub use checkpoint::{CodecCheckpoint, CodecChoice};
#[cfg(not(target_arch = "wasm32"))]
pub use coding::Coded;
pub use config::CodecConfig;
pub use model::CodecModel;
pub use plan::CodecPlan;
