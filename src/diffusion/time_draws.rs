//! How training chooses the step t of a discrete process, or u of a continuous one.
//!
//! | sampler | t |
//! |---|---|
//! | uniform | each equally likely |
//! | importance | p_t ∝ √E\[L_t²\] over the last losses of each t, weights 1/(T p_t) (IDDPM, section 3.3) |
//! | logit-normal | of a straight path: the sigmoid of a standard normal number (arXiv 2403.03206, section 3.1) |
//! | low discrepancy | a Kronecker sequence in the image's number: any run of images covers \[0, 1) evenly |
//!
//! Draws are functions of (seed, image index) and, for importance, of the losses told before; [`LossHistory`] is the one
//! thing here that has a state, and it can be written down.

use std::collections::VecDeque;
use std::f64::consts::TAU;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::brief;
use crate::random::{Stream, words};
use crate::{Error, Result};

/// How t is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeSampler {
    /// Independently and uniformly.
    #[default]
    Uniform,
    /// By the second moment of each t's losses.
    Importance,
    /// Uniformly, but evenly spread over neighbouring images.
    LowDiscrepancy,
    /// The sigmoid of a standard normal number: the middle of a straight path more often than its ends.
    LogitNormal,
}

/// The fractional part of the golden ratio: the Kronecker sequence with the lowest discrepancy.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

impl TimeSampler {
    /// u in [0, 1) of an image; its distribution is uniform but for the logit-normal sampler's.
    pub fn u(self, seed: u64, image_index: u64) -> f64 {
        let of = |image| f64::from(words(seed, 0, image, Stream::Time)[0]) * 2f64.powi(-32);
        match self {
            TimeSampler::Uniform | TimeSampler::Importance => of(image_index),
            TimeSampler::LowDiscrepancy => {
                // Reduced before it is multiplied: an index of 2^50 times a fraction would have no digits left behind the
                // point. 2^26 steps of the sequence are as good as any.
                let turn = (image_index % (1 << 26)) as f64 * GOLDEN + of(0);
                turn - turn.floor()
            }
            TimeSampler::LogitNormal => {
                // Box and Muller's normal number of two words, neither of them 0.
                let part = |word: u32| (f64::from(word) + 0.5) * 2f64.powi(-32);
                let words = words(seed, 0, image_index, Stream::Time);
                let normal = (-2.0 * part(words[0]).ln()).sqrt() * (TAU * part(words[1])).cos();
                1.0 / (1.0 + (-normal).exp())
            }
        }
    }
}

impl FromStr for TimeSampler {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "uniform" => Ok(TimeSampler::Uniform),
            "importance" => Ok(TimeSampler::Importance),
            "low-discrepancy" => Ok(TimeSampler::LowDiscrepancy),
            "logit-normal" => Ok(TimeSampler::LogitNormal),
            _ => Err(Error::Config(format!(
                "`{text}` is no sampler of times; there are uniform, importance, low-discrepancy and logit-normal",
                text = brief(text)
            ))),
        }
    }
}

impl fmt::Display for TimeSampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TimeSampler::Uniform => "uniform",
            TimeSampler::Importance => "importance",
            TimeSampler::LowDiscrepancy => "low-discrepancy",
            TimeSampler::LogitNormal => "logit-normal",
        })
    }
}

/// Losses of each t that are remembered.
pub const HISTORY: usize = 10;
/// The share of draws that stays uniform, so that no t is forgotten.
const UNIFORM_SHARE: f64 = 0.001;

/// The last losses of each t, and the probabilities that follow from them.
#[derive(Debug, Clone, PartialEq)]
pub struct LossHistory {
    depth: usize,
    losses: Vec<VecDeque<f64>>,
    /// Running sums of the probabilities; empty when the history has changed since.
    cumulative: Vec<f64>,
}

