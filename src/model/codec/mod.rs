//! Autoencoders of latents: which files they are in, under which names, and with which factors.
//!
//! Factors differ from family to family and look alike: pictures of a wrong one are pictures. Where a file does not say its own,
//! what was assumed is in [`CodecCheckpoint::notes`].

mod checkpoint;
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
pub use config::CodecConfig;
pub use model::{CodecModel, Coded};
pub use plan::CodecPlan;
