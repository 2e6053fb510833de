//! Classifiers of noisy pictures: they learn, resume byte for byte, and guide every sampler on any network.

mod common;

use std::path::Path;

use common::{assert_same_file, digits, gpu, requests, sampler_options, tiny, train};
use freeguide::data::Image;
use freeguide::diffusion::{Guidance, Method, SamplerKind};
use freeguide::gpu::Gpu;
use freeguide::model::{ClassifierModel, Model};
use freeguide::nn::{Denoiser, NullClass, Pass};
use freeguide::ops;
use freeguide::sample::{ClassifierGuide, Guide, GuideInput, Networks, Request, Sampler, SamplerOptions};
use freeguide::shape::Extent;
use freeguide::tensor::{Context, DType};
use freeguide::train::{LossKind, Objective, Outcome, TrainOptions, TrainSchedule, Trainer};

fn classifier_options(schedule: TrainSchedule, images: u64) -> TrainOptions {
    let mut options = tiny(images);
    options.unet.num_classes = None;
    options.unet.null_class = NullClass::Absent;
    options.unet.out_channels = 10;
    options.unconditional_probability = 0.0;
    options.weight_decay = 0.05;
    options.objective = Objective { schedule, loss: LossKind::CrossEntropy, ..Objective::default() };
    options
}

fn classifier(gpu: &Gpu, schedule: TrainSchedule, images: u64, dir: &Path) -> ClassifierModel {
    train(gpu, &classifier_options(schedule, images), dir);
    ClassifierModel::load(gpu, dir).unwrap()
}

#[test]
fn a_classifier_learns_what_the_noise_leaves() {
    let gpu = gpu();
    let dir = tempfile::tempdir().unwrap();
    let options =
        TrainOptions { batch: 32, microbatch: 32, ..classifier_options(TrainSchedule::Cosine, 6400) };
    let trainer = train(&gpu, &options, dir.path());
    let last = &trainer.records()[150..];
    let share = |quarter: usize| {
        let sum = |which: fn(&freeguide::train::StepRecord) -> [u32; 4]| -> u32 {
            last.iter().map(|record| which(record)[quarter]).sum()
        };
        f64::from(sum(|record| record.hits.unwrap())) / f64::from(sum(|record| record.of.unwrap()))
    };
    let shares = [0, 1, 2, 3].map(share);
    // Ten classes: a tenth by chance, which is what pure noise leaves.
    assert!(
        shares[0] > 0.6 && shares[0] > shares[2] && shares[2] > shares[3] && shares[3] < 0.45,
        "{shares:?}"
    );
    assert!(Model::load(&gpu, dir.path()).is_err(), "a classifier is no model to sample");
}

#[test]
fn a_classifier_resumes_byte_for_byte() {
    let gpu = gpu();
    let [straight, stopped] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let options = TrainOptions { microbatch: 4, ..classifier_options(TrainSchedule::Cosine, 96) };
    train(&gpu, &options, straight.path());
    let mut some = Trainer::open(&gpu, digits(), &options, stopped.path()).unwrap();
    let mut left = 5;
    let stop = || {
        left -= 1;
        left == 0
    };
    assert_eq!(some.run(stop, |_, _| Ok(())).unwrap(), Outcome::Stopped);
    drop(some);
    train(&gpu, &options, stopped.path());
    for name in ["train.jsonl", "config.json", "model.safetensors", "state-000000000096.safetensors"] {
        assert_same_file(name, straight.path(), stopped.path());
    }
}

fn pictures(gpu: &Gpu, model: &Model, guide: Option<&dyn Guide>, kind: SamplerKind) -> Vec<Image> {
    let method = Method { kind: Some(kind), ..Method::default() };
    let options = SamplerOptions { method, guided: false, ..sampler_options(4, 6) };
    let weights = model.weights();
    let networks = Networks { guide, ..Networks::of(&model.unet, &weights) };
    let sampler = Sampler::with(gpu, networks, model.config.process().unwrap(), options).unwrap();
    sampler.sample(&requests(4, 1), Guidance::from_weight(-1.0).unwrap(), || Ok(())).unwrap()
}

