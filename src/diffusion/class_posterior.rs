//! The unconditional score from those of all classes (CFG, section 5): eps_∅ = Σ_c p(c|z) eps_c, for few classes.
//!
//! p(c|z_t) is accumulated along the chain. Its steps are Gaussians with known means μ_c(z_t), so
//!
//!   log p(c|z_{t+1}) = log p(c|z_t) + log N(z_{t+1}; μ_c(z_t), V) + const,
//!
//! from the prior on. With the true variance of z_{t+1} given z_t and the class this is exact at any number of steps; with
//! the sampler's it is so as the steps become many.

use crate::{Error, Result};

/// p(c|z) of one chain.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassPosterior {
    logs: Vec<f64>,
}

impl ClassPosterior {
    /// Begins with the prior, which need not be normalised.
    ///
    /// # Errors
    /// [`Error::Config`] for fewer than two classes, or a prior that is no set of probabilities above 0.
    pub fn new(prior: &[f64]) -> Result<Self> {
        if prior.len() < 2 || !prior.iter().all(|p| *p > 0.0 && p.is_finite()) {
            return Err(Error::Config(format!(
                "a prior of classes is two or more numbers above 0, not {prior:?}"
            )));
        }
        let mut posterior = ClassPosterior { logs: prior.iter().map(|p| p.ln()).collect() };
        posterior.normalise();
        Ok(posterior)
    }

    /// p(c|z), summing to 1.
    pub fn probabilities(&self) -> Vec<f64> {
        self.logs.iter().map(|log| log.exp()).collect()
    }

    /// Learns the next latent, given its mean under each class and the variance that all share.
    ///
    /// # Errors
    /// [`Error::Shape`] when means and classes differ in number, or lengths differ.
    pub fn observe(&mut self, next: &[f64], means: &[Vec<f64>], variance: f64) -> Result<()> {
        if means.len() != self.logs.len() || means.iter().any(|mean| mean.len() != next.len()) {
            let what = format!("{} means for {} classes", means.len(), self.logs.len());
            return Err(Error::shape("class posterior", what));
        }
        for (log, mean) in self.logs.iter_mut().zip(means) {
            let square: f64 = next.iter().zip(mean).map(|(z, mean)| (z - mean).powi(2)).sum();
            *log -= square / (2.0 * variance);
        }
        self.normalise();
        Ok(())
    }

    fn normalise(&mut self) {
        let largest = self.logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total = self.logs.iter().map(|log| (log - largest).exp()).sum::<f64>().ln() + largest;
        self.logs.iter_mut().for_each(|log| *log -= total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::toy::{CLASSES, MixtureAt, STANDARD_DEVIATION};
    use crate::diffusion::{ContinuousSchedule, StepCoefficients, ancestral_steps};
    use crate::random::{Stream, fill_normal};

    const CHAINS: u64 = 30;

    /// The error of p(c|z) in the worst of `steps` steps, a mean over plain chains, with the class's own variance or the
    /// sampler's.
    fn error(steps: usize, own: bool) -> f64 {
        let steps = ancestral_steps(&ContinuousSchedule::default(), steps, 0.0).unwrap();
        let mut errors = vec![0.0f64; steps.len()];
        for seed in 0..CHAINS {
            let normal = |index, stream| -> Vec<f64> {
                fill_normal(seed, index, stream, 2).into_iter().map(f64::from).collect()
            };
            let mut z = normal(0, Stream::InitialNoise);
            let mut posterior = ClassPosterior::new(&[1.0; CLASSES]).unwrap();
            for (t, step) in steps.iter().enumerate() {
                let mixture = MixtureAt::log_snr(step.log_snr);
                let want = mixture.posterior([z[0], z[1]]);
                let apart =
                    posterior.probabilities().into_iter().zip(want).map(|(got, want)| (got - want).abs());
                errors[t] += apart.fold(0.0, f64::max) / CHAINS as f64;
                if step.is_last {
                    break;
                }
                let mean = |eps: [f64; 2]| -> Vec<f64> {
                    let x = |axis: usize| (z[axis] - step.sigma * eps[axis]) / step.alpha;
                    (0..2).map(|axis| step.mean_z * z[axis] + step.mean_x * x(axis)).collect()
                };
                let means: Vec<_> =
                    (0..CLASSES).map(|c| mean(mixture.eps_conditional([z[0], z[1]], c))).collect();
                let noise = normal(t as u64, Stream::StepNoise);
                let followed = &means[seed as usize % CLASSES];
                let next: Vec<f64> =
                    followed.iter().zip(&noise).map(|(m, n)| m + step.noise_sd * n).collect();
                let variance = if own { own_variance(&steps[t..]) } else { step.noise_sd.powi(2) };
                posterior.observe(&next, &means, variance).unwrap();
                z = next;
            }
        }
        errors.into_iter().fold(0.0, f64::max)
    }

    /// The variance of the next latent given this one and a class of the toy.
    fn own_variance(steps: &[StepCoefficients]) -> f64 {
        let (step, next) = (&steps[0], &steps[1]);
        let s2 = STANDARD_DEVIATION.powi(2);
        let of_x = s2 * step.sigma.powi(2) / (step.alpha.powi(2) * s2 + step.sigma.powi(2));
        let small = -(step.log_snr - next.log_snr).exp_m1() * next.sigma.powi(2);
        small + step.mean_x.powi(2) * of_x
    }

    #[test]
    fn on_the_toy_it_is_the_closed_form() {
        for steps in [8, 32] {
            let error = error(steps, true);
            // What is left is the start: at λ = -20 a latent still says a little of its class.
            assert!(error < 2e-4, "{steps} steps: {error:e}");
        }
    }

    #[test]
    fn with_the_samplers_variance_it_becomes_so() {
        let (few, many) = (error(128, false), error(1024, false));
        assert!(few > 3.0 * many && many < 0.04, "128 steps: {few}, 1024 steps: {many}");
    }

    #[test]
    fn misfits_are_errors() {
        for bad in [&[1.0][..], &[1.0, 0.0], &[1.0, f64::NAN], &[1.0, -1.0]] {
            assert!(ClassPosterior::new(bad).is_err(), "{bad:?}");
        }
        let mut posterior = ClassPosterior::new(&[1.0, 3.0]).unwrap();
        assert!((posterior.probabilities()[1] - 0.75).abs() < 1e-15);
        assert!(posterior.observe(&[0.0], &[vec![1.0]], 1.0).is_err());
        // Nothing overflows where the evidence is overwhelming.
        posterior.observe(&[0.0], &[vec![0.0], vec![1e6]], 1e-6).unwrap();
        assert_eq!(posterior.probabilities(), [1.0, 0.0]);
    }
}
