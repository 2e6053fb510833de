//! EDM's preconditioning through the samplers, in f64: a network that knows a Gaussian in closed form and sees no more than a
//! trained one does, its scaled input and log(s)/4, against the exact end of the probability flow.

use super::*;
use crate::diffusion::{Prediction, SigmaSchedule};

/// The data: N(MEAN, DEVIATION²).
const MEAN: f64 = 0.3;
const DEVIATION: f64 = 0.4;
const SIGMA_DATA: f64 = 0.5;

fn process() -> Process {
    let levels = LevelSource::Sigma(SigmaSchedule::default());
    Process {
        levels,
        prediction: Prediction::Preconditioned { sigma_data: SIGMA_DATA },
        variance: Variance::Small,
    }
}

/// F as EDM's equation 7 has it, of the exact D(y; s) = E[x | y].
fn network(input: f64, time: f64) -> f64 {
    let s = (4.0 * time).exp();
    let total = s.powi(2) + SIGMA_DATA.powi(2);
    let y = input * total.sqrt();
    let gain = DEVIATION.powi(2) / (DEVIATION.powi(2) + s.powi(2));
    let denoised = MEAN + gain * (y - MEAN);
    let (c_skip, c_out) = (SIGMA_DATA.powi(2) / total, s * SIGMA_DATA / total.sqrt());
    (denoised - c_skip * y) / c_out
}

/// x̂ by way of the network.
fn denoise(z: &[f64], level: &Level) -> Result<Vec<f64>> {
    let Level { alpha, sigma, time } = *level;
    let prediction = process().prediction;
    let (of_z, of_out) = prediction.x_factors(alpha, sigma, (1.0, 0.0));
    let input = prediction.input_factor(alpha, sigma);
    Ok(z.iter().map(|z| of_z * z + of_out * network(input * z, time)).collect())
}

/// How far a deterministic sampler ends from where the flow takes `z` of the noisiest level.
fn error_of(kind: SamplerKind, steps: usize, z: f64) -> f64 {
    let method = Method { kind: Some(kind), ..Method::default() };
    let (moves, _) = process().moves(&method, steps, 0.0).unwrap();
    let first = moves[0].level;
    assert!((first.ratio() - 80.0).abs() < 1e-9 && (first.time - 80f64.ln() / 4.0).abs() < 1e-12);
    // dy/ds = (y - D)/s has y - MEAN grow as √(DEVIATION² + s²).
    let from = z / first.alpha - MEAN;
    let exact = MEAN + from * DEVIATION / DEVIATION.hypot(first.ratio());
    let found = walk(&mut denoise, &moves, vec![z], |_| vec![0.0]).unwrap()[0];
    (found - exact).abs()
}

#[test]
fn samplers_end_where_the_flow_of_a_gaussian_does() {
    for (kind, order, within) in [
        (SamplerKind::Ddim, 1, 0.02),
        (SamplerKind::Euler, 1, 0.02),
        (SamplerKind::Heun, 2, 2e-3),
        (SamplerKind::Dpmpp2m, 2, 2e-3),
    ] {
        for z in [1.1, -0.6] {
            let [coarse, fine, finest] = [40, 80, 160].map(|steps| error_of(kind, steps, z));
            assert!(
                fine < within && finest < 0.6 * fine && fine < 0.6 * coarse,
                "{kind}: {coarse} {fine} {finest}"
            );
            assert!(order == 1 || finest < 0.3 * fine, "{kind} is not of order 2: {fine} {finest}");
        }
    }
}

