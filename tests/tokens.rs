//! Networks that are told sequences of tokens: in batches of several prompts, away from a negative one, in sessions that change
//! them between two steps, and refused by name where something does not fit.

mod common;

use common::gpu;
use freeguide::diffusion::{Clip, ContinuousSchedule};
use freeguide::diffusion::{Guidance, LevelSource, Method, Prediction, Process, SamplerKind, Variance};
use freeguide::gpu::Gpu;
use freeguide::model::{Condition, Sequence};
use freeguide::nn::layers::Conv2d;
use freeguide::nn::{About, Denoiser, Parameters, Pass, Takes, TokensIn, Told, Weights};
use freeguide::sample::{Networks, Request, Sampler, SamplerOptions};
use freeguide::session::{self, Session, SessionOptions};
use freeguide::shape::{Extent, Shape};
use freeguide::tensor::{Context, Tensor};
use freeguide::{Result, ops, wgpu};

const SAMPLE: Shape = Shape { channels: 3, extent: Extent::Plane { height: 4, width: 6 } };
/// L and D: a sequence has as many numbers as a sample.
const TOKENS: usize = 9;
const WIDTH: usize = 8;
const STEPS: usize = 4;

/// A convolution of z, and a sequence's numbers tripled and added to it.
struct Told3 {
    about: About,
    parameters: Parameters,
    conv: Conv2d,
    prepares: bool,
}

impl Told3 {
    fn new(prepares: bool) -> Told3 {
        let mut parameters = Parameters::default();
        let conv = Conv2d::new(&mut parameters, "conv", [3, 3], 3, false);
        let takes = Takes { tokens: Some(TokensIn { width: WIDTH }), ..Takes::default() };
        let about = About { sample: SAMPLE, out_channels: 3, takes, divides: 1 };
        Told3 { about, parameters, conv, prepares }
    }

    fn weights(&self, gpu: &Gpu) -> Weights {
        let arena = self.parameters.arena(gpu, "weights", 1).unwrap();
        arena.write(gpu, 0, &self.parameters.initial_values(5)).unwrap();
        arena.weights(&self.parameters, 0)
    }
}

