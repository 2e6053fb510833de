use super::*;
use crate::diffusion::guiders::{Evaluated, Memory};
use crate::diffusion::{Clip, ContinuousSchedule, Prediction, StepScalars, ancestral_steps};
use crate::ops::{GuidedStep, advance, guided_step, step_table};
use crate::random::{Stream, fill_normal};
use crate::testing::{Array, download, gpu};

/// Samples of one, two and three dimensions, of odd sizes; the last of more elements than a workgroup has lanes.
const SHAPES: [[usize; 4]; 3] = [[3, 1, 1, 7], [2, 3, 7, 1], [3, 9, 13, 3]];

const SEEDS: [u64; 3] = [5, 0x0123_4567_89ab_cdef, u64::MAX];

fn steps() -> Vec<StepCoefficients> {
    ancestral_steps(&ContinuousSchedule::new(-6.0, 6.0).unwrap(), 5, 0.3).unwrap()
}

/// A sample of evaluation `k`, its first C channels, in the order of NHWC.
fn sample(eps: &Array, shape: [usize; 4], k: usize, n: usize) -> Vec<f64> {
    let [samples, h, w, c] = shape;
    let channels = eps.shape[3];
    let whole = h * w * channels;
    let pixels = eps.data[(k * samples + n) * whole..][..whole].chunks(channels);
    pixels.flat_map(|pixel| pixel[..c].iter().map(|&x| f64::from(x))).collect()
}

struct World {
    z: Array,
    /// Other evaluations in each step.
    eps: Vec<Array>,
}

impl World {
    fn new(shape: [usize; 4], evaluations: usize, eps_channels: usize) -> World {
        let [n, h, w, _] = shape;
        let eps = |t: usize| {
            // Conditional and unconditional predictions are mostly alike.
            let mut eps =
                Array::random(&[evaluations * n, h, w, eps_channels], 2 + t as u64).map(|x| 1.5 * x);
            let (first, rest) = eps.data.split_at_mut(n * h * w * eps_channels);
            rest.iter_mut().zip(first.iter().cycle()).for_each(|(x, c)| *x = 0.3 * *x + 0.7 * c);
            eps
        };
        World { z: Array::random(&shape, 1).map(|z| 2.0 * z), eps: (0..steps().len()).map(eps).collect() }
    }

    /// eps̃ of each step on the device, z staying as it is.
    fn on_device(&self, guiders: &Guiders, weight: f64) -> Vec<Array> {
        let mut cx = Context::new(gpu());
        let table = guider_table(guiders, weight, &steps());
        let table = cx.constant_f32("guider", &[steps().len(), GUIDER_ROW], &table).unwrap();
        let counter = cx.constant_u32("counter", &[1], &[0]).unwrap();
        let eps = self.eps[0].upload(&cx, DType::F32);
        let z = self.z.upload(&cx, DType::F32);
        // What is in it before the first step must not matter.
        let momentum = cx.constant_f32("momentum", z.shape(), &vec![f32::NAN; z.len()]).unwrap();
        let step = Guided { z: &z, eps: &eps, table: &table, counter: &counter };
        let out = guided_eps(&mut cx, guiders, step, Some(&momentum)).unwrap();
        cx.keep(&out);
        let plan = cx.finish("guider").unwrap();
        let crate::gpu::Storage::Buffer(buffer) = eps.storage() else { panic!("a constant is a buffer") };
        // As a sampler does, a step without guidance is not run.
        let crate::gpu::Storage::Buffer(counter) = counter.storage() else {
            panic!("a constant is a buffer")
        };
        let weights = guiders.weights(weight, &moments(&steps()));
        let run = |(t, eps): (usize, &Array)| {
            if !guiders.needs_all(weights[t]) {
                let [samples, h, w, c] = self.z.shape[..] else { panic!("z is NHWC") };
                let one = |n| sample(eps, [samples, h, w, c], 0, n).into_iter().map(|x| x as f32);
                return Array::new(&self.z.shape, (0..samples).flat_map(one).collect())
                    .map(|x| x * guiders.eps_factor() as f32);
            }
            gpu().write(counter, 0, bytemuck::bytes_of(&(t as u32))).unwrap();
            gpu().write(buffer, 0, bytemuck::cast_slice(&eps.data)).unwrap();
            plan.run().unwrap();
            download(&plan, &out)
        };
        self.eps.iter().enumerate().map(run).collect()
    }

