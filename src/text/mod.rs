//! Texts as the numbers of their tokens, and back.
//!
//! Invariants: this layer knows no GPU, no network and no tensor; it reads a tokenizer's own files and nothing else. What a
//! token's number means to a network is the affair of [`nn::text`](crate::nn::text).

mod added;
mod bpe;
mod clip;
mod folder;
mod shipped;
mod tokens;
mod wordpiece;

pub use clip::ClipTokenizer;
pub use tokens::Tokens;
pub use wordpiece::WordPiece;
