//! The mixture at every noise level: densities, posterior and the exact noise predictions.

use std::f64::consts::TAU;

use crate::diffusion::schedule::{alpha_of_log_snr, sigma_of_log_snr};

/// A point of the plane.
pub type Point = [f64; 2];

/// How many classes there are, each with prior 1/3.
pub const CLASSES: usize = 3;

/// The distance of the class means from the origin.
pub const RADIUS: f64 = 1.0;

/// The standard deviation of a class, the same in both directions.
pub const STANDARD_DEVIATION: f64 = 0.5;

/// The unit vector from the origin to the mean of a class: at 90°, 210° and 330°. Classes count modulo 3.
pub fn direction(class: usize) -> Point {
    let angle = TAU * (0.25 + (class % CLASSES) as f64 / CLASSES as f64);
    [angle.cos(), angle.sin()]
}

/// The mean of a class.
pub fn class_mean(class: usize) -> Point {
    direction(class).map(|x| RADIUS * x)
}

/// The mixture after diffusion: z given c is N(α μ_c, α² s² + σ²) with s the classes' standard deviation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MixtureAt {
    means: [Point; CLASSES],
    variance: f64,
    alpha: f64,
    sigma: f64,
}

impl MixtureAt {
    /// The data themselves: α = 1, σ = 0.
    pub fn data() -> Self {
        MixtureAt::diffused(1.0, 0.0)
    }

    /// At the log signal-to-noise ratio λ.
    pub fn log_snr(log_snr: f64) -> Self {
        MixtureAt::diffused(alpha_of_log_snr(log_snr), sigma_of_log_snr(log_snr))
    }

    /// The distribution of α x + σ eps.
    pub fn diffused(alpha: f64, sigma: f64) -> Self {
        MixtureAt {
            means: [0, 1, 2].map(|class| class_mean(class).map(|x| alpha * x)),
            variance: (alpha * STANDARD_DEVIATION).powi(2) + sigma * sigma,
            alpha,
            sigma,
        }
    }

    /// At λ, of classes with another standard deviation.
    pub fn blurred(log_snr: f64, standard_deviation: f64) -> Self {
        let mixture = MixtureAt::log_snr(log_snr);
        let variance = (mixture.alpha * standard_deviation).powi(2) + mixture.sigma * mixture.sigma;
        MixtureAt { variance, ..mixture }
    }

    /// p(z|c), per unit of area. Classes count modulo 3, here and below.
    pub fn class_density(&self, z: Point, class: usize) -> f64 {
        self.exponent(z, class).exp() / (TAU * self.variance)
    }

    /// p(z), per unit of area.
    pub fn marginal_density(&self, z: Point) -> f64 {
        (0..CLASSES).map(|class| self.class_density(z, class)).sum::<f64>() / CLASSES as f64
    }

    /// p(c|z) of all classes.
    pub fn posterior(&self, z: Point) -> [f64; CLASSES] {
        let exponents = [0, 1, 2].map(|class| self.exponent(z, class));
        // Relative to the largest, so that a far point does not divide zero by zero.
        let largest = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights = exponents.map(|exponent| (exponent - largest).exp());
        let total: f64 = weights.iter().sum();
        weights.map(|weight| weight / total)
    }

    /// p(z|c) p(c|z)^w, not normalised.
    pub fn guided_density(&self, z: Point, class: usize, guidance_weight: f64) -> f64 {
        self.class_density(z, class) * self.posterior(z)[class % CLASSES].powf(guidance_weight)
    }

    /// The exact noise prediction given the class: eps = -σ ∇ log p(z|c) = σ (z - α μ_c)/(α² s² + σ²).
    pub fn eps_conditional(&self, z: Point, class: usize) -> Point {
        self.eps_of_mean(z, self.means[class % CLASSES])
    }

