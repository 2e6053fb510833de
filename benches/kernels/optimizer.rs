//! AdamW with one moving average over a flat arena. Bytes of an element: parameter, both moments, gradient and average
//! read and written, the gradient read once more for its norm.

use freeguide::ops::{AdamW, Controls, OptimizerArena, OptimizerState};
use freeguide::tensor::DType;

use crate::harness::Bench;
use crate::row::Work;

pub fn run(bench: &mut Bench) {
    let count = if bench.is_software() { 1 << 20 } else { 1 << 26 };
    let label = format!("{}M parameters", count >> 20);
    bench.measure("optimizer", "adamw", label, DType::F32, Work::Bytes(44.0 * count as f64), |r| {
        let mut vector = || r.random(&[count], DType::F32);
        let (params, grads, first_moments) = (vector()?, vector()?, vector()?);
        let averages = vector()?;
        // Squares: never negative.
        let second_moments = r.cx.constant_f32("second moments", &[count], &vec![0.25; count])?;
        let hyper = [1e-4, 0.01, 1.0, 0.0];
        let controls = Controls {
            hyper: r.cx.constant_f32("hyper", &[4], &hyper)?,
            ..Controls::new(&r.cx, &OptimizerState::new(false), false)?
        };
        let arena = OptimizerArena {
            params: &params,
            grads: &grads,
            first_moments: &first_moments,
            second_moments: &second_moments,
            ema: Some(&averages),
        };
        AdamW::default().step(&mut r.cx, &[arena], &controls, &[0.999])
    });
}
