//! Guiders on a whole network: neutral ones draw the plain picture bit for bit, others another one, and no picture depends
//! on its batch.

mod common;

use common::{gpu, requests, sampler_options, tiny, train};
use freeguide::diffusion::{Guidance, Guiders, Method, Prediction, SamplerKind};
use freeguide::gpu::Gpu;
use freeguide::model::Model;
use freeguide::ops;
use freeguide::sample::{GuideInput, Networks, Request, Sampler, SamplerOptions, Uncond};
use freeguide::tensor::Context;
use freeguide::train::{LossKind, Objective, TrainOptions, TrainSchedule};

const STEPS: usize = 7;

fn w(weight: f64) -> Guidance {
    Guidance::from_weight(weight).unwrap()
}

struct Trained {
    gpu: Gpu,
    model: Model,
    _dir: tempfile::TempDir,
}

impl Trained {
    fn new(objective: Objective) -> Trained {
        let (gpu, dir) = (gpu(), tempfile::tempdir().unwrap());
        let mut options = TrainOptions { objective, ..tiny(128) };
        options.unet.out_channels = objective.out_channels(options.unet.in_channels);
        (options.warmup_images, options.learning_rate) = (8, 3e-3);
        // The average of so short a training is little more than its start.
        options.ema_rates = vec![0.5];
        train(&gpu, &options, dir.path());
        let model = Model::load(&gpu, dir.path()).unwrap();
        Trained { gpu, model, _dir: dir }
    }

    /// What the sampler without guiders draws.
    fn plain(&self, options: SamplerOptions, all: &[Request]) -> Vec<Vec<u32>> {
        let sampler = common::sampler(&self.gpu, &self.model, options);
        let mut run = sampler.start(all, w(1.5)).unwrap();
        (0..sampler.moves()).for_each(|_| run.step().unwrap());
        let values = sampler.read(all.len()).unwrap();
        let pictures = values.chunks(values.len() / all.len());
        pictures.map(|picture| picture.iter().map(|x| x.to_bits()).collect()).collect()
    }

    fn guided(&self, text: &str, options: SamplerOptions) -> Sampler {
        let guiders: Guiders = text.parse().unwrap();
        let weak = text.contains("autoguidance").then_some(&self.model);
        let options = SamplerOptions { guiders, ..options };
        Sampler::beside(&self.gpu, &self.model, weak, options).unwrap()
    }

    fn bits(&self, text: &str, options: SamplerOptions, all: &[Request]) -> Vec<Vec<u32>> {
        let sampler = self.guided(text, options.clone());
        let mut bits = Vec::new();
        for batch in all.chunks(options.batch) {
            let mut run = sampler.start(batch, w(1.5)).unwrap();
            (0..sampler.moves()).for_each(|_| run.step().unwrap());
            let values = sampler.read(batch.len()).unwrap();
            let one = values.len() / batch.len();
            bits.extend(
                values.chunks(one).map(|picture| picture.iter().map(|x| x.to_bits()).collect::<Vec<_>>()),
            );
        }
        bits
    }
}

fn largest_difference(a: &[Vec<u32>], b: &[Vec<u32>]) -> f32 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(&a, &b)| (f32::from_bits(a) - f32::from_bits(b)).abs()).fold(0.0, f32::max)
}

