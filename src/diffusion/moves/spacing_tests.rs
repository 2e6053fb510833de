//! Levels of every process, sampler, spacing and number of steps; and how far a solver in few of them is from the flow.

use proptest::prelude::*;

use super::*;
use crate::diffusion::{
    BetaSchedule, ContinuousSchedule, DiscreteSchedule, FlowSchedule, Prediction, SigmaSchedule, Variance,
};

fn discrete(schedule: BetaSchedule, total: usize, scale: f64) -> Process {
    let levels = LevelSource::Discrete(DiscreteSchedule::new(schedule, total).unwrap(), scale);
    Process { levels, prediction: Prediction::Eps, variance: Variance::Large }
}

fn processes() -> impl Strategy<Value = Process> {
    let betas = prop_oneof![Just(BetaSchedule::Linear), Just(BetaSchedule::Cosine)];
    let total = prop_oneof![21..60usize, Just(100), Just(1000), 60..4000usize];
    let ends = (-30.0..-1.0f64, 1.0..30.0f64);
    prop_oneof![
        3 => (betas, total).prop_map(|(betas, total)| discrete(betas, total, 1.0)),
        1 => (-20.0..-1.0f64, 1.0..20.0f64).prop_map(|(low, high)| {
            let levels = LevelSource::Flow(FlowSchedule::new(low, high).unwrap());
            Process { levels, prediction: Prediction::FLOW, variance: Variance::Small }
        }),
        1 => (-12.0..-1.0f64, 1.0..20.0f64).prop_map(|(low, high)| {
            let levels = LevelSource::Sigma(SigmaSchedule::new(low, high).unwrap());
            Process { levels, prediction: Prediction::EDM, variance: Variance::Small }
        }),
        1 => ends.prop_map(|(low, high)| Process::from(&ContinuousSchedule::new(low, high).unwrap())),
    ]
}

fn spacings() -> impl Strategy<Value = Option<Spacing>> {
    let named = [Spacing::Edm, Spacing::Karras, Spacing::Exponential, Spacing::Uniform, Spacing::Trailing];
    prop_oneof![Just(None), prop::sample::select(named.to_vec()).prop_map(Some)]
}

