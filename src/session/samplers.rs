//! What a session draws beside the ancestral steps of continuous time: whatever the sampler draws, bit for bit.

use super::tests::{encoder, finish, learned, model, request, session};
use super::*;
use crate::diffusion::moves::{Entry, SAMPLERS};
use crate::diffusion::{BetaSchedule, Clip, Guidance, Guiders, Method, Prediction, SamplerKind, Variance};
use crate::model::{Model, SchedulerConfig};
use crate::nn::UNetConfig;
use crate::sample::{self, Sampler, SamplerOptions};
use crate::shape::Extent;
use crate::testing::gpu;

/// A smaller network than those of the other tests: many are recorded here.
fn tiny() -> UNetConfig {
    UNetConfig {
        sample_size: Extent::square(8),
        in_channels: 1,
        out_channels: 1,
        model_channels: 8,
        norm_num_groups: 4,
        attention_resolutions: vec![4],
        attention_head_dim: Some(8),
        num_classes: Some(3),
        ..learned()
    }
}

/// A model of this network and process.
fn of(unet: UNetConfig, scheduler: SchedulerConfig) -> Model {
    let mut made = model(gpu(), unet);
    made.config.scheduler = scheduler;
    made
}

/// 30 steps of learned variances, their outputs beside those of eps.
fn discrete() -> Model {
    let scheduler =
        SchedulerConfig::discrete(BetaSchedule::Linear, 30, Prediction::Eps, Variance::LearnedRange);
    of(UNetConfig { out_channels: 2, ..tiny() }, scheduler)
}

/// What the sampler makes of the same options and request.
fn sampled(model: &Model, weaker: Option<&Model>, options: &SessionOptions, asked: &Request) -> Vec<f32> {
    let own = SamplerOptions::of(&model.config, 1).unwrap();
    let plain = options.guiders.is_empty();
    let sampler = SamplerOptions {
        method: options.method.clone().unwrap_or(own.method.clone()),
        guiders: options.guiders.clone(),
        guided: plain && Sampler::needs_both(asked.guidance) && asked.condition.class.is_some(),
        clip: options.clip.unwrap_or(own.clip),
        ..own
    };
    let sampler = Sampler::beside(model.gpu(), model, weaker, sampler).unwrap();
    let guidance = match asked.condition.class {
        None if plain => Guidance::from_weight(-1.0).unwrap(),
        _ => asked.guidance,
    };
    let request = sample::Request::new(asked.condition.clone(), asked.seed);
    let mut run = sampler.start(&[request], guidance).unwrap();
    (0..sampler.moves()).for_each(|_| run.step().unwrap());
    sampler.read(1).unwrap()
}

/// Draws whole and in slices, and compares both with the sampler's picture.
fn check(model: &Model, weaker: Option<&Model>, options: SessionOptions, asked: &[Request], what: &str) {
    let (device, queue) = (model.gpu().device(), model.gpu().queue());
    for budget_ms in [None, Some(0.2)] {
        let options = SessionOptions { budget_ms, ..options.clone() };
        let mut session = Session::beside(device, queue, model, weaker, options.clone()).unwrap();
        for asked in asked {
            session.start(asked).unwrap();
            let (z, picture, _) = finish(&mut session, gpu(), 3);
            assert!(z.iter().all(|x| x.is_finite()), "{what}");
            assert!(z == picture, "{what}, {asked:?}: the last move leaves x");
            let want = sampled(model, weaker, &options, asked);
            assert!(z == want, "{what}, {asked:?}, a budget of {budget_ms:?}");
        }
    }
}

fn of_kind(kind: SamplerKind) -> SessionOptions {
    SessionOptions { method: Some(Method { kind: Some(kind), ..Method::default() }), ..Default::default() }
}

#[test]
fn every_sampler_runs_in_a_session() {
    let v = SchedulerConfig {
        prediction_type: Prediction::V.config_name().into(),
        ..SchedulerConfig::continuous(-20.0, 20.0)
    };
    for (name, model) in
        [("eps", model(gpu(), tiny())), ("v", of(learned(), v)), ("learned variances", discrete())]
    {
        for Entry { kind, name: text, .. } in
            SAMPLERS.iter().filter(|entry| entry.kind != SamplerKind::DdimReverse)
        {
            let asked = [request(1, 1.5, 7), request(2, 0.0, 8)];
            check(&model, None, of_kind(*kind), &asked, &format!("{text} of {name}"));
        }
    }
    // The model's own way, without a class, and a clip that looks at all pixels.
    let own = SessionOptions { clip: Some(Clip::Dynamic { quantile: 0.9 }), ..Default::default() };
    check(&discrete(), None, own, &[Request { seed: 3, ..Request::default() }], "the model's own sampler");
}

/// The scale of its input is a word of the moves that a request writes.
#[test]
fn preconditioned_networks_see_scaled_latents() {
    let scheduler = SchedulerConfig::edm(-8.0, 10.0, Prediction::EDM);
    let model = of(tiny(), scheduler);
    let asked = [request(1, 1.5, 7), request(2, 0.0, 8)];
    for kind in [SamplerKind::Heun, SamplerKind::Dpmpp2mSde] {
        check(&model, None, of_kind(kind), &asked, &format!("{kind} of a preconditioned network"));
    }
    let guiders = SessionOptions { guiders: "rescale(0.5)".parse().unwrap(), ..Default::default() };
    check(&model, None, guiders, &asked, "guiders of a preconditioned network");
}

