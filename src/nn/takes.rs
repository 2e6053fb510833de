//! What a network takes beside its latent: the parts of a condition, each with what stands for "nothing", and the guidance
//! weight.

use serde::{Deserialize, Serialize};

/// What the class that stands for "no condition" is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NullClass {
    /// A learned row behind those of the classes.
    #[default]
    Learned,
    /// The zero vector.
    Zero,
    /// There is none: the network was trained with its class always given.
    Absent,
}

/// The parts of a condition that a network takes; the default is a network that takes none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Takes {
    /// A class of its own table.
    pub class: Option<ClassIn>,
    /// A sequence of vectors, such as a text encoder makes: read by cross-attention.
    pub tokens: Option<TokensIn>,
    /// A vector of numbers.
    pub vector: Option<VectorIn>,
    /// A picture beside the latent, such as the small one that an upsampler enlarges.
    pub picture: Option<PictureIn>,
    /// Of a distilled network, which is told the guidance weight w: the least and the largest that it was trained for.
    pub guidance: Option<[f64; 2]>,
    /// Whether it reads the sampler's own rows ([`Told::moves`](super::Told::moves)) instead of the time, as closed forms do
    /// that need α and σ. Only ancestral steps in continuous time have such rows.
    pub moves: bool,
}

/// A class: a row of the network's own table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassIn {
    /// Classes, the null class not counted.
    pub classes: usize,
    /// What "no class" is. Whatever it is, it is asked for by the row behind the last class.
    pub null: NullClass,
    /// Whether [`Told::annealing`](super::Told::annealing) is put on the class's embedding.
    pub anneals: bool,
}

/// Tokens; "nothing" is a sequence like any other (a text encoder's own of the empty text), or zeros, which is what a row past
/// their bank gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokensIn {
    /// D: the numbers of a token. How many tokens there are is the sequence's own affair.
    pub width: usize,
}

/// A vector; "nothing" is all zeros, which is what a row past its bank gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorIn {
    /// D: its numbers.
    pub width: usize,
}

/// A picture `[N, H', W', C']` that is concatenated behind the sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureIn {
    /// C'.
    pub channels: usize,
    /// Which extent it has.
    pub kind: PictureKind,
}

/// How a picture beside the latent goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureKind {
    /// A small one, a whole fraction of the sample's height and width: an upsampler's.
    Small,
    /// One of the sample's own extent: of inpainting the mask (1 where something is to be made) and the masked latents.
    Beside,
}

impl ClassIn {
    /// So many classes and a learned null class behind them, and no annealing.
    pub fn of(classes: usize) -> Self {
        ClassIn { classes, null: NullClass::Learned, anneals: false }
    }
}

impl Takes {
    /// Classes; 0 where it takes none.
    pub fn classes(&self) -> usize {
        self.class.map_or(0, |class| class.classes)
    }

    /// Numbers of its vector; 0 where it takes none.
    pub fn vector_width(&self) -> usize {
        self.vector.map_or(0, |vector| vector.width)
    }

    /// The row that stands for "no class": behind the classes.
    pub fn null_row(&self) -> u32 {
        self.classes() as u32
    }
}
