//! Points by guided ancestral sampling (CFG, Algorithm 2), one plan a step, no clip.

use crate::diffusion::toy::CLASSES;
#[cfg(not(target_arch = "wasm32"))]
use crate::diffusion::toy::ToyPoint;
use crate::diffusion::{
    Clip, ContinuousSchedule, Evaluations, Guidance, Guiders, StepCoefficients, ancestral_steps,
};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu, Plan};
use crate::sample::{Combine, Evaluation, Slots, StepRecorder, Walk, Which, slots};
#[cfg(not(target_arch = "wasm32"))]
use crate::sizes;
use crate::sizes::MOST_BATCH;
use crate::tensor::{DType, Tensor};

use super::denoiser::{Evaluated, ToyModel};
use super::training::network_time;

/// How points are sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ToySamplerOptions {
    /// w, and with it how often the model is evaluated.
    pub guidance: Guidance,
    /// Points at a time; it never changes a point.
    pub batch: usize,
    /// Steps T.
    pub steps: usize,
    /// The exponent v of the reverse variance.
    pub variance_exponent: f64,
}

/// A recorded sampler: start it, step it T times, read the points.
pub struct ToySampler {
    gpu: Gpu,
    options: ToySamplerOptions,
    start: Plan,
    step: Plan,
    slots: Slots,
    z: Buffer,
    rows: Tensor,
}

impl ToySampler {
    /// Records the plans.
    ///
    /// # Errors
    /// [`Error::Config`] for no points or steps or v outside [0, 1]; whatever the device objects to.
    pub fn new(gpu: &Gpu, model: ToyModel<'_>, options: ToySamplerOptions) -> Result<ToySampler> {
        let n = options.batch;
        if n == 0 || n > MOST_BATCH {
            return Err(Error::Config(format!("a batch of {n} points is not one of 1 to {MOST_BATCH}")));
        }
        let told = |step: StepCoefficients| StepCoefficients {
            time_embedding: network_time(step.time_embedding),
            ..step
        };
        let chain =
            ancestral_steps(&ContinuousSchedule::default(), options.steps, options.variance_exponent)?;
        let walk = Walk::ancestral(chain.into_iter().map(told).collect(), &Guiders::default());
        let conditions = match options.guidance.evaluations() {
            Evaluations::Both => 2,
            Evaluations::Conditional | Evaluations::Unconditional => 1,
        };
        let rows = slots::empty(gpu, "labels", &[conditions * n], DType::U32)?;
        let slots = Slots { rows: Some(rows.clone()), ..Slots::plain(gpu, [n, 1, 1, 2], &walk)? };
        let weight = options.guidance.weight() as f32;
        slots::write(gpu, &slots.weight, bytemuck::bytes_of(&weight))?;
        let evaluated = Evaluated::new(model);
        let of = &evaluated.network(gpu)?;
        let recorder = StepRecorder {
            gpu,
            name: "toy",
            evaluations: &[Evaluation {
                of,
                rows: Some(rows.clone()),
                token_rows: None,
                vector_rows: None,
                conditions,
            }],
            mixed: 1,
            combine: Combine::InStep,
            guide: None,
            walk: &walk,
            slots: &slots,
            clip: Clip::None,
            fast: false,
        };
        let (start, step) = (recorder.start()?, recorder.step(Which::All)?);
        let z = slots::buffer(&slots.z)?.clone();
        Ok(ToySampler { gpu: gpu.clone(), options, start, step, slots, z, rows })
    }

    /// What it was recorded for.
    pub fn options(&self) -> &ToySamplerOptions {
        &self.options
    }

    /// Begins the points number `first` and on: point i is of class i % 3 and has the seed `seed` + i (wrapping), as
    /// in [`simulate`](crate::diffusion::toy::simulate).
    pub fn start(&self, first: usize, seed: u64) -> Result<()> {
        let points = first..first + self.options.batch;
        let conditional = points.clone().map(|i| (i % CLASSES) as u32);
        let none = points.clone().map(|_| CLASSES as u32);
        let labels: Vec<u32> = match self.options.guidance.evaluations() {
            Evaluations::Conditional => conditional.collect(),
            Evaluations::Unconditional => none.collect(),
            Evaluations::Both => conditional.chain(none).collect(),
        };
        let seeds: Vec<[u32; 2]> = points
            .map(|i| seed.wrapping_add(i as u64))
            .map(|seed| [seed as u32, (seed >> 32) as u32])
            .collect();
        slots::write(&self.gpu, &self.rows, bytemuck::cast_slice(&labels))?;
        slots::write(&self.gpu, &self.slots.seeds, bytemuck::cast_slice(&seeds))?;
        slots::write(&self.gpu, &self.slots.counter, bytemuck::bytes_of(&0u32))?;
        self.start.run()
    }

