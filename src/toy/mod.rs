//! Figure 2 of the CFG paper on the device: three Gaussians in the plane, sampled with guidance from their exact
//! scores and from a small network that learnt them.
//!
//! The closed forms and the f64 simulation that the sampler is tested against are [`diffusion::toy`](crate::diffusion::toy).
//!
//! Invariants: a point is a function of (model, seed, guidance, steps, v) alone, a trained network of its options
//! alone; nothing here reads a clock.

mod denoiser;
#[cfg(not(target_arch = "wasm32"))]
mod guided;
mod measure;
mod sampler;
mod training;

pub use denoiser::ToyModel;
#[cfg(not(target_arch = "wasm32"))]
pub use guided::sample_guided;
pub use measure::{Measurement, measure};
pub use sampler::{ToySampler, ToySamplerOptions};
pub use training::{ToyNetwork, ToyTraining, ToyTrainingOptions};
