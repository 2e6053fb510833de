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
//! | preconditioned (arXiv 2206.00364) | (σ/(σ_data r)) x - (σ_data α/r) eps | (σ_data² α/r²) z + (σ σ_data/r) out |
//!
//! The last is EDM's table 1 with s = σ/α and its latent z/α: c_skip/α and c_out are the factors of x̂, the network's input is
//! c_in z/α = z/r with r = √(σ² + σ_data² α²), and its loss weight λ(s) c_out(s)² is 1. The target is (x - c_skip z/α)/c_out
//! with z put in, where nothing cancels.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::diffusion::sigma::SIGMA_DATA;
use crate::error::brief;
use crate::{Error, Result};

/// What the first C channels of a network's output are.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
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
    /// EDM's: what the skip connection c_skip leaves of the picture, in units of c_out; the network's input is scaled.
    Preconditioned {
        /// The standard deviation of the data.
        sigma_data: f64,
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
    /// EDM's, for pictures.
    pub const EDM: Prediction = Prediction::Preconditioned { sigma_data: SIGMA_DATA };

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
            Prediction::Preconditioned { sigma_data } => {
                let r = sigma.hypot(sigma_data * alpha);
                TargetFactors { of_x: sigma / (sigma_data * r), of_eps: -sigma_data * alpha / r, ..none }
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
            Prediction::Preconditioned { sigma_data } => {
                let r = sigma.hypot(sigma_data * alpha);
                (sigma_data.powi(2) * alpha / r.powi(2), sigma * sigma_data / r)
            }
        }
    }

    /// The factor of z in what the network sees: 1 but for EDM's c_in, by which its input has unit variance.
    pub fn input_factor(self, alpha: f64, sigma: f64) -> f64 {
        match self {
            Prediction::Preconditioned { sigma_data } => sigma.hypot(sigma_data * alpha).recip(),
            _ => 1.0,
        }
    }

    /// Whether that factor is another than 1.
    pub fn scales_input(self) -> bool {
        matches!(self, Prediction::Preconditioned { .. })
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
            Prediction::Preconditioned { .. } => "preconditioned",
        }
    }

    /// The prediction of a name in a configuration; σ_data stands beside it there, and is that of pictures here.
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
            Prediction::EDM,
        ];
        all.into_iter().find(|prediction| prediction.config_name() == name).ok_or_else(|| {
            Error::Config(format!(
                "prediction {name:?} is not known; there are epsilon, sample, v_prediction, previous_sample, flow_prediction, flow_prediction_towards_data and preconditioned", name = brief(name)))
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
            "edm" => Ok(Prediction::EDM),
            _ => Err(Error::Config(format!(
                "`{text}` is no prediction; there are eps, x0, v, flow and edm",
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
            Prediction::Preconditioned { .. } => "edm",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table 1 of EDM as it is printed, in y = x + s n: D(y; s) = c_skip y + c_out F(c_in y), and the loss λ (D - x)².
    #[test]
    fn preconditioning_is_that_of_edms_table() {
        for (sigma_data, s, x, n) in
            [(0.5f64, 0.002f64, 0.3, -1.1), (0.5, 1.7, -0.8, 0.4), (1.3, 80.0, 0.9, 2.0)]
        {
            let (alpha, sigma) = (1.0 / s.hypot(1.0), s / s.hypot(1.0));
            let prediction = Prediction::Preconditioned { sigma_data };
            let (y, z) = (x + s * n, alpha * x + sigma * n);
            let total = s.powi(2) + sigma_data.powi(2);
            let (c_skip, c_out) = (sigma_data.powi(2) / total, s * sigma_data / total.sqrt());
            let c_in = 1.0 / total.sqrt();
            let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12 * a.abs().max(1.0), "{a} {b} at {s}");
            close(prediction.input_factor(alpha, sigma) * z, c_in * y);
            let target = prediction.target(alpha, sigma, (1.0, 0.0));
            let f = target.of_x * x + target.of_eps * n;
            assert!((c_out * f - (x - c_skip * y)).abs() < 1e-12, "the target at {s}");
            let (of_z, of_out) = prediction.x_factors(alpha, sigma, (1.0, 0.0));
            for out in [f, 0.7] {
                close(of_z * z + of_out * out, c_skip * y + c_out * out);
            }
            // The weight of the error of F.
            close((s.powi(2) + sigma_data.powi(2)) / (s * sigma_data).powi(2) * of_out.powi(2), 1.0);
        }
        // Data of variance 1: the velocity, but for its sign.
        let unit = Prediction::Preconditioned { sigma_data: 1.0 }.target(0.6, 0.8, (1.0, 0.0));
        let v = Prediction::V.target(0.6, 0.8, (1.0, 0.0));
        assert!((unit.of_x + v.of_x).abs() < 1e-15 && (unit.of_eps + v.of_eps).abs() < 1e-15);
    }

    #[test]
    fn every_prediction_gives_the_picture_back() {
        let (alpha, sigma, x, eps): (f64, f64, f64, f64) = (0.6, 0.8, -0.7, 1.3);
        let (z, posterior) = (alpha * x + sigma * eps, (0.3, 0.65));
        for prediction in
            [Prediction::Eps, Prediction::X0, Prediction::V, Prediction::PreviousX, Prediction::EDM]
        {
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
        assert_eq!(Prediction::from_config_name("preconditioned").unwrap(), Prediction::EDM);
        assert!("y".parse::<Prediction>().is_err() && Prediction::from_config_name("eps").is_err());
        assert_eq!(Variance::from_config_name("learned_range").unwrap(), Variance::LearnedRange);
        assert!(Variance::from_config_name("small").is_err());
    }
}
