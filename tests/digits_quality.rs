//! Guided samples of the digits look like the digit asked for, and not all like the same one: judged by the real
//! digit nearest to each, in f32 and in f16.
//!
//! `FREEGUIDE_MODEL=DIR` judges that model too, fully: what `freeguide quickstart` leaves has to pass.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use common::{difference, digits, gpu, requests, sampler_options, train};
use freeguide::data::Image;
use freeguide::diffusion::{Guidance, Prediction};
use freeguide::gpu::Gpu;
use freeguide::model::Model;
use freeguide::nn::UNet;
use freeguide::sample::{Request, Sampler, SamplerOptions};
use freeguide::tensor::DType;
use freeguide::train::{Objective, Preset, TrainOptions, TrainSchedule, TrainStep};

/// The real digits, and how far each is from the nearest other one.
struct Digits {
    pixels: Vec<Vec<u8>>,
    labels: Vec<u32>,
    median: f64,
}

/// What the nearest real digits say about pictures that were asked for by class.
#[derive(Debug)]
struct Verdict {
    /// The part of the pictures whose nearest digit is of the class asked for.
    agreement: f64,
    /// How many classes appear among the nearest digits.
    classes: usize,
    /// How many different digits are nearest to some picture.
    distinct: usize,
    /// The median squared distance to the nearest digit, by that of the digits among themselves.
    distance: f64,
}

impl Digits {
    fn new() -> Digits {
        let set = digits();
        let pixels: Vec<Vec<u8>> = (0..set.len()).map(|i| set.decode(i).unwrap().pixels).collect();
        let mut all = Digits { pixels, labels: set.labels().to_vec(), median: 1.0 };
        let distances = (0..all.pixels.len()).map(|i| all.nearest(&all.pixels[i], Some(i)).1).collect();
        all.median = median(distances);
        all
    }

    /// The nearest digit but `except`, and its squared distance in pixels of 0 to 1.
    fn nearest(&self, picture: &[u8], except: Option<usize>) -> (usize, f64) {
        let distance = |digit: &[u8]| -> i32 {
            digit.iter().zip(picture).map(|(&a, &b)| (i32::from(a) - i32::from(b)).pow(2)).sum()
        };
        let others = self.pixels.iter().enumerate().filter(|(i, _)| Some(*i) != except);
        let (squared, nearest) = others.map(|(i, digit)| (distance(digit), i)).min().expect("digits");
        (nearest, f64::from(squared) / (255.0 * 255.0))
    }

