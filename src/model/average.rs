//! Which of a training's weights a file holds: a moving average of them at some rate, or the weights themselves.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::io::SafetensorsFile;

/// The note of a file of weights that says which they are: `0.9999`, or `raw`.
pub(super) const NOTE: &str = "ema_rate";

/// An average of the weights, or the weights as the last step left them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Average {
    /// No average.
    Raw,
    /// The rate of a moving average, below 1.
    Rate(f64),
}

impl Average {
    /// What a file's notes say, and where they say nothing its name: earlier versions told averages by names alone.
    pub(super) fn of_file(path: &Path, note: Option<&str>) -> Option<Average> {
        if let Some(average) = note.and_then(|note| note.parse().ok()) {
            return Some(average);
        }
        let stem = path.file_name()?.to_str()?.strip_suffix(".safetensors")?;
        match stem.strip_prefix("model-")? {
            "raw" => Some(Average::Raw),
            rest => rest.strip_prefix("ema-")?.parse().ok(),
        }
    }

    /// As [`Average::of_file`], of a file that has not been opened; nothing of one that cannot be.
    pub(super) fn at(path: &Path) -> Option<Average> {
        let file = SafetensorsFile::open(path).ok();
        let note = file.as_ref().and_then(|file| file.metadata().get(NOTE));
        Average::of_file(path, note.map(String::as_str))
    }

    /// The rate, where it is an average.
    pub fn rate(self) -> Option<f64> {
        match self {
            Average::Raw => None,
            Average::Rate(rate) => Some(rate),
        }
    }
}

impl FromStr for Average {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "raw" {
            return Ok(Average::Raw);
        }
        let rate = text.parse().ok().filter(|rate| (0.0..1.0).contains(rate));
        rate.map(Average::Rate).ok_or_else(|| {
            Error::Config(format!(
                "{text:?} names no average: it is `raw`, or a rate from 0 to below 1 as in 0.9999"
            ))
        })
    }
}

impl fmt::Display for Average {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Average::Raw => to.write_str("raw"),
            Average::Rate(rate) => write!(to, "{rate}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_go_before_names_and_names_before_nothing() {
        let of = |name: &str, note| Average::of_file(Path::new(name), note);
        assert_eq!(of("model-ema-0.9999.safetensors", None), Some(Average::Rate(0.9999)));
        assert_eq!(of("model-ema-0.9999.safetensors", Some("0.999")), Some(Average::Rate(0.999)));
        assert_eq!(of("model-raw.safetensors", None), Some(Average::Raw));
        assert_eq!(of("model.safetensors", Some("raw")), Some(Average::Raw));
        for name in ["model.safetensors", "model-ema-x.safetensors", "model-ema-0.9.pt", "ema.safetensors"] {
            assert_eq!(of(name, None), None, "{name}");
        }
        for text in ["", "1", "-0.1", "nan", "inf", "RAW"] {
            assert!(text.parse::<Average>().is_err(), "{text}");
        }
        assert_eq!("0.99".parse::<Average>().unwrap().to_string(), "0.99");
    }
}
