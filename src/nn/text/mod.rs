//! Text encoders: from the vectors of tokens to what a denoiser is told.
//!
//! A table of tokens is too large to bind on WebGPU's default limits (145 MiB in CLIP-L), and a prompt needs 77 rows of it. So it
//! is no parameter here: its rows are looked up on the host ([`TextModel`](crate::model::TextModel)) and come as values.

mod bert;
mod clip;

pub use bert::{BertConfig, BertText};
pub use clip::{ClipText, ClipTextConfig, Given};

use crate::error::{Error, Result};
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
    /// [`Error::Shape`] for texts of another width, or longer than its places; whatever operations return.
    fn record(
        &self,
        cx: &mut Context,
        weights: &Weights,
        texts: Sequences<'_>,
        pass: &Pass<'_>,
    ) -> Result<Encoded>;
}

/// The places of all tokens of `[R, L, D]`, for the rows of a table of positions.
fn places_of(about: &TextAbout, tokens: &Tensor) -> Result<Vec<u32>> {
    let &[texts, length, width] = tokens.shape() else {
        let what = format!("expected tokens [R, L, D], got {:?}", tokens.shape());
        return Err(Error::shape("text encoder", what));
    };
    let TextAbout { places, width: expected, .. } = *about;
    if width != expected || length > places || length == 0 || texts == 0 {
        let what = format!(
            "takes 1 to {places} tokens of {expected} numbers, got {texts} texts of {length} of {width}"
        );
        return Err(Error::shape("text encoder", what));
    }
    Ok((0..texts).flat_map(|_| 0..length as u32).collect())
}

/// Checks the sizes of a transformer, the further ones by their names.
fn check_sizes(width: usize, heads: usize, eps: f32, sizes: &[(&str, usize)]) -> Result<()> {
    let bad = |what: String| Err(Error::Config(format!("a text encoder {what}")));
    for (name, size) in [("width", width), ("heads", heads)].iter().chain(sizes) {
        if !(1..=1 << 20).contains(size) {
            return bad(format!("with {name} of {size}"));
        }
    }
    if !width.is_multiple_of(heads) {
        return bad(format!("of width {width} is not divided by its {heads} heads"));
    }
    if !(eps.is_finite() && eps > 0.0) {
        return bad(format!("whose layer norms add {eps}"));
    }
    Ok(())
}
