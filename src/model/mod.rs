//! A model: a network, what it was trained for, and the files that hold both.
//!
//! A folder with `model.safetensors` (guided-diffusion's names and layouts) and `config.json` (all a sampler needs), or
//! what others publish: `.pt` files and `.safetensors` of guided-diffusion's networks, whose configuration is read off
//! their tensors and a table, latent diffusion's files, whose networks have the same names, and diffusers' folders of
//! `UNet2DModel` and `UNet2DConditionModel`.
//!
//! Invariants: this layer knows networks and files; it never trains and never samples.

mod agreement;
mod architecture;
mod average;
mod checkpoint;
mod class_names;
mod codec;
mod condition;
mod conditions;
mod config;
mod convert;
mod diffusers;
mod digits;
mod flags;
#[cfg(test)]
pub(crate) mod golden;
mod imagenet;
mod kept;
mod ldm;
mod locate;
#[expect(clippy::module_inception, reason = "the module of the one type that the folder is for")]
mod model;
mod network;
mod open;
mod pipeline;
mod published;
mod renamed;
mod sequence;
mod tensor_file;
#[cfg(test)]
mod tests;
mod text;
mod trained_rows;
mod values;
mod weights_kind;

pub use architecture::{Architecture, Kind};
pub use average::Average;
pub use checkpoint::{Checkpoint, Found};
pub use class_names::check_same_classes;
#[cfg(not(target_arch = "wasm32"))]
pub use codec::Coded;
pub use codec::{CodecCheckpoint, CodecChoice, CodecConfig, CodecModel, CodecPlan};
pub use condition::Condition;
pub use conditions::Conditions;
pub use config::{ModelConfig, SamplingDefaults, SchedulerConfig};
pub use convert::{Format, convert, not_in_guided_diffusion};
pub use flags::Flags;
pub use kept::{Kept, KeptVector};
pub use locate::{Choice, named_again};
pub use model::{ClassifierModel, Model};
pub use pipeline::check_prompted;
pub use published::{Heads, PUBLISHED, Published};
pub use sequence::Sequence;
pub use text::{SentenceModel, TextCheckpoint, TextFamily, TextModel, TextStates};
pub use trained_rows::TrainedRows;
pub use values::{load_values, model_tensors, write_model, write_weights};
pub use weights_kind::WeightsKind;
