//! Vectors as a part of the condition: alone and beside a class, through samplers and sessions, guided, and refused where they do
//! not fit.

mod common;

use common::{gpu, sampler_options, tiny};
use freeguide::diffusion::{Guidance, Method, SamplerKind};
use freeguide::gpu::Gpu;
use freeguide::model::{Condition, Model, ModelConfig, SchedulerConfig};
use freeguide::nn::UNet;
use freeguide::random::init_uniform;
use freeguide::sample::{Request, Sampler, SamplerOptions};
use freeguide::session::{self, Session, SessionOptions};
use freeguide::wgpu;

const STEPS: usize = 5;
const WIDTH: usize = 3;

/// A network of random numbers that takes a vector, and perhaps a class.
fn model(gpu: &Gpu, classes: bool, change: impl FnOnce(&mut ModelConfig)) -> Model {
    let text = include_str!("../src/model/convert/config.json");
    let mut config: ModelConfig = serde_json::from_str(text).unwrap();
    let tiny = tiny(8);
    (config.unet, config.class_names, config.sampling) = (tiny.unet, tiny.class_names, tiny.sampling);
    config.scheduler = SchedulerConfig::continuous(-20.0, 20.0);
    config.sampling.steps = STEPS;
    (config.unconditional_probability, config.images_seen) = (0.1, 0);
    config.trained_rows = None;
    config.unet.vector_width = WIDTH;
    if !classes {
        (config.unet.num_classes, config.class_names) = (None, Vec::new());
        config.unet.null_class = freeguide::nn::NullClass::Absent;
    }
    change(&mut config);
    let network = UNet::new(&config.unet).unwrap();
    let mut values = network.parameters().initial_values(3);
    for (i, values) in values.iter_mut().enumerate().filter(|(_, values)| values.iter().all(|x| *x == 0.0)) {
        *values = init_uniform(4, i as u64, values.len(), 0.2);
    }
    Model::of_values(gpu, config, &values, "a small model".as_ref()).unwrap()
}

fn w(weight: f64) -> Guidance {
    Guidance::from_weight(weight).unwrap()
}

fn condition(class: Option<u32>, vector: Option<[f32; WIDTH]>) -> Condition {
    Condition { class, vector: vector.map(Vec::from), ..Condition::default() }
}

fn requests() -> Vec<Request> {
    let conditions = [
        condition(Some(1), Some([0.5, -1.0, 2.0])),
        condition(None, Some([1.0, 0.0, 0.25])),
        condition(Some(1), None),
        condition(None, None),
    ];
    conditions.into_iter().map(|condition| Request::new(condition, 5)).collect()
}

/// The bits of each picture.
fn drawn(model: &Model, options: SamplerOptions, all: &[Request], weight: f64) -> Vec<Vec<u32>> {
    let sampler = Sampler::of(model.gpu(), model, options).unwrap();
    let mut bits = Vec::new();
    for batch in all.chunks(sampler.options().batch) {
        let mut run = sampler.start(batch, w(weight)).unwrap();
        while !run.finished() {
            run.step().unwrap();
        }
        let values = sampler.read(batch.len()).unwrap();
        let one = values.len() / batch.len();
        bits.extend(values.chunks(one).map(|x| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>()));
    }
    bits
}

fn options(kind: SamplerKind, guiders: &str, batch: usize) -> SamplerOptions {
    let method = Method { kind: Some(kind), ..Method::default() };
    SamplerOptions { method, guiders: guiders.parse().unwrap(), ..sampler_options(batch, STEPS) }
}

/// The bits of what a session draws; `change` is called before each step.
fn in_session(
    model: &Model,
    options: SessionOptions,
    request: &Request,
    weight: f64,
    mut change: impl FnMut(&mut Session, usize),
) -> Vec<u32> {
    let gpu = model.gpu();
    let mut session = Session::new(gpu.device(), gpu.queue(), model, options).unwrap();
    let Request { condition, seed, .. } = request.clone();
    session.start(&session::Request { condition, guidance: w(weight), seed, ..Default::default() }).unwrap();
    let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    for step in 0.. {
        change(&mut session, step);
        if session.step(&mut encoder).unwrap().finished {
            break;
        }
    }
    gpu.queue().submit([encoder.finish()]);
    let bytes = gpu.read(session.latent(), 0..8 * 8 * 4).unwrap();
    bytemuck::pod_collect_to_vec(&bytes)
}

