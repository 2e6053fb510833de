//! How every command opens a model.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::gpu::Gpu;
use crate::model::{Average, Checkpoint, Choice, Model};
use crate::tensor::DType;

use super::notes::{Notes, file_name, note};

/// Which weights of a model, and what they are, where its place does not say it.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ModelArgs {
    /// Which of a training's weights: the average of this rate, or `raw`, those of the last step [default: the first average].
    #[arg(long, value_name = "raw|RATE", help_heading = "Model")]
    average: Option<Average>,
    /// Which network of a file that holds several, by its name there, as `ema`; FILE#ema says the same [default: the only
    /// one, or the only average].
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    network: Option<String>,
    /// A JSON file of guided-diffusion's flags, for a .pt file that is not published.
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    config: Option<PathBuf>,
    /// Where the null class is in a network of K + 1 rows of classes: `last`, as in DiT's checkpoints. `convert` remembers it.
    #[arg(long, value_name = "last", value_parser = ["last"], help_heading = "Model")]
    null_class: Option<String>,
}

impl ModelArgs {
    /// What is asked for.
    pub fn choice(&self) -> Choice {
        Choice {
            flags: self.config.clone(),
            average: self.average,
            network: self.network.clone(),
            null_class_last: self.null_class.is_some(),
        }
    }

    /// What of it decides pictures, in the words of the options.
    pub fn notes(&self) -> Notes {
        let ModelArgs { average, network, config, null_class } = self;
        let mut notes = Notes::new();
        notes.extend(average.iter().map(|average| note("average", average)));
        notes.extend(network.iter().map(|network| note("network", network)));
        notes.extend(config.iter().map(|path| note("config", file_name(path))));
        notes.extend(null_class.iter().map(|row| note("null_class", row)));
        notes
    }

    /// Opens what `path` names, and tells what was chosen without being asked for.
    pub fn checkpoint(&self, path: &Path) -> Result<Checkpoint> {
        let checkpoint = Checkpoint::choose(path, &self.choice())?;
        checkpoint.notes.iter().for_each(|note| eprintln!("model: {note}"));
        Ok(checkpoint)
    }

    /// The same with its weights on a device, for evaluations in f32.
    pub fn model(&self, gpu: &Gpu, path: &Path) -> Result<Model> {
        self.model_in(gpu, path, DType::F32)
    }

    /// The same for evaluations with activations of `dtype`.
    pub fn model_in(&self, gpu: &Gpu, path: &Path, dtype: DType) -> Result<Model> {
        Model::of_in(gpu, self.checkpoint(path)?, dtype)
    }
}

/// The model that [`other`] opens.
pub fn other_model(gpu: &Gpu, path: &Path, dtype: DType) -> Result<Model> {
    ModelArgs::default().model_in(gpu, path, dtype)
}

/// A second model that a command takes, opened in the usual way; FILE#NETWORK and DIR#AVERAGE choose.
pub fn other(path: &Path) -> Result<Checkpoint> {
    ModelArgs::default().checkpoint(path)
}
