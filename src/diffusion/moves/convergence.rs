//! Error against step count on closed forms: each sampler has the order it should.
//!
//! Deterministic samplers on the toy's mixture of Gaussians (CFG, figure 2), whose x̂ is known; stochastic ones on one
//! Gaussian, where x̂ is linear, so that the variance of what they sample follows without drawing anything.

use super::*;
use crate::diffusion::toy::{CLASSES, STANDARD_DEVIATION, class_mean};

/// Levels with evenly spaced λ, as smooth in the step's index as an order of convergence needs.
fn levels(steps: usize, low: f64, high: f64) -> Vec<Level> {
    (0..=steps).map(|i| Level::continuous(low + (high - low) * i as f64 / steps as f64)).collect()
}

/// E[x | z] of the toy's marginal.
fn toy(z: &[f64], level: &Level) -> Result<Vec<f64>> {
    let (alpha, sigma) = (level.alpha, level.sigma);
    let variance = alpha.powi(2) * STANDARD_DEVIATION.powi(2) + sigma.powi(2);
    let mut sum = [0.0; 3];
    for class in 0..CLASSES {
        let mean = class_mean(class);
        let away = [z[0] - alpha * mean[0], z[1] - alpha * mean[1]];
        let weight = (-0.5 * (away[0].powi(2) + away[1].powi(2)) / variance).exp();
        let gain = alpha * STANDARD_DEVIATION.powi(2) / variance;
        sum[0] += weight * (mean[0] + gain * away[0]);
        sum[1] += weight * (mean[1] + gain * away[1]);
        sum[2] += weight;
    }
    Ok(vec![sum[0] / sum[2], sum[1] / sum[2]])
}

/// The slope of log error against log steps.
fn slope(errors: &[(usize, f64)]) -> f64 {
    let [(n, a), .., (m, b)] = errors else { panic!("two counts of steps") };
    (b / a).ln() / (*m as f64 / *n as f64).ln()
}

/// Where the flow takes `start`, by a method so fine that its own error does not show.
fn flow_errors(sampler: impl Fn(&[Level]) -> Result<Vec<Move>>) -> Vec<(usize, f64)> {
    let start = [0.9, -0.4];
    let end = |moves: &[Move]| walk(&mut toy, moves, start.to_vec(), |_| vec![0.0; 2]).unwrap();
    // Without the last move, which leaves the levels for x̂.
    let to_the_last_level = |moves: Vec<Move>| moves[..moves.len() - 1].to_vec();
    let exact = end(&to_the_last_level(heun(&levels(20_000, -6.0, 6.0))));
    [40, 80, 160, 320]
        .map(|steps| {
            let found = end(&to_the_last_level(sampler(&levels(steps, -6.0, 6.0)).unwrap()));
            (steps, (found[0] - exact[0]).hypot(found[1] - exact[1]))
        })
        .to_vec()
}

#[test]
fn deterministic_samplers_have_their_order() {
    for (name, order, errors) in [
        ("ddim", 1.0, flow_errors(|levels| ddim(levels, 0.0))),
        ("euler", 1.0, flow_errors(|levels| Ok(euler(levels)))),
        ("heun", 2.0, flow_errors(|levels| Ok(heun(levels)))),
        ("dpmpp-2m", 2.0, flow_errors(|levels| Ok(dpmpp_2m(levels)))),
    ] {
        assert!((slope(&errors) + order).abs() < 0.15, "{name} has slope {}: {errors:?}", slope(&errors));
    }
}

#[test]
fn the_reverse_has_order_one() {
    let start = [0.9, -0.4];
    let run = |moves: &[Move], z: &[f64]| walk(&mut toy, moves, z.to_vec(), |_| vec![]).unwrap();
    let exact = {
        let moves = heun(&levels(20_000, -6.0, 6.0));
        run(&moves[..moves.len() - 1], &start)
    };
    let errors = [40, 80, 160, 320].map(|steps| {
        let back = run(&ddim_reverse(&levels(steps, -6.0, 6.0)), &exact);
        (steps, (back[0] - start[0]).hypot(back[1] - start[1]))
    });
    assert!((slope(&errors) + 1.0).abs() < 0.15, "slope {}: {errors:?}", slope(&errors));
}

/// The variance of what a chain samples of N(0, s²), followed through its moves: x̂ = gain·z.
fn sampled_variance(moves: &[Move], data_variance: f64) -> f64 {
    // Covariance of (z, x̂ before).
    let (mut zz, mut zx, mut xx) = (1.0, 0.0, 0.0);
    for step in moves {
        let Level { alpha, sigma, .. } = step.level;
        let gain = alpha * data_variance / (alpha.powi(2) * data_variance + sigma.powi(2));
        let (of_z, of_x) = (step.mean_z + step.mean_x * gain, step.mean_previous);
        let next = of_z.powi(2) * zz + 2.0 * of_z * of_x * zx + of_x.powi(2) * xx + step.noise_sd.powi(2);
        (zx, xx) = (gain * (of_z * zz + of_x * zx), gain.powi(2) * zz);
        zz = next;
    }
    zz
}

fn variance_errors(sampler: impl Fn(&[Level]) -> Result<Vec<Move>>) -> Vec<(usize, f64)> {
    let data_variance = 0.3;
    let (low, high) = (-14.0, 6.0);
    let last = Level::continuous(high);
    let exact = last.alpha.powi(2) * data_variance + last.sigma.powi(2);
    [100, 200, 400, 800]
        .map(|steps| {
            let moves = sampler(&levels(steps, low, high)).unwrap();
            (steps, (sampled_variance(&moves[..moves.len() - 1], data_variance) - exact).abs())
        })
        .to_vec()
}

#[test]
fn stochastic_samplers_have_their_order() {
    for (name, order, errors) in [
        ("ddim, eta 1", 1.0, variance_errors(|levels| ddim(levels, 1.0))),
        ("ddim, eta 0.5", 1.0, variance_errors(|levels| ddim(levels, 0.5))),
        ("euler-ancestral", 1.0, variance_errors(|levels| euler_ancestral(levels, 1.0))),
        ("dpmpp-2m-sde", 2.0, variance_errors(|levels| dpmpp_2m_sde(levels, 1.0))),
    ] {
        assert!((slope(&errors) + order).abs() < 0.2, "{name} has slope {}: {errors:?}", slope(&errors));
    }
}

/// The chain of a discrete process, whose steps are chosen by respacing: the large variance and the small one both
/// converge to that of the data as the steps grow dense.
#[test]
fn the_discrete_chain_has_order_one() {
    use crate::diffusion::{BetaSchedule, DiscreteSchedule, Variance};
    for variance in [Variance::Small, Variance::Large] {
        let errors = [250, 500, 1000, 2000].map(|steps| {
            let schedule = DiscreteSchedule::new(BetaSchedule::Linear, steps).unwrap();
            let moves = ancestral(&schedule, 1.0, variance);
            (steps, (sampled_variance(&moves, 0.3) - 0.3).abs())
        });
        assert!((slope(&errors) + 1.0).abs() < 0.2, "{variance:?} has slope {}: {errors:?}", slope(&errors));
    }
}
