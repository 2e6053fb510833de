use super::*;
use crate::gpu::Plan;
use crate::testing::{Array, Golden, download, gpu};

/// A run on arenas of these lengths, its gradients written before each step.
struct Run {
    plan: Plan,
    controls: Controls,
    arenas: Vec<[Tensor; 5]>,
}

impl Run {
    fn new(adam: AdamW, starts: &[Vec<f32>], rates: &[f64], loss_scaling: bool) -> Self {
        let mut cx = Context::new(gpu());
        let controls = Controls::new(&cx, &OptimizerState::new(loss_scaling), loss_scaling).unwrap();
        let arena = |start: &Vec<f32>| {
            let n = start.len();
            let zeros = || cx.constant_f32("vector", &[n], &vec![0.0; n]).unwrap();
            let ema = cx.constant_f32("ema", &[rates.len() * n], &start.repeat(rates.len())).unwrap();
            [cx.constant_f32("params", &[n], start).unwrap(), zeros(), zeros(), zeros(), ema]
        };
        let arenas: Vec<[Tensor; 5]> = starts.iter().map(arena).collect();
        let views = arenas.iter().map(|[params, grads, first_moments, second_moments, ema]| {
            let ema = (!rates.is_empty()).then_some(ema);
            Arena { params, grads, first_moments, second_moments, ema }
        });
        let views: Vec<Arena<'_>> = views.collect();
        adam.step(&mut cx, &views, &controls, rates).unwrap();
        let plan = cx.finish("adamw").unwrap();
        Run { plan, controls, arenas }
    }

    fn write(&self, tensor: &Tensor, data: &[f32]) {
        let buffer = self.plan.kept(tensor.storage()).unwrap();
        gpu().write(buffer, 0, bytemuck::cast_slice(data)).unwrap();
    }

    fn step(&self, hyper: [f32; 3], grads: &[Vec<f32>]) {
        self.write(&self.controls.hyper, &hyper);
        for (arena, g) in self.arenas.iter().zip(grads) {
            self.write(&arena[1], g);
        }
        self.plan.run().unwrap();
    }

    fn get(&self, tensor: &Tensor) -> Vec<f32> {
        download(&self.plan, tensor).data
    }

    fn state(&self) -> OptimizerState {
        let buffer = self.plan.kept(self.controls.state.storage()).unwrap();
        *bytemuck::from_bytes(&gpu().read(buffer, 0..size_of::<OptimizerState>() as u64).unwrap())
    }
}

fn padded(data: &[f32]) -> Vec<f32> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(ALIGNMENT), 0.0);
    data
}

/// lr, beta1, beta2, eps and weight decay of the golden cases, which are kept in f64.
const CASES: [(&str, f32, AdamW, f32); 2] = [
    ("adamw.a", 0.01, AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, ema_warmup: EmaWarmup::Ramp }, 0.05),
    ("adamw.b", 3e-4, AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-6, ema_warmup: EmaWarmup::Ramp }, 0.0),
];

#[test]
fn matches_the_golden_cases() {
    let golden = Golden::open("ops");
    for (case, lr, adam, weight_decay) in CASES {
        let [p0, g, p, m, v] = ["p0", "g", "p", "m", "v"].map(|name| golden.array(&format!("{case}.{name}")));
        let n = p0.data.len();
        // Twice: as it is, and with gradients scaled as f16 needs it.
        for loss_scaling in [false, true] {
            let run = Run::new(adam, &[padded(&p0.data)], &[], loss_scaling);
            let got = |i: usize, like: &Array| {
                Array::new(&like.shape, run.get(&run.arenas[0][i])[..like.data.len()].to_vec())
            };
            for (g, p) in g.data.chunks(n).zip(p.data.chunks(n)) {
                let scale = run.get(&run.controls.scale)[0];
                let g: Vec<f32> = g.iter().map(|g| g * scale).collect();
                run.step([lr, weight_decay, 0.0], &[padded(&g)]);
                got(0, &p0).check(&format!("{case}.p"), &Array::new(&p0.shape, p.to_vec()), DType::F32);
            }
            got(2, &p0).check(&format!("{case}.m"), &m, DType::F32);
            got(3, &p0).check(&format!("{case}.v"), &v, DType::F32);
            assert_eq!(run.get(&run.arenas[0][1]), vec![0.0; 64], "gradients are zeroed");
            let state = run.state();
            assert_eq!((state.good_steps, state.skipped_steps), (5, 0));
            let bias = |beta: f64| (1.0 - beta.powi(5)) as f32;
            for (got, want) in [(state.bias1, bias(adam.beta1)), (state.bias2, bias(adam.beta2))] {
                assert!((got / want - 1.0).abs() < 1e-6, "{got} is not {want}");
            }
            let log2_scale = if loss_scaling { 20.005 } else { 0.0 };
            assert!((state.log2_scale - log2_scale).abs() < 1e-5, "{}", state.log2_scale);
        }
    }
}

