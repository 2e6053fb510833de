//! Networks of one's own: through samplers, guiders and sessions, trained as the UNet is, and refused by name where something
//! does not fit.

mod common;

use common::{digits, gpu, tiny};
use freeguide::data::{Crop, Loader, LoaderOptions};
use freeguide::diffusion::{
    Clip, ContinuousSchedule, Guidance, LevelSource, Method, Prediction, Process, SamplerKind, Variance,
};
use freeguide::gpu::Gpu;
use freeguide::nn::layers::{Conv2d, Embedding};
use freeguide::nn::{
    About, ClassIn, Denoiser, Init, Layout, ParameterId, Parameters, Pass, Takes, Told, Weights,
};
use freeguide::ops::{self, Mixture};
use freeguide::sample::{Networks, Request, Sampler, SamplerOptions};
use freeguide::session::{self, Session, SessionOptions};
use freeguide::shape::{Extent, Shape};
use freeguide::tensor::{Context, Tensor};
use freeguide::train::{TrainOptions, TrainState, TrainStep};
use freeguide::{Error, Result, wgpu};

/// Neither square nor of the channels of a picture file.
const SAMPLE: Shape = Shape { channels: 3, extent: Extent::Plane { height: 5, width: 7 } };
const CLASSES: usize = 3;
const DEVIATION: f64 = 0.05;

/// The exact score of three narrow Gaussians, each around a picture of one value.
struct Exact {
    about: About,
    parameters: Parameters,
    means: ParameterId,
}

fn value_of(class: usize) -> f32 {
    [-0.6, 0.1, 0.7][class]
}

impl Exact {
    fn new() -> Exact {
        let takes = Takes { class: Some(ClassIn::of(CLASSES)), moves: true, ..Takes::default() };
        let mut parameters = Parameters::default();
        let means = parameters.declare("means", &[CLASSES, SAMPLE.len()], Layout::Plain, Init::Zero);
        let about = About { sample: SAMPLE, out_channels: 3, takes, divides: 1 };
        Exact { about, parameters, means }
    }

    fn weights(&self, gpu: &Gpu) -> Weights {
        let arena = self.parameters.arena(gpu, "means", 1).unwrap();
        let means = (0..CLASSES).flat_map(|class| vec![value_of(class); SAMPLE.len()]).collect();
        arena.write(gpu, 0, &[means]).unwrap();
        arena.weights(&self.parameters, 0)
    }
}

impl Denoiser for Exact {
    fn about(&self) -> &About {
        &self.about
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn record(
        &self,
        cx: &mut Context,
        weights: &Weights,
        z: &Tensor,
        _: &Tensor,
        told: Told<'_>,
        _: &Pass<'_>,
    ) -> Result<Tensor> {
        let (rows, moves) = (told.class.unwrap(), told.moves.unwrap());
        let z = ops::repeat_batch(cx, z, told.conditions)?;
        let mixture = Mixture { means: weights.get(self.means), standard_deviation: DEVIATION };
        ops::mixture_score(cx, &z, rows, mixture, moves.rows, moves.counter)
    }
}

/// A convolution, and a row of the class and the time at every pixel; what it says of itself may be changed.
struct Small {
    about: About,
    parameters: Parameters,
    class: Embedding,
    convs: [Conv2d; 2],
}

const WIDTH: usize = 8;

impl Small {
    fn new(sample: Shape, classes: usize) -> Small {
        let mut parameters = Parameters::default();
        let class = Embedding::new(&mut parameters, "class", classes + 1, WIDTH);
        let mut conv = |name, channels| Conv2d::new(&mut parameters, name, channels, 3, false);
        let convs = [conv("in", [sample.channels, WIDTH]), conv("out", [WIDTH, sample.channels])];
        let takes = Takes { class: Some(ClassIn::of(classes)), ..Takes::default() };
        let about = About { sample, out_channels: sample.channels, takes, divides: 1 };
        Small { about, parameters, class, convs }
    }

