//! Trainings of eight steps: a hash of every file they leave.

use std::path::Path;
use std::sync::Arc;

use freeguide::data::Dataset;
use freeguide::diffusion::{Prediction, TimeSampler};
use freeguide::model::Model;
use freeguide::nn::UNet;
use freeguide::nn::unet::NullClass;
use freeguide::shape::Extent;
use freeguide::train::{
    LossKind, Objective, Outcome, Preset, Teacher, TrainOptions, TrainSchedule, TrainState, TrainStep,
    Trainer,
};

use super::record::{Cases, Dispatches, Hash, gpu, group};

/// Gradient steps of a training.
const STEPS: u64 = 8;

fn digits() -> Arc<Dataset> {
    Arc::new(Dataset::open("digits", None).expect("the digits are part of the program"))
}

/// Eight steps on the digits, of labels left out now and then, with two averages and a state half way.
fn options() -> TrainOptions {
    let mut options = Preset::named("digits").unwrap().options(&digits(), 5);
    options.unet.model_channels = 8;
    options.unet.norm_num_groups = 4;
    options.unet.dropout = 0.1;
    (options.unet.channel_mult, options.unet.attention_resolutions) = (vec![1.0], Vec::new());
    (options.batch, options.microbatch, options.warmup_images) = (8, 8, 16);
    options.images = STEPS * 8;
    options.save_every = options.images / 2;
    options.ema_rates = vec![0.5, 0.9999];
    options.unconditional_probability = 0.25;
    options.sampling.steps = super::STEPS;
    options
}

fn of(objective: Objective) -> TrainOptions {
    let mut options = TrainOptions { objective, ..options() };
    options.unet.out_channels = objective.out_channels(options.unet.in_channels);
    options
}

fn run(mut trainer: Trainer) {
    assert_eq!(trainer.run(|| false, |_, _| Ok(())).unwrap(), Outcome::Finished);
}

fn train(options: &TrainOptions, dir: &Path) {
    run(Trainer::open(gpu(), digits(), options, dir).unwrap());
}

/// The plan of a training's step, or of its microbatch.
fn step(unet: UNet, options: &TrainOptions) -> Dispatches {
    let optimizer = TrainStep::initial_optimizer_state(options);
    let rates = options.ema_rates.len();
    let state = TrainState::new(gpu(), unet.parameters(), rates, options.seed, &optimizer).unwrap();
    Dispatches::of("step", TrainStep::record(gpu(), &unet, options, &state).unwrap().plan())
}

/// A hash of each file of a folder, by name.
fn hashes(dir: &Path) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut hash = Hash::new();
        hash.bytes(&std::fs::read(path).unwrap());
        all.push((name, hash.finish()));
    }
    all.sort();
    all
}

/// What `make` leaves in an empty folder: a case a file.
fn check(cases: &mut Cases, name: &str, make: impl Fn(&Path)) {
    cases.check_many(name, || {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        hashes(dir.path())
    });
}

#[test]
fn trainings() {
    group("trainings", |cases| {
        let discrete =
            Objective { schedule: TrainSchedule::Cosine, steps_total: 100, ..Objective::default() };
        let learned = Objective { learn_sigma: true, loss: LossKind::Hybrid, ..discrete };
        let v = Objective {
            prediction: Prediction::V,
            t_sampler: TimeSampler::LowDiscrepancy,
            ..Objective::default()
        };
        let vlb = Objective {
            learn_sigma: true,
            loss: LossKind::Vlb,
            t_sampler: TimeSampler::Importance,
            steps_total: 5,
            ..discrete
        };
        let edm =
            Objective { schedule: TrainSchedule::Edm, prediction: Prediction::EDM, ..Objective::default() };
        let mut upsampler = TrainOptions { upsample_from: Some(Extent::square(4)), ..options() };
        upsampler.unet.low_res_channels = 1;
        let mut late = options();
        (late.unet.channel_mult, late.unet.attention_resolutions) = (vec![1.0, 2.0], vec![4]);
        late.unet.condition_from = Some("middle_block".into());
        for (name, options) in [
            ("continuous eps", options()),
            ("continuous v, microbatches", TrainOptions { microbatch: 4, ..of(v) }),
            (
                "linear x0",
                of(Objective { schedule: TrainSchedule::Linear, prediction: Prediction::X0, ..discrete }),
            ),
            ("cosine, learned range", TrainOptions { microbatch: 4, ..of(learned) }),
            ("cosine, importance", TrainOptions { microbatch: 4, ..of(vlb) }),
            ("edm, microbatches", TrainOptions { microbatch: 4, ..of(edm) }),
            ("upsampler", upsampler),
            ("late", late),
        ] {
            check(cases, name, |dir| train(&options, dir));
            cases.check_plan(name, &step(UNet::new(&options.unet).unwrap(), &options));
        }
        for schedule in [TrainSchedule::Continuous, TrainSchedule::Cosine] {
            let mut options =
                TrainOptions { weight_decay: 0.05, unconditional_probability: 0.0, ..options() };
            (options.unet.num_classes, options.unet.null_class) = (None, NullClass::Absent);
            options.unet.out_channels = 10;
            options.objective = Objective { schedule, loss: LossKind::CrossEntropy, ..Objective::default() };
            check(cases, &format!("classifier, {schedule:?}"), |dir| train(&options, dir));
        }
    });
}

/// A student of guidance, one that predicts another thing than its teacher, and one of half its steps.
#[test]
fn students() {
    group("students", |cases| {
        let root = tempfile::tempdir().unwrap();
        let place = |name: &str| root.path().join(name);
        let load = |dir: &Path| Teacher::new(Model::load(gpu(), dir).unwrap()).unwrap();
        let learn = |teacher: &Path, steps: Option<usize>, prediction, dir: &Path| {
            let teacher = load(teacher);
            let options = teacher.teach(options(), [0.0, 4.0], steps, prediction).unwrap();
            run(Trainer::distill(gpu(), digits(), &options, teacher, dir).unwrap());
        };
        train(&options(), &place("teacher"));
        let v = Some(Prediction::V);
        learn(&place("teacher"), None, v, &place("student"));
        check(cases, "guidance, eps", |dir| learn(&place("teacher"), None, None, dir));
        check(cases, "guidance, v", |dir| learn(&place("teacher"), None, v, dir));
        check(cases, "halved", |dir| learn(&place("student"), Some(4), None, dir));
    });
}