impl LossHistory {
    /// No losses yet, of `steps` steps, `depth` of each to be remembered ([`HISTORY`]).
    ///
    /// # Errors
    /// [`Error::Config`] when either is 0.
    pub fn new(steps: usize, depth: usize) -> Result<Self> {
        if steps == 0 || depth == 0 {
            return Err(Error::Config(format!("a history of {depth} losses of {steps} steps is none")));
        }
        Ok(LossHistory { depth, losses: vec![VecDeque::with_capacity(depth); steps], cumulative: Vec::new() })
    }

    /// Tells it the losses of some steps, in order. A loss that is not finite is passed over.
    pub fn update(&mut self, steps_and_losses: impl IntoIterator<Item = (usize, f64)>) {
        for (t, loss) in steps_and_losses {
            let Some(own) = self.losses.get_mut(t).filter(|_| loss.is_finite()) else { continue };
            if own.len() == self.depth {
                own.pop_front();
            }
            own.push_back(loss);
            self.cumulative.clear();
        }
    }

    /// Whether every step has its losses; before that all are equally likely.
    pub fn is_warm(&self) -> bool {
        self.losses.iter().all(|own| own.len() == self.depth)
    }

    /// What p_t is proportional to: ones before all are warm, then √E\[L²\], normalised and mixed with a uniform share.
    pub fn weights(&self) -> Vec<f64> {
        let steps = self.losses.len() as f64;
        if !self.is_warm() {
            return vec![1.0; self.losses.len()];
        }
        let moment = |own: &VecDeque<f64>| {
            (own.iter().map(|loss| loss * loss).sum::<f64>() / self.depth as f64).sqrt()
        };
        let moments: Vec<f64> = self.losses.iter().map(moment).collect();
        let sum: f64 = moments.iter().sum();
        // Losses that are all zero say nothing.
        let share = |moment: &f64| if sum > 0.0 { moment / sum } else { 1.0 / steps };
        moments.iter().map(|moment| share(moment) * (1.0 - UNIFORM_SHARE) + UNIFORM_SHARE / steps).collect()
    }

    /// (t, 1/(T p_t)) for u in [0, 1).
    pub fn draw(&mut self, u: f64) -> (usize, f64) {
        if self.cumulative.is_empty() {
            let mut sum = 0.0;
            let add = |weight: f64| {
                sum += weight;
                sum
            };
            self.cumulative = self.weights().into_iter().map(add).collect();
        }
        let (steps, cumulative) = (self.losses.len(), &self.cumulative);
        let total = cumulative[steps - 1];
        let t = cumulative.partition_point(|sum| *sum <= u * total).min(steps - 1);
        let own = cumulative[t] - if t == 0 { 0.0 } else { cumulative[t - 1] };
        (t, total / (own * steps as f64))
    }

    /// The losses of step `t`, oldest first.
    pub fn losses(&self, t: usize) -> impl Iterator<Item = f64> {
        self.losses[t].iter().copied()
    }

    /// Everything as numbers: for each step how many losses there are, and the losses, oldest first, filled up with 0.
    pub fn to_rows(&self) -> Vec<f64> {
        let row = |own: &VecDeque<f64>| {
            let mut row = vec![own.len() as f64];
            row.extend(own);
            row.resize(self.depth + 1, 0.0);
            row
        };
        self.losses.iter().flat_map(row).collect()
    }

