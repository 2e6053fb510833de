//! Which device a command runs on.

use crate::error::Result;
use crate::gpu::{DeviceChoice, Gpu};

use super::compiled;

/// Which device to use.
#[derive(clap::Args, Clone, Debug)]
pub struct DeviceArgs {
    /// The adapter to run on: a part of its name, or its number in `freeguide devices`.
    #[arg(long, value_name = "NAME|INDEX", help_heading = "Device")]
    pub device: Option<String>,
}

impl DeviceArgs {
    /// Opens it and says which it is.
    pub fn open(&self) -> Result<Gpu> {
        let choice = match &self.device {
            Some(text) => text.parse().expect("every text is a choice"),
            None => DeviceChoice::Auto,
        };
        let gpu = Gpu::new_blocking(&choice)?;
        compiled::load(&gpu);
        let capabilities = gpu.capabilities();
        eprintln!(
            "device: {} ({:?}), {} kernels",
            capabilities.name, capabilities.backend, capabilities.rung
        );
        Ok(gpu)
    }
}
