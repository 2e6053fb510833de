//! The discrete schedules of DDPM (arXiv 2006.11239) and IDDPM (arXiv 2102.09672): β_t of t = 0..T.

use std::f64::consts::FRAC_PI_2;
use std::fmt;
use std::str::FromStr;

use crate::error::brief;
use crate::sizes::MOST_STEPS;
use crate::{Error, Result};

/// How much noise each of T steps adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BetaSchedule {
    /// In equal steps; from 1e-4 to 0.02 at T = 1000, scaled by 1000/T elsewhere, when nobody says (DDPM).
    Linear,
    /// √β in equal steps (latent diffusion, arXiv 2112.10752); from 0.00085 to 0.012 when nobody says.
    ScaledLinear,
    /// β = first + (last - first)·sigmoid(s), s from -6 to 6 in equal steps (GeoDiff, arXiv 2203.02923); from 1e-4 to 0.02
    /// when nobody says.
    Sigmoid,
    /// ᾱ(t) = cos²((t/T + 0.008)/1.008·π/2), normalised to 1 at t = 0 (IDDPM, equation 17).
    Cosine,
}

/// Every schedule and its name.
const SCHEDULES: [(BetaSchedule, &str); 4] = [
    (BetaSchedule::Linear, "linear"),
    (BetaSchedule::ScaledLinear, "scaled_linear"),
    (BetaSchedule::Sigmoid, "sigmoid"),
    (BetaSchedule::Cosine, "cosine"),
];

/// β is at most this where ᾱ reaches zero.
const LARGEST_BETA: f64 = 0.999;

/// ᾱ at the end of a process at zero SNR. Not 0 itself, where λ and σ/α are no numbers: the value of diffusers' solvers,
/// σ/α = 4096; z differs from pure noise by a 4096th of a picture.
pub const ZERO_SNR: f64 = 1.0 / (1 << 24) as f64;

impl BetaSchedule {
    /// β_0 .. β_{T-1} between the schedule's own ends.
    ///
    /// # Errors
    /// As [`BetaSchedule::between`].
    pub fn betas(self, steps_total: usize) -> Result<Vec<f64>> {
        let scale = 1000.0 / steps_total.max(1) as f64;
        let ends = match self {
            BetaSchedule::ScaledLinear => (0.00085, 0.012),
            BetaSchedule::Sigmoid => (1e-4, 0.02),
            BetaSchedule::Linear | BetaSchedule::Cosine => (scale * 1e-4, scale * 0.02),
        };
        self.between(ends, steps_total)
    }

    /// β_0 .. β_{T-1}, from the first of `ends` to the last; cosine has ends of its own.
    ///
    /// # Errors
    /// [`Error::Config`] when T is not in 1 ..= a million, an end is no number of 0 to 1, or a linear schedule has so few
    /// steps that β reaches 1.
    pub fn between(self, ends: (f64, f64), steps_total: usize) -> Result<Vec<f64>> {
        if steps_total == 0 || steps_total > MOST_STEPS {
            return Err(Error::Config(format!(
                "a discrete schedule has between 1 and {MOST_STEPS} steps, not {steps_total}"
            )));
        }
        let total = steps_total as f64;
        let evenly = |first: f64, last: f64| {
            let gap = (last - first) / (steps_total.max(2) - 1) as f64;
            (0..steps_total).map(move |t| first + gap * t as f64)
        };
        let (first, last) = ends;
        let betas: Vec<f64> = match self {
            BetaSchedule::Linear => evenly(first, last).collect(),
            BetaSchedule::ScaledLinear => {
                evenly(first.sqrt(), last.sqrt()).map(|root| root.powi(2)).collect()
            }
            BetaSchedule::Sigmoid => {
                let sigmoid = |s: f64| 1.0 / (1.0 + (-s).exp());
                evenly(-6.0, 6.0).map(|s| first + (last - first) * sigmoid(s)).collect()
            }
            BetaSchedule::Cosine => {
                let bar = |t: f64| ((t / total + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
                let beta = |t: usize| (1.0 - bar((t + 1) as f64) / bar(t as f64)).min(LARGEST_BETA);
                (0..steps_total).map(beta).collect()
            }
        };
        match betas.iter().position(|beta| beta.is_nan() || *beta >= 1.0) {
            None => Ok(betas),
            Some(t) if first.is_finite() && last.is_finite() => Err(Error::Config(format!(
                "a {self} schedule of {steps_total} steps would need β = {:.3} at t = {t}; β stays below 1 from 21 steps on",
                betas[t]
            ))),
            Some(_) => Err(Error::Config(format!("a {self} schedule cannot go from β = {first} to {last}"))),
        }
    }
}

/// The process of `betas` rescaled so that its last level is noise alone, ᾱ = [`ZERO_SNR`] (arXiv 2305.08891, algorithm 1):
/// √ᾱ shifted to end at zero and stretched to begin where it did.
pub fn zero_terminal_snr(betas: &[f64]) -> Vec<f64> {
    let product = |bar: &mut f64, beta: &f64| {
        *bar *= 1.0 - beta;
        Some(bar.sqrt())
    };
    let roots: Vec<f64> = betas.iter().scan(1.0, product).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else { return Vec::new() };
    if first == last {
        return vec![1.0 - ZERO_SNR];
    }
    let mut before = 1.0;
    let beta = |root: &f64| {
        // Of a very long process the level before the last is beyond that of any end.
        let bar = match ((root - last) * first / (first - last)).powi(2) {
            bar if bar > 0.0 => bar,
            _ => ZERO_SNR.min(0.9 * before),
        };
        1.0 - bar / std::mem::replace(&mut before, bar)
    };
    roots.iter().map(beta).collect()
}

impl FromStr for BetaSchedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = SCHEDULES.iter().find(|(_, name)| *name == text);
        found.map(|(schedule, _)| *schedule).ok_or_else(|| {
            let names = SCHEDULES.map(|(_, name)| name).join(", ");
            Error::Config(format!("`{text}` is no discrete schedule; there are {names}", text = brief(text)))
        })
    }
}

