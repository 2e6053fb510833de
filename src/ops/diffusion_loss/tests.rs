use super::*;
use crate::autograd::backprop;
use crate::diffusion::{BetaSchedule, DiscreteSchedule, Prediction, prior_bits};
use crate::testing::{Array, Golden, check_gradients, download, gpu};

const PLAIN: LossWeights = LossWeights {
    mse: 1.0,
    bits: 1.0,
    scale: 1.0 / 6.0,
    frozen_mean: true,
    variance: Variance::LearnedRange,
    clip: false,
};

fn process(schedule: &str) -> DiscreteSchedule {
    DiscreteSchedule::new(schedule.parse::<BetaSchedule>().unwrap(), 1000).unwrap()
}

fn rows(cx: &Context, rows: &[LossRow]) -> Tensor {
    cx.constant("rows", &[rows.len(), 16], DType::F32, bytemuck::cast_slice(rows)).unwrap()
}

/// (totals, terms, gradient of the output in N, C, H, W) of the golden batch.
fn losses(golden: &Golden, schedule: &str, weights: LossWeights) -> (Array, Array, Array) {
    let whole = process(schedule);
    let mut cx = Context::with_tape(gpu());
    let [out, x, z, eps] = ["model_out", "x0", &format!("{schedule}.x_t"), "noise"]
        .map(|name| golden.array(name).nhwc().upload(&cx, DType::F32));
    let each: Vec<LossRow> = golden
        .f64s("t")
        .iter()
        .map(|&t| LossRow::discrete(&whole, t as usize, Prediction::Eps, weights.variance, 1.0))
        .collect();
    let rows = rows(&cx, &each);
    cx.watch(&out);
    let inputs = LossInputs { out: &out, x: &x, z: &z, eps: &eps, rows: &rows };
    let found = diffusion_loss(&mut cx, inputs, weights).unwrap();
    backprop(&mut cx, &found.loss).unwrap();
    let gradient = cx.grad(&out).unwrap();
    for kept in [&found.loss, &found.totals, &found.terms, &gradient] {
        cx.keep(kept);
    }
    let plan = cx.finish("loss").unwrap();
    plan.run().unwrap();
    let totals = download(&plan, &found.totals);
    let mean = totals.data.iter().sum::<f32>() * weights.scale;
    let loss = download(&plan, &found.loss).data[0];
    assert!((loss - mean).abs() <= 1e-5 * mean.abs(), "{loss} {mean}");
    (totals, download(&plan, &found.terms), download(&plan, &gradient).permute(&[0, 3, 1, 2]))
}

#[test]
fn losses_and_their_gradients_match_the_reference() {
    let golden = Golden::open("diffusion_steps");
    for schedule in ["linear", "cosine"] {
        for (name, weights) in [
            ("mse", PLAIN),
            // T/1000, which is 1 here, as `mse`.
            ("rescaled_mse", PLAIN),
            ("kl", LossWeights { mse: 0.0, frozen_mean: false, ..PLAIN }),
            ("rescaled_kl", LossWeights { mse: 0.0, bits: 1000.0, frozen_mean: false, ..PLAIN }),
        ] {
            let (totals, _, gradient) = losses(&golden, schedule, weights);
            let key = format!("{schedule}.loss.{name}");
            golden.check(&key, &totals, DType::F32);
            golden.check(&format!("{key}.grad_out"), &gradient, DType::F32);
        }
    }
}

#[test]
fn bounds_match_the_reference() {
    let golden = Golden::open("diffusion_steps");
    for schedule in ["linear", "cosine"] {
        for (name, clip) in [("vb", true), ("vb_noclip", false)] {
            let weights = LossWeights { mse: 0.0, frozen_mean: false, clip, ..PLAIN };
            golden.check(&format!("{schedule}.{name}"), &losses(&golden, schedule, weights).0, DType::F32);
        }
        let x = golden.array("x0");
        let whole = process(schedule);
        let prior = x.data.chunks(48).map(|x| {
            let x: Vec<f64> = x.iter().map(|&x| x.into()).collect();
            prior_bits(&whole, &x) as f32
        });
        golden.check(&format!("{schedule}.prior_bpd"), &Array::new(&[6], prior.collect()), DType::F32);
    }
}

