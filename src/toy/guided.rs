//! The toy under a chain of guiders, on the device: exact scores, the guiders' kernels, the fused step.

use crate::diffusion::guiders::{Against, moments};
use crate::diffusion::toy::{
    CLASSES, STANDARD_DEVIATION, ToyPoint, WEAK_DEVIATION, toy_class, toy_classes_beside,
};
use crate::diffusion::{Clip, ContinuousSchedule, Guiders, ancestral_steps};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ops::{self, GUIDER_ROW};
use crate::sample::{Combine, Evaluation, Slots, StepRecorder, Walk, Which, has_momentum, slots};
use crate::sizes::MOST_BATCH;
use crate::tensor::DType;

use super::denoiser::ClosedForm;
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
    let weak = matches!(guiders.against(), Against::WeakModel(_));
    let others = rows_beside(guiders)?;

    let walk = Walk::ancestral(steps, guiders);
    let conditions = 1 + others.len();
    let own = (0..n).map(|i| (i % CLASSES) as u32);
    let labels: Vec<u32> = own.chain(others.iter().flat_map(|row| std::iter::repeat_n(*row, n))).collect();
    let labels = slots::filled(gpu, "labels", &[labels.len()], DType::U32, bytemuck::cast_slice(&labels))?;
    let table = ops::guider_table(guiders, weight, &walk.steps);
    let table =
        slots::filled(gpu, "guiders", &[walk.len(), GUIDER_ROW], DType::F32, bytemuck::cast_slice(&table))?;
    let shape = [n, 1, 1, 2];
    let momentum = has_momentum(guiders).then(|| slots::empty(gpu, "momentum", &shape, DType::F32));
    let slots = Slots {
        rows: Some(labels.clone()),
        guiders: Some(table),
        momentum: momentum.transpose()?,
        ..Slots::plain(gpu, shape, &walk)?
    };
    let halves: Vec<u32> = (0..n as u64)
        .map(|i| seed.wrapping_add(i))
        .flat_map(|seed| [seed as u32, (seed >> 32) as u32])
        .collect();
    slots::write(gpu, &slots.seeds, bytemuck::cast_slice(&halves))?;

    let forms = [STANDARD_DEVIATION, WEAK_DEVIATION].map(ClosedForm::new);
    let (strong, weaker) = (forms[0].network(gpu)?, forms[1].network(gpu)?);
    let mut evaluations = vec![Evaluation {
        of: &strong,
        rows: Some(labels.clone()),
        token_rows: None,
        vector_rows: None,
        conditions,
    }];
    if weak {
        evaluations.push(Evaluation {
            of: &weaker,
            rows: Some(labels),
            token_rows: None,
            vector_rows: None,
            conditions: 1,
        });
    }
    let recorder = StepRecorder {
        gpu,
        name: "guided toy",
        evaluations: &evaluations,
        mixed: 1,
        combine: Combine::Guiders(guiders),
        guide: None,
        walk: &walk,
        slots: &slots,
        clip: Clip::None,
        fast: false,
    };
    recorder.start()?.run()?;
    let (all, single) = (recorder.step(Which::All)?, recorder.step(Which::First)?);
    for (step, weight) in guiders.weights(weight, &moments(&walk.steps)).into_iter().enumerate() {
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
    let positions: Vec<[f32; 2]> =
        bytemuck::pod_collect_to_vec(&gpu.read(slots::buffer(&slots.z)?, 0..(n * 8) as u64)?);
    let point = |(i, at): (usize, &[f32; 2])| ToyPoint { class: i % CLASSES, position: at.map(f64::from) };
    Ok(positions.iter().enumerate().map(point).collect())
}

/// The classes that guiders evaluate beside a point's own, [`CLASSES`] for none.
fn rows_beside(guiders: &Guiders) -> Result<Vec<u32>> {
    let more = toy_classes_beside(guiders)?;
    let against = match guiders.against() {
        Against::Class(class) => Some(toy_class(&class)?),
        Against::Null | Against::Only(_) => Some(CLASSES),
        Against::WeakModel(_) => None,
    };
    Ok(against.into_iter().chain(more).map(|class| class as u32).collect())
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
        for entry in GUIDERS.iter().filter(|entry| !["annealing", "parts"].contains(&entry.name)) {
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
        for (text, part) in [
            ("annealing()", "embedding"),
            ("negative(7)", "classes 0, 1 and 2"),
            ("parts(class:2)", "no parts"),
        ] {
            let made = sample_guided(gpu(), &text.parse().unwrap(), &options, 0, || Ok(()));
            assert!(made.unwrap_err().to_string().contains(part), "{text}");
        }
    }
}
