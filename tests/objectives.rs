//! Schedules, predictions, losses and samplers of times: each trains, is remembered by its model, resumes byte for byte
//! and is sampled by every sampler.

mod common;

use common::{assert_same_file, difference, digits, gpu, requests, sampler, sampler_options, tiny, train};
use freeguide::diffusion::moves::{Entry, SAMPLERS};
use freeguide::diffusion::{Method, Prediction, SamplerKind, TimeSampler, Variance};
use freeguide::model::Model;
use freeguide::sample::SamplerOptions;
use freeguide::shape::Extent;
use freeguide::train::{LossKind, Objective, Outcome, TrainOptions, TrainSchedule, Trainer};

fn options(objective: Objective, images: u64) -> TrainOptions {
    let mut options = TrainOptions { objective, ..tiny(images) };
    options.unet.out_channels = objective.out_channels(options.unet.in_channels);
    options
}

fn objectives() -> Vec<Objective> {
    let none = Objective::default();
    let cosine = Objective { schedule: TrainSchedule::Cosine, ..none };
    vec![
        Objective { prediction: Prediction::V, t_sampler: TimeSampler::LowDiscrepancy, ..none },
        Objective { prediction: Prediction::X0, ..none },
        Objective { schedule: TrainSchedule::Linear, ..none },
        Objective { prediction: Prediction::V, loss: LossKind::Vlb, ..cosine },
        Objective { learn_sigma: true, loss: LossKind::Hybrid, steps_total: 4000, ..cosine },
        Objective {
            learn_sigma: true,
            loss: LossKind::Vlb,
            t_sampler: TimeSampler::Importance,
            steps_total: 100,
            ..cosine
        },
        Objective {
            schedule: TrainSchedule::Flow,
            prediction: Prediction::FLOW,
            t_sampler: TimeSampler::LogitNormal,
            ..none
        },
        Objective {
            schedule: TrainSchedule::Edm,
            prediction: Prediction::Preconditioned { sigma_data: 0.7 },
            t_sampler: TimeSampler::LowDiscrepancy,
            ..none
        },
    ]
}

#[test]
fn every_objective_trains_and_is_sampled_by_every_sampler() {
    let gpu = gpu();
    for objective in objectives() {
        let dir = tempfile::tempdir().unwrap();
        let trainer = train(&gpu, &options(objective, 64), dir.path());
        let losses: Vec<f32> = trainer.records().iter().map(|record| record.loss).collect();
        assert!(losses.iter().all(|loss| loss.is_finite() && *loss > 0.0), "{objective:?}: {losses:?}");
        let model = Model::load(&gpu, dir.path()).unwrap();
        let process = model.config.process().unwrap();
        assert_eq!(process.prediction, objective.prediction);
        let discrete = matches!(objective.schedule, TrainSchedule::Linear | TrainSchedule::Cosine);
        assert_eq!(process.is_continuous(), !discrete);
        for Entry { kind, name, .. } in SAMPLERS.iter().filter(|entry| entry.kind != SamplerKind::DdimReverse)
        {
            let method = Method { kind: Some(*kind), ..Method::default() };
            if *kind == SamplerKind::Halving && objective.schedule == TrainSchedule::Edm {
                assert!(process.moves(&method, 3, 0.3).unwrap_err().to_string().contains("`edm`"));
                continue;
            }
            let noisy = matches!(kind, SamplerKind::Ancestral | SamplerKind::EulerAncestral);
            if noisy && objective.schedule == TrainSchedule::Flow {
                let error = process.moves(&method, 3, 0.3).unwrap_err().to_string();
                assert!(error.contains("a flow has not"), "{error}");
                continue;
            }
            let sampler = sampler(&gpu, &model, SamplerOptions { method, ..sampler_options(1, 3) });
            let guidance = freeguide::diffusion::Guidance::from_weight(1.0).unwrap();
            let pictures = sampler.sample(&requests(1, 1), guidance, || Ok(())).unwrap();
            assert_eq!(pictures.len(), 1, "{objective:?} {name}");
        }
    }
}

#[test]
fn variances_and_respacings_change_the_picture_and_are_checked() {
    let gpu = gpu();
    let dir = tempfile::tempdir().unwrap();
    let objective = objectives()[4];
    train(&gpu, &options(objective, 64), dir.path());
    let model = Model::load(&gpu, dir.path()).unwrap();
    assert_eq!(model.config.process().unwrap().variance, Variance::LearnedRange);
    let pictures = |variance, respacing: &str| {
        let kind = Some(SamplerKind::Ancestral);
        let respacing = Some(respacing.parse().unwrap());
        let method = Method { kind, variance, respacing, spacing: None, eta: None };
        let sampler = sampler(&gpu, &model, SamplerOptions { method, ..sampler_options(1, 1) });
        let guidance = freeguide::diffusion::Guidance::from_weight(1.0).unwrap();
        sampler.sample(&requests(1, 1), guidance, || Ok(())).unwrap().remove(0)
    };
    let learned = pictures(None, "4,3,2");
    assert_eq!(learned, pictures(Some(Variance::LearnedRange), "4,3,2"));
    for other in [
        pictures(Some(Variance::Small), "4,3,2"),
        pictures(Some(Variance::Large), "4,3,2"),
        pictures(None, "9"),
    ] {
        assert_ne!(learned, other);
    }
}

