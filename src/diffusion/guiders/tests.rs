use std::sync::Arc;

use super::sums::{deviation, dot};
use super::*;
use crate::diffusion::{
    Clip, ContinuousSchedule, Guidance, LevelSource, Method, Process, SamplerKind, StepCoefficients,
    ancestral_steps, guided_step,
};
use crate::random::{Stream, fill_normal};

fn random(seed: u64, len: usize) -> Vec<f64> {
    fill_normal(seed, 0, Stream::InitialNoise, len).into_iter().map(f64::from).collect()
}

/// Sizes of samples of one, two and three dimensions.
const SIZES: [usize; 3] = [5, 3 * 7, 3 * 5 * 4];

struct Chain {
    steps: Vec<StepCoefficients>,
    moments: Vec<Moment>,
}

fn chain() -> Chain {
    let steps = ancestral_steps(&ContinuousSchedule::default(), 9, 0.3).unwrap();
    let moments = moments(&steps);
    Chain { steps, moments }
}

/// z after nine steps of made-up evaluations under `text`.
fn sampled(text: &str, weight: f64, len: usize, clip: Clip) -> Vec<f64> {
    let guiders: Guiders = text.parse().unwrap();
    let Chain { steps, moments } = chain();
    let (mut z, mut memory) = (random(1, len), Memory::default());
    for ((at, step), weight) in moments.iter().zip(&steps).zip(guiders.weights(weight, &moments)) {
        let t = at.step as u64;
        let (c, u, more) = (random(10 + t, len), random(30 + t, len), random(50 + t, len));
        let eps = Evaluated { z: &z, conditional: &c, against: &u, more: &[&more], step };
        z = guiders.guided_step(at, weight, &eps, clip, &random(70 + t, len), &mut memory).unwrap().0;
    }
    z
}

/// The same under plain guidance, by the reference of the fused step.
fn plain(weight: f64, len: usize, clip: Clip) -> Vec<f64> {
    let guidance = Guidance::from_weight(weight).unwrap();
    let mut z = random(1, len);
    for (t, step) in chain().steps.iter().enumerate() {
        let t = t as u64;
        let (c, u) = (random(10 + t, len), random(30 + t, len));
        z = guided_step(&z, &c, Some(&u), step, guidance, clip, &random(70 + t, len)).unwrap().0;
    }
    z
}

#[test]
fn neutral_settings_are_plain_guidance() {
    for len in SIZES {
        let want = plain(1.5, len, Clip::Static);
        for text in [
            "",
            "constant",
            "constant(1.5)",
            "linear(from=1.5,to=1.5)",
            "cosine(1.5,1.5)",
            "power(1.5,1.5,power=3)",
            "piecewise(0:1.5 1:1.5)",
            "interval()",
            "interval(lo=-20,hi=20)",
            "negative(3)",
            "autoguidance(weak)",
            "also(3:0)",
            "annealing(t1=1,t2=2)",
            "temperature(1)",
            "low-noise(1)",
        ] {
            assert_eq!(sampled(text, 1.5, len, Clip::Static), want, "{text}, {len} elements");
        }
        // Where a sum over the sample is added: to rounding.
        for text in ["rescale(0)", "apg(eta=1,beta=0)", "interval()+rescale(0)"] {
            for (got, want) in sampled(text, 1.5, len, Clip::Static).iter().zip(&want) {
                assert!((got - want).abs() <= 1e-9, "{text}: {got} is not {want}");
            }
        }
    }
}

#[test]
fn guiders_that_are_not_neutral_change_the_picture() {
    let want = plain(1.5, 60, Clip::Static);
    for entry in GUIDERS.iter().filter(|entry| !["expression", "constant", "annealing"].contains(&entry.name))
    {
        if !["autoguidance", "negative"].contains(&entry.name) {
            let usage = entry.usage.replace("CLASS:0.5 CLASS:1", "3:0.5");
            assert_ne!(sampled(&usage, 1.5, 60, Clip::Static), want, "{usage}");
        }
    }
}

