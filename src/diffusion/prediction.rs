//! What a network predicts, and what becomes of its output: the mean part and the variance part.
//!
//! Every prediction is a linear function of (x, z, eps), so x̂ is one of (z, output): z = α x + σ eps.
//!
//! | prediction | target | x̂ |
//! |---|---|---|
//! | eps | eps | (z - σ out)/α |
//! | x0 | x | out |
//! | v (arXiv 2202.00512) | α eps - σ x | α z - σ out |
//! | previous x (DDPM, section 3.2) | c1 x + c2 z | (out - c2 z)/c1 |
//! | flow, where α + σ = 1 (arXiv 2209.03003) | eps - x | z - σ out |
//! | flow towards the data | x - eps | z + σ out |

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::brief;
use crate::{Error, Result};

/// What the first C channels of a network's output are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise.
    #[default]
    Eps,
    /// The clean picture.
    X0,
    /// The velocity α eps - σ x.
    V,
    /// The mean of the posterior, one step cleaner; discrete ancestral sampling alone can use it.
    PreviousX,
    /// The velocity dz/dt of a straight path, eps - x; of the path run backwards x - eps.
    Flow {
        /// Whether it points from noise to picture.
        towards_data: bool,
    },
}

/// The variance of an ancestral step of a discrete process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Variance {
    /// β̃, the posterior's.
    Small,
    /// β, with β̃_1 at t = 0.
    #[default]
    Large,
    /// The second half of the channels is the log of the variance.
    Learned,
    /// The second half of the channels is v in [-1, 1]: log Σ = f log β + (1 - f) log β̃, f = (v + 1)/2 (IDDPM, equation 15).
    LearnedRange,
}

/// target = `of_x`·x + `of_z`·z + `of_eps`·eps.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TargetFactors {
    /// The factor of the picture.
    pub of_x: f64,
    /// The factor of the latent.
    pub of_z: f64,
    /// The factor of the noise.
    pub of_eps: f64,
}

impl Prediction {
    /// The velocity of a straight path, from picture to noise.
    pub const FLOW: Prediction = Prediction::Flow { towards_data: false };

    /// The training target at (α, σ); `posterior` holds (c1, c2) for [`Prediction::PreviousX`].
    pub fn target(self, alpha: f64, sigma: f64, posterior: (f64, f64)) -> TargetFactors {
        let none = TargetFactors::default();
        match self {
            Prediction::Eps => TargetFactors { of_eps: 1.0, ..none },
            Prediction::X0 => TargetFactors { of_x: 1.0, ..none },
            Prediction::V => TargetFactors { of_x: -sigma, of_eps: alpha, ..none },
            Prediction::PreviousX => TargetFactors { of_x: posterior.0, of_z: posterior.1, ..none },
            Prediction::Flow { towards_data } => {
                let sign = if towards_data { -1.0 } else { 1.0 };
                TargetFactors { of_x: -sign, of_eps: sign, ..none }
            }
        }
    }

    /// The factors of (z, output) in x̂.
    pub fn x_factors(self, alpha: f64, sigma: f64, posterior: (f64, f64)) -> (f64, f64) {
        match self {
            Prediction::Eps => (1.0 / alpha, -sigma / alpha),
            Prediction::X0 => (0.0, 1.0),
            Prediction::V => (alpha, -sigma),
            Prediction::PreviousX => (-posterior.1 / posterior.0, 1.0 / posterior.0),
            Prediction::Flow { towards_data } => (1.0, if towards_data { sigma } else { -sigma }),
        }
    }