/// Losses come late, times depend on them, and a stop brings them in earlier than a run without one does.
#[test]
fn importance_sampling_resumes_byte_for_byte() {
    let gpu = gpu();
    let [straight, stopped] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    // Few times, so that each has its ten losses early on.
    let objective = Objective { steps_total: 5, ..objectives()[5] };
    let mut options = options(objective, 160);
    options.microbatch = 4;
    options.sampling.steps = 5;
    let records = train(&gpu, &options, straight.path()).records().to_vec();
    // Until every time has its ten losses all weigh the same; then the loss that is compared and the one beside it differ.
    assert!(records.iter().all(|record| record.unweighted_loss.is_some()));
    let weighted = records.iter().filter(|record| record.unweighted_loss != Some(record.loss)).count();
    assert!(weighted > 0 && records[0].unweighted_loss == Some(records[0].loss), "{records:?}");
    for steps in [3, 7, 1] {
        let mut trainer = Trainer::open(&gpu, digits(), &options, stopped.path()).unwrap();
        let mut left = steps;
        let stop = || {
            left -= 1;
            left == 0
        };
        assert_eq!(trainer.run(stop, |_, _| Ok(())).unwrap(), Outcome::Stopped);
    }
    train(&gpu, &options, stopped.path());
    for name in
        ["train.json", "train.jsonl", "config.json", "model.safetensors", "state-000000000160.safetensors"]
    {
        assert_same_file(name, straight.path(), stopped.path());
    }
}

#[test]
fn a_straight_path_is_told_in_files_and_resumes_byte_for_byte() {
    let gpu = gpu();
    let [straight, stopped] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let options = options(objectives()[6], 64);
    train(&gpu, &options, straight.path());
    for steps in [1, 3] {
        let mut trainer = Trainer::open(&gpu, digits(), &options, stopped.path()).unwrap();
        let mut left = steps;
        let stop = || {
            left -= 1;
            left == 0
        };
        assert_eq!(trainer.run(stop, |_, _| Ok(())).unwrap(), Outcome::Stopped);
    }
    train(&gpu, &options, stopped.path());
    for name in
        ["train.json", "train.jsonl", "config.json", "model.safetensors", "state-000000000064.safetensors"]
    {
        assert_same_file(name, straight.path(), stopped.path());
    }
    let text = std::fs::read_to_string(straight.path().join("config.json")).unwrap();
    let scheduler = serde_json::from_str::<serde_json::Value>(&text).unwrap()["scheduler"].clone();
    assert_eq!(scheduler["beta_schedule"], "flow");
    assert_eq!(scheduler["prediction_type"], "flow_prediction");
}

/// What a preconditioned network was trained for stands in its files; guiders, which see its eps, mix as the step's kernel
/// mixes what it predicts.
#[test]
fn a_preconditioned_network_is_told_in_files_and_guided() {
    use freeguide::diffusion::Guidance;
    let gpu = gpu();
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(objectives()[7], 64);
    (options.log_snr_min, options.log_snr_max) = options.objective.default_log_snrs();
    options.microbatch = 4;
    train(&gpu, &options, dir.path());
    let text = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
    let scheduler = serde_json::from_str::<serde_json::Value>(&text).unwrap()["scheduler"].clone();
    assert_eq!(scheduler["beta_schedule"], "edm");
    assert_eq!(scheduler["prediction_type"], "preconditioned");
    assert_eq!(scheduler["sigma_data"], 0.7);
    let model = Model::load(&gpu, dir.path()).unwrap();
    let w = Guidance::from_weight(1.5).unwrap();
    let asked = requests(3, 1);
    let drawn = |guiders: &str, kind: SamplerKind| {
        let method = Method { kind: Some(kind), ..Method::default() };
        let (guided, guiders) = (guiders.is_empty(), guiders.parse().unwrap());
        let options = SamplerOptions { method, guided, guiders, ..sampler_options(3, 6) };
        sampler(&gpu, &model, options).sample(&asked, w, || Ok(())).unwrap()
    };
    for kind in [SamplerKind::Heun, SamplerKind::Dpmpp2m] {
        let plain = drawn("", kind);
        // Nothing is rescaled, by way of eps all the same.
        let by_eps = difference(&plain, &drawn("rescale(0)", kind));
        assert!(by_eps < 0.5, "{kind}: {by_eps} of 255");
        let other = difference(&plain, &drawn("rescale(1)", kind));
        assert!(other > by_eps, "{kind}: {other} of 255");
    }
    // Another σ_data is another picture.
    let mut other_data = Model::load(&gpu, dir.path()).unwrap();
    other_data.config.scheduler.sigma_data = Some(0.3);
    let options = SamplerOptions { guided: true, ..sampler_options(3, 6) };
    let other = sampler(&gpu, &other_data, options.clone()).sample(&asked, w, || Ok(())).unwrap();
    assert_ne!(other, sampler(&gpu, &model, options).sample(&asked, w, || Ok(())).unwrap());
}

