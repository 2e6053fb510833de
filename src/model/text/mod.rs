//! Text encoders with their tokenizers: which files they are in, under which names, and which of their states a model wants.
//!
//! What a model wants differs from family to family and looks alike: see [`TextFamily`].

mod checkpoint;
mod config;
mod family;
#[cfg(test)]
mod golden;
mod locate;
mod model;
mod names;
mod sentence;
#[cfg(test)]
mod sentence_golden;
mod source;
mod states;
mod table;

pub use checkpoint::TextCheckpoint;
pub use family::TextFamily;
pub use model::TextModel;
pub use sentence::SentenceModel;
pub use states::TextStates;