#[test]
fn samplers_and_sessions_draw_what_is_asked_for() {
    let gpu = gpu();
    let late = |config: &mut ModelConfig| config.unet.condition_from = Some("middle_block".into());
    for (model, kind, guiders) in [
        (model(&gpu, true, |_| ()), SamplerKind::Ancestral, ""),
        (model(&gpu, true, |_| ()), SamplerKind::Dpmpp2m, "rescale(0.5)+interval(lo=-5,hi=8)"),
        (model(&gpu, true, |_| ()), SamplerKind::Ancestral, "negative(2)"),
        (model(&gpu, true, |_| ()), SamplerKind::Ddim, "also(4:0.5)"),
        (model(&gpu, true, |_| ()), SamplerKind::Heun, "parts(vector:0.5)"),
        (model(&gpu, true, |_| ()), SamplerKind::Ancestral, "parts(class:3 vector:0.5)"),
        (model(&gpu, true, late), SamplerKind::Ancestral, "parts(class:3)+interval(lo=-5,hi=8)"),
        (model(&gpu, true, late), SamplerKind::Ancestral, ""),
        (model(&gpu, false, |_| ()), SamplerKind::Heun, ""),
        (model(&gpu, false, |_| ()), SamplerKind::Ancestral, "apg(r=3)"),
    ] {
        let (all, name) = (requests(), format!("{kind} {guiders}"));
        let all: Vec<Request> = match model.config.unet.num_classes {
            Some(_) => all,
            None => all.into_iter().filter(|request| request.condition.class.is_none()).collect(),
        };
        let whole = drawn(&model, options(kind, guiders, all.len()), &all, 1.5);
        assert!(whole.iter().flatten().all(|bits| f32::from_bits(*bits).is_finite()), "{name}");
        for (i, one) in whole.iter().enumerate() {
            assert!(!whole[..i].contains(one), "{name}: picture {i} is another one's");
        }
        assert!(whole == drawn(&model, options(kind, guiders, 1), &all, 1.5), "{name}, one by one");
        let two_pass = SamplerOptions { two_pass: true, ..options(kind, guiders, all.len()) };
        assert!(whole == drawn(&model, two_pass, &all, 1.5), "{name}, one evaluation at a time");
        // Zeros are no vector.
        let zeros = |request: &Request| {
            let vector = request.condition.vector.clone().or(Some(vec![0.0; WIDTH]));
            Request { condition: Condition { vector, ..request.condition.clone() }, ..request.clone() }
        };
        let zeros: Vec<Request> = all.iter().map(zeros).collect();
        assert!(whole == drawn(&model, options(kind, guiders, all.len()), &zeros, 1.5), "{name}, zeros");
        for (request, want) in all.iter().zip(&whole) {
            // Without a condition a session evaluates once, which is the same picture but for rounding.
            if guiders.is_empty() && request.condition == Condition::default() {
                continue;
            }
            let method = Some(Method { kind: Some(kind), ..Method::default() });
            let guiders = guiders.parse().unwrap();
            let options = SessionOptions { method, guiders, ..SessionOptions::default() };
            assert!(in_session(&model, options, request, 1.5, |_, _| ()) == *want, "{name}, in a session");
        }
    }
}

#[test]
fn a_vector_changes_between_two_steps() {
    let gpu = gpu();
    let model = model(&gpu, true, |_| ());
    let request = &requests()[0];
    let plain = |change: &dyn Fn(&mut Session, usize)| {
        in_session(&model, SessionOptions::default(), request, 1.0, |session, step| change(session, step))
    };
    let own = plain(&|_, _| ());
    let other = |session: &mut Session, step: usize| {
        if step == 2 {
            session.set_vector(Some(vec![-1.0, 1.0, 0.0])).unwrap();
        }
    };
    let changed = plain(&other);
    assert!(changed != own && changed == plain(&other));
    let same = |session: &mut Session, _: usize| {
        session.set_vector(request.condition.vector.clone()).unwrap();
    };
    assert!(plain(&same) == own);
}

#[test]
fn what_a_network_does_not_take_is_refused() {
    let gpu = gpu();
    let model = model(&gpu, true, |_| ());
    let sampler = Sampler::of(&gpu, &model, options(SamplerKind::Ancestral, "", 1)).unwrap();
    let refused = |sampler: &Sampler, vector: Vec<f32>| {
        let condition = Condition { class: Some(1), vector: Some(vector), ..Condition::default() };
        sampler.start(&[Request::new(condition, 0)], w(1.0)).map(drop).unwrap_err().to_string()
    };
    assert!(refused(&sampler, vec![0.0; 2]).contains("2 numbers; the model takes 3"));
    assert!(refused(&sampler, vec![0.0, f32::NAN, 1.0]).contains("number 1 is NaN"));
    let without = Model::digits(&gpu).unwrap();
    let sampler = Sampler::of(&gpu, &without, options(SamplerKind::Ancestral, "", 1)).unwrap();
    assert!(refused(&sampler, vec![1.0]).contains("takes none"));
    let mut session = Session::new(gpu.device(), gpu.queue(), &model, SessionOptions::default()).unwrap();
    assert!(session.set_vector(Some(vec![1.0])).unwrap_err().to_string().contains("takes 3"));
}