#[test]
fn guiders_draw() {
    let trained = Trained::new(Objective::default());
    let all = requests(3, 1);
    let options = sampler_options(3, STEPS);
    let plain = trained.plain(options.clone(), &all);

    let same =
        ["constant", "linear(1.5,1.5)", "interval(lo=-20,hi=20)", "low-noise(1)", "annealing(t1=1,t2=2)"];
    for text in same {
        assert!(trained.bits(text, options.clone(), &all) == plain, "{text} is plain guidance");
    }
    for text in ["rescale(0)", "apg(eta=1,beta=0)", "also(7:0)", "temperature(1)"] {
        let difference = largest_difference(&trained.bits(text, options.clone(), &all), &plain);
        assert!(difference <= 2e-5, "{text} is plain guidance but for {difference:e}");
    }
    for text in [
        "linear(from=0,to=3)",
        "interval(lo=-2,hi=6)",
        "rescale(0.7)",
        "cfg++(0.6)",
        "apg(eta=0,beta=-0.5,r=2)",
        "zero-star(k=1)",
        "autoguidance(itself)",
        "negative(4)",
        "also(4:0.5 2:1)",
        "expression(eps_c + w * tanh(eps_c - eps_u))",
        "temperature(0.9)",
        "low-noise(0.8)",
        "annealing(t1=0.2,t2=0.8,s=1)",
        "annealing(t1=0.2,t2=0.8,s=1,psi=0)+also(4:0.5)+rescale(0.7)",
        "interval(lo=-2,hi=6)+rescale(0.7)",
        "interval(lo=-2,hi=6)+apg(r=3)+low-noise(0.9)",
    ] {
        let whole = trained.bits(text, options.clone(), &all);
        assert!(whole != plain, "{text} changes nothing");
        assert!(whole.iter().flatten().all(|&bits| f32::from_bits(bits).is_finite()), "{text}");
        assert!(whole == trained.bits(text, sampler_options(1, STEPS), &all), "{text}, one by one");
        let two_pass = SamplerOptions { two_pass: true, ..options.clone() };
        assert!(whole == trained.bits(text, two_pass, &all), "{text}, one evaluation at a time");
    }

    // A network guided by itself is not guided.
    let single = SamplerOptions { guided: false, ..options.clone() };
    let unguided = common::sampler(&trained.gpu, &trained.model, single);
    let mut run = unguided.start(&all, w(0.0)).unwrap();
    (0..STEPS).for_each(|_| run.step().unwrap());
    let want: Vec<Vec<u32>> = vec![unguided.read(3).unwrap().iter().map(|x| x.to_bits()).collect()];
    let difference = largest_difference(&trained.bits("autoguidance(itself)", options.clone(), &all), &want);
    assert!(difference <= 2e-5, "autoguidance by itself differs by {difference:e}");

    // Evaluations: two a step, one outside of an interval.
    let evaluations =
        |text: &str, weight: f64| trained.guided(text, options.clone()).evaluations(w(weight)).unwrap();
    assert_eq!((evaluations("constant", 1.0), evaluations("constant", 0.0)), (2 * STEPS, STEPS));
    assert_eq!(evaluations("also(4:0.5 2:1)", 1.0), 4 * STEPS);
    let some = evaluations("interval(lo=-2,hi=6)", 1.0);
    assert!(STEPS < some && some < 2 * STEPS, "{some}");

    // What cannot be.
    let refused = |text: &str| {
        let guiders: Guiders = text.parse().unwrap();
        let options = SamplerOptions { guiders, ..options.clone() };
        Sampler::of(&trained.gpu, &trained.model, options).map(drop).unwrap_err().to_string()
    };
    assert!(refused("negative(cat)").contains("there is no class \"cat\""));
    assert!(refused("autoguidance(weak)").contains("weaker model weak"));
    assert!(refused("expression(eps_d)").contains("eps_d"));
}

/// Networks and options that contradict each other are refused by the names of the options.
#[test]
fn what_does_not_go_together_is_refused() {
    let trained = Trained::new(Objective::default());
    let (unet, weights) = (&trained.model.unet, trained.model.weights());
    let alone = Networks::of(unet, &weights);
    let pair = Networks { unconditional: Some((unet, &weights)), ..alone };
    let weaker = Networks { weaker: Some((unet, &weights)), ..alone };
    let cost = |cx: &mut Context, input: &GuideInput<'_>| ops::mse(cx, input.z, input.z);
    let guide = Networks { guide: Some(&cost), ..alone };
    let from_classes = Uncond::FromClasses { prior: None };
    for (networks, guiders, uncond, said) in [
        (guide, "rescale(0.5)", Uncond::Null, ["`guider`", "`classifier`"]),
        (pair, "rescale(0.5)", Uncond::Null, ["`guider`", "`uncond-model`"]),
        (alone, "rescale(0.5)", from_classes.clone(), ["`uncond from-classes`", "`guider`"]),
        (guide, "", from_classes.clone(), ["`uncond from-classes`", "`classifier`"]),
        (pair, "", from_classes, ["`uncond from-classes`", "`uncond-model`"]),
        (weaker, "rescale(0.5)", Uncond::Null, ["a weaker model came", "autoguidance(PATH)"]),
    ] {
        let options =
            SamplerOptions { guiders: guiders.parse().unwrap(), uncond, ..sampler_options(1, STEPS) };
        let process = trained.model.config.process().unwrap();
        let made = Sampler::with(&trained.gpu, networks, process, options);
        let message = made.map(drop).unwrap_err().to_string();
        assert!(said.iter().all(|part| message.contains(part)), "{message}, expected {said:?}");
    }
    let sampler = common::sampler(&trained.gpu, &trained.model, sampler_options(1, STEPS));
    assert!(sampler.posterior(1).unwrap_err().to_string().contains("from-classes"));
}

/// Samplers of one move a step, then those of two.
const ONE_MOVE: [SamplerKind; 4] =
    [SamplerKind::Ancestral, SamplerKind::Ddim, SamplerKind::Euler, SamplerKind::EulerAncestral];
const TWO_MOVES: [SamplerKind; 3] = [SamplerKind::Heun, SamplerKind::Dpmpp2m, SamplerKind::Dpmpp2mSde];

