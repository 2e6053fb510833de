//! Text encoders: from the vectors of tokens to what a denoiser is told.
//!
//! A table of tokens is too large to bind on WebGPU's default limits (145 MiB in CLIP-L), and a prompt needs 77 rows of it. So it
//! is no parameter here: its rows are looked up on the host ([`TextModel`](crate::model::TextModel)) and come as values.

mod clip;

pub use clip::{ClipText, ClipTextConfig, Given};

use crate::error::Result;
use crate::tensor::{Context, Tensor};

use super::parameters::Parameters;
use super::pass::Pass;
use super::weights::Weights;

/// What a text encoder takes and gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextAbout {
    /// The most tokens of a text, beginning and end among them.
    pub places: usize,
    /// D: numbers of a token, in and out.
    pub width: usize,
    /// P: numbers of the vector that stands for the whole text, where one is given.
    pub pooled: Option<usize>,
}

/// Texts as the recording of an encoder reads them.
#[derive(Clone, Copy, Debug)]
pub struct Sequences<'a> {
    /// `[R, L, D]` f32: rows of the table of tokens, of R texts of L tokens, padding included.
    pub tokens: &'a Tensor,
    /// `[R]` u32: of each text the token whose state stands for it, counted over all of `[R·L]`. Nothing where the encoder
    /// gives no pooled vector.
    pub ends: Option<&'a Tensor>,
}

/// What an encoder makes of texts.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// `[R, L, D]` f32.
    pub states: Tensor,
    /// `[R, P]` f32.
    pub pooled: Option<Tensor>,
}

/// An encoder of texts. It is asked while plans are recorded and never while they run.
pub trait TextEncoder: Send + Sync {
    /// What it takes and gives. It never changes.
    fn about(&self) -> &TextAbout;

    /// The declarations of its parameters, the table of tokens left out.
    fn parameters(&self) -> &Parameters;

    /// Records what it makes of texts.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for texts of another width, or longer than its places; whatever operations return.
    fn record(
        &self,
        cx: &mut Context,
        weights: &Weights,
        texts: Sequences<'_>,
        pass: &Pass<'_>,
    ) -> Result<Encoded>;
}
