//! The model that this library carries: what `freeguide quickstart` leaves, its weights as f16.

use crate::error::Result;
use crate::gpu::Gpu;

use super::Model;

const NAME: &str = "the embedded digits model";
const CONFIG: &str = include_str!("../../assets/digits-model/config.json");
const WEIGHTS: &[u8] = include_bytes!("../../assets/digits-model/model.safetensors");

impl Model {
    /// The embedded model of handwritten digits: 8x8 grey pictures of ten classes, for demonstrations and tests.
    ///
    /// # Errors
    /// What the device objects to.
    pub fn digits(gpu: &Gpu) -> Result<Model> {
        Model::from_bytes(gpu, NAME, CONFIG, WEIGHTS)
    }
}
