//! A sampler inside somebody else's program: their device, their queue, their command encoder, their texture.
//!
//! A [`Session`] records denoising steps, or slices of one under a budget of milliseconds, into an encoder of the host and
//! draws the picture as it forms into a texture of the host. What the host submits, and when, is its own business.
//!
//! The crate's front page shows one in use.
//!
//! Invariants: nothing here submits, polls, waits or installs a callback on the host's device; whatever a step needs
//! (class, guidance, seed) travels in the host's encoder, so any number of calls in one encoder are in order. Every session
//! has transient memory of its own: many may stand half way through a step. A picture is the one that
//! [`Sampler`](crate::sample::Sampler) makes of the same request, with any sampler, network and guiders that it has, however
//! its steps were sliced. A clock is read for a
//! budget on devices without timestamps, and for nothing else.

mod controls;
mod inside;
mod options;
mod pace;
mod painter;
mod picture;
mod program;
#[cfg(test)]
mod samplers;
#[expect(clippy::module_inception, reason = "the module of the one type that the folder is for")]
mod session;
mod slices;
#[cfg(test)]
mod tests;
mod timer;
mod wanted;

pub use options::{Progress, Render, Request, SessionOptions, Show};
pub use picture::PictureLater;
pub use session::Session;
