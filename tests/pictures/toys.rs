//! The toy: exact scores, a network that learnt them, and guiders.

use freeguide::diffusion::guiders::GUIDERS;
use freeguide::diffusion::toy::ToyPoint;
use freeguide::toy::{
    ToyModel, ToySampler, ToySamplerOptions, ToyTraining, ToyTrainingOptions, sample_guided,
};

use super::STEPS;
use super::record::{Dispatches, Drawn, Hash, gpu, group};
use super::runs::{refused, w};

fn hashed(points: &[ToyPoint]) -> u64 {
    let mut hash = Hash::new();
    for point in points {
        hash.bytes(&[point.class as u8]);
        // Widened from f32, so no bit is lost.
        hash.values(&point.position.map(|x| x as f32));
    }
    hash.finish()
}

fn options(weight: f64, batch: usize) -> ToySamplerOptions {
    ToySamplerOptions { guidance: w(weight), batch, steps: STEPS, variance_exponent: 0.3 }
}

fn drawn(model: ToyModel<'_>, weight: f64) -> Drawn {
    let sampler = ToySampler::new(gpu(), model, options(weight, 4)).unwrap();
    let points = sampler.sample(9, u64::MAX - 4, || Ok(())).unwrap();
    Drawn { hash: hashed(&points), plans: vec![Dispatches::of("step", sampler.step_plan())] }
}

#[test]
fn toys() {
    group("toy", |cases| {
        let training = ToyTrainingOptions { steps: 8, batch: 16, hidden: 8, ..ToyTrainingOptions::default() };
        for weight in [1.5, 0.0, -1.0] {
            cases.check(&format!("exact, w is {weight}"), || drawn(ToyModel::Exact, weight));
            cases.check(&format!("learnt, w is {weight}"), || {
                let network = ToyTraining::new(gpu(), &training).unwrap().run(|_| Ok(())).unwrap();
                drawn(ToyModel::Learnt(&network), weight)
            });
        }
        for entry in GUIDERS {
            let text = match entry.name {
                "constant" => "constant(2)",
                "negative" => "negative(1)",
                "also" => "also(0:0.5 2:-0.25)",
                _ => entry.usage,
            };
            let run = || sample_guided(gpu(), &text.parse().unwrap(), &options(1.5, 9), 11, || Ok(()));
            if entry.name == "annealing" {
                refused(text, run(), "embedding");
            } else if entry.name == "parts" {
                refused(text, run(), "no parts");
            } else {
                cases.check_hash(&text.replace(" = ", " is "), || hashed(&run().unwrap()));
            }
        }
    });
}
