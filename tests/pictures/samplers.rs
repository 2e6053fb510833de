//! Every sampler through every process it allows, without guidance, with it, and with it in an interval.

use freeguide::data::Image;
use freeguide::diffusion::moves::{Entry, SAMPLERS};
use freeguide::diffusion::{Clip, Method, SamplerKind, Variance};
use freeguide::sample::{Sampler, SamplerOptions};

use super::models::{self, Process};
use super::record::{Cases, Drawn, Hash, gpu, group};
use super::runs::{self, once, options, plain, refused, two, w};

/// Inside of it, and outside, is a part of any sampler's levels.
const INTERVAL: &str = "interval(lo=-3,hi=4)";

fn every_sampler(cases: &mut Cases, process: Process) {
    let model = models::small(process);
    for Entry { kind, name, .. } in SAMPLERS {
        let case = |guidance: &str| format!("{}, {name}, {guidance}", process.name);
        if let Some(part) = refusal(process, *kind) {
            refused(&case("w = 1.5"), plain(&model, options(&model, *kind), 1.5), part);
            continue;
        }
        if process.is_mean() && *kind != SamplerKind::Ancestral {
            let part = "only be sampled by ancestral steps";
            refused(&case("one evaluation"), plain(&model, once(&model, *kind), 0.0), part);
            refused(&case("w = 1.5"), plain(&model, options(&model, *kind), 1.5), part);
        } else {
            cases.check(&case("one evaluation"), || plain(&model, once(&model, *kind), 0.0).unwrap());
            cases.check(&case("w is 1.5"), || plain(&model, options(&model, *kind), 1.5).unwrap());
        }
        let interval = || runs::guided(&model, None, INTERVAL, options(&model, *kind));
        if process.is_mean() {
            refused(&case(INTERVAL), interval(), "previous x");
            continue;
        }
        let (evaluations, moves) = runs::evaluations(&model, INTERVAL, options(&model, *kind)).unwrap();
        assert!(moves < evaluations && evaluations < 2 * moves, "{}: {evaluations}", case(INTERVAL));
        cases.check(&case("interval"), || interval().unwrap());
    }
}

/// Why a sampler cannot walk a straight path, or EDM's levels.
fn refusal(process: Process, kind: SamplerKind) -> Option<&'static str> {
    match kind {
        SamplerKind::Ancestral | SamplerKind::EulerAncestral if process.name == models::FLOW.name => {
            Some("a flow has not")
        }
        SamplerKind::Halving if process.name == models::EDM.name => Some("the levels of `edm`"),
        _ => None,
    }
}

#[test]
fn straight_paths_and_noise_levels() {
    group("flow and edm", |cases| {
        for process in [models::FLOW, models::EDM] {
            every_sampler(cases, process);
        }
    });
}

#[test]
fn continuous_time() {
    group("continuous", |cases| {
        for process in [models::CONTINUOUS_EPS, models::CONTINUOUS_X0, models::CONTINUOUS_V] {
            every_sampler(cases, process);
        }
    });
}

#[test]
fn discrete_time() {
    group("linear and cosine", |cases| {
        for process in [models::LINEAR_EPS, models::COSINE_V, models::LINEAR_MEAN] {
            every_sampler(cases, process);
        }
    });
}

#[test]
fn learned_variances() {
    group("learned variances", |cases| {
        for process in [models::LEARNED_RANGE, models::LEARNED] {
            every_sampler(cases, process);
        }
    });
}

/// Clips, variances, η, spacings, respacings, and where a walk begins.
#[test]
fn options_of_samplers() {
    group("options", |cases| {
        clips_and_shapes(cases);
        methods(cases);
        beginnings(cases);
    });
}