    fn judge(&self, requests: &[Request], pictures: &[Image]) -> Verdict {
        assert_eq!(requests.len(), pictures.len());
        let nearest: Vec<(usize, f64)> =
            pictures.iter().map(|picture| self.nearest(&picture.pixels, None)).collect();
        let pairs = requests.iter().zip(&nearest);
        let right =
            pairs.filter(|(request, (i, _))| request.condition.class == Some(self.labels[*i])).count();
        Verdict {
            agreement: right as f64 / pictures.len() as f64,
            classes: nearest.iter().map(|(i, _)| self.labels[*i]).collect::<BTreeSet<_>>().len(),
            distinct: nearest.iter().map(|(i, _)| *i).collect::<BTreeSet<_>>().len(),
            distance: median(nearest.iter().map(|(_, distance)| *distance).collect()) / self.median,
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn sample(gpu: &Gpu, model: &Model, w: f64, options: SamplerOptions, requests: &[Request]) -> Vec<Image> {
    let guidance = Guidance::from_weight(w).unwrap();
    let guided = Sampler::needs_both(guidance);
    let sampler = common::sampler(gpu, model, SamplerOptions { guided, ..options });
    sampler.sample(requests, guidance, || Ok(())).unwrap()
}

/// The velocity of a straight path, sampled by Euler's method, which DDIM is there. A narrow network and a fifteenth of the
/// quickstart's pictures: rough digits, most of them the one asked for, where chance would be a tenth.
#[test]
fn a_very_short_training_of_a_flow_draws_digits_too() {
    let objective =
        Objective { schedule: TrainSchedule::Flow, prediction: Prediction::FLOW, ..Objective::default() };
    let guided = after_a_very_short_training(objective, 24);
    assert!(guided.agreement >= 0.5, "w = 1: {guided:?}");
    assert!(guided.distinct >= 35 && guided.classes >= 9 && guided.distance <= 4.0, "{guided:?}");
}

/// What a narrow network guided by w = 1 draws in so many steps.
fn after_a_very_short_training(objective: Objective, steps: usize) -> Verdict {
    let (gpu, dir) = (gpu(), tempfile::tempdir().unwrap());
    let mut options = Preset::named("digits").unwrap().options(&digits(), 0);
    options.unet.model_channels = 16;
    options.objective = objective;
    (options.log_snr_min, options.log_snr_max) = objective.default_log_snrs();
    let options = TrainOptions {
        images: 1600,
        learning_rate: 4e-3,
        warmup_images: 160,
        ema_rates: vec![0.95],
        batch: 16,
        microbatch: 16,
        ..options
    };
    train(&gpu, &options, dir.path());
    let model = Model::load(&gpu, dir.path()).unwrap();
    let (digits, requests) = (Digits::new(), requests(10, 5));
    let options = sampler_options(requests.len(), steps);
    let guided = digits.judge(&requests, &sample(&gpu, &model, 1.0, options, &requests));
    println!("w = 1: {guided:.3?}");
    guided
}

/// EDM's preconditioning, its noise levels and Heun's method, after the same short training.
#[test]
fn a_very_short_training_with_preconditioning_draws_digits_too() {
    let objective =
        Objective { schedule: TrainSchedule::Edm, prediction: Prediction::EDM, ..Objective::default() };
    let guided = after_a_very_short_training(objective, 12);
    assert!(guided.agreement >= 0.5, "w = 1: {guided:?}");
    assert!(guided.distinct >= 35 && guided.classes >= 9 && guided.distance <= 4.0, "{guided:?}");
}

#[test]
fn a_short_training_draws_the_digits_it_is_asked_for() {
    let (gpu, dir) = (gpu(), tempfile::tempdir().unwrap());
    let mut options = Preset::named("digits").unwrap().options(&digits(), 0);
    // A quarter of the quickstart's work: as many images as 0.15 TFLOP allow.
    let unet = UNet::new(&options.unet).unwrap();
    let flops = TrainStep::cost(&gpu, &unet, &options).unwrap().flops / options.batch as f64;
    options.images = (0.15e12 / flops) as u64;
    println!("{:.1} MFLOP an image, {} images", flops * 1e-6, options.images);
    // In so few steps the average has to be a shorter one, and smaller batches make more of them.
    let short =
        TrainOptions { warmup_images: 160, ema_rates: vec![0.95], batch: 16, microbatch: 16, ..options };
    train(&gpu, &short, dir.path());

    let model = Model::load(&gpu, dir.path()).unwrap();
    let (digits, requests) = (Digits::new(), requests(10, 5));
    let in_f32 = sampler_options(requests.len(), 32);
    let plain = digits.judge(&requests, &sample(&gpu, &model, 0.0, in_f32.clone(), &requests));
    let pictures = sample(&gpu, &model, 1.0, in_f32.clone(), &requests);
    let guided = digits.judge(&requests, &pictures);
    println!("w = 0: {plain:.3?}\nw = 1: {guided:.3?}");
    assert!(guided.agreement >= 0.85, "w = 1: {guided:?}");
    // The pictures are still rough: the distance of a full training is 1.5 at most, that of half of this one is 4.
    for verdict in [plain, guided] {
        assert!(verdict.distinct >= 35 && verdict.classes >= 9 && verdict.distance <= 3.0, "{verdict:?}");
    }

    if gpu.capabilities().f16 {
        let in_f16 = SamplerOptions { dtype: DType::F16, ..in_f32 };
        let half = sample(&gpu, &model, 1.0, in_f16, &requests);
        let mean = difference(&pictures, &half);
        println!("f16 differs from f32 by {mean:.3}/255 in the mean");
        assert!(half != pictures, "nothing was computed in f16");
        assert!(mean <= 2.0, "f16 differs from f32 by {mean:.3}/255 in the mean");
    }
}

#[test]
fn the_model_of_the_environment_passes() {
    let Some(path) = std::env::var_os("FREEGUIDE_MODEL") else {
        println!("FREEGUIDE_MODEL is not set: there is no model to judge");
        return;
    };
    let gpu = gpu();
    let model = Model::load(&gpu, Path::new(&path)).unwrap();
    let (digits, requests) = (Digits::new(), requests(10, 20));
    let sampling = &model.config.sampling;
    let options = SamplerOptions {
        variance_exponent: sampling.variance_exponent,
        clip: model.config.clip().unwrap(),
        ..sampler_options(50, sampling.steps)
    };
    let [none, plain, one, three] = [-1.0, 0.0, 1.0, 3.0].map(|w| {
        let verdict = digits.judge(&requests, &sample(&gpu, &model, w, options.clone(), &requests));
        println!("w = {w}: {verdict:.3?}");
        verdict
    });
    assert!(one.agreement >= 0.9 && one.agreement >= plain.agreement, "w = 1 against w = 0");
    assert!(three.agreement >= one.agreement - 0.02, "w = 3 against w = 1");
    assert!(none.agreement < 0.3 && none.classes >= 8, "w = -1 must not know the class");
    assert!(
        plain.distinct >= 120 && plain.distance <= 1.5,
        "w = 0 has collapsed, or drifted from the digits"
    );
}