#[test]
fn distilled_networks_are_told_the_weight() {
    let network = UNetConfig { guidance_range: Some([0.0, 4.0]), ..tiny() };
    let model = of(network, SchedulerConfig::continuous(-20.0, 20.0));
    let asked = [request(1, 1.5, 7), request(1, 3.0, 7), Request { seed: 3, ..Request::default() }];
    check(&model, None, of_kind(SamplerKind::Ddim), &asked[..2], "a distilled network");
    let mut session = session(&model, SessionOptions::default());
    session.start(&asked[2]).unwrap();
    let free = finish(&mut session, gpu(), 1).0;
    assert!(free == sampled(&model, None, &SessionOptions::default(), &asked[2]));
    let error = session.start(&request(1, 4.5, 1)).unwrap_err().to_string();
    assert!(error.contains("trained for w from 0 to 4"), "{error}");
    session.start(&request(1, 1.0, 1)).unwrap();
    assert!(session.set_guidance(Guidance::from_weight(-0.5).unwrap()).is_err());
    let guiders = SessionOptions { guiders: "rescale(0.5)".parse().unwrap(), ..Default::default() };
    let made = Session::new(model.gpu().device(), model.gpu().queue(), &model, guiders);
    assert!(made.err().unwrap().to_string().contains("distilled"));
}

/// What comes before the condition runs once for both halves.
#[test]
fn late_conditioning_is_shared() {
    let late = UNetConfig { condition_from: Some("middle_block".into()), ..tiny() };
    let [early, late] = [tiny(), late].map(|unet| of(unet, SchedulerConfig::continuous(-20.0, 20.0)));
    check(&late, None, SessionOptions::default(), &[request(1, 1.5, 7)], "late conditioning");
    let options = SessionOptions { mixed_classes: 2, ..Default::default() };
    let work =
        |model: &Model| -> u64 { session(model, options.clone()).step_plans().1.unwrap().workgroups().sum() };
    assert!(work(&late) < work(&early), "{} and {} workgroups", work(&late), work(&early));
}

#[test]
fn guiders_run_in_a_session() {
    let (eps, weak, learned) = (model(gpu(), tiny()), weaker(), discrete());
    for text in [
        "constant(2)",
        "interval(lo=-2,hi=6)",
        "rescale(0.7)",
        "cfg++(0.6)",
        "apg(eta=0,beta=-0.5,r=2)",
        "zero-star(k=1)",
        "negative(1)",
        "also(0:0.5 2:1)",
        "expression(eps_c + w * tanh(eps_c - eps_u))",
        "temperature(0.9)",
        "annealing(t1=0.2,t2=0.8,s=1)",
        "interval(lo=-2,hi=6)+apg(r=3)+low-noise(0.9)",
        "autoguidance(weak)",
    ] {
        let guiders: Guiders = text.parse().unwrap();
        let options = SessionOptions { guiders: guiders.clone(), ..Default::default() };
        let weaker = text.contains("autoguidance").then_some(&weak);
        let asked = [request(1, 1.5, 7), Request { seed: 3, ..Request::default() }];
        check(&eps, weaker, options, &asked, text);
        if text.contains("low-noise") || weaker.is_some() {
            continue;
        }
        let options = SessionOptions { guiders, ..of_kind(SamplerKind::Ddim) };
        check(&learned, None, options, &asked[..1], &format!("{text} in ddim"));
    }
}

/// Another network of the same kind.
fn weaker() -> Model {
    let made = model(gpu(), tiny());
    let mut values = made.values().unwrap();
    values.iter_mut().flatten().for_each(|x| *x *= 0.9);
    Model::of_values(gpu(), made.config, &values, "weak".as_ref()).unwrap()
}

/// What APG remembers is of one picture: where guidance begins late, nothing of an earlier picture is left.
#[test]
fn a_memory_begins_with_the_guidance() {
    let model = model(gpu(), tiny());
    let options =
        SessionOptions { guiders: "apg(eta=0,beta=-0.5,r=2)".parse().unwrap(), ..Default::default() };
    let mut session = session(&model, options);
    let mut draw = |late: bool| {
        session.start(&request(1, if late { 0.0 } else { 2.0 }, 9)).unwrap();
        let mut host = encoder(gpu());
        for _ in 0..2 {
            session.step(&mut host).unwrap();
        }
        session.set_guidance(Guidance::from_weight(2.0).unwrap()).unwrap();
        gpu().queue().submit([host.finish()]);
        finish(&mut session, gpu(), 1).0
    };
    let first = draw(true);
    let whole = draw(false);
    assert!(first != whole && draw(true) == first);
}

#[test]
fn what_a_session_cannot_draw_is_refused() {
    let model = model(gpu(), tiny());
    let error = |options| {
        let made = Session::new(model.gpu().device(), model.gpu().queue(), &model, options);
        made.err().unwrap().to_string()
    };
    assert!(error(of_kind(SamplerKind::DdimReverse)).contains("begins with a picture"));
    let method = Some(Method { respacing: Some("4".parse().unwrap()), ..Method::default() });
    assert!(error(SessionOptions { method, ..Default::default() }).contains("respacing"));
    let guiders: Guiders = "autoguidance(weak)".parse().unwrap();
    assert!(error(SessionOptions { guiders, ..Default::default() }).contains("weaker model weak"));
    let guiders: Guiders = "also(0:0.5 2:1)".parse().unwrap();
    let options = SessionOptions { mixed_classes: 62, guiders, ..Default::default() };
    assert!(error(options).contains("mixed_classes"));
    let mut session = session(&model, SessionOptions { max_steps: 7, ..of_kind(SamplerKind::Heun) });
    let asked = Request { steps: Some(6), ..request(1, 1.0, 1) };
    let error = session.start(&asked).unwrap_err().to_string();
    assert!(error.contains("6 steps of 10 evaluations"), "{error}");
}