impl fmt::Display for BetaSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = SCHEDULES.iter().find(|(schedule, _)| schedule == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_ends() {
        let cosine = BetaSchedule::Cosine.betas(1000).unwrap();
        assert!((cosine[0] - 4.128e-5).abs() < 5e-9 && cosine[999] == 0.999);
        let linear = BetaSchedule::Linear.betas(1000).unwrap();
        let last: f64 = linear.iter().map(|beta| 1.0 - beta).product();
        assert!((last - 4.04e-5).abs() < 5e-8, "{last}");
        assert!((linear[999] - 0.02).abs() < 1e-15);
    }

    #[test]
    fn senseless_totals_are_errors() {
        assert!(BetaSchedule::Cosine.betas(0).is_err() && BetaSchedule::Cosine.betas(usize::MAX).is_err());
        assert!(BetaSchedule::Linear.betas(20).unwrap_err().to_string().contains("21 steps"));
        BetaSchedule::Linear.betas(21).unwrap();
        BetaSchedule::Cosine.betas(1).unwrap();
        assert!("quadratic".parse::<BetaSchedule>().is_err());
        for (schedule, name) in SCHEDULES {
            assert_eq!(
                (name.parse::<BetaSchedule>().unwrap(), schedule.to_string()),
                (schedule, name.into())
            );
        }
    }

    /// The formulas in NumPy, and σ/α of Stable Diffusion's process as its programs print them: 0.0292, 11.028, 14.6146.
    #[test]
    fn the_peers_numbers() {
        let near = |got: f64, want: f64| assert!((got / want - 1.0).abs() < 1e-9, "{got}, expected {want}");
        let scaled = BetaSchedule::ScaledLinear.betas(1000).unwrap();
        let sigmoid = BetaSchedule::Sigmoid.betas(1000).unwrap();
        let linear = BetaSchedule::Linear.between((0.00085, 0.012), 1000).unwrap();
        near(scaled[500], 0.00481495414171188);
        near(sigmoid[0], 0.00014920520081703202);
        near(sigmoid[500], 0.010079879790061013);
        near(linear[500], 0.006430580580580581);
        let bar = |betas: &[f64], t: usize| betas[..=t].iter().map(|beta| 1.0 - beta).product::<f64>();
        let ratio = |t: usize| (1.0 / bar(&scaled, t) - 1.0).sqrt();
        assert!((ratio(0) - 0.0292).abs() < 5e-5 && (ratio(951) - 11.028).abs() < 5e-4);
        assert!((ratio(999) - 14.6146).abs() < 5e-5);
        near(bar(&sigmoid, 999), 3.968181990533219e-05);
        let rescaled = zero_terminal_snr(&scaled);
        near(bar(&rescaled, 500), 0.24101878275731575);
        near(bar(&rescaled, 998), 1.9678880566212916e-07);
    }

    /// Algorithm 1 in another order of the same steps: what is kept is the shape of √ᾱ.
    #[test]
    fn rescaling_keeps_the_first_level_and_the_shape_of_the_signal() {
        let bars = |betas: &[f64]| -> Vec<f64> {
            betas
                .iter()
                .scan(1.0, |bar, beta| {
                    *bar *= 1.0 - beta;
                    Some(*bar)
                })
                .collect()
        };
        for schedule in [BetaSchedule::Linear, BetaSchedule::ScaledLinear, BetaSchedule::Cosine] {
            let betas = schedule.betas(200).unwrap();
            let (old, new) = (bars(&betas), bars(&zero_terminal_snr(&betas)));
            assert!(
                (new[0] - old[0]).abs() < 1e-12 && (new[199] / ZERO_SNR - 1.0).abs() < 1e-6,
                "{schedule}"
            );
            let part = |bars: &[f64], end: f64, t: usize| (bars[t].sqrt() - end) / (bars[0].sqrt() - end);
            for t in 0..199 {
                let want = part(&old, old[199].sqrt(), t);
                assert!((part(&new, 0.0, t) - want).abs() < 1e-9, "{schedule} at {t}");
            }
        }
        assert_eq!(zero_terminal_snr(&[0.3]), [1.0 - ZERO_SNR]);
        assert!(zero_terminal_snr(&[]).is_empty());
    }

    #[test]
    fn ends_that_are_no_numbers_are_refused() {
        for ends in [(f64::NAN, 0.02), (-1.0, f64::INFINITY)] {
            assert!(BetaSchedule::Linear.between(ends, 10).unwrap_err().to_string().contains("cannot go"));
        }
        assert!(BetaSchedule::ScaledLinear.between((-0.1, 0.02), 10).is_err());
    }
}