impl Denoiser for Told3 {
    fn about(&self) -> &About {
        &self.about
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn prepare(&self, cx: &mut Context, _: &Weights, tokens: &Tensor, _: &Pass<'_>) -> Result<Vec<Tensor>> {
        if self.prepares { Ok(vec![ops::scale(cx, tokens, 3.0)?]) } else { Ok(Vec::new()) }
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
        let bank = told.tokens.expect("it takes tokens");
        let tripled = match told.prepared {
            [tripled] => tripled.clone(),
            _ => ops::scale(cx, bank.values, 3.0)?,
        };
        let rows = tripled.reshape(&[tripled.shape()[0], TOKENS * WIDTH])?;
        let h = self.conv.forward(cx, weights, z)?;
        let h = ops::repeat_batch(cx, &h, told.conditions)?;
        let added = ops::embedding(cx, &rows, bank.rows)?.reshape(h.shape())?;
        ops::add(cx, &h, &added, 1.0)
    }
}

/// What stands for a prompt.
fn sequence(number: u32) -> Sequence {
    let value = |i: usize| ((i as f32 + 3.0) * (number as f32 + 1.0) * 0.7).sin() * 0.2;
    Sequence::new(WIDTH, (0..TOKENS * WIDTH).map(value).collect()).unwrap()
}

fn of(prompt: u32) -> Condition {
    Condition { tokens: Some(sequence(prompt)), ..Condition::default() }
}

fn w(weight: f64) -> Guidance {
    Guidance::from_weight(weight).unwrap()
}

fn process() -> Process {
    Process {
        levels: LevelSource::Continuous(ContinuousSchedule::new(-10.0, 10.0).unwrap()),
        prediction: Prediction::Eps,
        variance: Variance::Small,
    }
}

fn options(batch: usize) -> SamplerOptions {
    let method = Method { kind: Some(SamplerKind::Ddim), ..Method::default() };
    SamplerOptions { tokens: TOKENS, method, clip: Clip::None, ..SamplerOptions::new(batch, STEPS) }
}

fn draw(network: &Told3, options: SamplerOptions, requests: &[Request], weight: f64) -> Result<Vec<f32>> {
    let gpu = gpu();
    let sampler = Sampler::new(&gpu, network, &network.weights(&gpu), process(), options)?;
    sampler.values(requests, w(weight), || Ok(()))
}

#[test]
fn each_picture_of_a_batch_has_its_own_prompt_and_negative() {
    let requests: Vec<Request> = (0..3)
        .map(|i| Request { negative: Some(sequence(7 + i)), ..Request::new(of(i), 5 + u64::from(i)) })
        .collect();
    for weight in [1.5, 0.0, -1.0] {
        let guided = SamplerOptions { guided: Sampler::needs_both(w(weight)), ..options(3) };
        let together = draw(&Told3::new(true), guided.clone(), &requests, weight).unwrap();
        for (request, picture) in requests.iter().zip(together.chunks(SAMPLE.len())) {
            let alone = SamplerOptions { batch: 1, ..guided.clone() };
            let alone = draw(&Told3::new(true), alone, std::slice::from_ref(request), weight).unwrap();
            assert!(alone == picture, "w = {weight}");
        }
        // What is prepared once is what is made in every step, and two passes are one.
        let in_line = draw(&Told3::new(false), guided.clone(), &requests, weight).unwrap();
        assert!(in_line == together);
        let two_pass = SamplerOptions { two_pass: true, ..guided.clone() };
        assert!(draw(&Told3::new(true), two_pass, &requests, weight).unwrap() == together);
        // Each half is read from its own rows.
        let swapped: Vec<Request> = requests
            .iter()
            .map(|request| Request {
                condition: Condition { tokens: request.negative.clone(), ..Condition::default() },
                negative: request.condition.tokens.clone(),
                seed: request.seed,
            })
            .collect();
        let swapped = draw(&Told3::new(true), guided.clone(), &swapped, -1.0 - weight);
        match weight {
            // (1 + w)·c - w·u with c and u exchanged.
            1.5 => {
                let near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-4 * (1.0 + a.abs());
                assert!(swapped.unwrap().iter().zip(&together).all(near));
            }
            _ => assert!(swapped.unwrap() == together, "w = {weight}"),
        }
    }
}

#[test]
fn a_picture_without_a_prompt_is_of_what_stands_for_nothing() {
    let network = Told3::new(true);
    let plain = SamplerOptions { guided: false, ..options(1) };
    let none = Request { negative: Some(sequence(2)), ..Request::new(None, 5) };
    let told = Request::new(of(2), 5);
    let picture = draw(&network, plain.clone(), &[told], 0.0).unwrap();
    assert!(draw(&network, plain.clone(), std::slice::from_ref(&none), 0.0).unwrap() == picture);
    assert!(draw(&network, plain, &[none], -1.0).unwrap() == picture);
}

#[test]
fn guiders_are_told_both_halves() {
    let network = Told3::new(true);
    let request = [Request { negative: Some(sequence(2)), ..Request::new(of(1), 5) }];
    let plain = draw(&network, options(1), &request, 2.0).unwrap();
    let by_guider = SamplerOptions { guiders: "constant(2)".parse().unwrap(), ..options(1) };
    assert!(draw(&network, by_guider, &request, 0.0).unwrap() == plain);
}

/// The latent after all steps; `change` is told of each before it.
fn in_session(request: &session::Request, mut change: impl FnMut(&mut Session, usize)) -> Vec<f32> {
    let (gpu, network) = (gpu(), Told3::new(true));
    let weights = network.weights(&gpu);
    let session_options = SessionOptions { clip: Some(Clip::None), ..SessionOptions::default() };
    let own = options(1);
    let session_options = SessionOptions { method: Some(own.method.clone()), ..session_options };
    let networks = Networks::of(&network, &weights);
    let mut session = Session::with(&gpu, networks, process(), own, session_options).unwrap();
    session.start(request).unwrap();
    for step in 0..STEPS {
        change(&mut session, step);
        let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        session.step(&mut encoder).unwrap();
        gpu.queue().submit([encoder.finish()]);
    }
    assert!(session.progress().finished);
    bytemuck::pod_collect_to_vec(&gpu.read(session.latent(), 0..(SAMPLE.len() * 4) as u64).unwrap())
}

#[test]
fn a_session_changes_its_prompt_between_two_steps() {
    let network = Told3::new(true);
    let asked = session::Request {
        condition: of(1),
        negative: Some(sequence(2)),
        guidance: w(1.5),
        seed: 5,
        ..session::Request::default()
    };
    let sampled = |prompt: u32| {
        let request = Request { negative: Some(sequence(2)), ..Request::new(of(prompt), 5) };
        draw(&network, options(1), &[request], 1.5).unwrap()
    };
    assert!(in_session(&asked, |_, _| ()) == sampled(1));
    let at_once = in_session(&asked, |session, step| {
        if step == 0 {
            session.set_tokens(Some(sequence(4))).unwrap();
        }
    });
    assert!(at_once == sampled(4));
    let later = in_session(&asked, |session, step| {
        if step == 2 {
            session.set_tokens(Some(sequence(4))).unwrap();
        }
    });
    assert!(later != sampled(1) && later != sampled(4));
    let away = in_session(&asked, |session, step| {
        if step == 0 {
            session.set_negative(Some(sequence(3))).unwrap();
            assert!(session.set_tokens(Some(Sequence::new(5, vec![0.0; 45]).unwrap())).is_err());
        }
    });
    let request = Request { negative: Some(sequence(3)), ..Request::new(of(1), 5) };
    assert!(away == draw(&network, options(1), &[request], 1.5).unwrap());
}

#[test]
fn what_does_not_fit_is_refused() {
    let network = Told3::new(true);
    let refused = |options: SamplerOptions, request: Request, weight| {
        draw(&network, options, &[request], weight).unwrap_err().to_string()
    };
    let told = |tokens: Sequence| {
        let condition = Condition { tokens: Some(tokens), ..Condition::default() };
        Request { negative: Some(sequence(0)), ..Request::new(condition, 1) }
    };
    let wide = told(Sequence::new(4, vec![0.0; 36]).unwrap());
    assert!(refused(options(1), wide, 1.0).contains("tokens of 4 numbers; the model takes 8"));
    let long = told(Sequence::new(WIDTH, vec![0.0; 80]).unwrap());
    assert!(refused(options(1), long, 1.0).contains("a sequence of 10 tokens; this was recorded for 9"));
    assert!(refused(options(1), Request::new(of(1), 1), 1.0).contains("empty text"));
    let alone = SamplerOptions { guided: false, ..options(1) };
    assert!(refused(alone.clone(), Request::new(None, 1), 0.0).contains("empty text"));
    assert!(draw(&network, alone, &[Request::new(of(1), 1)], 0.0).is_ok());
    assert!(Sequence::new(8, vec![0.0; 12]).is_err());
    assert!(Sequence::new(2, vec![0.0, f32::NAN]).unwrap_err().to_string().contains("token 0"));
}