#[test]
fn weights_follow_their_curves() {
    let at = chain().moments;
    let weights = |text: &str| text.parse::<Guiders>().unwrap().weights(7.0, &at);
    let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-12, "{got} is not {want}");
    let linear = weights("linear(from=1,to=3)");
    near(linear[0], 1.0);
    near(linear[2], 1.5);
    near(linear[8], 3.0);
    near(weights("cosine(1,3)")[4], 2.0);
    near(weights("cosine(1,3)")[2], 1.0 + 2.0 * 0.5 * (1.0 - 0.5f64.sqrt()));
    near(weights("power(0,2,power=3)")[4], 0.25);
    let broken = weights("piecewise(0:0 0.5:2 0.75:1)");
    assert_eq!((broken[0], broken[2], broken[4], broken[5], broken[8]), (0.0, 1.0, 2.0, 1.5, 1.0));
    // Over λ: below lo it has not begun, above hi it is done.
    let over = weights("linear(from=0,to=4,lo=-2,hi=2)");
    for (at, weight) in at.iter().zip(over) {
        near(weight, (at.log_snr + 2.0).clamp(0.0, 4.0));
    }
    let own = Guiders::new(vec![Arc::new(Dynamic::function(|at| at.step as f64))]).unwrap();
    assert_eq!(own.weights(7.0, &at), (0..9).map(f64::from).collect::<Vec<_>>());
    // An interval cuts what a curve says, in whichever order they are written.
    for text in ["interval(lo=-3,hi=3)+linear(from=1,to=3)", "linear(from=1,to=3)+interval(lo=-3,hi=3)"] {
        for ((at, weight), linear) in at.iter().zip(weights(text)).zip(&linear) {
            assert_eq!(weight, if at.log_snr.abs() <= 3.0 { *linear } else { 0.0 });
        }
    }
}

#[test]
fn evaluations_are_no_more_than_needed() {
    let evaluations = |text: &str, weight: f64| text.parse::<Guiders>().unwrap().evaluations(weight);
    assert_eq!((evaluations("", 1.0), evaluations("", 0.0)), (2, 1));
    assert_eq!((evaluations("rescale(0.7)", 0.0), evaluations("apg()", 0.0)), (1, 1));
    assert_eq!((evaluations("also(3:1 4:0.5)", 1.0), evaluations("also(3:1)", 0.0)), (4, 3));
    assert_eq!((evaluations("cfg++(1)", 0.0), evaluations("expression(eps_c)", 0.0)), (2, 2));
}

#[test]
fn each_rule_does_what_its_paper_says() {
    for len in SIZES {
        let (z, c, u, third) = (random(1, len), random(2, len), random(3, len), random(4, len));
        let step = StepCoefficients::between(-1.0, 0.3, 0.3);
        let more = [&third[..]];
        let eps = Evaluated { z: &z, conditional: &c, against: &u, more: &more, step: &step };
        let guided = |text: &str, w: f64| {
            text.parse::<Guiders>().unwrap().combine(w, &eps, &mut Memory::default()).unwrap()
        };
        let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-9, "{got} is not {want} ({len})");
        let x_of = |eps: &[f64]| -> Vec<f64> {
            (0..len).map(|i| (z[i] - step.sigma * eps[i]) / step.alpha).collect()
        };
        let spread = deviation;
        // Rescale: the deviation goes all the way, and halfway.
        let plain = guided("", 2.0);
        near(spread(&guided("rescale(1)", 2.0)), spread(&c));
        near(spread(&guided("rescale(0.5)", 2.0)), 0.5 * (spread(&c) + spread(&plain)));
        // APG without the parallel part: what is added to x̂_c is orthogonal to it, and no longer than w·r.
        let x_c = x_of(&c);
        let added: Vec<f64> =
            x_of(&guided("apg(eta=0,beta=0)", 2.0)).iter().zip(&x_c).map(|(x, c)| x - c).collect();
        near(dot(&added, &x_c), 0.0);
        let limited: Vec<f64> =
            x_of(&guided("apg(eta=1,beta=0,r=0.5)", 2.0)).iter().zip(&x_c).map(|(x, c)| x - c).collect();
        near(dot(&limited, &limited).sqrt(), 1.0);
        // Zero-star: what is taken from eps_c is its best multiple of eps_∅, so the rest is orthogonal to that.
        let rest: Vec<f64> = guided("zero-star", 1.0).iter().zip(&c).map(|(g, c)| g - c).collect();
        assert!(dot(&rest, &u).abs() < 1e-6);
        // Several conditions: each adds its difference.
        for (i, got) in guided("also(9:0.25)", 1.0).iter().enumerate() {
            near(*got, u[i] + 2.0 * (c[i] - u[i]) + 0.25 * (third[i] - u[i]));
        }
        for (got, plain) in guided("temperature(0.8)", 2.0).iter().zip(&plain) {
            near(*got, plain / 0.8);
        }
        // CFG++: x̂ of the guided eps, noise of eps_∅; the step's table says the same as the formula.
        let guiders: Guiders = "cfg++(0.6)".parse().unwrap();
        let steps = [step, StepCoefficients::last(5.0)];
        let at = moments(&steps);
        let weight = guiders.weights(9.0, &at)[0];
        near(weight, -0.4);
        let noise = random(5, len);
        let (next, x) =
            guiders.guided_step(&at[0], weight, &eps, Clip::None, &noise, &mut Memory::default()).unwrap();
        let (changed, of_eps) = guiders.steps(&steps);
        for i in 0..len {
            near(x[i], (z[i] - step.sigma * (u[i] + 0.6 * (c[i] - u[i]))) / step.alpha);
            let again = step.alpha * x[i] + step.sigma * u[i];
            near(next[i], step.mean_z * again + step.mean_x * x[i] + step.noise_sd * noise[i]);
            near(next[i], changed[0].mean_x * x[i] + of_eps[0] * u[i] + changed[0].noise_sd * noise[i]);
        }
        assert_eq!((changed[0].mean_z, changed[1], of_eps[1]), (0.0, steps[1], 0.0));
    }
}

