//! Train and sample class-conditional diffusion models with classifier-free guidance, on any GPU.
//!
//! Kernels are hand-written WGSL run through [`wgpu`]: Vulkan, Metal, DX12, and WebGPU's default limits suffice.
//! The continuous-time formulation, the joint training with label dropout and the guided sampler are those of
//! Ho & Salimans, *Classifier-Free Diffusion Guidance* (arXiv 2207.12598); the network is ADM's UNet (arXiv 2105.05233).
//!
//! In a graphics program, on its device and in its frames, until the picture is done:
//!
//! ```no_run
//! # use freeguide::{gpu::Gpu, model::Model, session::{Request, Session, SessionOptions}, wgpu};
//! # fn host(device: wgpu::Device, queue: wgpu::Queue, view: wgpu::TextureView) -> freeguide::Result<()> {
//! let model = Model::digits(&Gpu::from_device(&device, &queue))?; // or Model::load(&gpu, "out/quickstart".as_ref())
//! let options = SessionOptions { budget_ms: Some(8.0), ..SessionOptions::default() };
//! let mut session = Session::new(&device, &queue, &model, options)?;
//! session.start(&Request { condition: Some(7).into(), seed: 1, ..Request::default() })?;
//! while !session.progress().finished {
//!     let mut encoder = device.create_command_encoder(&Default::default());
//!     session.step(&mut encoder)?; // a slice of a denoising step: at most 8 ms of GPU time
//!     session.render_to(&mut encoder, &view)?;
//!     queue.submit([encoder.finish()]);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Headless, batch by batch, see [`sample`]; to train, [`train`]. Programs that run are in `examples/`.
//!
//! The layers, each knowing only those below it: [`train`], [`sample`] and [`session`] (data flows), [`model`] (files of networks),
//! [`nn`] (parameters, layers, the UNet), [`autograd`], [`ops`] (one file and one shader each), [`tensor`] (handles),
//! [`gpu`] (device, recording, plan). Beside them [`diffusion`] (formulas in f64), [`random`],
//! [`data`], [`io`] and [`text`] (tokenizers).

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
pub mod session;
pub mod shape;
mod sizes;
pub mod tensor;
#[cfg(test)]
mod testing;
pub mod text;
pub mod toy;
#[cfg(not(target_arch = "wasm32"))]
pub mod train;

// For `examples/egui.rs`, which is a part of the program too.
#[cfg(feature = "demo")]
extern crate self as freeguide;

pub use error::{Error, Result};
pub use wgpu;

/// Compiles the README's examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
