//! Sums over a sample, and over evaluations, that several guiders take.

use super::guider::{Beside, Evaluated};

/// (1 + w) eps_c - w eps_u and each further evaluation's difference from eps_u at its strength.
pub(super) fn combined(weight: f64, eps: &Evaluated<'_>, more: &[(Beside, f64)]) -> Vec<f64> {
    let mut guided: Vec<f64> =
        eps.conditional.iter().zip(eps.against).map(|(c, u)| (1.0 + weight) * c - weight * u).collect();
    for ((_, strength), more) in more.iter().zip(eps.more) {
        let further = more.iter().zip(eps.against).map(|(eps, u)| strength * (eps - u));
        guided.iter_mut().zip(further).for_each(|(x, further)| *x += further);
    }
    guided
}

/// <a, b>.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The standard deviation over all elements, divided by their number less one.
pub(super) fn deviation(x: &[f64]) -> f64 {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (x.len() as f64 - 1.0).max(1.0)).sqrt()
}
