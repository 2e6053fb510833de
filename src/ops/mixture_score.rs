//! The exact noise prediction of a mixture of Gaussians: a network without parameters, for samplers to be tested with.
//!
//!   eps = -σ ∇ log p(z|c) = σ (z - α μ_c)/(α² s² + σ²);   without a class μ_c becomes Σ_k p(k|z) μ_k.
//!
//! K isotropic Gaussians of equal weight with means μ_k `[K, D]` and one standard deviation s, diffused to the level of the
//! sampler's current step; z and eps `[N, ..]` with D elements a sample. The f64 twin is
//! [`MixtureAt`](crate::diffusion::toy::MixtureAt). No gradient: there is nothing to learn.

use bytemuck::{Pod, Zeroable};

use super::noised::expect;
use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const OP: &str = "mixture_score";

const SCORE: Kernel = Kernel::new(
    OP,
    wgsl!("mixture_score"),
    "score",
    &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Read, Access::Write],
);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    samples: u32,
    width: u32,
    classes: u32,
    steps: u32,
    variance: f32,
    pad: [u32; 3],
}

/// A mixture of isotropic Gaussians of equal weight.
#[derive(Clone, Copy, Debug)]
pub struct Mixture<'a> {
    /// `[K, D]` f32: the mean of each class.
    pub means: &'a Tensor,
    /// The standard deviation of all of them, in every direction.
    pub standard_deviation: f64,
}

