//! What a command that trains may do with what is in its folder.

use std::path::PathBuf;

use crate::error::Result;
use crate::model::Checkpoint;
use crate::train::{Start, StartingWeights};

#[derive(clap::Args)]
pub struct StartArgs {
    /// Go on with other values of these options, by the names that a refusal lists; the log shows where.
    #[arg(long, value_name = "lr,data,…", value_delimiter = ',', help_heading = "Going on")]
    accept_change: Vec<String>,
    /// Move the training that is in --out into a folder old-N there, and begin anew.
    #[arg(long, help_heading = "Going on")]
    restart: bool,
}

#[derive(clap::Args)]
pub struct FromArgs {
    /// Begin with the weights of this model, of the same network.
    #[arg(long, value_name = "DIR|FILE", help_heading = "Going on")]
    init_from: Option<PathBuf>,
}

impl StartArgs {
    /// What the library is told.
    pub fn start(&self) -> Start {
        Start { accept_changes: self.accept_change.clone(), restart: self.restart, init_from: None }
    }
}

impl FromArgs {
    /// Reads the weights to begin with.
    pub fn weights(&self) -> Result<Option<StartingWeights>> {
        let read = |path: &PathBuf| StartingWeights::of(Checkpoint::open(path, None)?);
        self.init_from.as_ref().map(read).transpose()
    }
}
