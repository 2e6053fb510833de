use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::data::Dataset;
use crate::diffusion::{Guidance, SamplerKind};
use crate::sample::{Request, Sampler, SamplerOptions};
use crate::testing::gpu;
use crate::train::{Outcome, Preset, StepRecord, Trainer};

fn digits() -> Arc<Dataset> {
    Arc::new(Dataset::open("digits", None).unwrap())
}

/// A training whose steps take milliseconds.
fn tiny(images: u64) -> TrainOptions {
    let mut options = Preset::named("digits").unwrap().options(&digits(), 0);
    options.unet.model_channels = 8;
    options.unet.norm_num_groups = 4;
    (options.batch, options.microbatch, options.warmup_images, options.images) = (8, 8, 8, images);
    options.ema_rates = vec![0.5];
    options.sampling.steps = 8;
    options
}

/// A teacher that has seen few pictures, but is zero nowhere.
fn teacher(dir: &Path) -> Teacher {
    let mut trainer = Trainer::open(gpu(), digits(), &tiny(96), dir).unwrap();
    assert_eq!(trainer.run(|| false, |_, _| Ok(())).unwrap(), Outcome::Finished);
    load(dir)
}

fn load(dir: &Path) -> Teacher {
    Teacher::new(Model::load(gpu(), dir).unwrap()).unwrap()
}

/// Trains the student of `options`, at most `steps` steps.
fn learn(options: &TrainOptions, teacher: Teacher, dir: &Path, steps: usize) -> (Outcome, Vec<StepRecord>) {
    let mut trainer = Trainer::distill(gpu(), digits(), options, teacher, dir).unwrap();
    let mut left = steps;
    let stop = || {
        left -= 1;
        left == 0
    };
    let outcome = trainer.run(stop, |_, _| Ok(())).unwrap();
    (outcome, trainer.records().to_vec())
}

fn mean(records: &[StepRecord]) -> f32 {
    records.iter().map(|record| record.loss).sum::<f32>() / records.len() as f32
}

fn same_file(name: &str, a: &Path, b: &Path) {
    let [a, b] = [a, b].map(|dir| std::fs::read(dir.join(name)).unwrap());
    assert!(a == b, "{name} differs");
}

#[test]
fn a_student_begins_as_its_teacher_learns_guidance_and_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let teacher = teacher(&place("teacher"));

    // Without guidance there is nothing to learn: the teacher's output, bit for bit.
    let zero = teacher.teach(tiny(8), [0.0, 0.0], None, None).unwrap();
    let (_, records) = learn(&zero, load(&place("teacher")), &place("zero"), 9);
    assert_eq!(records[0].loss, 0.0);

    let options = teacher.teach(tiny(240), [0.0, 4.0], None, None).unwrap();
    let (_, records) = learn(&options, load(&place("teacher")), &place("straight"), 99);
    let (first, last) = (mean(&records[..8]), mean(&records[22..]));
    assert!(records[0].loss > 0.0 && last < 0.8 * first, "{first} to {last}");

    // A stop half way, at a step that no state is due at, changes no byte.
    let (outcome, _) = learn(&options, load(&place("teacher")), &place("stopped"), 13);
    assert_eq!(outcome, Outcome::Stopped);
    learn(&options, teacher, &place("stopped"), 99);
    for name in
        ["train.json", "train.jsonl", "config.json", "model.safetensors", "state-000000000240.safetensors"]
    {
        same_file(name, &place("straight"), &place("stopped"));
    }

    // Another teacher is another training.
    let other = load(&place("zero"));
    let error = other.teach(tiny(240), [0.0, 4.0], None, None).unwrap_err().to_string();
    assert!(error.contains("distilled already"), "{error}");
    let other = TrainOptions {
        distillation: Some(Distillation { teacher: "another".into(), average: None, steps: None }),
        ..options.clone()
    };
    assert!(Trainer::distill(gpu(), digits(), &other, load(&place("teacher")), &place("straight")).is_err());
    let error = other.settle(&place("straight"), &[]).err().expect("another teacher").to_string();
    assert!(error.contains("teacher: there") && error.contains("accept-change teacher"), "{error}");

    // Its pictures cost one evaluation a step, and depend on w.
    let student = Model::load(gpu(), &place("straight")).unwrap();
    assert_eq!(student.config.unet.guidance_range, Some([0.0, 4.0]));
    let sampler = Sampler::of(gpu(), &student, SamplerOptions::of(&student.config, 2).unwrap()).unwrap();
    assert!(!sampler.options().guided);
    let requests = [Some(3), None].map(|class| Request::new(class, 5));
    let draw = |w: f64| sampler.sample(&requests, Guidance::from_weight(w).unwrap(), || Ok(()));
    assert_ne!(draw(0.5).unwrap()[0], draw(3.5).unwrap()[0]);
    assert_eq!(draw(-1.0).unwrap()[0].pixels.len(), 64);
    let error = draw(4.5).unwrap_err().to_string();
    assert!(error.contains("from 0 to 4"), "{error}");
}

#[test]
fn steps_halve_after_guidance() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let first = teacher(&place("teacher"));
    let error = |result: Result<TrainOptions>| result.unwrap_err().to_string();
    assert!(error(first.teach(tiny(8), [0.0, 4.0], Some(4), None)).contains("after guidance"));

    // In microbatches, and in v where the teacher predicts eps.
    let micro = |images: u64| TrainOptions { microbatch: 4, ..tiny(images) };
    let options = first.teach(micro(96), [1.0, 2.0], None, Some(Prediction::V)).unwrap();
    let (_, records) = learn(&options, first, &place("student"), 99);
    assert!(mean(&records[8..]) < mean(&records[..4]), "{records:?}");
    let student = load(&place("student"));
    assert_eq!(student.model().config.process().unwrap().prediction, Prediction::V);
    assert!(
        error(student.teach(tiny(8), [0.0, 1.0], Some(4), Some(Prediction::Eps))).contains("--predict v")
    );
    let options = student.teach(micro(40), [0.0, 9.0], Some(4), None).unwrap();
    assert_eq!(options.unet.guidance_range, Some([1.0, 2.0]), "what its teacher knows");
    let (_, records) = learn(&options, student, &place("halved"), 99);
    assert!(records.iter().all(|record| record.loss.is_finite() && record.loss > 0.0), "{records:?}");

    // It is sampled so without being told, by the levels it was trained at.
    let halved = Model::load(gpu(), &place("halved")).unwrap();
    let options = SamplerOptions::of(&halved.config, 1).unwrap();
    assert_eq!((options.steps, options.method.kind), (4, Some(SamplerKind::Halving)));
    let sampler = Sampler::of(gpu(), &halved, options).unwrap();
    assert_eq!(sampler.moves(), 4);
    let request = Request::new(Some(1), 0);
    sampler.sample(&[request], Guidance::from_weight(1.5).unwrap(), || Ok(())).unwrap();
}
