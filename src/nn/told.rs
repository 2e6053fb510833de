//! What the recording of a network reads beside the latent and its time.

use crate::ops::AnnealCondition;
use crate::tensor::Tensor;

/// What a network is told, N latents under K conditions each. A part that its [`Takes`](super::Takes) does not have is `None`,
/// one that it has is there.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// K.
    pub conditions: usize,
    /// `[K·N]` u32: rows of the network's own table, the first condition of all latents first.
    pub class: Option<&'a Tensor>,
    /// Sequences of tokens, `[K·N]` rows of `[R, L, D]`.
    pub tokens: Option<Bank<'a>>,
    /// What [`Denoiser::prepare`](super::Denoiser::prepare) made of the values of `tokens`; empty where it is made in line.
    pub prepared: &'a [Tensor],
    /// Vectors, `[K·N]` rows of `[R, D]`.
    pub vector: Option<Bank<'a>>,
    /// `[N, H', W', C']` f32, the same under every condition: the small pictures of an upsampler in [-1, 1], or what a network
    /// takes beside its samples.
    pub picture: Option<&'a Tensor>,
    /// `[N]` f32: w, of a distilled network.
    pub guidance: Option<&'a Tensor>,
    /// Noise on the class's embedding.
    pub annealing: Option<AnnealCondition<'a>>,
    /// The sampler's moves, for closed forms.
    pub moves: Option<Moves<'a>>,
}

/// Values that conditions are rows of, gathered where a network takes them in
/// ([`ops::embedding`](crate::ops::embedding)).
#[derive(Clone, Copy, Debug)]
pub struct Bank<'a> {
    /// `[K·N]` u32, the first condition of all latents first; past the last row zeros are gathered, which say "nothing".
    pub rows: &'a Tensor,
    /// `[R, D]` f32, of tokens `[R, L, D]`.
    pub values: &'a Tensor,
}

/// The moves of a sampler and the one that is under way, as [`ops::mixture_score`](crate::ops::mixture_score) and other
/// operations of closed forms read them.
#[derive(Clone, Copy, Debug)]
pub struct Moves<'a> {
    /// `[T, 12]` words of [`StepScalars`](crate::diffusion::StepScalars).
    pub rows: &'a Tensor,
    /// `[1]` u32: the move.
    pub counter: &'a Tensor,
}

impl Default for Told<'_> {
    /// One condition of no part.
    fn default() -> Self {
        Told {
            conditions: 1,
            class: None,
            tokens: None,
            prepared: &[],
            vector: None,
            picture: None,
            guidance: None,
            annealing: None,
            moves: None,
        }
    }
}