#[test]
fn the_default_leaves_no_trace_in_files() {
    let gpu = gpu();
    let dir = tempfile::tempdir().unwrap();
    train(&gpu, &tiny(16), dir.path());
    let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert!(!text("train.json").contains("objective"));
    let config: serde_json::Value = serde_json::from_str(&text("config.json")).unwrap();
    let keys: Vec<&String> = config["scheduler"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["beta_schedule", "log_snr_max", "log_snr_min", "prediction_type"]);
}

/// The bound does not depend on the batch, is the sum of its parts, and learning lowers it.
#[test]
fn the_bound_is_measured() {
    use freeguide::data::{Loader, LoaderOptions};
    use freeguide::sample::{Nll, NllOptions};
    let gpu = gpu();
    let objective = Objective { steps_total: 100, ..objectives()[4] };
    let trained = |images: u64| {
        let dir = tempfile::tempdir().unwrap();
        train(&gpu, &options(objective, images), dir.path());
        Model::load(&gpu, dir.path()).unwrap()
    };
    let measured = |model: &Model, batch: usize| {
        let respacing = Some("12".parse().unwrap());
        let options = NllOptions { batch, respacing, variance: None, conditional: true, seed: 3 };
        let mut nll = Nll::new(&gpu, model, options).unwrap();
        let loading =
            LoaderOptions { image_size: Extent::square(8), crop: Default::default(), flip: false, seed: 0 };
        let loader = Loader::new(digits(), loading);
        let mut runs = 0;
        for first in [0, 5] {
            nll.add(&loader.batch(first, 5).unwrap(), || {
                runs += 1;
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(runs, 2 * 60usize.div_ceil(batch));
        nll.report().unwrap()
    };
    let early = trained(64);
    let one = measured(&early, 7);
    assert_eq!((one.images, one.steps, one.step_bits.len()), (10, 12, 12));
    let sum = one.prior_bits + one.step_bits.iter().sum::<f64>();
    assert!((sum - one.total_bits).abs() < 1e-9, "{one:?}");
    assert!(one.mse.iter().chain(&one.x0_mse).all(|error| *error >= 0.0));
    assert_eq!(measured(&early, 60), one);
    let learnt = measured(&trained(1600), 60);
    assert!(learnt.total_bits < 0.9 * one.total_bits, "{} {}", learnt.total_bits, one.total_bits);
}

/// DDIM backwards from real pictures, then forth: the same pictures, but for the error of so many steps.
#[test]
fn pictures_go_to_latents_and_back() {
    use freeguide::data::{Loader, LoaderOptions};
    use freeguide::diffusion::Guidance;
    let gpu = gpu();
    let dir = tempfile::tempdir().unwrap();
    train(
        &gpu,
        &options(Objective { schedule: TrainSchedule::Cosine, ..Objective::default() }, 320),
        dir.path(),
    );
    let model = Model::load(&gpu, dir.path()).unwrap();
    let loading =
        LoaderOptions { image_size: Extent::square(8), crop: Default::default(), flip: false, seed: 0 };
    let batch = Loader::new(digits(), loading).batch(0, 3).unwrap();
    let x: Vec<f32> = batch.images.iter().map(|&byte| f32::from(byte) / 127.5 - 1.0).collect();
    let asked: Vec<_> =
        batch.labels.iter().map(|label| freeguide::sample::Request::new(Some(*label), 0)).collect();
    let through = |kind: SamplerKind, steps: usize, from: &[f32]| {
        let method = Method { kind: Some(kind), ..Method::default() };
        // Batches of two: three pictures take a batch and a half.
        let options = SamplerOptions { method, guided: false, ..sampler_options(2, steps) };
        let sampler = sampler(&gpu, &model, options);
        sampler.sample_from(from, &asked, Guidance::from_weight(0.0).unwrap(), || Ok(())).unwrap()
    };
    let away = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(a, b)| f64::from(a - b).abs()).sum::<f64>() / a.len() as f64
    };
    let back = |steps: usize| {
        let z = through(SamplerKind::DdimReverse, steps, &x);
        assert!(away(&z, &x) > 0.5, "the latents are not the pictures");
        away(&through(SamplerKind::Ddim, steps, &z), &x)
    };
    let [few, many] = [10, 80].map(back);
    assert!(many < 0.06 && many < few, "{few} with 10 steps, {many} with 80");
    let short = sampler(&gpu, &model, sampler_options(2, 2));
    assert!(short.sample_from(&x[1..], &asked, Guidance::from_weight(0.0).unwrap(), || Ok(())).is_err());
}