    fn by_reference(&self, guiders: &Guiders, weight: f64) -> Vec<Array> {
        let shape: [usize; 4] = self.z.shape.clone().try_into().unwrap();
        let steps = steps();
        let weights = guiders.weights(weight, &moments(&steps));
        let mut memories = vec![Memory::default(); shape[0]];
        let mut out = Vec::new();
        for ((step, eps), weight) in steps.iter().zip(&self.eps).zip(weights) {
            let mut data = Vec::new();
            for (n, memory) in memories.iter_mut().enumerate() {
                let z = sample(&self.z, shape, 0, n);
                let all: Vec<Vec<f64>> =
                    (0..eps.shape[0] / shape[0]).map(|k| sample(eps, shape, k, n)).collect();
                let more: Vec<&[f64]> = all[2..].iter().map(|eps| &eps[..]).collect();
                let eps = Evaluated { z: &z, conditional: &all[0], against: &all[1], more: &more, step };
                data.extend(guiders.combine(weight, &eps, memory).unwrap().iter().map(|&x| x as f32));
            }
            out.push(Array::new(&shape, data));
        }
        out
    }
}

#[track_caller]
fn same(text: &str, got: &[Array], want: &[Array], tolerance: f32) {
    assert_eq!(got.len(), want.len());
    for (t, (got, want)) in got.iter().zip(want).enumerate() {
        got.check_within(&format!("{text}, step {t}"), want, tolerance);
    }
}

#[test]
fn every_rule_agrees_with_the_reference() {
    for shape in SHAPES {
        for text in [
            "rescale(0.7)",
            "rescale(1)+linear(from=0,to=3)",
            "zero-star",
            "zero-star(k=2)+rescale(0.4)",
            "apg()",
            "apg(eta=0.3,beta=-0.5,r=1.5)",
            "apg(eta=0,beta=0.4)+temperature(0.9)",
            "apg(r=2)+interval(lo=-3,hi=3)",
            "also(1:0.5 2:-1)",
            "also(1:0.5 2:-1 3:1 4:0.25 5:2)",
            "temperature(0.8)",
        ] {
            let guiders: Guiders = text.parse().unwrap();
            let world = World::new(shape, 2 + guiders.more_conditions().len(), shape[3]);
            let what = format!("{text} on {shape:?}");
            same(&what, &world.on_device(&guiders, 1.5), &world.by_reference(&guiders, 1.5), 5e-6);
        }
    }
}

#[test]
fn variance_channels_are_passed_over() {
    let world = World::new([2, 3, 5, 3], 2, 6);
    for text in ["rescale(0.5)", "apg()"] {
        let guiders: Guiders = text.parse().unwrap();
        same(text, &world.on_device(&guiders, 2.0), &world.by_reference(&guiders, 2.0), 5e-6);
    }
}

#[test]
fn neutral_settings_are_plain_guidance() {
    for shape in SHAPES {
        for text in ["rescale(0)", "apg(eta=1,beta=0)", "also(1:0)", "temperature(1)"] {
            let guiders: Guiders = text.parse().unwrap();
            let world = World::new(shape, 2 + guiders.more_conditions().len(), shape[3]);
            let plain = world.by_reference(&Guiders::default(), 1.5);
            same(text, &world.on_device(&guiders, 1.5), &plain, 1e-6);
        }
    }
}

#[test]
fn expressions_see_what_they_name() {
    for shape in SHAPES {
        let world = World::new(shape, 2, shape[3]);
        let pair = |f: &dyn Fn(f64, f64, f64, &StepCoefficients, usize) -> f64| -> Vec<Array> {
            let steps = steps();
            let of_step = |(t, eps): (usize, &Array)| {
                let half = eps.data.len() / 2;
                let one = |i: usize| {
                    f(eps.data[i].into(), eps.data[half + i].into(), world.z.data[i].into(), &steps[t], t)
                        as f32
                };
                Array::new(&world.z.shape, (0..half).map(one).collect())
            };
            world.eps.iter().enumerate().map(of_step).collect()
        };
        let run = |text: &str| world.on_device(&format!("expression({text})").parse().unwrap(), 1.5);
        same("plain", &run("eps_c + w * (eps_c - eps_u)"), &pair(&|c, u, _, _, _| 2.5 * c - 1.5 * u), 1e-6);
        let all = run("eps_u * progress + z * sigma / alpha + log_snr");
        let want = pair(&|_, u, z, step, t| u * t as f64 / 4.0 + z * step.sigma / step.alpha + step.log_snr);
        same("all names", &all, &want, 1e-5);
    }
}