#[test]
fn every_sampler_is_guided_and_scale_zero_changes_nothing() {
    let gpu = gpu();
    for schedule in [TrainSchedule::Continuous, TrainSchedule::Cosine] {
        let [a, b] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let objective = Objective { schedule, ..Objective::default() };
        train(&gpu, &TrainOptions { objective, ..tiny(160) }, a.path());
        let model = Model::load(&gpu, a.path()).unwrap();
        let classifier = classifier(&gpu, schedule, 160, b.path());
        for kind in [SamplerKind::Ancestral, SamplerKind::Ddim, SamplerKind::Dpmpp2m] {
            let guided = |scale: f32| {
                let weights = classifier.weights();
                let guide = ClassifierGuide { network: &classifier.network, weights, scale };
                pictures(&gpu, &model, Some(&guide), kind)
            };
            assert_ne!(guided(0.0), guided(20.0), "{kind}");
            // With a gradient of zero, continuous ancestral steps take another kernel and may round otherwise.
            let (without, none) = (pictures(&gpu, &model, None, kind), guided(0.0));
            assert!(common::difference(&without, &none) < 0.01, "{kind}");
        }
    }
}

/// Any function of z on the tape: here one that is the higher the darker the picture.
#[test]
fn any_differentiable_cost_guides() {
    let gpu = gpu();
    let dir = tempfile::tempdir().unwrap();
    train(&gpu, &tiny(160), dir.path());
    let model = Model::load(&gpu, dir.path()).unwrap();
    let darker = |cx: &mut Context, input: &GuideInput<'_>| {
        let black = cx.constant_f32("black", input.z.shape(), &vec![-1.0; input.z.len()])?;
        let distance = ops::mse(cx, input.z, &black)?;
        ops::scale(cx, &distance, -2000.0)
    };
    let mean = |images: &[Image]| {
        let all: Vec<f64> = images.iter().flat_map(|i| &i.pixels).map(|&p| f64::from(p)).collect();
        all.iter().sum::<f64>() / all.len() as f64
    };
    for kind in [SamplerKind::Ancestral, SamplerKind::Ddim, SamplerKind::Heun] {
        let (plain, dark) = (pictures(&gpu, &model, None, kind), pictures(&gpu, &model, Some(&darker), kind));
        assert!(mean(&dark) + 20.0 < mean(&plain), "{kind}: {} {}", mean(&dark), mean(&plain));
    }
    let constant = |cx: &mut Context, _: &GuideInput<'_>| cx.constant_f32("one", &[1], &[1.0]);
    let weights = model.weights();
    let guide = Some(&constant as &dyn Guide);
    let networks = Networks { guide, ..Networks::of(&model.unet, &weights) };
    let options = SamplerOptions { guided: false, ..sampler_options(1, 2) };
    let error = Sampler::with(&gpu, networks, model.config.process().unwrap(), options).err().unwrap();
    assert!(error.to_string().contains("does not depend"), "{error}");
}

/// A network paired with itself is the usual guidance; paired with another it is not; with one of other pictures, an error.
#[test]
fn pairs_of_networks_guide() {
    let gpu = gpu();
    let [a, b, c] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    train(&gpu, &tiny(160), a.path());
    train(&gpu, &TrainOptions { seed: 7, ..tiny(160) }, b.path());
    let mut wider = tiny(16);
    wider.unet.sample_size = Extent::square(16);
    wider.unet.attention_resolutions = vec![8];
    train(&gpu, &wider, c.path());
    let [model, other, large] = [&a, &b, &c].map(|dir| Model::load(&gpu, dir.path()).unwrap());
    let weights = model.weights();
    let paired = |with: Option<&Model>| {
        let own = with.map(|model| (&model.unet as &dyn Denoiser, model.weights()));
        let unconditional = own.as_ref().map(|(network, weights)| (*network, weights));
        let networks = Networks { unconditional, ..Networks::of(&model.unet, &weights) };
        let options = SamplerOptions { two_pass: true, ..sampler_options(3, 4) };
        let sampler = Sampler::with(&gpu, networks, model.config.process().unwrap(), options)?;
        sampler.sample(&requests(3, 1), Guidance::from_weight(2.0)?, || Ok(()))
    };
    let usual = paired(None).unwrap();
    assert_eq!(paired(Some(&model)).unwrap(), usual);
    assert_ne!(paired(Some(&other)).unwrap(), usual);
    assert!(paired(Some(&large)).unwrap_err().to_string().contains("16"));
}