#[test]
fn averages_match_the_golden_cases() {
    let golden = Golden::open("ops");
    let source = golden.array("ema.src");
    let rates = [0.9999, 0.99];
    let starts = rates.map(|rate| golden.array(&format!("ema.{rate}.start")));
    let steady = AdamW { ema_warmup: EmaWarmup::None, ..AdamW::default() };
    let run = Run::new(steady, &[padded(&starts[0].data)], &rates, false);
    run.write(&run.arenas[0][4], &[padded(&starts[0].data), padded(&starts[1].data)].concat());
    for (update, source) in source.data.chunks(9).enumerate() {
        // At a learning rate of zero the parameters stay what is written here.
        run.write(&run.arenas[0][0], &padded(source));
        run.step([0.0; 3], &[vec![0.0; 64]]);
        let got = run.get(&run.arenas[0][4]);
        for (e, rate) in rates.iter().enumerate() {
            let want = golden.array(&format!("ema.{rate}.y")).data[update * 9..][..9].to_vec();
            let got = Array::new(&[9], got[e * 64..][..9].to_vec());
            got.check("ema", &Array::new(&[9], want), DType::F32);
        }
    }
}

/// The device's ramp against the formula in f64: of averages of ones over parameters that are zero all of it is the share
/// of the initial weights.
#[test]
fn averages_hold_the_share_of_the_initial_weights_that_the_formula_tells() {
    let rates = [0.5, 0.99, 0.999, 0.9999];
    for ema_warmup in [EmaWarmup::Ramp, EmaWarmup::None] {
        let run = Run::new(AdamW { ema_warmup, ..AdamW::default() }, &[vec![0.0; 64]], &rates, false);
        run.write(&run.arenas[0][4], &vec![1.0; 64 * rates.len()]);
        let mut done = 0u64;
        for steps in [1, 2, 10, 1000] {
            while done < steps {
                // At a learning rate of zero the parameters stay zero.
                run.plan.run().unwrap();
                done += 1;
            }
            let got = run.get(&run.arenas[0][4]);
            for (got, rate) in got.chunks(64).zip(rates) {
                let want = ema_warmup.initial_share(rate, steps);
                // What is about the smallest normal number of f32 is zero: adapters need not have smaller ones.
                let close = (f64::from(got[0]) - want).abs() <= 1e-4 * want + 1e-37;
                assert!(close, "{ema_warmup}, rate {rate}, {steps} steps: {} is not {want}", got[0]);
                assert!(got.iter().all(|x| x == &got[0]));
            }
        }
    }
}

/// And over parameters that change, step by step.
#[test]
fn averages_that_warm_up_follow_a_twin_in_f64() {
    let rates = [0.3, 0.999];
    let run = Run::new(AdamW::default(), &[vec![0.25; 64]], &rates, false);
    let mut twin = rates.map(|_| vec![0.25f64; 64]);
    for step in 0..30 {
        let source = Array::random(&[64], 100 + step).data;
        run.write(&run.arenas[0][0], &source);
        run.step([0.0; 3], &[vec![0.0; 64]]);
        let got = run.get(&run.arenas[0][4]);
        for ((twin, rate), got) in twin.iter_mut().zip(rates).zip(got.chunks(64)) {
            let rate = EmaWarmup::Ramp.rate_after(rate, step);
            for (mean, x) in twin.iter_mut().zip(&source) {
                *mean = rate * *mean + (1.0 - rate) * f64::from(*x);
            }
            let want = twin.iter().map(|x| *x as f32).collect();
            Array::new(&[64], got.to_vec()).check("ema", &Array::new(&[64], want), DType::F32);
        }
    }
}

