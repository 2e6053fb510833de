//! Sampling: one denoising step is a plan; T steps replay it T times.
//!
//! Invariants: a picture is a function of (model, seed, class, guidance, steps, v, clip) alone: not of the batch it
//! was made in, nor of its neighbours. Nothing here reads a clock.

#[cfg(not(target_arch = "wasm32"))]
mod batches;
mod checks;
#[cfg(test)]
mod golden_loops;
mod guide;
mod network;
mod networks;
#[cfg(not(target_arch = "wasm32"))]
mod nll;
#[cfg(not(target_arch = "wasm32"))]
mod noise;
mod options;
mod other;
mod run;
mod sampler;
mod settled;
pub(crate) mod slots;
mod step;
#[cfg(not(target_arch = "wasm32"))]
mod upsampling;
mod walk;

pub use crate::data::to_u8;
pub use checks::check_weaker;
pub use guide::{ClassifierGuide, Guide, GuideInput, log_likelihood_gradient};
pub(crate) use network::Network;
pub(crate) use networks::Fixed;
pub use networks::Networks;
#[cfg(not(target_arch = "wasm32"))]
pub use nll::{Nll, NllOptions, NllReport};
#[cfg(not(target_arch = "wasm32"))]
pub use noise::noise_of;
pub use options::{Request, SamplerOptions, Uncond};
pub(crate) use other::derived;
pub use run::Run;
pub use sampler::Sampler;
pub(crate) use settled::Settled;
pub(crate) use slots::{Slots, has_momentum};
pub(crate) use step::{Combine, Evaluation, StepRecorder, Which};
#[cfg(not(target_arch = "wasm32"))]
pub use upsampling::Upsampling;
pub(crate) use walk::{Form, ROW, Walk};