/// The noisiest level, and the steps that there are.
fn end(process: &Process) -> (Level, usize) {
    match &process.levels {
        LevelSource::Continuous(s) => (Level::continuous(s.log_snr_min()), 4000),
        LevelSource::Flow(path) => (Level::flow(path.time(1.0)), 4000),
        LevelSource::Sigma(levels) => (Level::edm(levels.log_snr_min()), 4000),
        LevelSource::Discrete(s, scale) => (Level::discrete(s, s.len() - 1, *scale), s.len()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any number of steps up to T: levels fall strictly from the process's end, and the last move gives the picture.
    #[test]
    fn a_sampler_goes_from_the_end_of_its_process_to_the_data(
        process in processes(),
        sampler in 0..SAMPLERS.len(),
        spacing in spacings(),
        part in 0.0..1.0f64,
    ) {
        let kind = SAMPLERS[sampler].kind;
        let (noisiest, total) = end(&process);
        // Small numbers are where rounding goes wrong, and T is the largest.
        let steps = 1 + ((total as f64).powf(part) as usize - 1).min(total - 1);
        let method = Method {
            kind: Some(kind),
            spacing: spacing.filter(|_| kind != SamplerKind::Halving),
            ..Method::default()
        };
        let found = process.moves(&method, steps, 0.3);
        let noisy = matches!(kind, SamplerKind::Ancestral | SamplerKind::EulerAncestral);
        if noisy && matches!(process.levels, LevelSource::Flow(_)) {
            prop_assert!(found.unwrap_err().to_string().contains("a flow has not"));
            return Ok(());
        }
        let of_steps = matches!(spacing, Some(Spacing::Uniform | Spacing::Trailing)) || kind == SamplerKind::Halving;
        if of_steps && matches!(process.levels, LevelSource::Sigma(_)) {
            prop_assert!(found.unwrap_err().to_string().contains("`edm`"));
            return Ok(());
        }
        let (mut moves, _) = found.unwrap();
        prop_assert!(moves.iter().all(|step| [step.mean_z, step.mean_x, step.mean_previous, step.noise_sd]
            .iter().all(|number| number.is_finite())), "{kind}");
        if kind == SamplerKind::DdimReverse {
            // Backwards, and to the noisiest level instead of from it.
            prop_assert_eq!(moves.len(), steps.max(2) - 1);
            moves.reverse();
        } else {
            let last = moves[moves.len() - 1];
            prop_assert!(last.mean_z.abs() < 1e-6 && (last.mean_x - 1.0).abs() < 1e-6, "{kind}: {last:?}");
            prop_assert_eq!((last.mean_previous, last.noise_sd), (0.0, 0.0));
            let first = moves[0].level;
            prop_assert!((first.ratio() / noisiest.ratio() - 1.0).abs() < 1e-6, "{kind} begins at {first:?}");
            prop_assert!((first.time - noisiest.time).abs() < 1e-6, "{kind} begins at {first:?}");
        }
        let mut levels: Vec<Level> = moves.iter().map(|step| step.level).collect();
        // Heun's method evaluates at both ends of a step.
        levels.dedup_by(|a, b| kind == SamplerKind::Heun && a == b);
        for pair in levels.windows(2) {
            prop_assert!(pair[0].ratio() > pair[1].ratio() && pair[0].time > pair[1].time, "{kind} {steps}: {pair:?}");
        }
        if kind != SamplerKind::DdimReverse {
            prop_assert_eq!(levels.len(), steps, "{} {:?}", kind, spacing);
        }
    }

    /// What cannot be is refused with the model's number.
    #[test]
    fn more_steps_than_there_are_are_refused(
        total in 21..2000usize, more in 1..5000usize, sampler in 0..SAMPLERS.len(), spacing in spacings(),
    ) {
        let kind = SAMPLERS[sampler].kind;
        let process = discrete(BetaSchedule::Linear, total, 1.0);
        let method = Method { kind: Some(kind), spacing: spacing.filter(|_| kind != SamplerKind::Halving), ..Method::default() };
        let message = process.moves(&method, total + more, 0.3).unwrap_err().to_string();
        prop_assert!(message.contains(&format!("the model has {total}")), "{kind}: {message}");
        prop_assert!(process.moves(&method, 0, 0.3).is_err());
    }

    /// The peers' leading steps: t = 0, k, 2k, …, and so many above; never past the last.
    #[test]
    fn leading_steps_are_multiples(total in 21..2000usize, part in 0.0..1.0f64, offset in 0..3usize) {
        let steps = 1 + (total as f64 * part) as usize;
        let process = discrete(BetaSchedule::Linear, total, 1.0);
        let stride = total / steps;
        match process.levels.spaced(Spacing::Leading(offset), steps) {
            Ok(levels) => {
                let times: Vec<f64> = levels.iter().rev().map(|level| level.time).collect();
                let want: Vec<f64> = (0..steps).map(|i| (i * stride + offset) as f64).collect();
                prop_assert_eq!(times, want);
            }
            Err(error) => {
                prop_assert!((steps - 1) * stride + offset >= total);
                let said = format!("t = {}", (steps - 1) * stride + offset);
                prop_assert!(error.to_string().contains(&said), "{error}");
            }
        }
    }
}

/// What diffusers' and k-diffusion's rules give, from their programs: T = 1000, linear, N = 5.
#[test]
fn the_peers_names_are_the_peers_levels() {
    let process = discrete(BetaSchedule::Linear, 1000, 1.0);
    let times = |spacing: &str, steps| -> Vec<f64> {
        let levels = process.levels.spaced(spacing.parse().unwrap(), steps).unwrap();
        levels.iter().map(|level| (level.time * 1e3).round() / 1e3).collect()
    };
    assert_eq!(times("linspace", 5), [999.0, 749.0, 500.0, 250.0, 0.0]);
    assert_eq!(times("trailing", 5), [999.0, 799.0, 599.0, 399.0, 199.0]);
    assert_eq!(times("leading", 5), [800.0, 600.0, 400.0, 200.0, 0.0]);
    assert_eq!(times("leading+1", 5), [801.0, 601.0, 401.0, 201.0, 1.0]);
    // σ_i^(1/7) in equal steps between 157.407 and 0.01, and t where log σ has them.
    let karras = process.levels.spaced(Spacing::Karras, 3).unwrap();
    let middle = (0.5 * (karras[0].ratio().powf(1.0 / 7.0) + karras[2].ratio().powf(1.0 / 7.0))).powi(7);
    assert!((karras[0].ratio() - 157.407).abs() < 1e-2 && (karras[2].ratio() - 0.010_000_5).abs() < 1e-6);
    assert!((karras[1].ratio() / middle - 1.0).abs() < 1e-9, "{karras:?}");
    for text in ["edm", "karras", "exponential", "uniform", "trailing", "leading", "leading+7", "KARRAS"] {
        let spacing: Spacing = text.parse().unwrap();
        assert_eq!(spacing.to_string(), text.to_lowercase());
    }
    for text in ["", "karras2", "leading+", "leading-1", "beta"] {
        assert!(text.parse::<Spacing>().unwrap_err().to_string().contains("trailing"), "{text}");
    }
}

#[test]
fn a_spacing_beside_what_names_the_steps_is_refused() {
    let process = discrete(BetaSchedule::Linear, 100, 1.0);
    let error = |method: Method| process.moves(&method, 10, 0.3).unwrap_err().to_string();
    let spacing = Some(Spacing::Karras);
    let respacing = Some("10".parse().unwrap());
    assert!(error(Method { respacing, spacing, ..Method::default() }).contains("--respacing"));
    assert!(
        error(Method { kind: Some(SamplerKind::Halving), spacing, ..Method::default() }).contains("halved")
    );
    let continuous = Process::from(&ContinuousSchedule::default());
    let leading = Method { spacing: Some(Spacing::Leading(0)), ..Method::default() };
    assert!(continuous.moves(&leading, 10, 0.3).unwrap_err().to_string().contains("continuous time"));
}

/// Pixels of a picture.
const PIXELS: usize = 256;

/// x̂ of bright pictures: a grey from N(0.4, 0.15²) or N(0.9, 0.15²), and N(0, 0.1²) in each pixel. The noisiest
/// levels say how bright a picture is to be, so that it matters where a solver begins.
fn greys(z: &[f64], level: &Level) -> Result<Vec<f64>> {
    const GREYS: [f64; 2] = [0.4, 0.9];
    const PIXEL: f64 = 0.01;
    let (alpha, sigma, pixels) = (level.alpha, level.sigma, z.len() as f64);
    // Along the grey all pixels are one; across it they are themselves.
    let together = pixels * 0.0225 + PIXEL;
    let along = alpha.powi(2) * together + sigma.powi(2);
    let brightness = z.iter().sum::<f64>() / pixels;
    let exponents = GREYS.map(|grey| -0.5 * pixels * (brightness - alpha * grey).powi(2) / along);
    let most = exponents[0].max(exponents[1]);
    let parts = exponents.map(|exponent| (exponent - most).exp());
    let grey = (parts[0] * GREYS[0] + parts[1] * GREYS[1]) / (parts[0] + parts[1]);
    let bright = grey + alpha * together / along * (brightness - alpha * grey);
    let gain = alpha * PIXEL / (alpha.powi(2) * PIXEL + sigma.powi(2));
    Ok(z.iter().map(|z| bright + gain * (z - brightness)).collect())
}

/// Where moves take some noises.
fn pictures(moves: &[Move]) -> Vec<f64> {
    let noise = |i: u64| crate::random::fill_normal(7, i, crate::random::Stream::InitialNoise, PIXELS);
    let start = |i| noise(i).into_iter().map(f64::from).collect();
    (0..24).flat_map(|i| walk(&mut greys, moves, start(i), |_| vec![0.0; PIXELS]).unwrap()).collect()
}

/// The mean distance of the same noises' pictures to those of DDIM in 1000 steps.
fn distance(process: &Process, moves: &[Move]) -> f64 {
    let ddim = Method { kind: Some(SamplerKind::Ddim), ..Method::default() };
    let exact = pictures(&process.moves(&ddim, 1000, 0.0).unwrap().0);
    let found = pictures(moves);
    found.iter().zip(&exact).map(|(a, b)| (a - b).abs()).sum::<f64>() / exact.len() as f64
}

#[test]
fn solvers_in_50_steps_come_to_where_ddim_comes_in_1000() {
    let linear = discrete(BetaSchedule::Linear, 1000, 1.0);
    let cosine = discrete(BetaSchedule::Cosine, 1000, 1.0);
    let continuous = Process::from(&ContinuousSchedule::default());
    for (kind, most) in
        [(SamplerKind::Euler, 0.01), (SamplerKind::Heun, 0.004), (SamplerKind::Dpmpp2m, 0.004)]
    {
        for (name, process) in [("linear", &linear), ("cosine", &cosine), ("continuous", &continuous)] {
            let method = Method { kind: Some(kind), ..Method::default() };
            let found = distance(process, &process.moves(&method, 50, 0.0).unwrap().0);
            assert!(found < most, "{name} {kind}: {found}");
        }
    }
    // The distance sees where a solver begins: the same levels without the first, so that noise is taken for a latent at 80.
    let levels = linear.levels.spaced(Spacing::Edm, 51).unwrap();
    let late = distance(&linear, &dpmpp_2m(&levels[1..]));
    assert!(late > 0.012, "{late}");
}
