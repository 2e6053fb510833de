//! The choice between f32 and f16 storage of activations.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, brief};
use crate::gpu::{Capabilities, Rung};

use super::DType;

/// The storage type of activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 16-bit floats, sums in 32.
    F16,
    /// The faster of the two on the device: f16 where it has cooperative matrices.
    #[default]
    Auto,
}

impl Precision {
    /// What it stands for on a device.
    pub fn on(self, device: &Capabilities) -> Precision {
        match self {
            Precision::Auto if device.rung == Rung::Coop => Precision::F16,
            Precision::Auto => Precision::F32,
            named => named,
        }
    }

    /// The type activations are stored in; [`Precision::Auto`] counts as f32 where nobody asked a device.
    pub fn dtype(self) -> DType {
        match self {
            Precision::F16 => DType::F16,
            Precision::F32 | Precision::Auto => DType::F32,
        }
    }

    /// As [`Precision::on`], refusing f16 on a device without it.
    ///
    /// # Errors
    /// [`Error::Config`] naming the device.
    pub fn checked_on(self, device: &Capabilities) -> Result<Precision> {
        match self.on(device) {
            Precision::F16 if !device.f16 => {
                Err(Error::Config(format!("{} has no f16 in shaders; use --precision f32", device.name)))
            }
            settled => Ok(settled),
        }
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Auto => "auto",
        })
    }
}

impl std::str::FromStr for Precision {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f32" => Ok(Precision::F32),
            "f16" => Ok(Precision::F16),
            "auto" => Ok(Precision::Auto),
            _ => Err(Error::Config(format!(
                "precision {text:?} is none of f32, f16, auto",
                text = brief(text)
            ))),
        }
    }
}