/// Of two arenas, one of several blocks.
#[test]
fn norm_and_clip_are_of_all_gradients() {
    let lengths = [3 * BLOCK + 64, 128];
    let starts = lengths.map(|n| vec![0.5; n]);
    let grads = [1, 2].map(|seed| Array::random(&[lengths[seed - 1]], seed as u64).data);
    let squares = grads.iter().flatten().map(|&g| f64::from(g).powi(2)).sum::<f64>();
    let norm = squares.sqrt();
    for (clip, factor) in [(0.0, 1.0), (2.0, 2.0 / norm), (1e6, 1.0)] {
        let run = Run::new(AdamW::default(), &starts, &[], false);
        run.step([1e-3, 0.0, clip], &grads);
        let state = run.state();
        assert!((f64::from(state.gradient_norm) / norm - 1.0).abs() < 1e-6, "{}", state.gradient_norm);
        assert!((f64::from(state.clip_factor) / factor - 1.0).abs() < 1e-6, "{}", state.clip_factor);
        for (arena, g) in run.arenas.iter().zip(&grads) {
            let want = g.iter().map(|g| 0.1 * factor as f32 * g).collect();
            let m = Array::new(&[g.len()], run.get(&arena[2]));
            m.check("first moment", &Array::new(&[g.len()], want), DType::F32);
        }
    }
}

#[test]
fn a_broken_gradient_is_skipped() {
    let start = Array::random(&[64], 1).data;
    let run = Run::new(AdamW::default(), std::slice::from_ref(&start), &[0.9], true);
    run.step([1e-3, 0.1, 1.0], &[Array::random(&[64], 2).data]);
    let before = run.arenas[0].each_ref().map(|tensor| run.get(tensor));
    let state = run.state();
    for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut g = Array::random(&[64], 3).data;
        g[17] = broken;
        run.step([1e-3, 0.1, 1.0], &[g]);
        let after = run.arenas[0].each_ref().map(|tensor| run.get(tensor));
        assert_eq!(before, after);
    }
    let after = run.state();
    assert_eq!((after.good_steps, after.skipped_steps, after.skip), (1, 3, 1));
    assert_eq!((after.bias1, after.bias2), (state.bias1, state.bias2));
    assert!((after.log2_scale - (state.log2_scale - 3.0)).abs() < 1e-5);
    let scale = run.get(&run.controls.scale)[0];
    assert_eq!(scale, after.loss_scale);
    assert!((scale / after.log2_scale.exp2() - 1.0).abs() < 1e-5, "{scale}");
    run.step([1e-3, 0.1, 1.0], &[Array::random(&[64], 4).data]);
    assert_eq!((run.state().good_steps, run.state().skip), (2, 0));
    assert_ne!(run.get(&run.arenas[0][0]), before[0]);
}

#[test]
fn misfits_are_errors() {
    let mut cx = Context::new(gpu());
    let controls = Controls::new(&cx, &OptimizerState::new(false), false).unwrap();
    let vector = |n: usize| cx.constant_f32("vector", &[n], &vec![0.0; n]).unwrap();
    let (odd, one, two) = (vector(65), vector(64), vector(128));
    let adam = AdamW::default();
    let arena = Arena { params: &one, grads: &one, first_moments: &one, second_moments: &two, ema: None };
    let mut step =
        |arena, rates: &[f64]| adam.step(&mut cx, &[arena], &controls, rates).unwrap_err().to_string();
    assert!(step(arena, &[]).contains("second moments must be [64]"));
    assert!(step(arena, &[0.9]).contains("1 rates"));
    assert!(step(Arena { ema: Some(&two), ..arena }, &[1.5]).contains("1.5"));
    assert!(step(Arena { grads: &odd, ..arena }, &[]).contains("[128]"));
}