/// The share of pictures that a classifier takes for what was asked.
fn agreement(gpu: &Gpu, judge: &ClassifierModel, images: &[Image], wanted: &[Request]) -> f64 {
    let n = images.len();
    let [h, w] = [images[0].height, images[0].width];
    let values: Vec<f32> =
        images.iter().flat_map(|image| &image.pixels).map(|&p| f32::from(p) / 127.5 - 1.0).collect();
    let mut cx = Context::new(gpu);
    let x = cx.constant_f32("pictures", &[n, h, w, 1], &values).unwrap();
    let times = cx.constant_f32("times", &[n], &vec![0.0; n]).unwrap();
    let labels: Vec<u32> = wanted.iter().map(|request| request.condition.class.unwrap()).collect();
    let labels = cx.constant_u32("labels", &[n], &labels).unwrap();
    let weights = judge.weights();
    let logits = judge.network.forward(&mut cx, &weights, &x, &times, &Pass::inference(DType::F32)).unwrap();
    let found = ops::cross_entropy(&mut cx, &logits, &labels, 1.0).unwrap();
    cx.keep(&found.terms);
    let plan = cx.finish("agreement").unwrap();
    plan.run().unwrap();
    let bytes = gpu.read(plan.kept(found.terms.storage()).unwrap(), 0..(n * 16) as u64).unwrap();
    let terms: Vec<[f32; 4]> = bytemuck::pod_collect_to_vec(&bytes);
    f64::from(terms.iter().map(|terms| terms[1]).sum::<f32>()) / n as f64
}

/// A network that never saw a label makes more of the digits asked for when a classifier guides it; another one judges.
/// All three are trained for seconds, so this is far from what guidance can do.
#[test]
fn guidance_raises_agreement_from_chance() {
    let gpu = gpu();
    let [a, b, c] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let schedule = TrainSchedule::Cosine;
    let objective = Objective { schedule, ..Objective::default() };
    let batched = |mut options: TrainOptions| {
        (options.batch, options.microbatch) = (32, 32);
        options
    };
    let unlabelled = TrainOptions { objective, unconditional_probability: 1.0, ..tiny(3200) };
    train(&gpu, &batched(unlabelled), a.path());
    train(&gpu, &batched(classifier_options(schedule, 6400)), b.path());
    train(&gpu, &batched(TrainOptions { seed: 9, ..classifier_options(schedule, 6400) }), c.path());
    let model = Model::load(&gpu, a.path()).unwrap();
    let [guide, judge] = [&b, &c].map(|dir| ClassifierModel::load(&gpu, dir.path()).unwrap());
    let wanted = requests(10, 4);
    let made = |scale: f32, kind: SamplerKind| {
        let weights = model.weights();
        let guide = ClassifierGuide { network: &guide.network, weights: guide.weights(), scale };
        let networks = Networks { guide: Some(&guide), ..Networks::of(&model.unet, &weights) };
        let method = Method { kind: Some(kind), ..Method::default() };
        let options = SamplerOptions { method, guided: false, ..sampler_options(40, 20) };
        let sampler = Sampler::with(&gpu, networks, model.config.process().unwrap(), options).unwrap();
        let images = sampler.sample(&wanted, Guidance::from_weight(-1.0).unwrap(), || Ok(())).unwrap();
        agreement(&gpu, &judge, &images, &wanted)
    };
    let [none, ancestral, ddim] =
        [(0.0, SamplerKind::Ancestral), (30.0, SamplerKind::Ancestral), (30.0, SamplerKind::Ddim)]
            .map(|(scale, kind)| made(scale, kind));
    println!("agreement: {none} without, {ancestral} ancestral, {ddim} DDIM");
    assert!(none <= 0.2 && ancestral >= 0.3 && ddim > none, "{none} {ancestral} {ddim}");
}
