//! A checkpoint that was opened, as data: which file, which network in it, which configuration, and why.

use std::path::PathBuf;

use crate::error::Result;
use crate::io::TensorSource;
use crate::nn::{Classifier, Parameters, UNet};

use super::architecture::Kind;
use super::config::ModelConfig;
use super::weights_kind::WeightsKind;

/// An opened checkpoint: its tensors, and the configuration of its network. No weight has been read.
pub struct Checkpoint {
    /// The tensors, under guided-diffusion's names.
    pub source: Box<dyn TensorSource>,
    /// What stands before each name.
    pub prefix: String,
    /// The configuration.
    pub config: ModelConfig,
    /// What was taken for granted or chosen without being asked for, a sentence each.
    pub notes: Vec<String>,
    /// Where it was found.
    pub found: Found,
}

/// Which file, which network in it and which configuration a checkpoint is, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The file of weights, or the index of several.
    pub file: PathBuf,
    /// Why this file.
    pub file_why: String,
    /// The network's name in the file, where that holds several.
    pub network: Option<String>,
    /// Why this network.
    pub network_why: String,
    /// What the configuration was taken from.
    pub configuration: String,
    /// Which of a training's weights these are, where it is known.
    pub weights: Option<WeightsKind>,
}

impl Found {
    /// The file's name, and the network's behind a `#` where the file holds several.
    pub fn name(&self) -> String {
        let file = self.file.file_name().unwrap_or(self.file.as_os_str()).to_string_lossy();
        match &self.network {
            Some(network) => format!("{file}#{network}"),
            None => file.into_owned(),
        }
    }
}

impl Checkpoint {
    /// What the network is for.
    pub fn kind(&self) -> Kind {
        self.config.kind()
    }

    /// The network's parameters.
    ///
    /// # Errors
    /// As [`crate::nn::UNetConfig::check`].
    pub fn parameters(&self) -> Result<Parameters> {
        Ok(match self.kind() {
            Kind::UNet => UNet::new(&self.config.unet)?.parameters().clone(),
            Kind::Classifier => Classifier::new(&self.config.unet)?.parameters().clone(),
        })
    }
}
