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
mod source;
mod states;

pub use checkpoint::TextCheckpoint;
pub use family::TextFamily;
pub use model::TextModel;
pub use states::TextStates;
