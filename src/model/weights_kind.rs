//! What a file of weights says in its notes of the weights: those of the last step, or an average of a rate.

use std::collections::BTreeMap;
use std::fmt;

use super::config::ModelConfig;

/// The note that holds a rate, or [`RAW`].
const RATE: &str = "ema_rate";
/// The note that holds the share of the initial weights.
const INITIAL_SHARE: &str = "ema_initial_share";
/// In the place of a rate: weights of the last step.
const RAW: &str = "raw";

/// The share of initial weights above which an average is warned of.
const MOST: f64 = 0.01;

/// Which of a training's weights a file holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WeightsKind {
    /// Those of the last step.
    Raw,
    /// A moving average.
    Average {
        /// Its rate.
        rate: f64,
        /// The share of the initial weights that it still holds, from 0 to 1, where it is known.
        initial_share: Option<f64>,
    },
}

impl WeightsKind {
    /// What a configuration says of the weights beside it.
    pub fn of_config(config: &ModelConfig) -> Option<WeightsKind> {
        config.ema_rate.map(|rate| WeightsKind::Average { rate, initial_share: config.ema_initial_share })
    }

    /// The notes of a file of such weights.
    pub fn to_notes(self) -> BTreeMap<String, String> {
        let (rate, share) = match self {
            WeightsKind::Raw => (RAW.to_owned(), None),
            WeightsKind::Average { rate, initial_share } => (rate.to_string(), initial_share),
        };
        let share = share.map(|share| (INITIAL_SHARE.to_owned(), share.to_string()));
        [(RATE.to_owned(), rate)].into_iter().chain(share).collect()
    }

    /// What a file's notes say; nothing where they are silent, or name what is no rate.
    pub fn of_notes(notes: &BTreeMap<String, String>) -> Option<WeightsKind> {
        match notes.get(RATE)?.as_str() {
            RAW => Some(WeightsKind::Raw),
            rate => {
                let within = |value: &f64| (0.0..=1.0).contains(value);
                let number = |text: &str| text.parse::<f64>().ok().filter(within);
                let initial_share = notes.get(INITIAL_SHARE).and_then(|text| number(text));
                Some(WeightsKind::Average { rate: number(rate)?, initial_share })
            }
        }
    }
}

impl WeightsKind {
    /// A sentence where these weights are not what a training was for: an average that holds more than a hundredth of the
    /// initial weights.
    pub fn warning(&self) -> Option<String> {
        match self {
            WeightsKind::Average { rate, initial_share: Some(share) } if *share > MOST => Some(format!(
                "{:.1} % of the average at rate {rate} are still the initial weights: train on, or take the \
                 weights of the last step (model-raw.safetensors)",
                100.0 * share
            )),
            _ => None,
        }
    }
}

impl fmt::Display for WeightsKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WeightsKind::Raw => f.write_str("those of the last step"),
            WeightsKind::Average { rate, initial_share: None } => write!(f, "average at rate {rate}"),
            WeightsKind::Average { rate, initial_share: Some(share) } => {
                let percent = 100.0 * share;
                let of = if percent < 0.01 { "less than 0.01".into() } else { format!("{percent:.2}") };
                write!(f, "average at rate {rate}, {of} % of it the initial weights")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_as_they_were_written() {
        let average = |initial_share| WeightsKind::Average { rate: 0.9999, initial_share };
        for kind in [WeightsKind::Raw, average(None), average(Some(1.0 / 3.0)), average(Some(1e-300))] {
            assert_eq!(WeightsKind::of_notes(&kind.to_notes()), Some(kind));
        }
        assert_eq!(average(None).to_notes()["ema_rate"], "0.9999");
        assert_eq!(WeightsKind::Raw.to_notes()["ema_rate"], "raw");
        for silent in [&[][..], &[("format", "pt")], &[("ema_rate", "NaN")], &[("ema_rate", "7")]] {
            let notes = silent.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            assert_eq!(WeightsKind::of_notes(&notes), None);
        }
    }
    #[test]
    fn initial_weights_are_told_of_and_warned_of_above_a_hundredth() {
        let average = |share| WeightsKind::Average { rate: 0.999, initial_share: Some(share) };
        assert_eq!(average(0.7788).to_string(), "average at rate 0.999, 77.88 % of it the initial weights");
        assert!(average(1e-9).to_string().contains("less than 0.01 %"));
        assert!(average(0.7788).warning().unwrap().contains("77.9 %"));
        assert!(average(0.0101).warning().is_some() && average(0.0099).warning().is_none());
        assert!(WeightsKind::Raw.warning().is_none());
    }
}