/// One plan of a step, run for each step; eps the same in all.
fn sampled(text: &str, weight: f64, shape: [usize; 4]) -> (Array, Array) {
    let guiders: Guiders = text.parse().unwrap();
    let world = World::new(shape, 2, shape[3]);
    let [n, ..] = shape;
    let (changed, _) = guiders.steps(&steps());
    let rows: Vec<StepScalars> = changed.iter().map(StepCoefficients::scalars).collect();
    let mut cx = Context::new(gpu());
    let table = guider_table(&guiders, weight, &steps());
    let table = cx.constant_f32("guider", &[steps().len(), GUIDER_ROW], &table).unwrap();
    let counter = cx.constant_u32("counter", &[1], &[0]).unwrap();
    let halves: Vec<u32> = SEEDS[..n].iter().flat_map(|&s| [s as u32, (s >> 32) as u32]).collect();
    let seeds = cx.constant_u32("seeds", &[n, 2], &halves).unwrap();
    // The plain sampler has its weight from the host; here each step brings its own.
    let guidance = cx.constant_f32("w", &[1], &[weight as f32]).unwrap();
    let (z, eps) = (world.z.upload(&cx, DType::F32), world.eps[0].upload(&cx, DType::F32));
    let rows = step_table(&cx, &rows).unwrap();
    let step = Guided { z: &z, eps: &eps, table: &table, counter: &counter };
    if !guiders.is_empty() {
        assert!(is_weight_alone(&guiders), "{text}");
        step_weight(&mut cx, &table, &counter, &guidance).unwrap();
    }
    let fused = GuidedStep {
        z: &z,
        eps: &eps,
        steps: &rows,
        counter: &counter,
        guidance: &guidance,
        seeds: &seeds,
        clip: Clip::Static,
        preview: None,
    };
    guided_step(&mut cx, fused).unwrap();
    if guiders.renoises() {
        renoise(&mut cx, step).unwrap();
    }
    advance(&mut cx, &counter).unwrap();
    let plan = cx.finish("guided").unwrap();
    let mut want: Vec<Vec<f64>> = (0..n).map(|i| sample(&world.z, shape, 0, i)).collect();
    let at = moments(&steps());
    let weights = guiders.weights(weight, &at);
    for (t, step) in steps().iter().enumerate() {
        plan.run().unwrap();
        for (i, z) in want.iter_mut().enumerate() {
            let (c, u) = (sample(&world.eps[0], shape, 0, i), sample(&world.eps[0], shape, 1, i));
            // Noise is made in the order of C, H, W.
            let [_, h, w, channels] = shape;
            let noise = fill_normal(SEEDS[i], t as u64, Stream::StepNoise, z.len());
            let noise = Array::new(&[1, channels, h, w], noise).nhwc();
            let noise: Vec<f64> = noise.data.iter().map(|&x| x.into()).collect();
            let eps = Evaluated { z, conditional: &c, against: &u, more: &[], step };
            let next =
                guiders.guided_step(&at[t], weights[t], &eps, Clip::Static, &noise, &mut Memory::default());
            *z = next.unwrap().0;
        }
    }
    let want: Vec<f32> = want.iter().flatten().map(|&x| x as f32).collect();
    (download(&plan, &z), Array::new(&shape, want))
}

#[test]
fn guiders_of_weight_and_step_run_in_the_fused_step() {
    for shape in SHAPES {
        let plain = sampled("", 1.5, shape).0;
        for text in
            ["constant", "constant(1.5)", "linear(1.5,1.5)", "interval()", "low-noise(1)", "annealing()"]
        {
            assert_eq!(
                sampled(text, 1.5, shape).0,
                plain,
                "{text} on {shape:?} is not plain guidance bit for bit"
            );
        }
        for text in [
            "linear(from=0,to=3)",
            "cosine(2,0)+low-noise(0.8)",
            "piecewise(0:0 0.5:3 1:1)",
            "interval(lo=-2,hi=2)",
            "cfg++(0.6)",
            "cfg++(1)",
        ] {
            let (got, want) = sampled(text, 1.5, shape);
            got.check_within(&format!("{text} on {shape:?}"), &want, 1e-5);
            assert_ne!(got, plain, "{text}");
        }
    }
}

