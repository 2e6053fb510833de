//! What guiders see of one sample, and the f64 reference of a guided step.

use super::{Guiders, Moment, Work};
use crate::diffusion::{Clip, StepCoefficients};
use crate::{Error, Result};

/// The evaluations of one sample at a step.
#[derive(Clone, Copy, Debug)]
pub struct Evaluated<'a> {
    /// The latent.
    pub z: &'a [f64],
    /// eps of the condition.
    pub conditional: &'a [f64],
    /// eps of what stands for no condition.
    pub against: &'a [f64],
    /// eps of each further condition.
    pub more: &'a [&'a [f64]],
    /// The step's numbers.
    pub step: &'a StepCoefficients,
}

/// What a guider remembers of one sample from step to step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// APG's m, in the space of x̂; empty at the start.
    pub momentum: Vec<f64>,
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

impl Guiders {
    /// eps̃ of one sample with weight w.
    ///
    /// # Errors
    /// [`Error::Shape`] when lengths differ, [`Error::Config`] for an expression, which only a device computes.
    pub fn combine(&self, weight: f64, eps: &Evaluated<'_>, memory: &mut Memory) -> Result<Vec<f64>> {
        let len = eps.z.len();
        let all = [eps.conditional, eps.against].into_iter().chain(eps.more.iter().copied());
        if let Some(other) = all.map(<[f64]>::len).find(|&other| other != len) {
            return Err(Error::shape("guiders", format!("z has {len} elements, an eps {other}")));
        }
        if self.iter().any(|guider| matches!(guider.work(), Work::Expression(_))) {
            return Err(Error::Config("an expression is computed on a device alone".into()));
        }
        let mut guided = if self.needs_all(weight) {
            let plain = || {
                let one = |(c, u): (&f64, &f64)| (1.0 + weight) * c - weight * u;
                eps.conditional.iter().zip(eps.against).map(one).collect()
            };
            let own = self.iter().find_map(|guider| guider.combine(weight, eps, memory));
            let mut guided = own.unwrap_or_else(plain);
            self.iter().for_each(|guider| guider.correct(eps, &mut guided));
            guided
        } else {
            // One evaluation, and nothing to remember.
            eps.conditional.to_vec()
        };
        let factor = self.eps_factor();
        if factor != 1.0 {
            guided.iter_mut().for_each(|x| *x *= factor);
        }
        Ok(guided)
    }

    /// One guided step of one sample: (z', x̂), x̂ after the clip. `eps.step` holds the schedule's own numbers.
    ///
    /// # Errors
    /// As [`combine`](Self::combine).
    pub fn guided_step(
        &self,
        at: &Moment,
        weight: f64,
        eps: &Evaluated<'_>,
        clip: Clip,
        noise: &[f64],
        memory: &mut Memory,
    ) -> Result<(Vec<f64>, Vec<f64>)> {
        let guided = self.combine(weight, eps, memory)?;
        let mut step = *eps.step;
        self.iter().for_each(|guider| guider.step(at, &mut step));
        let mut x_hat: Vec<f64> =
            eps.z.iter().zip(&guided).map(|(z, eps)| (z - step.sigma * eps) * step.inverse_alpha).collect();
        clip.apply(&mut x_hat);
        if step.is_last {
            return Ok((x_hat.clone(), x_hat));
        }
        if noise.len() != eps.z.len() {
            let what = format!("z has {} elements but the noise has {}", eps.z.len(), noise.len());
            return Err(Error::shape("guiders", what));
        }
        let from: Vec<f64> = if self.renoises() {
            x_hat.iter().zip(eps.against).map(|(x, u)| step.alpha * x + step.sigma * u).collect()
        } else {
            eps.z.to_vec()
        };
        let next =
            |((z, x), noise): ((&f64, &f64), &f64)| step.mean_z * z + step.mean_x * x + step.noise_sd * noise;
        let z_next = from.iter().zip(&x_hat).zip(noise).map(next).collect();
        Ok((z_next, x_hat))
    }
}
