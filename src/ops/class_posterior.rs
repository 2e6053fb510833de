//! The unconditional prediction from those of all classes, p(c|z) accumulated along the chain (CFG, section 5). The
//! reference is [`ClassPosterior`](crate::diffusion::ClassPosterior). No gradient: sampling alone uses it.

use bytemuck::{Pod, Zeroable};

use super::noised::expect;
use crate::diffusion::Clip;
use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const OP: &str = "class_posterior";

use Access::{Read, Update, Write};

const MIX: Kernel =
    Kernel::new("class_posterior_mix", wgsl!("class_posterior"), "mix", &[Read, Read, Read, Write]);
const OBSERVE: Kernel = Kernel::new(
    "class_posterior_observe",
    wgsl!("class_posterior"),
    "observe",
    &[Read, Update, Read, Read, Read, Read, Read],
);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    length: u32,
    channels: u32,
    eps_channels: u32,
    samples: u32,
    classes: u32,
    steps: u32,
    clip: u32,
}

/// What a host writes before the first step: log p(c), then p(c), for each of `samples` chains.
pub fn prior_rows(prior: &[f64], samples: usize) -> Vec<f32> {
    let logs = prior.iter().map(|p| p.ln() as f32);
    let row: Vec<f32> = logs.chain(prior.iter().map(|p| *p as f32)).collect();
    row.repeat(samples)
}

/// `[2N, H, W, C]` f32: the prediction for each sample's own class, then Σ_c p(c|z) eps_c. `eps` `[K·N, H, W, E]` f32 class by
/// class, of which C channels are read; `posterior` `[N, 2, K]` f32; `labels` `[N]` u32, K or more for none.
///
/// # Errors
/// [`Error::Shape`] when they do not fit.
pub fn mix_classes(
    cx: &mut Context,
    eps: &Tensor,
    posterior: &Tensor,
    labels: &Tensor,
    channels: usize,
) -> Result<Tensor> {
    let [_, h, w, _] = eps.nhwc(OP)?;
    let n = labels.len();
    let params = params(eps, posterior, &[n, h, w, channels])?;
    expect(OP, "labels", labels, &[n], DType::U32)?;
    let pair = cx.output("class pair", &[2 * n, h, w, channels], DType::F32)?;
    let launch = cx.launch(&MIX).bind(eps).bind(posterior).bind(labels).bind(&pair);
    launch.params(&params).over(params.count as usize, 64);
    Ok(pair)
}

/// What [`observe_step`] reads.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// `[K·N, H, W, E]` f32, as the step had it.
    pub eps: &'a Tensor,
    /// `[N, H, W, C]` f32, the latents before the step.
    pub z: &'a Tensor,
    /// The same after it.
    pub next: &'a Tensor,
    /// `[T, 12]` of [`step_table`](super::step_table).
    pub steps: &'a Tensor,
    /// `[1]` u32: the step, not advanced yet.
    pub counter: &'a Tensor,
    /// `[T]` f32: the variance of each step, 0 where nothing is to be learnt.
    pub variance: &'a Tensor,
    /// What was done to x̂; of [`Clip::Dynamic`] there is no mean of each class.
    pub clip: Clip,
}

/// Brings `posterior` `[N, 2, K]` f32 up to date with a step.
///
/// # Errors
/// [`Error::Shape`] when tensors do not fit, [`Error::Config`] for a dynamic clip.
pub fn observe_step(cx: &mut Context, posterior: &Tensor, step: Observed<'_>) -> Result<()> {
    let Observed { eps, z, next, steps, counter, variance, clip } = step;
    let shape = z.nhwc(OP)?;
    let mut params = params(eps, posterior, &shape)?;
    expect(OP, "z", z, &shape, DType::F32)?;
    expect(OP, "next", next, &shape, DType::F32)?;
    let count = variance.len();
    expect(OP, "variance", variance, &[count], DType::F32)?;
    expect(OP, "steps", steps, &[count, 12], DType::U32)?;
    expect(OP, "counter", counter, &[1], DType::U32)?;
    params.steps = count as u32;
    params.clip = match clip {
        Clip::None => 0,
        Clip::Static => 1,
        Clip::Dynamic { .. } => {
            let what = "a dynamic threshold scales each class's prediction in its own way; use --clip static or none";
            return Err(Error::Config(what.into()));
        }
    };
    let launch = cx.launch(&OBSERVE).bind(eps).bind(posterior).bind(z).bind(next).bind(steps).bind(counter);
    launch.bind(variance).params(&params).over_groups(shape[0]);
    Ok(())
}