    /// The name that configurations use.
    pub fn config_name(self) -> &'static str {
        match self {
            Prediction::Eps => "epsilon",
            Prediction::X0 => "sample",
            Prediction::V => "v_prediction",
            Prediction::PreviousX => "previous_sample",
            Prediction::Flow { towards_data: false } => "flow_prediction",
            Prediction::Flow { towards_data: true } => "flow_prediction_towards_data",
        }
    }

    /// The prediction of a name in a configuration.
    ///
    /// # Errors
    /// [`Error::Config`] listing the names.
    pub fn from_config_name(name: &str) -> Result<Self> {
        let backwards = Prediction::Flow { towards_data: true };
        let all = [
            Prediction::Eps,
            Prediction::X0,
            Prediction::V,
            Prediction::PreviousX,
            Prediction::FLOW,
            backwards,
        ];
        all.into_iter().find(|prediction| prediction.config_name() == name).ok_or_else(|| {
            Error::Config(format!(
                "prediction {name:?} is not known; there are epsilon, sample, v_prediction, previous_sample, flow_prediction and flow_prediction_towards_data", name = brief(name)))
        })
    }
}

impl Variance {
    /// Whether the network has to have variance channels.
    pub fn is_learned(self) -> bool {
        matches!(self, Variance::Learned | Variance::LearnedRange)
    }

    /// The name that configurations use.
    pub fn config_name(self) -> &'static str {
        match self {
            Variance::Small => "fixed_small",
            Variance::Large => "fixed_large",
            Variance::Learned => "learned",
            Variance::LearnedRange => "learned_range",
        }
    }

    /// The variance of a name in a configuration.
    ///
    /// # Errors
    /// [`Error::Config`] listing the names.
    pub fn from_config_name(name: &str) -> Result<Self> {
        let all = [Variance::Small, Variance::Large, Variance::Learned, Variance::LearnedRange];
        all.into_iter().find(|variance| variance.config_name() == name).ok_or_else(|| {
            Error::Config(format!(
                "variance {name:?} is not known; there are fixed_small, fixed_large, learned and learned_range", name = brief(name)))
        })
    }
}

impl FromStr for Prediction {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "eps" => Ok(Prediction::Eps),
            "x0" => Ok(Prediction::X0),
            "v" => Ok(Prediction::V),
            "flow" => Ok(Prediction::FLOW),
            _ => Err(Error::Config(format!(
                "`{text}` is no prediction; there are eps, x0, v and flow",
                text = brief(text)
            ))),
        }
    }
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Prediction::Eps => "eps",
            Prediction::X0 => "x0",
            Prediction::V => "v",
            Prediction::PreviousX => "previous x",
            Prediction::Flow { .. } => "flow",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prediction_gives_the_picture_back() {
        let (alpha, sigma, x, eps): (f64, f64, f64, f64) = (0.6, 0.8, -0.7, 1.3);
        let (z, posterior) = (alpha * x + sigma * eps, (0.3, 0.65));
        for prediction in [Prediction::Eps, Prediction::X0, Prediction::V, Prediction::PreviousX] {
            let target = prediction.target(alpha, sigma, posterior);
            let out = target.of_x * x + target.of_z * z + target.of_eps * eps;
            let (of_z, of_out) = prediction.x_factors(alpha, sigma, posterior);
            assert!((of_z * z + of_out * out - x).abs() < 1e-14, "{prediction}");
            assert_eq!(Prediction::from_config_name(prediction.config_name()).unwrap(), prediction);
        }
        // On a straight path, where α + σ = 1.
        let (alpha, sigma) = (0.7, 0.3);
        let z = alpha * x + sigma * eps;
        for prediction in [Prediction::FLOW, Prediction::Flow { towards_data: true }] {
            let target = prediction.target(alpha, sigma, posterior);
            let out = target.of_x * x + target.of_z * z + target.of_eps * eps;
            let (of_z, of_out) = prediction.x_factors(alpha, sigma, posterior);
            assert!((of_z * z + of_out * out - x).abs() < 1e-14, "{prediction}");
            assert_eq!(Prediction::from_config_name(prediction.config_name()).unwrap(), prediction);
        }
        assert!("y".parse::<Prediction>().is_err() && Prediction::from_config_name("eps").is_err());
        assert_eq!(Variance::from_config_name("learned_range").unwrap(), Variance::LearnedRange);
        assert!(Variance::from_config_name("small").is_err());
    }
}
