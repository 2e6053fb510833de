//! What a diffusion computes: schedules, posteriors, guidance, clips, and a toy with closed forms. Formulas only.
//!
//! All of it is f64 on the host; the kernels receive per-step and per-sample numbers in f32. Section and equation
//! numbers are those of Ho & Salimans, "Classifier-Free Diffusion Guidance", arXiv 2207.12598 (CFG).
//!
//! Names: `log_snr` is λ = log(α²/σ²), never called t or σ; `alpha`, `sigma` with α² + σ² = 1 (on the straight path of a
//! [`FlowSchedule`] α + σ = 1); `guidance_weight` is
//! the paper's w, `guidance_scale` is 1 + w.
//!
//! Invariant: nothing here knows a GPU, a layer of a network, a tensor or a file.

pub mod betas;
pub mod bound;
pub mod class_posterior;
pub mod clip;
pub mod condition_dropout;
pub mod discrete;
pub mod distillation;
pub mod flow;
pub mod guidance;
pub mod guiders;
pub mod moves;
pub mod posterior;
pub mod prediction;
pub mod reference;
pub mod respacing;
pub mod schedule;
pub mod sigma;
pub mod time_draws;
pub mod toy;
pub mod train_draws;

pub use betas::{BetaSchedule, zero_terminal_snr};
pub use bound::{LossRow, prior_bits};
pub use class_posterior::ClassPosterior;
pub use clip::Clip;
pub use condition_dropout::{ConditionDropout, Dropped};
pub use discrete::DiscreteSchedule;
pub use distillation::{TeacherRow, guidance_weight};
pub use flow::FlowSchedule;
pub use guidance::{Evaluations, Guidance};
pub use guiders::{Guider, Guiders};
pub use moves::{Denoise, Level, LevelSource, Method, Move, Process, SamplerKind, Spacing, StepRow};
pub use posterior::{StepCoefficients, StepScalars, ancestral_steps, ancestral_steps_through};
pub use prediction::{Prediction, TargetFactors, Variance};
pub use reference::guided_step;
pub use respacing::Respacing;
pub use schedule::ContinuousSchedule;
pub use sigma::SigmaSchedule;
pub use time_draws::{LossHistory, TimeSampler};
pub use train_draws::{SampleDraw, TrainDraws};
