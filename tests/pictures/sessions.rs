//! Sessions: whole steps and slices, several classes at once, conditions that change on the way.

use freeguide::diffusion::{Clip, SamplerKind};
use freeguide::gpu::Buffer;
use freeguide::model::Model;
use freeguide::session::{Request, Session, SessionOptions};

use super::models;
use super::record::{Dispatches, Drawn, Hash, gpu, group};
use super::runs::{self, refused, w};

fn session(model: &Model, options: SessionOptions) -> freeguide::Result<Session> {
    Session::new(model.gpu().device(), model.gpu().queue(), model, options)
}

fn request(class: Option<u32>, weight: f64, seed: u64) -> Request {
    Request { condition: class.into(), guidance: w(weight), seed, ..Request::default() }
}

fn read(buffer: &Buffer) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(&gpu().read(buffer, 0..buffer.bytes()).unwrap())
}

/// Draws a picture, `change` being called before every step; the bits of z and of x̃ after every step.
fn walked(session: &mut Session, request: &Request, change: impl Fn(&mut Session, usize)) -> Vec<f32> {
    let mut all = Vec::new();
    session.start(request).unwrap();
    let mut step = 0;
    change(session, 0);
    while !session.progress().finished {
        let mut encoder = gpu().device().create_command_encoder(&Default::default());
        session.step(&mut encoder).unwrap();
        gpu().queue().submit([encoder.finish()]);
        gpu().wait().unwrap();
        if session.progress().step > step {
            step += 1;
            all.extend(read(session.latent()));
            all.extend(read(session.picture()));
            change(session, step);
        }
    }
    all
}

fn plans(session: &Session) -> Vec<Dispatches> {
    let (single, guided) = session.step_plans();
    let guided = guided.map(|plan| Dispatches::of("step of both halves", plan));
    [Some(Dispatches::of("step of one half", single)), guided].into_iter().flatten().collect()
}

fn drawn(
    model: &Model,
    options: &SessionOptions,
    requests: &[Request],
    change: impl Fn(&mut Session, usize),
) -> Drawn {
    let mut session = session(model, options.clone()).unwrap();
    let mut hash = Hash::new();
    for request in requests {
        hash.values(&walked(&mut session, request, &change));
    }
    Drawn { hash: hash.finish(), plans: plans(&session) }
}

#[test]
fn sessions() {
    group("session", |cases| {
        let asked = [
            request(Some(1), 1.5, 11),
            request(Some(2), 1.5, u64::MAX - 3),
            request(Some(0), 0.0, 12),
            request(None, 2.0, 13),
            request(Some(0), -1.0, 14),
        ];
        let whole = SessionOptions::default();
        let sliced = SessionOptions { budget_ms: Some(1e-3), ..whole.clone() };
        let mixed = SessionOptions { mixed_classes: 3, ..whole.clone() };
        for (name, model) in [
            ("small", models::small(models::CONTINUOUS_EPS)),
            ("larger", models::larger(models::CONTINUOUS_EPS)),
            ("late", models::late(models::CONTINUOUS_EPS, "middle_block")),
            ("without classes", models::without_classes(models::CONTINUOUS_EPS)),
        ] {
            let case = |what: &str| format!("{name}, {what}");
            if name == "without classes" {
                let none = [request(None, 1.0, 11), request(None, 1.0, 15)];
                cases.check(&case("whole"), || drawn(&model, &whole, &none, |_, _| ()));
                continue;
            }
            for clip in [Clip::None, Clip::Dynamic { quantile: 0.9 }] {
                let options = SessionOptions { clip: Some(clip), ..whole.clone() };
                cases.check(&case(&format!("clip {clip}")), || {
                    drawn(&model, &options, &asked[..2], |_, _| ())
                });
            }
            cases.check(&case("whole"), || drawn(&model, &whole, &asked, |_, _| ()));
            cases.check(&case("sliced"), || drawn(&model, &sliced, &asked[..2], |_, _| ()));
            let mixes = |session: &mut Session, step: usize| match step {
                1 => session.set_mix(&[(0, 1.0), (1, 2.0), (2, 0.5)]).unwrap(),
                3 => session.set_mix(&[(2, 1.0), (0, -0.25)]).unwrap(),
                4 => session.set_guidance(w(0.0)).unwrap(),
                _ => {}
            };
            cases.check(&case("mixed"), || drawn(&model, &mixed, &asked[..2], mixes));
            let changes = |session: &mut Session, step: usize| match step {
                1 => session.set_guidance(w(3.0)).unwrap(),
                2 => session.set_class(Some(0)).unwrap(),
                3 => session.set_guidance(w(0.0)).unwrap(),
                4 => session.set_class(None).unwrap(),
                _ => {}
            };
            cases.check(&case("changes"), || drawn(&model, &whole, &asked[..2], changes));
            let steps = Request { steps: Some(3), variance_exponent: Some(0.8), ..asked[0].clone() };
            cases.check(&case("three steps"), || {
                drawn(&model, &whole, std::slice::from_ref(&steps), |_, _| ())
            });
        }
        let upsampler = models::upsampler(models::CONTINUOUS_EPS);
        refused("upsampler", session(&upsampler, whole.clone()), "upsampler");
    });
}

/// A sliced session's bits are those of a whole one's, and both are the sampler's: all three are one walk.
#[test]
fn sessions_walk_as_samplers_do() {
    let model = models::larger(models::CONTINUOUS_EPS);
    let sliced = SessionOptions { budget_ms: Some(1e-3), ..SessionOptions::default() };
    let request = request(Some(1), 1.5, 11);
    let [whole, sliced] = [SessionOptions::default(), sliced]
        .map(|options| walked(&mut session(&model, options).unwrap(), &request, |_, _| ()));
    assert!(whole == sliced, "slices change bits");
    let sampler =
        freeguide::sample::Sampler::of(gpu(), &model, runs::options(&model, SamplerKind::Ancestral)).unwrap();
    let mut run = sampler.start(&runs::two(), w(1.5)).unwrap();
    for values in whole.chunks(2 * 192) {
        run.step().unwrap();
        assert!(sampler.read(1).unwrap() == values[..192], "the session's z is not the sampler's");
    }
}