#[test]
fn momentum_remembers_the_steps_before() {
    let step = StepCoefficients::between(-1.0, 0.3, 0.3);
    let (z, c, u) = (random(1, 8), random(2, 8), random(3, 8));
    let eps = Evaluated { z: &z, conditional: &c, against: &u, more: &[], step: &step };
    let guiders: Guiders = "apg(eta=1,beta=-0.5)".parse().unwrap();
    let mut memory = Memory::default();
    let first = guiders.combine(1.0, &eps, &mut memory).unwrap();
    let second = guiders.combine(1.0, &eps, &mut memory).unwrap();
    for i in 0..8 {
        assert!((first[i] - (2.0 * c[i] - u[i])).abs() < 1e-12);
        // d - d/2 is half of the guidance.
        assert!((second[i] - (c[i] + 0.5 * (c[i] - u[i]))).abs() < 1e-12);
    }
}

#[test]
fn annealing_keeps_mean_and_deviation() {
    let Some(annealing) = "annealing(t1=0.3,t2=0.8,s=0.5)".parse::<Guiders>().unwrap().annealing() else {
        panic!("it is in the chain")
    };
    let at = |step| Moment { step, steps: 11, log_snr: 0.0 };
    let kept: Vec<f64> = (0..11).map(|step| annealing.kept(&at(step))).collect();
    assert_eq!((kept[0], kept[1], kept[10]), (0.0, 0.0, 1.0));
    assert!((kept[5] - 0.6).abs() < 1e-12 && kept.windows(2).all(|pair| pair[0] <= pair[1]), "{kept:?}");
    let (y, noise) = (random(1, 64), random(2, 64));
    assert_eq!(annealing.apply(&at(10), &y, &noise), y);
    for step in [0, 5] {
        let changed = annealing.apply(&at(step), &y, &noise);
        let mean = |x: &[f64]| x.iter().sum::<f64>() / 64.0;
        assert!((mean(&changed) - mean(&y)).abs() < 1e-12);
        assert!((deviation(&changed) - deviation(&y)).abs() < 1e-12);
        assert_ne!(changed, y);
    }
}

#[test]
fn texts_come_back() {
    for (text, again) in [
        ("interval(lo=-2,hi=6)+rescale(0.7)", "interval(lo=-2,hi=6)+rescale(0.7)"),
        (" cfg++(0.6) + low-noise(0.9)", ""),
        ("cfg++(0.6)+apg(r=15)", "cfg++(0.6)+apg(eta=0,beta=-0.5,r=15)"),
        ("piecewise(0:0 0.3:2 0.8:0)", "piecewise(0:0 0.3:2 0.8:0)"),
        ("expression(eps_c + w * (eps_c - eps_u))", "expression(eps_c + w * (eps_c - eps_u))"),
        ("also(cat:0.5 3:-1)+negative(dog)", "also(cat:0.5 3:-1)+negative(dog)"),
        ("linear(1,2,lo=-3,hi=4)", "linear(from=1,to=2,lo=-3,hi=4)"),
        (
            "zero-star(k=2)+rescale(phi=0.5)+linear(from=0,to=1)",
            "zero-star(k=2)+rescale(0.5)+linear(from=0,to=1)",
        ),
    ] {
        match text.parse::<Guiders>() {
            Ok(guiders) => assert_eq!(guiders.to_string(), again),
            Err(error) => assert!(again.is_empty(), "{text}: {error}"),
        }
    }
    for entry in GUIDERS {
        let made: Guiders =
            entry.usage.replace("constant(w)", "constant(2)").replace("CLASS:1", "x:1").parse().unwrap();
        assert_eq!(made.to_string(), made.to_string().parse::<Guiders>().unwrap().to_string());
        assert!(made.to_string().starts_with(entry.name), "{made}");
    }
}

