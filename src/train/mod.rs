//! Joint training of a conditional and an unconditional model in one network (CFG, Algorithm 1).
//!
//! Read `trainer.rs` first: it is the whole flow on one page.
//!
//! Invariants: every random number is a function of (seed, image index); nothing is read back from the device but
//! losses, with a fixed lag; what has been saved can be resumed byte for byte.

mod distill;
mod draws;
mod folder;
mod importance;
mod inputs;
mod lesson;
mod log;
mod noise_scale;
mod objective;
mod options;
mod presets;
mod settle;
mod start;
mod state;
mod step;
mod trained;
mod trainer;
mod vectors;

pub use distill::Teacher;
pub use folder::Found;
pub use importance::Importance;
pub use log::{LogEvent, StepRecord, events, records};
pub use noise_scale::gradient_noise_scale;
pub use objective::{LossKind, Objective, TrainSchedule};
pub use options::{Change, Distillation, TrainOptions};
pub use presets::{PRESETS, Preset};
pub use start::{Start, StartingWeights};
pub use state::TrainState;
pub use step::{StepCost, TrainStep};
pub use trained::Trained;
pub use trainer::{Event, Outcome, Trainer};
