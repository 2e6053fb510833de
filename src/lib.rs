//! Train and sample class-conditional diffusion models with classifier-free guidance, on any GPU.
//!
//! Kernels are hand-written WGSL run through [`wgpu`]: Vulkan, Metal, DX12, and WebGPU's default limits suffice.
//! The continuous-time formulation, the joint training with label dropout and the guided sampler are those of
//! Ho & Salimans, *Classifier-Free Diffusion Guidance* (arXiv 2207.12598); the network is ADM's UNet (arXiv 2105.05233).
//!
//! Four pictures of the class 7, guided with w = 2, from a model that `freeguide quickstart` trained:
//!
//! ```no_run
//! use freeguide::{diffusion::Guidance, gpu::{DeviceChoice, Gpu}, io::write_png, model::Model};
//! use freeguide::sample::{Request, Sampler, SamplerOptions};
//!
//! fn main() -> freeguide::Result<()> {
//!     let gpu = Gpu::new_blocking(&DeviceChoice::Auto)?; // or Gpu::from_device(&device, &queue)
//!     let model = Model::load(&gpu, "out/quickstart".as_ref())?;
//!     let sampler = Sampler::of(&gpu, &model, SamplerOptions::of(&model.config, 4)?)?;
//!     let sevens: Vec<Request> = (0..4).map(|seed| Request { class: Some(7), seed }).collect();
//!     let images = sampler.sample(&sevens, Guidance::from_weight(2.0)?, || Ok(()))?;
//!     for (seed, image) in images.iter().enumerate() {
//!         write_png(format!("seven-{seed}.png"), image, &[])?;
//!     }
//!     Ok(())
//! }
//! ```
//!
//! The layers, each knowing only those below it: [`train`] and [`sample`] (data flows), [`model`] (files of networks),
//! [`nn`] (parameters, layers, the UNet), [`autograd`], [`ops`] (one file and one shader each), [`tensor`] (handles),
//! [`gpu`] (device, recording, plan). Beside them [`diffusion`] (formulas in f64), [`random`], [`data`] and [`io`].

pub mod autograd;
#[cfg(feature = "cli")]
pub mod cli;
pub mod data;
pub mod diffusion;
pub mod error;
#[cfg(feature = "evaluation")]
pub mod eval;
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

/// Compiles the README's examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