#[test]
fn slips_are_told() {
    for (text, parts) in [
        ("rescal(0.7)", &["\"rescal\"", "rescale", "interval"][..]),
        ("rescale", &["phi is missing", "rescale(0.7)"]),
        ("rescale(much)", &["phi is \"much\"", "not a number"]),
        ("rescale(1.5)", &["between 0 and 1"]),
        ("rescale(0.5,0.6)", &["\"0.6\" is one argument too many"]),
        ("rescale(phi=0.5,mode=fast)", &["no argument \"mode\""]),
        ("rescale(0.5", &["not closed"]),
        ("interval(lo=3,hi=1)", &["lo must be below hi"]),
        ("linear(0,1,lo=2)", &["lo and hi come together"]),
        ("piecewise(0:1 0:2)", &["u rising"]),
        ("also(3)", &["CLASS:STRENGTH"]),
        ("expression()", &["it is empty"]),
        ("apg(r=0)", &["r must be above 0"]),
        ("rescale(0.5)+", &["\"\""]),
        // Pairs that make no sense together.
        ("linear(0,1)+cosine(0,1)", &["do not go together", "sets the weight"]),
        ("apg()+zero-star", &["combines the evaluations in its own way"]),
        ("apg()+rescale(0.5)", &["apg(", "rescale(0.5)", "rescaling it again"]),
        ("cfg++(0.5)+interval(lo=0,hi=1)", &["no unconditional evaluation"]),
        ("cfg++(0.5)+linear(0,1)", &["a strength of its own"]),
        ("negative(1)+autoguidance(x)", &["in the place of the unconditional"]),
        ("expression(eps_c)+rescale(1)", &["write the factor into the expression"]),
    ] {
        let error = text.parse::<Guiders>().map(|guiders| guiders.to_string()).expect_err(text).to_string();
        parts.iter().for_each(|part| assert!(error.contains(part), "{text}: {part:?} is not in {error:?}"));
    }
}

/// In DDIM, CFG++ is z' = α' x̂ + √(σ'² - s²) eps_∅ (its Algorithm 2): the direction comes from eps_∅ alone.
#[test]
fn in_ddim_the_direction_is_that_of_no_condition() {
    let levels = LevelSource::Continuous(ContinuousSchedule::default()).own(6);
    for eta in [0.0, 0.7] {
        let moves = crate::diffusion::moves::ddim(&levels, eta).unwrap();
        let guiders: Guiders = "cfg++(0.6)".parse().unwrap();
        guiders.check_sampler(SamplerKind::Ddim, &moves).unwrap();
        let (changed, (_, of_eps)) = (guiders.moves(&moves), guiders.steps(&steps_of(&moves)));
        for (t, step) in changed.iter().enumerate().take(5) {
            let to = levels[t + 1];
            let direction = (to.sigma.powi(2) - moves[t].noise_sd.powi(2)).sqrt();
            assert_eq!(step.mean_z, 0.0);
            assert!((step.mean_x - to.alpha).abs() < 1e-9 && (of_eps[t] - direction).abs() < 1e-12);
        }
        assert_eq!((changed[5], of_eps[5]), (moves[5], 0.0));
    }
}

#[test]
fn what_a_sampler_gives_no_meaning_is_refused() {
    let process = Process::from(&ContinuousSchedule::default());
    let check = |text: &str, kind: SamplerKind| {
        let method = Method { kind: Some(kind), ..Method::default() };
        let (moves, _) = process.moves(&method, 8, 0.3).unwrap();
        text.parse::<Guiders>().unwrap().check_sampler(kind, &moves).map_err(|error| error.to_string())
    };
    for kind in [SamplerKind::Heun, SamplerKind::Dpmpp2m, SamplerKind::Dpmpp2mSde] {
        for text in ["cfg++(0.5)", "rescale(0.5)+zero-star(k=2)"] {
            let error = check(text, kind).unwrap_err();
            assert!(error.contains(&kind.to_string()) && error.contains("two evaluations"), "{error}");
        }
        for text in ["zero-star", "apg()", "interval(lo=-1,hi=3)+linear(0,2)", "temperature(0.9)"] {
            check(text, kind).unwrap();
        }
    }
    for kind in [SamplerKind::Ddim, SamplerKind::Euler, SamplerKind::Dpmpp2m] {
        assert!(check("low-noise(0.8)", kind).unwrap_err().contains("adds no noise"));
        check("low-noise(1)", kind).unwrap();
    }
    for kind in [SamplerKind::Ancestral, SamplerKind::EulerAncestral, SamplerKind::Dpmpp2mSde] {
        check("low-noise(0.8)", kind).unwrap();
    }
}
