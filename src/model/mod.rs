//! A model: a network, what it was trained for, and the files that hold both.
//!
//! A folder with `model.safetensors` (guided-diffusion's names and layouts) and `config.json` (all a sampler needs).
//!
//! Invariants: this layer knows networks and files; it never trains and never samples.

mod checkpoint;
mod config;

pub use checkpoint::{Model, load_values, model_tensors, read_config, write_model};
pub use config::{ModelConfig, SamplingDefaults, SchedulerConfig};