    /// The same given a class whose data have the mean `mean`.
    pub fn eps_towards(&self, z: Point, mean: Point) -> Point {
        self.eps_of_mean(z, mean.map(|x| self.alpha * x))
    }

    fn eps_of_mean(&self, z: Point, mean: Point) -> Point {
        [0, 1].map(|axis| self.sigma * (z[axis] - mean[axis]) / self.variance)
    }

    /// The exact noise prediction without a class: eps = -σ ∇ log p(z), the conditional ones weighed by p(c|z).
    pub fn eps_marginal(&self, z: Point) -> Point {
        let posterior = self.posterior(z);
        let conditional = [0, 1, 2].map(|class| self.eps_conditional(z, class));
        [0, 1].map(|axis| (0..CLASSES).map(|class| posterior[class] * conditional[class][axis]).sum())
    }

    /// The logarithm of p(z|c) up to what all classes share.
    fn exponent(&self, z: Point, class: usize) -> f64 {
        let mean = self.means[class % CLASSES];
        -0.5 * ((z[0] - mean[0]).powi(2) + (z[1] - mean[1]).powi(2)) / self.variance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINTS: [Point; 4] = [[0.0, 0.0], [1.3, -0.2], [-0.7, 2.1], [0.4, -1.5]];

    /// -σ ∇ f by central differences.
    fn minus_sigma_gradient(mixture: &MixtureAt, z: Point, f: impl Fn(Point) -> f64) -> Point {
        let h = 1e-5;
        let along_x = f([z[0] + h, z[1]]) - f([z[0] - h, z[1]]);
        let along_y = f([z[0], z[1] + h]) - f([z[0], z[1] - h]);
        [along_x, along_y].map(|difference| -mixture.sigma * difference / (2.0 * h))
    }

    #[test]
    fn noise_predictions_are_scores() {
        for log_snr in [-6.0, -1.0, 0.5, 3.0] {
            let mixture = MixtureAt::log_snr(log_snr);
            for z in POINTS {
                let marginal = minus_sigma_gradient(&mixture, z, |z| mixture.marginal_density(z).ln());
                let exact = mixture.eps_marginal(z);
                assert!((marginal[0] - exact[0]).hypot(marginal[1] - exact[1]) < 1e-7, "{z:?} at {log_snr}");
                for class in 0..CLASSES {
                    let score = minus_sigma_gradient(&mixture, z, |z| mixture.class_density(z, class).ln());
                    let exact = mixture.eps_conditional(z, class);
                    assert!((score[0] - exact[0]).hypot(score[1] - exact[1]) < 1e-7, "{z:?} at {log_snr}");
                }
            }
        }
    }

    #[test]
    fn posterior_is_bayes() {
        let data = MixtureAt::data();
        for z in POINTS {
            let posterior = data.posterior(z);
            assert!((posterior.iter().sum::<f64>() - 1.0).abs() < 1e-15);
            for (class, probability) in posterior.iter().enumerate() {
                let bayes = data.class_density(z, class) / 3.0 / data.marginal_density(z);
                assert!((probability - bayes).abs() < 1e-14);
                let guided = data.guided_density(z, class, 2.0);
                assert!((guided - data.class_density(z, class) * bayes * bayes).abs() < 1e-14);
            }
        }
        assert!(data.posterior([0.0, 0.0]).iter().all(|p| (p - 1.0 / 3.0).abs() < 1e-15));
        let far = data.posterior([0.0, 500.0]);
        assert_eq!(far, [1.0, 0.0, 0.0]);
    }

    #[test]
    fn pure_noise_is_standard_normal() {
        let noise = MixtureAt::log_snr(-20.0);
        let density = (-0.5f64).exp() / TAU;
        assert!((noise.marginal_density([1.0, 0.0]) - density).abs() < 1e-5);
        let eps = noise.eps_marginal([1.0, -2.0]);
        assert!((eps[0] - 1.0).hypot(eps[1] + 2.0) < 1e-4);
    }
}
