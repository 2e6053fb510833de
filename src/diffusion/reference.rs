//! The f64 reference of the fused step: combine, x̂, clip, mean, noise (the body of the loop of CFG, Algorithm 2).
//!
//! The kernel that does all of it at once is tested against this; the order of operations here is the specification.

use super::clip::Clip;
use super::guidance::{Evaluations, Guidance};
use super::posterior::StepCoefficients;
use crate::{Error, Result};

/// One guided step of one sample. Returns (z', x̂), x̂ after the clip.
///
/// eps̃ = (1 + w) eps_c - w eps_∅, x̂ = clip((z - σ eps̃)/α), z' = `mean_z`·z + `mean_x`·x̂ + `noise_sd`·noise; in the last
/// step z' = x̂ and `noise` is not read, so it may be empty. With w = 0 `eps_unconditional` is not read, with w = -1
/// `eps_conditional` is not. A dynamic clip takes its quantile over all of `z`: pass one sample at a time.
///
/// # Errors
/// [`Error::Shape`] when the lengths differ, [`Error::Config`] when w needs an `eps_unconditional` and there is none.
pub fn guided_step(
    z: &[f64],
    eps_conditional: &[f64],
    eps_unconditional: Option<&[f64]>,
    step: &StepCoefficients,
    guidance: Guidance,
    clip: Clip,
    noise: &[f64],
) -> Result<(Vec<f64>, Vec<f64>)> {
    let fits = |name: &str, len: usize| {
        let what = || format!("z has {} elements but {name} has {len}", z.len());
        if len == z.len() { Ok(()) } else { Err(Error::shape("guided_step", what())) }
    };
    let unconditional = || {
        let missing =
            || Error::Config(format!("guidance weight {} needs eps_unconditional", guidance.weight()));
        eps_unconditional.ok_or_else(missing)
    };

    let eps = match guidance.evaluations() {
        Evaluations::Conditional => eps_conditional.to_vec(),
        Evaluations::Unconditional => unconditional()?.to_vec(),
        Evaluations::Both => {
            let unconditional = unconditional()?;
            fits("eps_unconditional", unconditional.len())?;
            eps_conditional.iter().zip(unconditional).map(|(c, u)| guidance.combine(*c, *u)).collect()
        }
    };
    fits("eps", eps.len())?;

    let mut x_hat: Vec<f64> =
        z.iter().zip(&eps).map(|(z, eps)| (z - step.sigma * eps) * step.inverse_alpha).collect();
    clip.apply(&mut x_hat);
    if step.is_last {
        return Ok((x_hat.clone(), x_hat));
    }

    fits("noise", noise.len())?;
    let next =
        |((z, x), noise): ((&f64, &f64), &f64)| step.mean_z * z + step.mean_x * x + step.noise_sd * noise;
    let z_next = z.iter().zip(&x_hat).zip(noise).map(next).collect();
    Ok((z_next, x_hat))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(w: f64) -> Guidance {
        Guidance::from_weight(w).unwrap()
    }

    #[test]
    fn the_true_noise_returns_the_image() {
        let step = StepCoefficients::between(-1.0, 0.5, 0.3);
        let (x, eps) = ([0.3, -0.9, 0.0], [1.0, -0.5, 2.0]);
        let z: Vec<f64> = x.iter().zip(&eps).map(|(x, eps)| step.alpha * x + step.sigma * eps).collect();
        let (z_next, x_hat) =
            guided_step(&z, &eps, None, &step, weight(0.0), Clip::Static, &[0.0, 1.0, -2.0]).unwrap();
        for i in 0..3 {
            assert!((x_hat[i] - x[i]).abs() < 1e-14);
            let expected = step.mean_z * z[i] + step.mean_x * x[i] + step.noise_sd * [0.0, 1.0, -2.0][i];
            assert!((z_next[i] - expected).abs() < 1e-14);
        }
    }

    #[test]
    fn single_evaluations_do_not_read_the_other_half() {
        let step = StepCoefficients::last(2.0);
        let (z, eps, broken) = ([0.1, 0.2], [0.5, -0.5], [f64::NAN; 2]);
        let plain = guided_step(&z, &eps, None, &step, weight(0.0), Clip::None, &[]).unwrap();
        assert_eq!(guided_step(&z, &eps, Some(&broken), &step, weight(0.0), Clip::None, &[]).unwrap(), plain);
        assert_eq!(
            guided_step(&z, &broken, Some(&eps), &step, weight(-1.0), Clip::None, &[]).unwrap(),
            plain
        );
        assert_eq!(plain.0, plain.1);
    }

    #[test]
    fn guidance_extrapolates_and_the_clip_acts_on_x_hat() {
        let step = StepCoefficients::last(0.0);
        let (z, c, u) = ([0.0, 0.0], [-1.0, 0.25], [0.0, 0.0]);
        let (_, free) = guided_step(&z, &c, Some(&u), &step, weight(1.0), Clip::None, &[]).unwrap();
        assert!((free[0] - 2.0).abs() < 1e-15 && (free[1] + 0.5).abs() < 1e-15, "{free:?}");
        let (_, clipped) = guided_step(&z, &c, Some(&u), &step, weight(1.0), Clip::Static, &[]).unwrap();
        assert_eq!(clipped, [1.0, free[1]]);
        let highest = Clip::dynamic(1.0).unwrap();
        let (_, scaled) = guided_step(&z, &c, Some(&u), &step, weight(1.0), highest, &[]).unwrap();
        assert_eq!(scaled, [1.0, free[1] / free[0]]);
    }

    #[test]
    fn misfits_are_errors() {
        let step = StepCoefficients::between(0.0, 1.0, 0.0);
        let run = |c: &[f64], u: Option<&[f64]>, w, noise: &[f64]| {
            guided_step(&[0.0; 2], c, u, &step, weight(w), Clip::None, noise).unwrap_err().to_string()
        };
        assert!(run(&[0.0; 2], None, 1.0, &[0.0; 2]).contains("eps_unconditional"));
        assert!(run(&[0.0; 3], None, 0.0, &[0.0; 2]).contains("z has 2 elements but eps has 3"));
        assert!(run(&[0.0; 2], Some(&[0.0; 1]), 1.0, &[0.0; 2]).contains("eps_unconditional has 1"));
        assert!(run(&[0.0; 2], None, 0.0, &[0.0; 5]).contains("noise has 5"));
    }
}
