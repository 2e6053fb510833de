//! Parameters and layers, and what a denoising network is ([`Denoiser`]); the UNet reads like its figure.
//!
//! Invariants: this layer never names `wgpu`, a file or a schedule. Names and file layouts of parameters are those of
//! guided-diffusion's `state_dict`, so checkpoints people have can be read.

mod arena;
pub mod codec;
mod denoiser;
pub mod layers;
pub mod mlp;
mod optimised;
pub mod parameters;
mod pass;
mod takes;
pub mod text;
mod told;
pub mod unet;
pub mod weights;

pub use arena::Arena;
pub use codec::{AutoencoderKl, AutoencoderTiny, Codec, CodecAbout, Halves, KlConfig, Latents, TinyConfig};
pub use denoiser::{About, Denoiser};
pub use mlp::{Mlp, MlpConfig};
pub use optimised::{Lesson, Loss, Optimised, RecordedStep, StepRates, StepSettings, half_cosine};
pub use parameters::{Init, Layout, ParameterId, ParameterSpec, Parameters};
pub use pass::{Dropout, Pass};
pub use takes::{ClassIn, NullClass, PictureIn, PictureKind, Takes, TokensIn, VectorIn};
pub use text::{
    BertConfig, BertText, ClipText, ClipTextConfig, Encoded, Given, Sequences, TextAbout, TextEncoder,
};
pub use told::{Bank, Moves, Told};
pub use unet::{Classifier, UNet, UNetConfig};
pub use weights::Weights;
