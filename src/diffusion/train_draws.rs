//! What is decided on the host for a training image: its λ and whether it loses its label (CFG, Algorithm 1).
//!
//! Functions of (seed, image index) alone, so a resumed run and a run of another batch size draw the same.

use super::condition_dropout::ConditionDropout;
use super::schedule::ContinuousSchedule;
use crate::Result;
use crate::random::{Stream, words};

/// The draws of a training run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainDraws {
    schedule: ContinuousSchedule,
    seed: u64,
    dropout: ConditionDropout,
}

/// What was drawn for one training image: z = α x + σ eps, told to the network as `time_embedding`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleDraw {
    /// θ = a·u + b in radians.
    pub theta: f64,
    /// α = cos θ.
    pub alpha: f64,
    /// σ = sin θ.
    pub sigma: f64,
    /// λ = -2 log tan θ.
    pub log_snr: f64,
    /// 1000·2θ/π.
    pub time_embedding: f64,
    /// Whether the null condition takes the place of the label.
    pub drop_label: bool,
}

impl TrainDraws {
    /// The draws of the run `seed`, which drops a label with `unconditional_probability` (the paper's p_uncond:
    /// 0.1 and 0.2 are about equal, 0.5 is worst).
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) when the probability is not in [0, 1].
    pub fn new(schedule: ContinuousSchedule, seed: u64, unconditional_probability: f64) -> Result<Self> {
        let dropout = ConditionDropout::together(unconditional_probability);
        dropout.check()?;
        Ok(TrainDraws { schedule, seed, dropout })
    }

    /// u in [0, 1) of an image: word 0 of its time stream, all 32 bits, times 2^-32.
    pub fn u(&self, image_index: u64) -> f64 {
        // Not `uniform`: its 24 bits would be seen near the ends, where λ is steep in u.
        f64::from(words(self.seed, 0, image_index, Stream::Time)[0]) * 2f64.powi(-32)
    }

    /// Whether an image loses its label; independent of its λ.
    pub fn drop_label(&self, image_index: u64) -> bool {
        self.dropout.of(self.seed, image_index).class
    }

    /// All that is drawn for the image number `image_index`, counted over the whole run.
    pub fn sample(&self, image_index: u64) -> SampleDraw {
        let u = self.u(image_index);
        SampleDraw {
            theta: self.schedule.theta(u),
            alpha: self.schedule.alpha(u),
            sigma: self.schedule.sigma(u),
            log_snr: self.schedule.log_snr(u),
            time_embedding: self.schedule.time_embedding(u),
            drop_label: self.drop_label(image_index),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGES: u64 = 100_000;

    fn draws(seed: u64, unconditional_probability: f64) -> TrainDraws {
        TrainDraws::new(ContinuousSchedule::default(), seed, unconditional_probability).unwrap()
    }

    #[test]
    fn u_is_uniform_and_labels_drop_at_their_rate() {
        let draws = draws(1, 0.1);
        let mut bins = [0u32; 10];
        let mut dropped = 0u32;
        for image in 0..IMAGES {
            let u = draws.u(image);
            assert!((0.0..1.0).contains(&u));
            bins[(u * 10.0) as usize] += 1;
            dropped += u32::from(draws.drop_label(image));
        }
        // Binomial(100000, 0.1) has a standard deviation of 95; five of them.
        assert!(
            bins.iter().chain([&dropped]).all(|count| count.abs_diff(10_000) < 475),
            "{bins:?} {dropped}"
        );
    }

    #[test]
    fn the_drop_does_not_depend_on_the_time() {
        let draws = draws(2, 0.5);
        let late = (0..IMAGES).filter(|image| draws.drop_label(*image) && draws.u(*image) < 0.5).count();
        assert!(late.abs_diff(25_000) < 700, "{late}");
    }

    #[test]
    fn a_draw_is_consistent_and_a_function_of_seed_and_image() {
        let (one, other) = (draws(3, 0.2), draws(4, 0.2));
        for image in [0, 1, u64::from(u32::MAX) + 1, u64::MAX] {
            let draw = one.sample(image);
            assert_eq!(draw, one.sample(image));
            assert_ne!(draw.theta, other.sample(image).theta);
            assert!((draw.alpha.hypot(draw.sigma) - 1.0).abs() < 1e-15);
            assert!((draw.log_snr - 2.0 * (draw.alpha / draw.sigma).ln()).abs() < 1e-12);
            assert!((-20.0..=20.0).contains(&draw.log_snr));
        }
        assert_ne!(one.sample(0).theta, one.sample(1 << 32).theta);
    }

    #[test]
    fn the_ends_of_the_probability() {
        assert!((0..1000).all(|image| !draws(5, 0.0).drop_label(image) && draws(5, 1.0).drop_label(image)));
        for bad in [-0.1, 1.01, f64::NAN] {
            assert!(TrainDraws::new(ContinuousSchedule::default(), 0, bad).is_err());
        }
    }
}