/// eps of `z` `[N, ..]` f32 given `labels` `[N]` u32, K or more for the mixture as a whole. `steps` is `[T, 12]` of
/// [`step_table`](super::step_table), `counter` `[1]` u32.
///
/// # Errors
/// [`Error::Shape`] when one has not this shape and type, [`Error::Config`] for a standard deviation below 0.
pub fn mixture_score(
    cx: &mut Context,
    z: &Tensor,
    labels: &Tensor,
    mixture: Mixture<'_>,
    steps: &Tensor,
    counter: &Tensor,
) -> Result<Tensor> {
    let Mixture { means, standard_deviation } = mixture;
    let (&[classes, width], Some((&samples, rest))) = (means.shape(), z.shape().split_first()) else {
        let what = format!("expected z [N, ..] and means [K, D], got {:?}, {:?}", z.shape(), means.shape());
        return Err(Error::shape(OP, what));
    };
    if rest.iter().product::<usize>() != width || classes == 0 || z.is_empty() {
        let what = format!("z {:?} has not the {width} elements a sample of {classes} means", z.shape());
        return Err(Error::shape(OP, what));
    }
    if !(standard_deviation >= 0.0 && standard_deviation.is_finite()) {
        return Err(Error::Config(format!("the standard deviation of a mixture is {standard_deviation}")));
    }
    expect(OP, "z", z, z.shape(), DType::F32)?;
    expect(OP, "labels", labels, &[samples], DType::U32)?;
    expect(OP, "means", means, &[classes, width], DType::F32)?;
    expect(OP, "steps", steps, &[steps.shape().first().copied().unwrap_or(1).max(1), 12], DType::U32)?;
    expect(OP, "counter", counter, &[1], DType::U32)?;
    let eps = cx.output("mixture eps", z.shape(), DType::F32)?;
    let params = Params {
        samples: samples as u32,
        width: width as u32,
        classes: classes as u32,
        steps: steps.shape()[0] as u32,
        variance: (standard_deviation * standard_deviation) as f32,
        pad: [0; 3],
    };
    let launch = cx.launch(&SCORE).bind(z).bind(labels).bind(means).bind(steps).bind(counter);
    launch.bind(&eps).params(&params).over(samples, 64);
    Ok(eps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::StepCoefficients;
    use crate::diffusion::toy::{CLASSES, MixtureAt, STANDARD_DEVIATION, class_mean};
    use crate::ops::step_table;
    use crate::testing::{Array, forward, gpu};

    /// eps of `z` at `log_snr`, which is the second of two steps.
    fn score(z: &Array, labels: &[u32], means: &Array, deviation: f64, log_snr: f64) -> Array {
        let mut cx = Context::new(gpu());
        let rows = [1.5, log_snr].map(|log_snr| StepCoefficients::last(log_snr).scalars());
        let steps = step_table(&cx, &rows).unwrap();
        let counter = cx.constant_u32("counter", &[1], &[1]).unwrap();
        let labels = cx.constant_u32("labels", &[labels.len()], labels).unwrap();
        let (z, means) = (z.upload(&cx, DType::F32), means.upload(&cx, DType::F32));
        let mixture = Mixture { means: &means, standard_deviation: deviation };
        let eps = mixture_score(&mut cx, &z, &labels, mixture, &steps, &counter).unwrap();
        forward(&[z, labels, means, steps, counter], cx, &eps)
    }

    #[test]
    fn matches_the_closed_forms_of_the_toy() {
        const SAMPLES: usize = 67;
        let z = Array::random(&[SAMPLES, 1, 1, 2], 1).map(|x| 4.0 * x);
        let means = (0..CLASSES).flat_map(class_mean).map(|x| x as f32).collect();
        let means = Array::new(&[CLASSES, 2], means);
        // Classes 0 to 2, and two spellings of "none".
        let labels: Vec<u32> =
            (0..SAMPLES as u32).map(|i| if i % 5 == 4 { u32::MAX } else { i % 5 }).collect();
        for log_snr in [-20.0, -6.0, -1.0, 0.5, 3.0, 20.0] {
            let exact = MixtureAt::log_snr(log_snr);
            let want = z.data.chunks(2).zip(&labels).flat_map(|(z, &label)| {
                let z = [z[0], z[1]].map(f64::from);
                let class = label as usize;
                if class < CLASSES { exact.eps_conditional(z, class) } else { exact.eps_marginal(z) }
            });
            let want = Array::new(&z.shape, want.map(|x| x as f32).collect());
            let got = score(&z, &labels, &means, STANDARD_DEVIATION, log_snr);
            got.check_within(&format!("eps at {log_snr}"), &want, 2e-6);
        }
    }

    /// Five classes in three dimensions, by differences of log p in f64.
    #[test]
    fn is_the_score_in_other_dimensions() {
        let (means, z) = (Array::random(&[5, 3], 2), Array::random(&[2, 3], 3));
        let (deviation, log_snr) = (0.3, 0.7);
        let level = StepCoefficients::last(log_snr);
        let variance = (level.alpha * deviation).powi(2) + level.sigma.powi(2);
        let log_density = |z: &[f64]| {
            let of_class = |mean: &[f32]| {
                let squares = z.iter().zip(mean).map(|(z, &m)| (z - level.alpha * f64::from(m)).powi(2));
                (-0.5 * squares.sum::<f64>() / variance).exp()
            };
            means.data.chunks(3).map(of_class).sum::<f64>().ln()
        };
        let mut want = Vec::new();
        for sample in z.data.chunks(3) {
            for axis in 0..3 {
                let shifted = |by: f64| {
                    let mut z: Vec<f64> = sample.iter().map(|&x| f64::from(x)).collect();
                    z[axis] += by;
                    log_density(&z)
                };
                want.push((-level.sigma * (shifted(1e-5) - shifted(-1e-5)) / 2e-5) as f32);
            }
        }
        score(&z, &[5, 9], &means, deviation, log_snr).check("eps", &Array::new(&[2, 3], want), DType::F32);
    }

    #[test]
    fn misfits_are_errors() {
        let mut cx = Context::new(gpu());
        let steps = step_table(&cx, &[StepCoefficients::last(0.0).scalars()]).unwrap();
        let counter = cx.constant_u32("counter", &[1], &[0]).unwrap();
        let labels = cx.constant_u32("labels", &[4], &[0; 4]).unwrap();
        let [z, means] = [[4, 3], [3, 2]].map(|shape| Array::random(&shape, 1).upload(&cx, DType::F32));
        let mut score = |z: &Tensor, means: &Tensor, standard_deviation| {
            let mixture = Mixture { means, standard_deviation };
            mixture_score(&mut cx, z, &labels, mixture, &steps, &counter).unwrap_err().to_string()
        };
        assert!(score(&z, &means, 0.5).contains("[4, 3]"));
        assert!(score(&means, &means, 0.5).contains("labels must be [3] U32"));
        assert!(score(&means, &means, f64::NAN).contains("NaN"));
    }
}
