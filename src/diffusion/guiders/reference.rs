//! The f64 reference of a guided step.

use super::chain::Guiders;
use super::guider::{Evaluated, Memory, Moment, Work};
use crate::diffusion::Clip;
use crate::{Error, Result};

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