    fn weights(&self, gpu: &Gpu) -> Weights {
        let arena = self.parameters.arena(gpu, "small", 1).unwrap();
        arena.write(gpu, 0, &self.parameters.initial_values(5)).unwrap();
        arena.weights(&self.parameters, 0)
    }
}

impl Denoiser for Small {
    fn about(&self) -> &About {
        &self.about
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn record(
        &self,
        cx: &mut Context,
        weights: &Weights,
        z: &Tensor,
        time: &Tensor,
        told: Told<'_>,
        _: &Pass<'_>,
    ) -> Result<Tensor> {
        let rows = told.class.ok_or_else(|| Error::Config("no class came".into()))?;
        let time = ops::timestep_embedding(cx, time, WIDTH)?;
        let time = ops::repeat_batch(cx, &time, told.conditions)?;
        let class = self.class.forward(cx, weights, rows)?;
        let both = ops::add(cx, &time, &class, 1.0)?;
        // Shared by all conditions, as late conditioning is.
        let h = self.convs[0].forward(cx, weights, z)?;
        let h = ops::repeat_batch(cx, &h, told.conditions)?;
        let h = ops::add_per_sample(cx, &h, &both)?;
        let h = ops::silu(cx, &h)?;
        self.convs[1].forward(cx, weights, &h)
    }
}

fn w(weight: f64) -> Guidance {
    Guidance::from_weight(weight).unwrap()
}

fn requests() -> Vec<Request> {
    (0..CLASSES as u32).map(|class| Request::new(Some(class), 7 + u64::from(class))).collect()
}

fn options(guiders: &str, steps: usize) -> SamplerOptions {
    SamplerOptions { guiders: guiders.parse().unwrap(), ..SamplerOptions::new(CLASSES, steps) }
}

fn drawn(
    gpu: &Gpu,
    network: &dyn Denoiser,
    weights: &Weights,
    process: &Process,
    options: SamplerOptions,
) -> Vec<f32> {
    let sampler = Sampler::new(gpu, network, weights, process, options).unwrap();
    let mut run = sampler.start(&requests(), w(1.5)).unwrap();
    while !run.finished() {
        run.step().unwrap();
    }
    sampler.read(CLASSES).unwrap()
}

fn continuous(prediction: Prediction) -> Process {
    let levels = LevelSource::Continuous(ContinuousSchedule::default());
    Process { levels, prediction, variance: Variance::Small }
}

/// Guidance between exact scores draws each class's picture: its mean, all over.
#[test]
fn an_exact_score_draws_what_it_is_the_score_of() {
    let gpu = gpu();
    let exact = Exact::new();
    let weights = exact.weights(&gpu);
    let process = continuous(Prediction::Eps);
    for guiders in ["", "interval(lo=-2,hi=6)", "rescale(0)", "also(0:0)"] {
        let options = options(guiders, 64);
        let values = drawn(&gpu, &exact, &weights, &process, options.clone());
        for (class, picture) in values.chunks(SAMPLE.len()).enumerate() {
            let mean = picture.iter().sum::<f32>() / picture.len() as f32;
            assert!((mean - value_of(class)).abs() < 0.03, "{guiders:?}, class {class}: {mean}");
            let most = picture.iter().fold(0f32, |most, x| most.max((x - value_of(class)).abs()));
            assert!(most < 0.4 && most > 0.01, "{guiders:?}, class {class}: {most}");
        }
        let two_pass = SamplerOptions { two_pass: true, ..options };
        assert!(values == drawn(&gpu, &exact, &weights, &process, two_pass), "{guiders:?} in two passes");
    }
}

/// What a session leaves of the same request.
fn in_session(
    gpu: &Gpu,
    network: &dyn Denoiser,
    weights: &Weights,
    process: &Process,
    guiders: &str,
    kind: SamplerKind,
    class: u32,
) -> Vec<f32> {
    let method = Some(Method { kind: Some(kind), ..Method::default() });
    let options = SessionOptions { method, guiders: guiders.parse().unwrap(), ..SessionOptions::default() };
    let own = SamplerOptions::new(1, 5);
    let mut session = Session::with(gpu, Networks::of(network, weights), process, own, options).unwrap();
    let request = session::Request {
        condition: Some(class).into(),
        guidance: w(1.5),
        seed: 7 + u64::from(class),
        ..session::Request::default()
    };
    session.start(&request).unwrap();
    while !session.progress().finished {
        let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        session.step(&mut encoder).unwrap();
        gpu.queue().submit([encoder.finish()]);
    }
    bytemuck::pod_collect_to_vec(&gpu.read(session.latent(), 0..(SAMPLE.len() * 4) as u64).unwrap())
}

#[test]
fn samplers_and_sessions_draw_the_same_with_every_kind_of_guider() {
    let gpu = gpu();
    let small = Small::new(SAMPLE, CLASSES);
    let weights = small.weights(&gpu);
    let plain = continuous(Prediction::Eps);
    for (process, kind, guiders) in [
        (&plain, SamplerKind::Ancestral, ""),
        (&plain, SamplerKind::Ancestral, "rescale(0.7)"),
        (&plain, SamplerKind::Heun, "apg(r=3)"),
        (&continuous(Prediction::V), SamplerKind::Ddim, "also(0:0.5)+interval(lo=-4,hi=9)"),
    ] {
        let method = Method { kind: Some(kind), ..Method::default() };
        let options = SamplerOptions { method, ..options(guiders, 5) };
        let values = drawn(&gpu, &small, &weights, process, options);
        assert!(values.iter().all(|x| x.is_finite()), "{kind} {guiders:?}");
        for (class, picture) in values.chunks(SAMPLE.len()).enumerate() {
            let own = in_session(&gpu, &small, &weights, process, guiders, kind, class as u32);
            assert!(own == picture, "{kind} {guiders:?}, class {class}");
        }
    }
    // A weaker network beside it.
    let weaker = Some((&small as &dyn Denoiser, &weights));
    let networks = Networks { weaker, ..Networks::of(&small, &weights) };
    Sampler::with(&gpu, networks, &plain, options("autoguidance(itself)", 5)).unwrap();
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let gpu = gpu();
    let (exact, small) = (Exact::new(), Small::new(SAMPLE, CLASSES));
    let (means, weights) = (exact.weights(&gpu), small.weights(&gpu));
    let process = continuous(Prediction::Eps);
    let refused = |network: &dyn Denoiser, weights: &Weights, options: SamplerOptions, parts: &[&str]| {
        let error =
            Sampler::new(&gpu, network, weights, &process, options).map(drop).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}, expected {parts:?}");
    };
    let kind = |kind| {
        let method = Method { kind: Some(kind), ..Method::default() };
        SamplerOptions { method, ..options("", 5) }
    };
    refused(&exact, &means, kind(SamplerKind::Heun), &["Takes::moves", "heun", "ancestral"]);
    refused(&small, &means, options("", 5), &["class.weight", "another network's"]);
    refused(&small, &Weights::default(), options("", 5), &["5 parameters", "0 weights"]);
    refused(&small, &weights, options("annealing()", 5), &["annealing", "ClassIn::anneals"]);
    let changed = |change: fn(&mut About)| {
        let mut small = Small::new(SAMPLE, CLASSES);
        change(&mut small.about);
        small
    };
    let halves = changed(|about| about.divides = 2);
    refused(&halves, &weights, options("", 5), &["5x7", "multiples of 2"]);
    let more = changed(|about| about.out_channels = 4);
    refused(&more, &weights, options("", 5), &["4 channels for 3"]);
    let learned = changed(|about| about.out_channels = 6);
    refused(&learned, &weights, options("", 5), &["gave [6, 5, 7, 3]", "expected [6, 5, 7, 6]"]);
    let none = changed(|about| about.takes.class = None);
    let once = SamplerOptions { guided: false, ..options("", 5) };
    refused(&none, &weights, once, &["no class came"]);