    /// Takes back what [`LossHistory::to_rows`] wrote.
    ///
    /// # Errors
    /// [`Error::Config`] when the numbers are not such.
    pub fn set_rows(&mut self, rows: &[f64]) -> Result<()> {
        let width = self.depth + 1;
        let bad = || Error::Config("the history of losses is not one of this schedule".into());
        if rows.len() != width * self.losses.len() {
            return Err(bad());
        }
        for (own, row) in self.losses.iter_mut().zip(rows.chunks(width)) {
            let count = row[0] as usize;
            if row[0] != count as f64 || count > self.depth {
                return Err(bad());
            }
            *own = row[1..=count].iter().copied().collect();
        }
        self.cumulative.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Golden;

    #[test]
    fn weights_agree_with_the_reference() {
        let golden = Golden::open("resampler");
        let (ts, losses) = (golden.f64s("ts"), golden.f64s("losses"));
        let mut history = LossHistory::new(6, 3).unwrap();
        for count in 0..=40 {
            if count > 0 {
                history.update([(ts[count - 1] as usize, losses[count - 1])]);
            }
            let Some(want) = golden.try_f64s(&format!("weights.{count}")) else { continue };
            let weights = history.weights();
            for (got, want) in weights.iter().zip(&want) {
                assert!((got / want - 1.0).abs() < 1e-12, "{count} updates: {got}, expected {want}");
            }
            // Each step's weight in the loss, by drawing at the middle of its share.
            let total: f64 = weights.iter().sum();
            let mut before = 0.0;
            for (t, want) in golden.f64s(&format!("importance.{count}")).into_iter().enumerate() {
                let (drawn, weight) = history.draw((before + 0.5 * weights[t]) / total);
                assert!(
                    drawn == t && (weight / want - 1.0).abs() < 1e-11,
                    "{drawn} {weight}, expected {t} {want}"
                );
                before += weights[t];
            }
        }
        let want = golden.f64s("history.40");
        let got: Vec<f64> = (0..6).flat_map(|t| history.losses(t).collect::<Vec<_>>()).collect();
        assert_eq!(got, want);
        let mut again = LossHistory::new(6, 3).unwrap();
        again.set_rows(&history.to_rows()).unwrap();
        assert_eq!(again.to_rows(), history.to_rows());
        assert!(again.set_rows(&[4.0; 24]).is_err() && again.set_rows(&[0.0]).is_err());
    }

    /// Weighted by 1/(T p_t), importance sampling leaves a mean over t what it is.
    #[test]
    fn importance_weights_are_unbiased() {
        let mut history = LossHistory::new(20, 2).unwrap();
        history.update((0..40).map(|i| (i % 20, 1.0 + (i % 20) as f64)));
        history.update([(3, f64::NAN), (99, 1.0)]);
        let images = 200_000;
        let mean = (0..images)
            .map(|image| {
                let (t, weight) = history.draw(TimeSampler::Importance.u(7, image));
                weight * (t as f64).powi(2)
            })
            .sum::<f64>()
            / images as f64;
        let exact = (0..20).map(|t| f64::from(t * t)).sum::<f64>() / 20.0;
        assert!((mean / exact - 1.0).abs() < 0.01, "{mean} {exact}");
    }

    /// Moments of log(u/(1 - u)) are those of a standard normal number.
    #[test]
    fn logit_normal_times_are_that() {
        let images = 40_000u64;
        let (mut first, mut second, mut fourth) = (0.0, 0.0, 0.0);
        for image in 0..images {
            let u = TimeSampler::LogitNormal.u(11, image);
            assert!(u > 0.0 && u < 1.0);
            let logit = (u / (1.0 - u)).ln();
            first += logit;
            second += logit.powi(2);
            fourth += logit.powi(4);
        }
        let [first, second, fourth] = [first, second, fourth].map(|sum: f64| sum / images as f64);
        // Standard errors 0.005, 0.007 and 0.05; five of them.
        assert!(first.abs() < 0.025 && (second - 1.0).abs() < 0.036 && (fourth - 3.0).abs() < 0.25);
        assert_eq!("logit-normal".parse::<TimeSampler>().unwrap().to_string(), "logit-normal");
    }

    #[test]
    fn low_discrepancy_covers_evenly_from_anywhere() {
        for first in [0u64, 12_345, 1 << 40] {
            let mut bins = [0; 16];
            for image in first..first + 64 {
                bins[(TimeSampler::LowDiscrepancy.u(3, image) * 16.0) as usize] += 1;
            }
            assert!(bins.iter().all(|count| (3..=5).contains(count)), "{bins:?}");
        }
        assert_ne!(TimeSampler::LowDiscrepancy.u(3, 0), TimeSampler::LowDiscrepancy.u(4, 0));
        assert_eq!("low-discrepancy".parse::<TimeSampler>().unwrap().to_string(), "low-discrepancy");
        assert!("random".parse::<TimeSampler>().is_err());
        assert!(LossHistory::new(0, 10).is_err());
    }
}
