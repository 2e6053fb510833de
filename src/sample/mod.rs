//! Sampling: one denoising step is a plan; T steps replay it T times.
//!
//! Invariants: a picture is a function of (model, seed, class, guidance, steps, v, clip) alone: not of the batch it
//! was made in, nor of its neighbours. Nothing here reads a clock.

#[cfg(not(target_arch = "wasm32"))]
mod batches;
mod checks;
mod denoiser;
#[cfg(not(target_arch = "wasm32"))]
mod from_classes;
#[cfg(test)]
mod golden_loops;
mod guide;
mod guided_step;
mod guiding;
mod networks;
#[cfg(not(target_arch = "wasm32"))]
mod nll;
mod options;
mod sampler;
mod slots;
mod step;
#[cfg(not(target_arch = "wasm32"))]
mod upsampling;
mod walk;

#[cfg(not(target_arch = "wasm32"))]
pub use from_classes::FromClassesSampler;
pub use guide::{ClassifierGuide, Guide, GuideInput, log_likelihood_gradient};
pub use guiding::GuidedSampler;
pub use networks::Networks;
#[cfg(not(target_arch = "wasm32"))]
pub use nll::{Nll, NllOptions, NllReport};
pub use options::{Request, SamplerOptions};
pub use sampler::{Sampler, to_u8};
#[cfg(not(target_arch = "wasm32"))]
pub use upsampling::Upsampling;