#[test]
fn guiders_run_in_every_sampler_or_are_refused_with_the_reason() {
    let v = Objective { prediction: Prediction::V, ..Objective::default() };
    let learned = Objective {
        schedule: TrainSchedule::Cosine,
        learn_sigma: true,
        loss: LossKind::Hybrid,
        steps_total: 50,
        ..Objective::default()
    };
    let some = vec![SamplerKind::Ancestral, SamplerKind::Heun];
    for (objective, kinds) in [(v, some), (learned, [&ONE_MOVE[..], &TWO_MOVES].concat())] {
        let trained = Trained::new(objective);
        let all = requests(2, 1);
        for kind in kinds {
            let method = Method { kind: Some(kind), ..Method::default() };
            let options = SamplerOptions { method, ..sampler_options(2, 4) };
            let plain = trained.plain(options.clone(), &all);
            let what = |text: &str| format!("{text} in {kind} of {:?}", objective.prediction);
            let neutral = trained.bits("linear(1.5,1.5)", options.clone(), &all);
            assert!(neutral == plain, "{} is plain guidance", what("linear"));
            let rescaled = trained.bits("rescale(0)", options.clone(), &all);
            let difference = largest_difference(&rescaled, &plain);
            // An eps rounded in f32 is x̂ to 1/α of that: 22026 times at λ = -20, where continuous time begins.
            let most = if objective.schedule == TrainSchedule::Continuous { 1e-2 } else { 1e-4 };
            assert!(difference <= most, "{} differs by {difference:e}", what("rescale(0)"));
            let refused = |text: &str| {
                let options = SamplerOptions { guiders: text.parse().unwrap(), ..options.clone() };
                Sampler::of(&trained.gpu, &trained.model, options).map(drop).unwrap_err().to_string()
            };
            let chain = "interval(lo=-4,hi=4)+apg(r=2)+temperature(0.95)";
            for text in ["cfg++(0.6)", "zero-star(k=1)+rescale(0.5)", chain] {
                if TWO_MOVES.contains(&kind) && text != chain {
                    assert!(refused(text).contains("two evaluations together"), "{}", what(text));
                    continue;
                }
                let drawn = trained.bits(text, options.clone(), &all);
                assert!(drawn != plain, "{} changes nothing", what(text));
                assert!(
                    drawn.iter().flatten().all(|&bits| f32::from_bits(bits).is_finite()),
                    "{}",
                    what(text)
                );
                let one_by_one = SamplerOptions { batch: 1, two_pass: true, ..options.clone() };
                assert!(drawn == trained.bits(text, one_by_one, &all), "{}, one by one", what(text));
            }
            if matches!(
                kind,
                SamplerKind::Ddim | SamplerKind::Euler | SamplerKind::Heun | SamplerKind::Dpmpp2m
            ) {
                assert!(refused("low-noise(0.8)").contains("adds no noise"), "{}", what("low-noise"));
            } else {
                assert!(
                    trained.bits("low-noise(0.8)", options.clone(), &all) != plain,
                    "{}",
                    what("low-noise")
                );
            }
        }
    }
}

#[test]
fn the_unconditional_score_comes_from_those_of_the_classes() {
    let trained = Trained::new(Objective::default());
    let all = requests(3, 1);
    let draw = |weight: f64, all: &[Request], batch: usize| {
        let uncond = Uncond::FromClasses { prior: None };
        let options = SamplerOptions { uncond, ..sampler_options(batch, STEPS) };
        let sampler = Sampler::of(&trained.gpu, &trained.model, options).unwrap();
        let mut drawn = Vec::new();
        for part in all.chunks(batch) {
            let mut run = sampler.start(part, w(weight)).unwrap();
            (0..STEPS).for_each(|_| run.step().unwrap());
            for known in sampler.posterior(part.len()).unwrap() {
                assert!(known.len() == 10 && (known.iter().sum::<f32>() - 1.0).abs() < 1e-4, "{known:?}");
                assert!(known.iter().any(|p| *p > 0.2), "nothing was learnt: {known:?}");
            }
            drawn.extend(sampler.sample(part, w(weight), || Ok(())).unwrap());
        }
        drawn
    };
    // Without guidance it is not asked what the unconditional score is.
    let single = SamplerOptions { guided: false, ..sampler_options(3, STEPS) };
    let plain = common::sampler(&trained.gpu, &trained.model, single);
    assert_eq!(common::difference(&draw(0.0, &all, 3), &plain.sample(&all, w(0.0), || Ok(())).unwrap()), 0.0);
    let guided = draw(2.0, &all, 3);
    assert!(common::difference(&guided, &draw(0.0, &all, 3)) > 0.0);
    assert_eq!(common::difference(&guided, &draw(2.0, &all, 2)), 0.0);
    let free = Request::default();
    assert_eq!(
        common::difference(
            &draw(2.0, std::slice::from_ref(&free), 1),
            &draw(0.0, std::slice::from_ref(&free), 1)
        ),
        0.0
    );

    let refused = |prior: Option<Vec<f64>>, options: SamplerOptions| {
        let options = SamplerOptions { uncond: Uncond::FromClasses { prior }, ..options };
        Sampler::of(&trained.gpu, &trained.model, options).map(drop).unwrap_err().to_string()
    };
    let method = Method { kind: Some(SamplerKind::Ddim), ..Method::default() };
    let ddim = SamplerOptions { method, ..sampler_options(1, STEPS) };
    assert!(refused(None, ddim).contains("noise of ancestral steps"));
    assert!(refused(Some(vec![0.5, 0.5]), sampler_options(1, STEPS)).contains("the prior has 2 classes"));
    let guided = SamplerOptions { guiders: "rescale(0.5)".parse().unwrap(), ..sampler_options(1, STEPS) };
    assert!(refused(None, guided).contains("`uncond from-classes` does not go together with `guider`"));
}
