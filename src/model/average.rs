//! Which of a training's weights a file holds: a moving average of them at some rate, or the weights themselves.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::weights_kind::WeightsKind;
use crate::error::{Error, Result, brief};
use crate::io::SafetensorsFile;

/// An average of the weights, or the weights as the last step left them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Average {
    /// No average.
    Raw,
    /// The rate of a moving average, below 1.
    Rate(f64),
}

impl From<WeightsKind> for Average {
    fn from(kind: WeightsKind) -> Self {
        match kind {
            WeightsKind::Raw => Average::Raw,
            WeightsKind::Average { rate, .. } => Average::Rate(rate),
        }
    }
}

/// What a file's notes say of its weights, and where they say nothing its name: earlier versions told averages by names
/// alone.
pub(super) fn held(path: &Path, notes: &BTreeMap<String, String>) -> Option<WeightsKind> {
    if let Some(kind) = WeightsKind::of_notes(notes) {
        return Some(kind);
    }
    let stem = path.file_name()?.to_str()?.strip_suffix(".safetensors")?;
    match stem.strip_prefix("model-")? {
        "raw" => Some(WeightsKind::Raw),
        rest => match rest.strip_prefix("ema-")?.parse::<Average>().ok()? {
            Average::Raw => None,
            Average::Rate(rate) => Some(WeightsKind::Average { rate, initial_share: None }),
        },
    }
}

/// As [`held`], of a file that has not been opened; of one that cannot be, what its name says.
pub(super) fn held_at(path: &Path) -> Option<Average> {
    let notes = SafetensorsFile::open(path).map(|file| file.metadata().clone()).unwrap_or_default();
    held(path, &notes).map(Average::from)
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
                "{text:?} names no average: it is `raw`, or a rate from 0 to below 1 as in 0.9999",
                text = brief(text)
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
        let of = |name: &str, note: Option<&str>| {
            let notes = note.map(|note| ("ema_rate".to_owned(), note.to_owned()));
            held(Path::new(name), &notes.into_iter().collect()).map(Average::from)
        };
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