    let sampler = Sampler::new(&gpu, &small, &weights, &process, options("", 5)).unwrap();
    let past = [Request::new(Some(CLASSES as u32), 0)];
    let error = sampler.start(&past, w(1.0)).map(drop).unwrap_err().to_string();
    assert!(error.contains("no class 3"), "{error}");
    let dynamic = SamplerOptions { clip: Clip::Dynamic { quantile: 0.9 }, ..options("", 5) };
    Sampler::new(&gpu, &small, &weights, &process, dynamic).unwrap();
}

#[test]
fn it_is_trained_as_the_unet_is() {
    let gpu = gpu();
    let options = TrainOptions { learning_rate: 2e-2, warmup_images: 8, ..tiny(480) };
    let small = Small::new(Shape::square(1, 8), 10);
    let first = TrainStep::initial_optimizer_state(&options);
    let state = TrainState::new(&gpu, small.parameters(), 1, 0, &first).unwrap();
    let step = TrainStep::record(&gpu, &small as &dyn Denoiser, &options, &state).unwrap();
    let how = LoaderOptions { image_size: Extent::square(8), crop: Crop::Center, flip: false, seed: 0 };
    let loader = Loader::new(digits(), how);
    let losses: Vec<f32> =
        (0..60).map(|i| step.run(&loader.batch(8 * i, 8).unwrap()).unwrap().wait().unwrap().loss).collect();
    let mean = |losses: &[f32]| losses.iter().sum::<f32>() / losses.len() as f32;
    let (before, after) = (mean(&losses[..10]), mean(&losses[50..]));
    assert!(after < 0.8 * before, "{before} to {after}");

    let other = Small::new(SAMPLE, 10);
    let error = TrainStep::record(&gpu, &other as &dyn Denoiser, &options, &state).map(drop).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("5x7 in 3 channels") && error.contains("8x8 in 1 channels"), "{error}");
}
