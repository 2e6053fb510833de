//! The Fréchet distance of two normal distributions: FID and, on spatial features, sFID.
//!
//! d² = ‖μ₁ - μ₂‖² + Tr(Σ₁ + Σ₂ - 2(Σ₁Σ₂)^{1/2}) (Heusel et al., arXiv 1706.08500, equation 6).

use super::linalg::trace_of_root;
use super::{Gaussian, same_dim};
use crate::error::{Error, Result};

/// d² of two distributions of features; never below 0.
///
/// # Errors
/// [`Error::Shape`] when they are of different dimensions, [`Error::Config`] when a number is not finite.
pub fn frechet_distance(a: &Gaussian, b: &Gaussian) -> Result<f64> {
    let dim = a.dim();
    same_dim("frechet_distance", dim, b.dim())?;
    for gaussian in [a, b] {
        let needed = dim * dim;
        if gaussian.covariance.len() != needed {
            let what = format!("a covariance of {} numbers, but {dim} means", gaussian.covariance.len());
            return Err(Error::shape("frechet_distance", what));
        }
        if !gaussian.mean.iter().chain(&gaussian.covariance).all(|x| x.is_finite()) {
            return Err(Error::Config("a mean or a covariance holds NaN or infinity".into()));
        }
    }
    let apart: f64 = a.mean.iter().zip(&b.mean).map(|(a, b)| (a - b).powi(2)).sum();
    let trace = |gaussian: &Gaussian| -> f64 { gaussian.covariance.iter().step_by(dim + 1).sum() };
    let shared = trace_of_root(&a.covariance, &b.covariance, dim)?;
    Ok((apart + trace(a) + trace(b) - 2.0 * shared).max(0.0))
}