#[test]
fn misfits_are_errors() {
    let mut cx = Context::new(gpu());
    let z = Array::random(&[2, 3, 3, 1], 1).upload(&cx, DType::F32);
    let eps = Array::random(&[4, 3, 3, 1], 1).upload(&cx, DType::F32);
    let table = cx.constant_f32("table", &[2, 8], &[0.0; 16]).unwrap();
    let counter = cx.constant_u32("counter", &[1], &[0]).unwrap();
    let step = Guided { z: &z, eps: &eps, table: &table, counter: &counter };
    let mut run = |text: &str, step| {
        let guiders: Guiders = text.parse().unwrap();
        guided_eps(&mut cx, &guiders, step, None).map(drop).unwrap_err().to_string()
    };
    assert!(run("also(1:1)", step).contains("3 evaluations of 2 samples"));
    assert!(run("rescale(1)", Guided { eps: &z, ..step }).contains("2 evaluations of 2 samples"));
    assert!(run("apg()", step).contains("momentum"));
    assert!(run("rescale(1)", Guided { table: &counter, ..step }).contains("table must be"));
    assert!(run("expression(eps_q)", step).contains("eps_q"));
}

#[test]
fn outputs_become_eps_and_guided_ones_take_their_place() {
    for (shape, channels) in SHAPES.into_iter().zip([7, 2, 6]) {
        let (evaluations, [n, .., c]) = (3, shape);
        let world = World::new(shape, evaluations, channels);
        let guided = Array::random(&shape, 9);
        let backwards = Prediction::Flow { towards_data: true };
        for prediction in [Prediction::X0, Prediction::V, Prediction::FLOW, backwards, Prediction::EDM] {
            let t = 2;
            let (alpha, sigma) = (steps()[t].alpha, steps()[t].sigma);
            let mut cx = Context::new(gpu());
            let table = guider_table(&Guiders::default(), 1.0, &steps());
            let table = cx.constant_f32("guider", &[steps().len(), GUIDER_ROW], &table).unwrap();
            let counter = cx.constant_u32("counter", &[1], &[t as u32]).unwrap();
            let (z, out) = (world.z.upload(&cx, DType::F32), world.eps[0].upload(&cx, DType::F32));
            let step = Guided { z: &z, eps: &out, table: &table, counter: &counter };
            outputs_to_eps(&mut cx, prediction, step).unwrap();
            let converted = cx.copy(&out).unwrap();
            let put = guided.upload(&cx, DType::F32);
            let first = put_guided(&mut cx, &out, &put).unwrap();
            let first = cx.copy(&first).unwrap();
            [&converted, &first].into_iter().for_each(|tensor| cx.keep(tensor));
            let plan = cx.finish("outputs").unwrap();
            plan.run().unwrap();
            // Every element, variance channels as they were.
            let mut want = world.eps[0].clone();
            for (i, value) in want.data.iter_mut().enumerate() {
                let (pixel, channel) = (i / channels, i % channels);
                if channel < c {
                    let z = f64::from(world.z.data[(pixel * c + channel) % world.z.data.len()]);
                    let out = f64::from(*value);
                    *value = match prediction {
                        Prediction::V => sigma * z + alpha * out,
                        Prediction::Flow { towards_data: false } => z + alpha * out,
                        Prediction::Flow { .. } => z - alpha * out,
                        Prediction::Preconditioned { .. } => {
                            let (of_z, of_out) = prediction.x_factors(alpha, sigma, (1.0, 0.0));
                            (z - alpha * (of_z * z + of_out * out)) / sigma
                        }
                        _ => (z - alpha * out) / sigma,
                    } as f32;
                }
            }
            download(&plan, &converted).check_within("eps", &want, 1e-5);
            let one: usize = want.data.len() / evaluations;
            let mut want = Array::new(&[n, shape[1], shape[2], channels], want.data[..one].to_vec());
            for (i, value) in want.data.iter_mut().enumerate() {
                if i % channels < c {
                    *value = guided.data[i / channels * c + i % channels];
                }
            }
            download(&plan, &first).check_within("put", &want, 1e-5);
        }
    }
    let mut cx = Context::new(gpu());
    let z = Array::random(&[2, 3, 3, 1], 1).upload(&cx, DType::F32);
    let table = cx.constant_f32("table", &[2, 8], &[0.0; 16]).unwrap();
    let counter = cx.constant_u32("counter", &[1], &[0]).unwrap();
    let step = Guided { z: &z, eps: &z, table: &table, counter: &counter };
    let error = outputs_to_eps(&mut cx, Prediction::PreviousX, step).unwrap_err().to_string();
    assert!(error.contains("previous x"), "{error}");
    let large = Array::random(&[3, 3, 3, 1], 1).upload(&cx, DType::F32);
    assert!(put_guided(&mut cx, &z, &large).unwrap_err().to_string().contains("does not fit"));
}
