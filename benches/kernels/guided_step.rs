//! The fused step of the sampler, and what guiders put before it. Bytes: both predictions and z read once, z written once.

use freeguide::diffusion::{Clip, ContinuousSchedule, Guiders, ancestral_steps};
use freeguide::ops::{
    GUIDER_ROW, Guided, GuidedStep, guided_eps, guided_step, guided_step_by, guider_table, step_table,
};
use freeguide::tensor::DType;

use crate::harness::Bench;
use crate::row::Work;

pub fn run(bench: &mut Bench) {
    let shape = if bench.is_software() { [16, 64, 64, 3] } else { [64, 256, 256, 3] };
    let [n, h, w, c] = shape;
    let label = format!("{n}x{h}x{w}x{c}");
    let schedule = ContinuousSchedule::new(-20.0, 20.0).expect("it is in order");
    let coefficients = ancestral_steps(&schedule, 64, 0.3).expect("they are in order");
    let steps: Vec<_> = coefficients.iter().map(|step| step.scalars()).collect();
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
        // A rule of the caller's inside the step, beside the built-in one: CFG again.
        let rule = "(1.0 + w) * eps_c + (-w) * eps_u";
        let table = guider_table(&Guiders::default(), 2.0, &coefficients);
        bench.measure("guided_step", "expression, static clip", &label, dtype, Work::Bytes(bytes), |r| {
            let (z, eps) = (r.random(&shape, DType::F32)?, r.random(&[2 * n, h, w, c], dtype)?);
            let seeds: Vec<u32> = (0..2 * n as u32).collect();
            let step = GuidedStep {
                z: &z,
                eps: &eps,
                steps: &step_table(&r.cx, &steps)?,
                counter: &r.cx.constant_u32("counter", &[1], &[20])?,
                guidance: &r.cx.constant_f32("guiders", &[table.len() / GUIDER_ROW, GUIDER_ROW], &table)?,
                seeds: &r.cx.constant_u32("seeds", &[n, 2], &seeds)?,
                clip: Clip::Static,
                preview: None,
            };
            guided_step_by(&mut r.cx, step, rule)
        });
        // What guiders add to the step: both predictions read twice for the factors and once for their combination.
        for text in ["rescale(0.7)", "apg(r=15)", "expression(eps_c + w * (eps_c - eps_u))"] {
            let guiders: Guiders = text.parse().expect("they are written right");
            let table = guider_table(&guiders, 2.0, &coefficients);
            bench.measure("guider", text, &label, dtype, Work::Bytes(bytes), |r| {
                let (z, eps) = (r.random(&shape, DType::F32)?, r.random(&[2 * n, h, w, c], dtype)?);
                let step = Guided {
                    z: &z,
                    eps: &eps,
                    table: &r.cx.constant_f32("guiders", &[table.len() / GUIDER_ROW, GUIDER_ROW], &table)?,
                    counter: &r.cx.constant_u32("counter", &[1], &[20])?,
                };
                let momentum = r.random(&shape, DType::F32)?;
                guided_eps(&mut r.cx, &guiders, step, Some(&momentum)).map(drop)
            });
        }
    }
}