    /// Submits one denoising step; T of them make the points.
    pub fn step(&self) -> Result<()> {
        self.step.run()
    }

    /// The plan of one step, to encode elsewhere or to time.
    pub fn step_plan(&self) -> &Plan {
        &self.step
    }

    /// The latents, `[batch, 2]` f32; the points after the last step.
    pub fn latents(&self) -> &Buffer {
        &self.z
    }

    /// Makes points 0 to `samples`, batch by batch; `on_step` is told of every step and may stop it with an error.
    ///
    /// # Errors
    /// [`Error::Device`] if a point is not finite; those of the device and of `on_step`.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn sample(
        &self,
        samples: usize,
        seed: u64,
        mut on_step: impl FnMut() -> Result<()>,
    ) -> Result<Vec<ToyPoint>> {
        let bytes = sizes::bytes("the points", &[samples], size_of::<ToyPoint>())?;
        sizes::check_host("the points", bytes, "take fewer samples")?;
        let mut points = Vec::with_capacity(samples);
        for first in (0..samples).step_by(self.options.batch) {
            self.start(first, seed)?;
            for step in 0..self.options.steps {
                self.step()?;
                // Keeps the host from running far ahead, so that progress and Ctrl-C mean something.
                if step % 8 == 7 {
                    self.gpu.wait()?;
                }
                on_step()?;
            }
            let count = self.options.batch.min(samples - first);
            let bytes = self.gpu.read(&self.z, 0..(count * 8) as u64)?;
            let positions: Vec<[f32; 2]> = bytemuck::pod_collect_to_vec(&bytes);
            for (i, position) in positions.into_iter().enumerate() {
                if !position.iter().all(|x| x.is_finite()) {
                    return Err(Error::Device(format!("point {} is {position:?}", first + i)));
                }
                points.push(ToyPoint { class: (first + i) % CLASSES, position: position.map(f64::from) });
            }
        }
        Ok(points)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::toy::simulate;
    use crate::testing::gpu;
    use crate::toy::measure;

    fn sample(w: f64, batch: usize, steps: usize, samples: usize, seed: u64) -> Vec<ToyPoint> {
        let guidance = Guidance::from_weight(w).unwrap();
        let options = ToySamplerOptions { guidance, batch, steps, variance_exponent: 0.3 };
        let sampler = ToySampler::new(gpu(), ToyModel::Exact, options).unwrap();
        sampler.sample(samples, seed, || Ok(())).unwrap()
    }

    /// The same seeds meet the same noise: the f64 simulation shares nothing else with the device but the steps.
    #[test]
    fn follows_the_simulation_point_by_point() {
        for (w, steps) in [(-1.0, 32), (0.0, 32), (1.0, 32), (3.0, 32), (3.0, 256)] {
            let seed = u64::MAX - 40;
            let want = simulate(w, steps, 0.3, 600, seed).unwrap();
            let got = sample(w, 256, steps, 600, seed);
            for (got, want) in got.iter().zip(&want) {
                assert_eq!(got.class, want.class);
                let [dx, dy] = [0, 1].map(|i| got.position[i] - want.position[i]);
                // Measured: half of them below 5e-7, all below 2.5e-6.
                assert!(dx.hypot(dy) < 2e-5, "w = {w}, {steps} steps: {got:?}, expected {want:?}");
            }
        }
    }

    #[test]
    fn a_point_does_not_depend_on_its_batch() {
        assert_eq!(sample(1.0, 5, 8, 12, 3), sample(1.0, 12, 8, 12, 3));
    }

    /// Points and p̃ agree without guidance and are apart with it, as diffusion::toy measured on the host.
    #[test]
    fn distances_and_means_are_those_of_the_chain() {
        for (w, mean, distance) in [(0.0, 1.0, 0.034), (1.0, 1.250, 0.158), (3.0, 1.430, 0.275)] {
            let found = measure(&sample(w, 7500, 256, 30_000, 1), w).unwrap();
            // Four standard errors of the mean, as for the simulation.
            assert!((found.sampled_mean - mean).abs() < 0.012, "{found:?}, expected {mean}");
            assert!((found.total_variation - distance).abs() < 0.02, "{found:?}, expected {distance}");
        }
    }

    #[test]
    fn senseless_requests_are_errors() {
        let guidance = Guidance::from_weight(1.0).unwrap();
        let options = ToySamplerOptions { guidance, batch: 4, steps: 8, variance_exponent: 0.3 };
        let error = |options| ToySampler::new(gpu(), ToyModel::Exact, options).err().unwrap().to_string();
        assert!(error(ToySamplerOptions { batch: 0, ..options }).contains("0 points"));
        assert!(error(ToySamplerOptions { steps: 0, ..options }).contains("step"));
        assert!(error(ToySamplerOptions { variance_exponent: 2.0, ..options }).contains("2"));
    }
}