fn params(eps: &Tensor, posterior: &Tensor, shape: &[usize; 4]) -> Result<Params> {
    let &[n, h, w, c] = shape;
    let [batch, .., e] = eps.nhwc(OP)?;
    let classes = batch.checked_div(n).unwrap_or(0);
    if classes < 2 || e < c || c == 0 {
        let what = format!("predictions {:?} of two classes or more for latents {shape:?}", eps.shape());
        return Err(Error::shape(OP, what));
    }
    expect(OP, "eps", eps, &[classes * n, h, w, e], DType::F32)?;
    expect(OP, "posterior", posterior, &[n, 2, classes], DType::F32)?;
    let length = h * w * c;
    Ok(Params {
        count: (n * length) as u32,
        length: length as u32,
        channels: c as u32,
        eps_channels: e as u32,
        samples: n as u32,
        classes: classes as u32,
        steps: 1,
        clip: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::{ClassPosterior, ContinuousSchedule, StepCoefficients, ancestral_steps};
    use crate::testing::{Array, download, gpu};

    #[test]
    fn agrees_with_the_reference() {
        for (shape, classes, channels) in [([2, 1, 1, 2], 3, 2), ([3, 5, 7, 3], 4, 6)] {
            let [n, h, w, c] = shape;
            let prior: Vec<f64> = (1..=classes).map(|k| k as f64).collect();
            let prior: Vec<f64> = prior.iter().map(|p| p / prior.iter().sum::<f64>()).collect();
            let steps = ancestral_steps(&ContinuousSchedule::new(-2.0, 4.0).unwrap(), 4, 0.3).unwrap();
            let step = steps[1];
            let eps = Array::random(&[classes * n, h, w, channels], 1);
            let (z, next) = (Array::random(&shape, 2), Array::random(&shape, 3));
            let mut cx = Context::new(gpu());
            let (eps_, z_, next_) =
                (eps.upload(&cx, DType::F32), z.upload(&cx, DType::F32), next.upload(&cx, DType::F32));
            let labels: Vec<u32> = (0..n as u32).map(|n| if n == 1 { 99 } else { n }).collect();
            let labels_ = cx.constant_u32("labels", &[n], &labels).unwrap();
            let posterior = cx.constant_f32("posterior", &[n, 2, classes], &prior_rows(&prior, n)).unwrap();
            let rows: Vec<_> = steps.iter().map(StepCoefficients::scalars).collect();
            let rows = crate::ops::step_table(&cx, &rows).unwrap();
            let counter = cx.constant_u32("counter", &[1], &[1]).unwrap();
            // A large variance, so that every class keeps some of it.
            let variance = cx.constant_f32("variance", &[4], &[1.0, 60.0, 1.0, 0.0]).unwrap();
            let pair = mix_classes(&mut cx, &eps_, &posterior, &labels_, c).unwrap();
            let seen = Observed {
                eps: &eps_,
                z: &z_,
                next: &next_,
                steps: &rows,
                counter: &counter,
                variance: &variance,
                clip: Clip::Static,
            };
            observe_step(&mut cx, &posterior, seen).unwrap();
            let after = cx.copy(&posterior).unwrap();
            let dynamic = Observed { clip: Clip::Dynamic { quantile: 0.99 }, ..seen };
            assert!(observe_step(&mut cx, &posterior, dynamic).is_err());
            assert!(mix_classes(&mut cx, &z_, &posterior, &labels_, c).is_err());
            [&pair, &after].into_iter().for_each(|tensor| cx.keep(tensor));
            let plan = cx.finish("class posterior").unwrap();
            plan.run().unwrap();

            let length = h * w * c;
            let at = |k: usize, n_: usize, l: usize| {
                f64::from(eps.data[(k * n + n_) * h * w * channels + l / c * channels + l % c])
            };
            let (mut want_pair, mut want_after) = (vec![0f32; 2 * n * length], Vec::new());
            for i in 0..n {
                for l in 0..length {
                    let sum: f64 = (0..classes).map(|k| prior[k] * at(k, i, l)).sum();
                    let own = if labels[i] < classes as u32 { at(labels[i] as usize, i, l) } else { sum };
                    (want_pair[i * length + l], want_pair[(n + i) * length + l]) = (own as f32, sum as f32);
                }
                let means: Vec<Vec<f64>> = (0..classes)
                    .map(|k| {
                        let one = |l: usize| {
                            let z = f64::from(z.data[i * length + l]);
                            let x = ((z - step.sigma * at(k, i, l)) / step.alpha).clamp(-1.0, 1.0);
                            step.mean_z * z + step.mean_x * x
                        };
                        (0..length).map(one).collect()
                    })
                    .collect();
                let next: Vec<f64> = next.data[i * length..][..length].iter().map(|&x| x.into()).collect();
                let mut posterior = ClassPosterior::new(&prior).unwrap();
                posterior.observe(&next, &means, 60.0).unwrap();
                let p = posterior.probabilities();
                want_after.extend(p.iter().map(|p| p.ln() as f32));
                want_after.extend(p.iter().map(|p| *p as f32));
            }
            download(&plan, &pair).check_within("pair", &Array::new(&[2 * n, h, w, c], want_pair), 1e-6);
            download(&plan, &after).check_within("after", &Array::new(&[n, 2, classes], want_after), 1e-5);
        }
    }
}
