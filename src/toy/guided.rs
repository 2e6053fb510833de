//! The toy under a chain of guiders, on the device: exact scores, the guiders' kernels, the fused step.

use crate::diffusion::guiders::{Against, moments};
use crate::diffusion::toy::{CLASSES, STANDARD_DEVIATION, ToyPoint, WEAK_DEVIATION, class_mean, toy_class};
use crate::diffusion::{Clip, ContinuousSchedule, Guiders, StepCoefficients, ancestral_steps};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Plan, Storage};
use crate::ops::{self, GUIDER_ROW, Guided, GuidedStep, Mixture};
use crate::random::Stream;
use crate::sizes::MOST_BATCH;
use crate::tensor::{Context, DType, Tensor};

use super::sampler::ToySamplerOptions;

/// Points 0 to `options.batch` under `guiders`, the same as those of
/// [`simulate_guided`](crate::diffusion::toy::simulate_guided) up to rounding; `on_step` may stop it with an error.
///
/// # Errors
/// [`Error::Config`] for no points or steps, a class that the toy has not, and annealing, whose embedding here is a mean
/// that every class shares; whatever the device objects to.
pub fn sample_guided(
    gpu: &Gpu,
    guiders: &Guiders,
    options: &ToySamplerOptions,
    seed: u64,
    mut on_step: impl FnMut() -> Result<()>,
) -> Result<Vec<ToyPoint>> {
    let n = options.batch;
    if n == 0 || n > MOST_BATCH {
        return Err(Error::Config(format!("a batch of {n} points is not one of 1 to {MOST_BATCH}")));
    }
    if guiders.annealing().is_some() {
        let what = "the toy's exact scores take no embedding of one point's own; simulate_guided anneals it";
        return Err(Error::Config(what.into()));
    }
    let steps = ancestral_steps(&ContinuousSchedule::default(), options.steps, options.variance_exponent)?;
    let weight = options.guidance.weight();
    let none = CLASSES as u32;
    let weak = matches!(guiders.against(), Against::WeakModel(_));
    let against = match guiders.against() {
        Against::Class(class) => vec![toy_class(&class)? as u32],
        Against::Null => vec![none],
        Against::WeakModel(_) => Vec::new(),
    };
    let more = guiders.more_conditions().iter().map(|(class, _)| toy_class(class).map(|class| class as u32));
    let others = [against, more.collect::<Result<_>>()?].concat();

    let shape = [n, 1, 1, 2];
    let buffer = |label, bytes: usize| gpu.buffer(label, bytes as u64);
    let (z, counter) = (buffer("z", n * 8)?, buffer("step counter", 4)?);
    let (guidance, momentum) = (buffer("guidance weight", 4)?, buffer("momentum", n * 8)?);
    let over = |buffer: &crate::gpu::Buffer, shape: &[usize], dtype| {
        Tensor::new(Storage::Buffer(buffer.clone()), 0, shape, dtype)
    };
    let halves: Vec<u32> = (0..n as u64)
        .map(|i| seed.wrapping_add(i))
        .flat_map(|seed| [seed as u32, (seed >> 32) as u32])
        .collect();

    let mut cx = Context::new(gpu);
    let seeds = cx.constant_u32("seeds", &[n, 2], &halves)?;
    let noise = ops::normal_noise(&mut cx, &seeds, 0, Stream::InitialNoise, shape)?;
    cx.copy_to(&noise, &over(&z, &shape, DType::F32));
    cx.finish("toy start")?.run()?;

    let (changed, _) = guiders.steps(&steps);
    let rows: Vec<_> = changed.iter().map(StepCoefficients::scalars).collect();
    let means: Vec<f32> = (0..CLASSES).flat_map(class_mean).map(|x| x as f32).collect();
    let own = (0..n).map(|i| (i % CLASSES) as u32);
    let record = |guided: bool| -> Result<Plan> {
        let mut cx = Context::new(gpu);
        let rows = ops::step_table(&cx, &rows)?;
        let table = ops::guider_table(guiders, weight, &steps);
        let table = cx.constant_f32("guiders", &[steps.len(), GUIDER_ROW], &table)?;
        let means = cx.constant_f32("class means", &[CLASSES, 2], &means)?;
        let seeds = cx.constant_u32("seeds", &[n, 2], &halves)?;
        let z = over(&z, &shape, DType::F32);
        let (counter, guidance) = (over(&counter, &[1], DType::U32), over(&guidance, &[1], DType::F32));
        let others = if guided { &others[..] } else { &[] };
        let labels: Vec<u32> =
            own.clone().chain(others.iter().flat_map(|label| std::iter::repeat_n(*label, n))).collect();
        let labels = cx.constant_u32("labels", &[labels.len()], &labels)?;
        let repeated = ops::repeat_batch(&mut cx, &z, 1 + others.len())?;
        let strong = Mixture { means: &means, standard_deviation: STANDARD_DEVIATION };
        let mut eps = ops::mixture_score(&mut cx, &repeated, &labels, strong, &rows, &counter)?;
        if guided && weak {
            let blurred = Mixture { standard_deviation: WEAK_DEVIATION, ..strong };
            let other = ops::mixture_score(&mut cx, &z, &labels, blurred, &rows, &counter)?;
            eps = ops::stack_batch(&mut cx, &eps, &other)?;
        }
        let step = Guided { z: &z, eps: &eps, table: &table, counter: &counter };
        let combined = if !guided {
            ops::scale(&mut cx, &eps, guiders.eps_factor() as f32)?
        } else if ops::is_weight_alone(guiders) {
            ops::step_weight(&mut cx, &table, &counter, &guidance)?;
            eps.clone()
        } else {
            ops::guided_eps(&mut cx, guiders, step, Some(&over(&momentum, &shape, DType::F32)))?
        };
        let fused = GuidedStep {
            z: &z,
            eps: &combined,
            steps: &rows,
            counter: &counter,
            guidance: &guidance,
            seeds: &seeds,
            clip: Clip::None,
            preview: None,
        };
        ops::guided_step(&mut cx, fused)?;
        if guided && guiders.renoises() {
            ops::renoise(&mut cx, step)?;
        }
        ops::advance(&mut cx, &counter)?;
        cx.finish("guided toy step")
    };
    let (all, single) = (record(true)?, record(false)?);
    gpu.write(&counter, 0, bytemuck::bytes_of(&0u32))?;
    for (step, weight) in guiders.weights(weight, &moments(&steps)).into_iter().enumerate() {
        if guiders.needs_all(weight) {
            all.run()?
        } else {
            single.run()?
        }
        // As in `ToySampler::sample`.
        if step % 8 == 7 {
            gpu.wait()?;
        }
        on_step()?;
    }
    let positions: Vec<[f32; 2]> = bytemuck::pod_collect_to_vec(&gpu.read(&z, 0..(n * 8) as u64)?);
    let point = |(i, at): (usize, &[f32; 2])| ToyPoint { class: i % CLASSES, position: at.map(f64::from) };
    Ok(positions.iter().enumerate().map(point).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::Guidance;
    use crate::diffusion::guiders::GUIDERS;
    use crate::diffusion::toy::simulate_guided;
    use crate::testing::gpu;

    const STEPS: usize = 16;

    fn apart(text: &str, simulated: &str, w: f64) -> f64 {
        let guidance = Guidance::from_weight(w).unwrap();
        let options = ToySamplerOptions { guidance, batch: 60, steps: STEPS, variance_exponent: 0.3 };
        let got = sample_guided(gpu(), &text.parse().unwrap(), &options, 11, || Ok(())).unwrap();
        let want = simulate_guided(&simulated.parse().unwrap(), w, STEPS, 0.3, 60, 11).unwrap();
        got.iter().zip(&want).fold(0.0f64, |most, (a, b)| {
            assert!(a.class == b.class && a.position.iter().all(|x| x.is_finite()), "{text}");
            most.max((a.position[0] - b.position[0]).hypot(a.position[1] - b.position[1]))
        })
    }

    /// Every line of the table of guiders, on the device against f64, point by point.
    #[test]
    fn every_guider_follows_its_simulation() {
        for entry in GUIDERS.iter().filter(|entry| entry.name != "annealing") {
            let text = match entry.name {
                "constant" => "constant(2)",
                "negative" => "negative(1)",
                "also" => "also(0:0.5 2:-0.25)",
                // The deviation of two numbers may be next to nothing, and what divides by it far away.
                "rescale" => "rescale(0)",
                _ => entry.usage,
            };
            // What the reference does not know is plain guidance written out.
            let simulated = if entry.name == "expression" { "" } else { text };
            let apart = apart(text, simulated, 1.5);
            assert!(apart < 2e-4, "{text}: {apart:e}");
        }
        let guidance = Guidance::from_weight(1.0).unwrap();
        let options = ToySamplerOptions { guidance, batch: 3, steps: 2, variance_exponent: 0.3 };
        for (text, part) in [("annealing()", "embedding"), ("negative(7)", "classes 0, 1 and 2")] {
            let made = sample_guided(gpu(), &text.parse().unwrap(), &options, 0, || Ok(()));
            assert!(made.unwrap_err().to_string().contains(part), "{text}");
        }
    }
}