fn clips_and_shapes(cases: &mut Cases) {
    let clips = [Clip::None, Clip::Dynamic { quantile: 0.9 }];
    for process in [models::CONTINUOUS_EPS, models::CONTINUOUS_V, models::LINEAR_EPS, models::LEARNED_RANGE] {
        let model = models::larger(process);
        for kind in [SamplerKind::Ancestral, SamplerKind::Dpmpp2m] {
            let case = |what: &str| format!("{}, {kind}, {what}", process.name);
            let with = |change: fn(&mut SamplerOptions)| {
                let mut options = options(&model, kind);
                change(&mut options);
                plain(&model, options, 1.5).unwrap()
            };
            for clip in clips {
                cases.check(&case(&format!("clip {clip}")), || {
                    plain(&model, SamplerOptions { clip, ..options(&model, kind) }, 1.5).unwrap()
                });
            }
            cases.check(&case("together"), || with(|_| ()));
            cases.check(&case("in two passes"), || with(|options| options.two_pass = true));
            cases.check(&case("fast"), || with(|options| options.fast = true));
            cases.check(&case("v of 0.9"), || with(|options| options.variance_exponent = 0.9));
            cases.check(&case("without a class"), || {
                let sampler = Sampler::of(gpu(), &model, once(&model, kind)).unwrap();
                runs::draw(&sampler, &two(), -1.0)
            });
            cases.check(&case("one without a class"), || {
                let sampler = Sampler::of(gpu(), &model, options(&model, kind)).unwrap();
                runs::draw(&sampler, &runs::one_without_class(), 0.5)
            });
        }
        for null in ["zero", "absent"] {
            let model = models::null_class(process, null);
            let case = format!("{}, null class {null}", process.name);
            cases.check(&format!("{case}, one evaluation"), || {
                plain(&model, once(&model, SamplerKind::Ancestral), 0.0).unwrap()
            });
            let pair = SamplerOptions { guided: true, ..options(&model, SamplerKind::Ancestral) };
            match null {
                "zero" => cases.check(&case, || plain(&model, pair.clone(), 2.0).unwrap()),
                _ => refused(&case, plain(&model, pair, 2.0), "null class"),
            }
        }
    }
}

fn methods(cases: &mut Cases) {
    let none = Method::default();
    let of = |kind| Method { kind: Some(kind), ..Method::default() };
    let spaced = |kind, text: &str| Method { spacing: Some(text.parse().unwrap()), ..of(kind) };
    let respaced = |text: &str| Method { respacing: Some(text.parse().unwrap()), ..Method::default() };
    let chain = |text: &str| Method { kind: Some(SamplerKind::Ancestral), ..respaced(text) };
    let varied = |variance| Method { variance: Some(variance), ..of(SamplerKind::Ancestral) };
    let eta = |kind, eta| Method { eta: Some(eta), ..of(kind) };
    let all = [
        ("by default", none),
        ("ddim, eta 0.7", eta(SamplerKind::Ddim, 0.7)),
        ("euler-ancestral, eta 0.4", eta(SamplerKind::EulerAncestral, 0.4)),
        ("dpmpp-2m-sde, eta 0.3", eta(SamplerKind::Dpmpp2mSde, 0.3)),
        ("ddim, karras", spaced(SamplerKind::Ddim, "edm")),
        ("ancestral, trailing", spaced(SamplerKind::Ancestral, "trailing")),
        ("dpmpp-2m, uniform", spaced(SamplerKind::Dpmpp2m, "uniform")),
        ("respaced, 3,2,1", chain("3,2,1")),
        ("respaced, ddim5", respaced("ddim5")),
        ("variance small", varied(Variance::Small)),
        ("variance large", varied(Variance::Large)),
    ];
    for process in [models::CONTINUOUS_EPS, models::LINEAR_EPS, models::LEARNED_RANGE] {
        let model = models::small(process);
        for (name, method) in &all {
            let case = format!("{}, {name}", process.name);
            let with = |method: &Method| {
                let method = method.clone();
                SamplerOptions { method, ..options(&model, SamplerKind::Ddim) }
            };
            if process.is_continuous() && (method.variance.is_some() || method.respacing.is_some()) {
                let part = if method.variance.is_some() { "--variance" } else { "--respacing" };
                refused(&case, plain(&model, with(method), 1.5), part);
            } else {
                cases.check(&case, || plain(&model, with(method), 1.5).unwrap());
            }
        }
    }
}

/// Latents of one's own, pictures taken back to latents, and bytes.
fn beginnings(cases: &mut Cases) {
    for process in [models::CONTINUOUS_EPS, models::LINEAR_EPS] {
        let model = models::small(process);
        let from: Vec<f32> = (0..3 * 192).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
        let three = [two(), two()[..1].to_vec()].concat();
        for kind in [SamplerKind::DdimReverse, SamplerKind::Ddim, SamplerKind::Ancestral] {
            cases.check_hash(&format!("{}, {kind}, three of one's own", process.name), || {
                let sampler = Sampler::of(gpu(), &model, once(&model, kind)).unwrap();
                let mut hash = Hash::new();
                hash.values(&sampler.sample_from(&from, &three, w(0.0), || Ok(())).unwrap());
                hash.finish()
            });
        }
        cases.check(&format!("{}, bytes of three", process.name), || {
            let sampler = Sampler::of(gpu(), &model, options(&model, SamplerKind::Ancestral)).unwrap();
            let images = sampler.sample(&three, w(1.5), || Ok(())).unwrap();
            Drawn { hash: bytes(&images), plans: Vec::new() }
        });
    }
}

/// A hash of pictures as files have them.
pub fn bytes(images: &[Image]) -> u64 {
    let mut hash = Hash::new();
    images.iter().for_each(|image| hash.bytes(&image.pixels));
    hash.finish()
}
