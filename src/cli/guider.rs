//! Guiders on the command line: the model that they name, and the table of them.

use crate::diffusion::Guiders;
use crate::diffusion::guiders::{Against, GUIDERS};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::model::Model;
use crate::tensor::DType;

use super::model_args;

/// The weaker model that guiders lead away from, loaded for evaluations with activations of `dtype`.
pub fn weaker(gpu: &Gpu, guiders: &Guiders, dtype: DType) -> Result<Option<Model>> {
    match guiders.against() {
        Against::WeakModel(path) => model_args::other_model(gpu, path.as_ref(), dtype).map(Some),
        Against::Null | Against::Class(_) | Against::Only(_) => Ok(None),
    }
}

/// Every guider, for the end of a help text.
pub fn table() -> String {
    let entries = GUIDERS.iter().map(|entry| format!("  {}\n          {}\n", entry.usage, entry.what));
    format!("Guiders:\n{}", entries.collect::<String>())
}