/// The mean and variance of what a stochastic sampler draws, followed through its moves: x̂ is linear in z here.
#[test]
fn stochastic_samplers_draw_the_gaussian() {
    for kind in [SamplerKind::Ancestral, SamplerKind::EulerAncestral, SamplerKind::Dpmpp2mSde] {
        let method = Method { kind: Some(kind), ..Method::default() };
        let (moves, _) = process().moves(&method, 400, 0.0).unwrap();
        let x = |z: f64, level: &Level| denoise(&[z], level).unwrap()[0];
        // Of z and the x̂ before: means, and covariances.
        let (mut mean, mut before, mut zz, mut zx, mut xx) = (0.0, 0.0, 1.0, 0.0, 0.0);
        for step in &moves {
            let (shift, gain) = (x(0.0, &step.level), x(1.0, &step.level) - x(0.0, &step.level));
            let (of_z, of_x) = (step.mean_z + step.mean_x * gain, step.mean_previous);
            let next = of_z * mean + step.mean_x * shift + of_x * before;
            let variance =
                of_z.powi(2) * zz + 2.0 * of_z * of_x * zx + of_x.powi(2) * xx + step.noise_sd.powi(2);
            (zx, xx) = (gain * (of_z * zz + of_x * zx), gain.powi(2) * zz);
            (before, mean, zz) = (shift + gain * mean, next, variance);
        }
        assert!((mean - MEAN).abs() < 0.01, "{kind}: mean {mean}");
        assert!((zz.sqrt() - DEVIATION).abs() < 0.01, "{kind}: deviation {}", zz.sqrt());
    }
}

#[test]
fn what_does_not_go_with_edms_levels_is_refused_by_name() {
    let process = process();
    process.check().unwrap();
    assert_eq!(process.sampler(&Method::default(), 18), SamplerKind::Heun);
    assert_eq!(process.moves(&Method::default(), 18, 0.0).unwrap().0.len(), 35);
    let error = |method: Method| process.moves(&method, 18, 0.3).unwrap_err().to_string();
    for spacing in [Spacing::Uniform, Spacing::Trailing, Spacing::Leading(1)] {
        let error = error(Method { spacing: Some(spacing), ..Method::default() });
        assert!(error.contains(&spacing.to_string()) && error.contains("karras"), "{error}");
    }
    let halving = Method { kind: Some(SamplerKind::Halving), ..Method::default() };
    assert!(error(halving).contains("`edm`"));
    let respacing = Some("20".parse().unwrap());
    assert!(error(Method { respacing, ..Method::default() }).contains("respacing"));

    let refused = |process: Process| process.check().unwrap_err().to_string();
    let continuous = LevelSource::Continuous(ContinuousSchedule::default());
    assert!(refused(Process { levels: continuous, ..process.clone() }).contains("its schedule is edm"));
    let learned = Process { variance: Variance::LearnedRange, ..process.clone() };
    assert!(refused(learned).contains("no variances"));
    assert!(refused(Process { prediction: Prediction::FLOW, ..process.clone() }).contains("flow"));
    assert!(refused(Process { prediction: Prediction::PreviousX, ..process.clone() }).contains("previous x"));
    let zero = Prediction::Preconditioned { sigma_data: 0.0 };
    assert!(refused(Process { prediction: zero, ..process.clone() }).contains("σ_data is 0"));
    // The other predictions know nothing of the levels.
    for prediction in [Prediction::Eps, Prediction::X0, Prediction::V] {
        Process { prediction, ..process.clone() }.check().unwrap();
    }
}

/// The row that a kernel reads: the input's scale in a word of its own, and guidance by a gradient as eps has it.
#[test]
fn rows_hold_the_scale_of_the_input() {
    let process = process();
    let (moves, _) = process.moves(&Method::default(), 5, 0.0).unwrap();
    for step in &moves {
        let Level { alpha, sigma, .. } = step.level;
        let factor = process.prediction.input_factor(alpha, sigma);
        let row = StepRow::new(step, process.prediction).unwrap().with_input(factor);
        let words: &[f32] = bytemuck::cast_slice(std::slice::from_ref(&row));
        assert_eq!(words[StepRow::INPUT], factor as f32);
        // eps - σ g moves x̂ by σ² g/α, whatever is predicted.
        let shift = f64::from(row.x_out) * f64::from(row.out_gradient);
        assert!((shift * alpha / sigma.powi(2) - 1.0).abs() < 1e-5, "{shift}");
    }
}
