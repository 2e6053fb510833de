//! The fused step of the sampler. Bytes: both predictions and z read once, z written once.

use freeguide::diffusion::{Clip, ContinuousSchedule, ancestral_steps};
use freeguide::ops::{GuidedStep, guided_step, step_table};
use freeguide::tensor::DType;

use crate::harness::{Bench, Work};

pub fn run(bench: &mut Bench) {
    let shape = if bench.is_software() { [16, 64, 64, 3] } else { [64, 256, 256, 3] };
    let [n, h, w, c] = shape;
    let label = format!("{n}x{h}x{w}x{c}");
    let schedule = ContinuousSchedule::new(-20.0, 20.0).expect("it is in order");
    let steps: Vec<_> = ancestral_steps(&schedule, 64, 0.3)
        .expect("they are in order")
        .iter()
        .map(|step| step.scalars())
        .collect();
    for &dtype in bench.dtypes() {
        let bytes = (n * h * w * c * (2 * 4 + 2 * dtype.bytes())) as f64;
        for (name, clip) in
            [("static clip", Clip::Static), ("dynamic clip", Clip::Dynamic { quantile: 0.995 })]
        {
            bench.measure("guided_step", name, &label, dtype, Work::Bytes(bytes), |r| {
                let (z, eps) = (r.random(&shape, DType::F32)?, r.random(&[2 * n, h, w, c], dtype)?);
                let seeds: Vec<u32> = (0..2 * n as u32).collect();
                let step = GuidedStep {
                    z: &z,
                    eps: &eps,
                    steps: &step_table(&r.cx, &steps)?,
                    counter: &r.cx.constant_u32("counter", &[1], &[20])?,
                    guidance: &r.cx.constant_f32("guidance", &[1], &[2.0])?,
                    seeds: &r.cx.constant_u32("seeds", &[n, 2], &seeds)?,
                    clip,
                    preview: None,
                };
                guided_step(&mut r.cx, step)
            });
        }
    }
}