/// A bound does not depend on what a perfect network predicts, and neither does the distance of x̂.
#[test]
fn a_perfect_prediction_costs_no_mean() {
    let whole = DiscreteSchedule::new(BetaSchedule::Cosine, 100).unwrap();
    let shape = [3, 5, 7, 2];
    let (x, eps) = (Array::random(&shape, 1), Array::random(&shape, 2));
    for prediction in [Prediction::Eps, Prediction::X0, Prediction::V, Prediction::PreviousX] {
        for clip in [false, true] {
            let steps = [1usize, 40, 90];
            let each: Vec<LossRow> =
                steps.map(|t| LossRow::discrete(&whole, t, prediction, Variance::Small, 1.0)).to_vec();
            let mut cx = Context::new(gpu());
            let at = |n: usize| (whole.alpha(steps[n]) as f32, whole.sigma(steps[n]) as f32);
            let mut z = x.clone();
            let mut out = x.clone();
            for i in 0..z.data.len() {
                let n = i / 70;
                let (alpha, sigma) = at(n);
                z.data[i] = alpha * x.data[i] + sigma * eps.data[i];
                let row = &each[n];
                out.data[i] =
                    row.target_x * x.data[i] + row.target_z * z.data[i] + row.target_eps * eps.data[i];
            }
            let rows = rows(&cx, &each);
            let [out, x, z, eps] = [&out, &x, &z, &eps].map(|a| a.upload(&cx, DType::F32));
            let inputs = LossInputs { out: &out, x: &x, z: &z, eps: &eps, rows: &rows };
            let weights = LossWeights { variance: Variance::Small, clip, ..PLAIN };
            let found = diffusion_loss(&mut cx, inputs, weights).unwrap();
            cx.keep(&found.terms);
            let plan = cx.finish("loss").unwrap();
            plan.run().unwrap();
            for terms in download(&plan, &found.terms).data.chunks(4) {
                assert!(
                    terms[1] < 1e-10 && terms[2].abs() < 1e-5 && terms[3] < 1e-8,
                    "{prediction} {terms:?}"
                );
            }
        }
    }
}

/// Several blocks a sample, every variance, prediction and weight, t = 0 among them; the clip's edge is avoided by the data.
#[test]
fn gradients_are_those_of_differences() {
    let whole = DiscreteSchedule::new(BetaSchedule::Linear, 60).unwrap();
    let shape = [2, 3, 5, 3];
    for (prediction, variance, steps, channels) in [
        (Prediction::Eps, Variance::LearnedRange, [0usize, 30], 6),
        (Prediction::V, Variance::Learned, [20, 59], 6),
        (Prediction::X0, Variance::Large, [5, 40], 3),
        (Prediction::PreviousX, Variance::Small, [25, 3], 6),
    ] {
        let (x, eps) = (Array::random(&shape, 1), Array::random(&shape, 2));
        let mut z = x.clone();
        for i in 0..z.data.len() {
            let t = steps[i / 45];
            z.data[i] = (whole.alpha(t) as f32) * x.data[i] + (whole.sigma(t) as f32) * eps.data[i];
        }
        let out = Array::random(&[2, 3, 5, channels], 3).map(|o| 0.3 * o);
        check_gradients(&[out], |cx, inputs| {
            let each: Vec<LossRow> =
                steps.map(|t| LossRow::discrete(&whole, t, prediction, variance, 0.5 + t as f64)).to_vec();
            let rows = rows(cx, &each);
            let [x, z, eps] = [&x, &z, &eps].map(|a| a.upload(cx, DType::F32));
            let loss = LossInputs { out: &inputs[0], x: &x, z: &z, eps: &eps, rows: &rows };
            let weights =
                LossWeights { mse: 0.7, bits: 0.01, scale: 0.1, frozen_mean: false, variance, clip: false };
            Ok(diffusion_loss(cx, loss, weights)?.loss)
        });
    }
}

#[test]
fn misfits_are_errors() {
    let mut cx = Context::new(gpu());
    let x = Array::random(&[2, 4, 4, 3], 1).upload(&cx, DType::F32);
    let rows = cx.constant_f32("rows", &[2, 16], &[0.0; 32]).unwrap();
    let inputs = LossInputs { out: &x, x: &x, z: &x, eps: &x, rows: &rows };
    let error = diffusion_loss(&mut cx, inputs, PLAIN).unwrap_err().to_string();
    assert!(error.contains("the output must have 6, not 3"), "{error}");
    let short = cx.constant_f32("rows", &[1, 16], &[0.0; 16]).unwrap();
    let weights = LossWeights { variance: Variance::Small, ..PLAIN };
    assert!(diffusion_loss(&mut cx, LossInputs { rows: &short, ..inputs }, weights).is_err());
}
