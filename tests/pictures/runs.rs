//! Pictures drawn, and what they come to: the bits after every move, not after the last alone, where a clip leaves few of
//! them. All that names the library's samplers stands here.

use freeguide::Result;
use freeguide::diffusion::{Guidance, Method, SamplerKind};
use freeguide::model::Model;
use freeguide::nn::Denoiser;
use freeguide::sample::{ClassifierGuide, Guide, Networks, Request, Run, Sampler, SamplerOptions, Uncond};

use super::models;
use super::record::{Dispatches, Drawn, Hash, gpu};

/// Pictures at a time.
pub const BATCH: usize = 2;

/// A picture of a class, or without.
fn request(class: Option<u32>, seed: u64) -> Request {
    Request::new(class, seed)
}

/// Two pictures, one of a seed above 32 bits.
pub fn two() -> Vec<Request> {
    vec![request(Some(1), 11), request(Some(2), u64::MAX - 3)]
}

/// A picture of a class and one without.
pub fn one_without_class() -> Vec<Request> {
    vec![request(Some(0), 12), request(None, 13)]
}

pub fn w(weight: f64) -> Guidance {
    Guidance::from_weight(weight).unwrap()
}

/// What a sampler is recorded for where nothing else is said.
pub fn options(model: &Model, kind: SamplerKind) -> SamplerOptions {
    let options = SamplerOptions::of(&model.config, BATCH).unwrap();
    SamplerOptions { method: Method { kind: Some(kind), ..Method::default() }, ..options }
}

/// The same of one evaluation a step.
pub fn once(model: &Model, kind: SamplerKind) -> SamplerOptions {
    SamplerOptions { guided: false, ..options(model, kind) }
}

/// Hashes what `read` gives after each move of a run.
fn walked(mut run: Run<'_>, read: impl Fn(usize) -> Result<Vec<f32>>) -> u64 {
    let mut hash = Hash::new();
    let mut last = Vec::new();
    while !run.finished() {
        run.step().unwrap();
        last = read(BATCH).unwrap();
        hash.values(&last);
    }
    let (first, second) = last.split_at(last.len() / 2);
    assert!(first != second && last.iter().all(|x| x.is_finite()), "no two pictures: {last:?}");
    hash.finish()
}

/// Draws with a recorded sampler.
pub fn draw(sampler: &Sampler, requests: &[Request], weight: f64) -> Drawn {
    let run = sampler.start(requests, w(weight)).unwrap();
    let hash = walked(run, |count| sampler.read(count));
    Drawn { hash, plans: vec![Dispatches::of("step", sampler.step_plan())] }
}

/// Plain guidance, or none with options of one evaluation.
pub fn plain(model: &Model, options: SamplerOptions, weight: f64) -> Result<Drawn> {
    let sampler = Sampler::of(gpu(), model, options)?;
    Ok(draw(&sampler, &two(), weight))
}

/// What stands beside the network.
#[derive(Default)]
pub struct Beside<'a> {
    pub unconditional: Option<&'a Model>,
    /// The scale of a classifier's gradient.
    pub classifier: Option<f32>,
    /// Any other guide.
    pub guide: Option<&'a dyn Guide>,
}

/// A network with others beside it.
pub fn beside(model: &Model, beside: &Beside<'_>, options: SamplerOptions, weight: f64) -> Result<Drawn> {
    let weights = model.weights();
    let unconditional = beside.unconditional.map(|model| (&model.unet as &dyn Denoiser, model.weights()));
    let classifier = beside.classifier.map(|scale| (models::classifier(), scale));
    let classifier = classifier.as_ref().map(|((network, weights), scale)| ClassifierGuide {
        network,
        weights: weights.clone(),
        scale: *scale,
    });
    let networks = Networks {
        unconditional: unconditional.as_ref().map(|(network, weights)| (*network, weights)),
        guide: beside.guide.or(classifier.as_ref().map(|guide| guide as &dyn Guide)),
        ..Networks::of(&model.unet, &weights)
    };
    let sampler = Sampler::with(gpu(), networks, model.config.process()?, options)?;
    Ok(draw(&sampler, &two(), weight))
}

/// A chain of guiders.
pub fn guided(model: &Model, weak: Option<&Model>, chain: &str, options: SamplerOptions) -> Result<Drawn> {
    guided_at(model, weak, chain, options, 1.5)
}

/// The same with another weight.
pub fn guided_at(
    model: &Model,
    weak: Option<&Model>,
    chain: &str,
    options: SamplerOptions,
    weight: f64,
) -> Result<Drawn> {
    let options = SamplerOptions { guiders: chain.parse()?, ..options };
    let sampler = Sampler::beside(gpu(), model, weak, options)?;
    let evaluations = sampler.evaluations(w(weight))?;
    let run = sampler.start(&two(), w(weight))?;
    let mut hash = Hash::new();
    hash.bytes(&(evaluations as u64).to_le_bytes());
    let pictures = walked(run, |count| sampler.read(count));
    hash.bytes(&pictures.to_le_bytes());
    let (all, first) = (sampler.step_plan(), sampler.single_step_plan().unwrap());
    let plans = vec![Dispatches::of("step of all evaluations", all), Dispatches::of("step of one", first)];
    Ok(Drawn { hash: hash.finish(), plans })
}

/// Evaluations that a chain takes for a picture, and the moves.
pub fn evaluations(model: &Model, chain: &str, options: SamplerOptions) -> Result<(usize, usize)> {
    let options = SamplerOptions { guiders: chain.parse()?, ..options };
    let sampler = Sampler::of(gpu(), model, options)?;
    Ok((sampler.evaluations(w(1.5))?, sampler.moves()))
}

/// The unconditional score from those of all classes: the pictures and what is thought of their classes.
pub fn from_classes(
    model: &Model,
    prior: Option<&[f64]>,
    options: SamplerOptions,
    requests: &[Request],
    weight: f64,
) -> Result<Drawn> {
    let uncond = Uncond::FromClasses { prior: prior.map(<[f64]>::to_vec) };
    let sampler = Sampler::of(gpu(), model, SamplerOptions { uncond, ..options })?;
    let run = sampler.start(requests, w(weight))?;
    let read = |count| {
        let mut all = sampler.read(count)?;
        let posterior = sampler.posterior(count)?;
        // In halves, as the pictures lie.
        let half = all.len() / 2;
        all.splice(half..half, posterior[0].iter().copied());
        all.extend(&posterior[1]);
        Ok(all)
    };
    let hash = walked(run, read);
    Ok(Drawn { hash, plans: vec![Dispatches::of("step", sampler.step_plan())] })
}

/// Fails unless `result` is an error with `part` in its message.
#[track_caller]
pub fn refused<T>(case: &str, result: Result<T>, part: &str) {
    let message = result.err().unwrap_or_else(|| panic!("{case} should be refused: {part}")).to_string();
    assert!(message.contains(part), "{case}: {message:?} does not say {part:?}");
}