fn apart(a: &[Vec<u32>], b: &[Vec<u32>]) -> f32 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(a, b)| (f32::from_bits(*a) - f32::from_bits(*b)).abs()).fold(0.0, f32::max)
}

/// Scales of parts mean what they say: all alike they are plain guidance, a part at 1 is not guided, at 0 it is not there.
#[test]
fn each_part_has_its_own_scale() {
    let gpu = gpu();
    let model = model(&gpu, true, |_| ());
    let both = vec![requests()[0].clone()];
    let without = |class: bool| {
        let Condition { class: own, vector, .. } = both[0].condition.clone();
        let condition =
            if class { Condition { class: None, vector, ..Condition::default() } } else { own.into() };
        vec![Request { condition, ..both[0].clone() }]
    };
    let draw = |guiders: &str, all: &[Request], weight: f64| {
        drawn(&model, options(SamplerKind::Ancestral, guiders, 1), all, weight)
    };
    let near = |a: &[Vec<u32>], b: &[Vec<u32>], what: &str| {
        let apart = apart(a, b);
        assert!(apart < 2e-4, "{what}: {apart:e}");
    };
    let plain = draw("", &both, 1.5);
    near(&draw("parts(vector:2.5)", &both, 1.5), &plain, "all at one scale");
    near(&draw("parts(class:2.5 vector:2.5)", &both, 1.5), &plain, "each named, at one scale");
    // Nothing of the class: the vector alone, at its own scale.
    near(&draw("parts(vector:2.5)", &both, -1.0), &draw("", &without(true), 1.5), "the vector alone");
    near(&draw("parts(class:2.5)", &both, -1.0), &draw("", &without(false), 1.5), "the class alone");
    assert!(apart(&draw("parts(vector:1)", &both, 1.5), &plain) > 1e-3);
    let named = draw("parts(vector:1.5)", &both, 1.5);
    assert!(apart(&named, &draw("parts(class:1.5)", &both, 1.5)) > 1e-3);

    // Parts of the vector by name: the first number, and the other two.
    let conditions = freeguide::model::Conditions::of(&model.config);
    let pieces = vec![("height".to_owned(), 0..1), ("colour".to_owned(), 1..3)];
    let conditions = Some(conditions.with_pieces(pieces).unwrap());
    let weights = model.weights();
    let sampler = |guiders: &str| {
        let options =
            SamplerOptions { conditions: conditions.clone(), ..options(SamplerKind::Ancestral, guiders, 1) };
        Sampler::new(&gpu, &model.unet, &weights, model.config.process().unwrap(), options)
    };
    let bits = |guiders: &str, vector: [f32; WIDTH], class: Option<u32>| {
        let sampler = sampler(guiders).unwrap();
        let request = Request::new(condition(class, Some(vector)), 5);
        let mut run = sampler.start(&[request], w(-1.0)).unwrap();
        (0..STEPS).for_each(|_| run.step().unwrap());
        vec![sampler.read(1).unwrap().iter().map(|x| x.to_bits()).collect::<Vec<_>>()]
    };
    let [height, colour] = [[0.5, 0.0, 0.0], [0.0, -1.0, 2.0]];
    let all = [0.5, -1.0, 2.0];
    near(&bits("parts(height:2)", all, Some(1)), &bits("parts(vector:2)", height, None), "the height alone");
    near(&bits("parts(colour:2)", all, Some(1)), &bits("parts(vector:2)", colour, None), "the colour alone");
    near(&bits("parts(colour:2 height:2)", all, None), &bits("parts(vector:2)", all, None), "both");
    assert!(
        apart(&bits("parts(colour:2 height:0.5)", all, None), &bits("parts(vector:2)", all, None)) > 1e-3
    );
    let error = sampler("parts(weight:2)").map(drop).unwrap_err().to_string();
    assert!(error.contains("no part \"weight\"; it has class, vector, height, colour"), "{error}");
}
