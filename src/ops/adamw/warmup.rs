//! How moving averages of weights warm up.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, brief};

/// The constant of the ramp: how much slower than the steps an average follows.
const LAG: u64 = 9;

/// How the rate of a moving average rises to what was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmaWarmup {
    /// rate_t = min(rate, (1 + t)/(10 + t)) after t steps, as TensorFlow's `ExponentialMovingAverage` has it with its
    /// `num_updates`: an average over about the last tenth of the steps so far, until its own rate is slower.
    #[default]
    Ramp,
    /// rate_t = rate: a short training leaves much of the initial weights in its averages.
    None,
}

impl EmaWarmup {
    /// c of 1 - rate_t = max(1 - rate, c/(c + n)) in the n-th step.
    pub(super) fn lag(self) -> u64 {
        match self {
            EmaWarmup::Ramp => LAG,
            EmaWarmup::None => 0,
        }
    }

    /// What an average of `rate` keeps of itself in the step after `steps` steps.
    pub fn rate_after(self, rate: f64, steps: u64) -> f64 {
        match self {
            EmaWarmup::Ramp => rate.min((1.0 + steps as f64) / (1.0 + (LAG + steps) as f64)),
            EmaWarmup::None => rate,
        }
    }

    /// The share of the initial weights in an average of `rate` after `steps` steps: the product of
    /// [`rate_after`](Self::rate_after) over all of them, which for n steps of the ramp is 9!·n!/(n + 9)!.
    pub fn initial_share(self, rate: f64, steps: u64) -> f64 {
        let ramped = match self {
            EmaWarmup::None => 0,
            // The ramp is below the rate for so many steps.
            EmaWarmup::Ramp => {
                let end = ((1.0 + LAG as f64) * rate - 1.0) / (1.0 - rate);
                if end.is_finite() { steps.min(end.max(0.0).ceil() as u64) } else { steps }
            }
        };
        let ramp: f64 = (1..=LAG).map(|j| j as f64 / (ramped + j) as f64).product();
        ramp * rate.powf((steps - ramped) as f64)
    }
}

impl std::str::FromStr for EmaWarmup {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "ramp" => Ok(EmaWarmup::Ramp),
            "none" => Ok(EmaWarmup::None),
            _ => Err(Error::Config(format!(
                "averages warm up by ramp or none, not by {text:?}",
                text = brief(text)
            ))),
        }
    }
}

impl std::fmt::Display for EmaWarmup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            EmaWarmup::Ramp => "ramp",
            EmaWarmup::None => "none",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_the_product_of_the_rates() {
        for warmup in [EmaWarmup::Ramp, EmaWarmup::None] {
            for rate in [0.0, 0.05, 0.5, 0.99, 0.9999] {
                let mut share = 1.0;
                for steps in 0..3000u64 {
                    let formula = warmup.initial_share(rate, steps);
                    let close = (formula - share).abs() <= 1e-11 * share.max(1e-290);
                    assert!(close, "{warmup}, rate {rate}, {steps} steps: {formula} is not {share}");
                    share *= warmup.rate_after(rate, steps);
                }
            }
        }
    }

    /// At any length: the ramp leaves less than 1 % after three steps, and the rates of long trainings are as they were.
    #[test]
    fn a_training_of_any_length_forgets_its_start_and_a_long_one_has_its_rate() {
        for rate in [0.5, 0.99, 0.999, 0.9999] {
            assert!((3..2000).all(|steps| EmaWarmup::Ramp.initial_share(rate, steps) < 0.01));
        }
        assert!(EmaWarmup::None.initial_share(0.9999, 2000) > 0.8);
        assert_eq!(EmaWarmup::Ramp.rate_after(0.999, 8990), 0.999);
        assert_eq!(EmaWarmup::Ramp.rate_after(0.9999, 90_000), 0.9999);
    }
}
