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
    /// From 1e-4 to 0.02 in equal steps at T = 1000, scaled by 1000/T elsewhere (DDPM).
    Linear,
    /// ᾱ(t) = cos²((t/T + 0.008)/1.008·π/2), normalised to 1 at t = 0 (IDDPM, equation 17).
    Cosine,
}

/// β is at most this where ᾱ reaches zero.
const LARGEST_BETA: f64 = 0.999;

impl BetaSchedule {
    /// β_0 .. β_{T-1}.
    ///
    /// # Errors
    /// [`Error::Config`] when T is not in 1 ..= a million, or a linear schedule has so few steps that β reaches 1.
    pub fn betas(self, steps_total: usize) -> Result<Vec<f64>> {
        if steps_total == 0 || steps_total > MOST_STEPS {
            return Err(Error::Config(format!(
                "a discrete schedule has between 1 and {MOST_STEPS} steps, not {steps_total}"
            )));
        }
        let total = steps_total as f64;
        let betas: Vec<f64> = match self {
            BetaSchedule::Linear => {
                let scale = 1000.0 / total;
                let (first, last) = (scale * 1e-4, scale * 0.02);
                let gap = (last - first) / (steps_total.max(2) - 1) as f64;
                (0..steps_total).map(|t| first + gap * t as f64).collect()
            }
            BetaSchedule::Cosine => {
                let bar = |t: f64| ((t / total + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
                let beta = |t: usize| (1.0 - bar((t + 1) as f64) / bar(t as f64)).min(LARGEST_BETA);
                (0..steps_total).map(beta).collect()
            }
        };
        match betas.iter().position(|beta| *beta >= 1.0) {
            None => Ok(betas),
            Some(t) => Err(Error::Config(format!(
                "a {self} schedule of {steps_total} steps would need β = {:.3} at t = {t}; β stays below 1 from 21 steps on",
                betas[t]
            ))),
        }
    }
}

impl FromStr for BetaSchedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "linear" => Ok(BetaSchedule::Linear),
            "cosine" => Ok(BetaSchedule::Cosine),
            _ => Err(Error::Config(format!(
                "`{text}` is no discrete schedule; there are linear and cosine",
                text = brief(text)
            ))),
        }
    }
}

impl fmt::Display for BetaSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BetaSchedule::Linear => "linear",
            BetaSchedule::Cosine => "cosine",
        })
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
        assert_eq!("cosine".parse::<BetaSchedule>().unwrap().to_string(), "cosine");
    }
}
