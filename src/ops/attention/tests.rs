//! Every rung against golden tensors, against a plain f64 loop, and against itself.

use super::rungs::DELTA;
use super::*;
use crate::gpu::Rung;
use crate::tensor::GradTarget;
use crate::testing::{Array, Golden, check_gradients, download, dtypes, forward_backward_on, gpu, rungs};

fn run(rung: Rung, dtype: DType, qkv: &Array, gy: &Array, heads: usize, order: QkvOrder) -> (Array, Array) {
    let (y, mut grads) = forward_backward_on(rung, dtype, std::slice::from_ref(qkv), gy, |cx, x| {
        attention(cx, &x[0], heads, order)
    });
    (y, grads.remove(0))
}

fn rungs_and_dtypes() -> impl Iterator<Item = (Rung, DType)> {
    rungs().into_iter().flat_map(|rung| dtypes().into_iter().map(move |dtype| (rung, dtype)))
}

#[test]
fn matches_the_golden_cases() {
    let golden = Golden::open("ops");
    let swap = |a: Array| a.permute(&[0, 2, 1]); // [N, channels, T] to [N, T, channels]
    for (name, order) in [("attn_new", QkvOrder::New), ("attn_legacy", QkvOrder::Legacy)] {
        for (case, heads) in [("h2c8t17", 2), ("h4c16t40", 4), ("h1c64t5", 1)] {
            let of = |what: &str| format!("{name}.{case}.{what}");
            let (qkv, gy) = (swap(golden.array(&of("qkv"))), swap(golden.array(&of("gy"))));
            for (rung, dtype) in rungs_and_dtypes() {
                let (y, dqkv) = run(rung, dtype, &qkv, &gy, heads, order);
                golden.check_as(&of("y"), &y, dtype, swap);
                golden.check_as(&of("dqkv"), &dqkv, dtype, swap);
            }
        }
    }
}

/// The output and the gradient in f64, for qkv in the new order.
fn reference(qkv: &Array, gy: &Array, heads: usize) -> (Array, Array) {
    reference_of(qkv, gy, heads, false)
}

pub(super) fn reference_of(qkv: &Array, gy: &Array, heads: usize, causal: bool) -> (Array, Array) {
    let (batch, channels) = (qkv.shape[0], qkv.shape[qkv.shape.len() - 1]);
    let tokens = qkv.data.len() / (batch * channels);
    let d = channels / (3 * heads);
    let scale = (d as f64).powf(-0.5);
    let at = |n: usize, t: usize, part: usize, h: usize| (n * tokens + t) * channels + (part * heads + h) * d;
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
    let row = |a: usize| &qkv.data[a..a + d];
    let mut y = vec![0f64; qkv.data.len() / 3];
    let mut dqkv = vec![0f64; qkv.data.len()];
    for (n, h) in (0..batch).flat_map(|n| (0..heads).map(move |h| (n, h))) {
        for t in 0..tokens {
            let seen = if causal { t + 1 } else { tokens };
            let scores: Vec<f64> =
                (0..seen).map(|s| scale * dot(row(at(n, t, 0, h)), row(at(n, s, 1, h)))).collect();
            let most = scores.iter().copied().fold(f64::MIN, f64::max);
            let total: f64 = scores.iter().map(|s| (s - most).exp()).sum();
            let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp() / total).collect();
            let y_at = ((n * tokens + t) * heads + h) * d;
            let g = &gy.data[y_at..y_at + d];
            let products: Vec<f64> = (0..seen).map(|s| dot(g, row(at(n, s, 2, h)))).collect();
            let delta: f64 = weights.iter().zip(&products).map(|(w, p)| w * p).sum();
            for s in 0..seen {
                let slope = scale * weights[s] * (products[s] - delta);
                for i in 0..d {
                    y[y_at + i] += weights[s] * f64::from(row(at(n, s, 2, h))[i]);
                    dqkv[at(n, t, 0, h) + i] += slope * f64::from(row(at(n, s, 1, h))[i]);
                    dqkv[at(n, s, 1, h) + i] += slope * f64::from(row(at(n, t, 0, h))[i]);
                    dqkv[at(n, s, 2, h) + i] += weights[s] * f64::from(g[i]);
                }
            }
        }
    }
    let narrow =
        |data: Vec<f64>, shape: &[usize]| Array::new(shape, data.iter().map(|&v| v as f32).collect());
    (narrow(y, &gy.shape), narrow(dqkv, &qkv.shape))
}

#[test]
fn matches_the_reference_on_every_rung() {
    // [tokens, heads, d]
    let cases = [
        [17, 3, 16],
        [65, 2, 32],
        [100, 1, 64],
        [17, 2, 96],
        [34, 1, 256],
        [19, 2, 7],
        [70, 1, 12],
        [1, 2, 4],
        [1, 2, 16],
        [150, 2, 64],
        [49, 1, 48],
        [33, 1, 128],
        [70, 2, 40],
        [35, 1, 72],
        [40, 1, 80],
        [33, 1, 160],
        [9, 1, 512],
    ];
    for [tokens, heads, d] in cases {
        let qkv = Array::random(&[2, tokens, 3 * heads * d], 1).map(|x| 2.0 * x);
        let gy = Array::random(&[2, tokens, heads * d], 2);
        let (want, want_grad) = reference(&qkv, &gy, heads);
        for (rung, dtype) in rungs_and_dtypes() {
            if rung == Rung::Naive && tokens * d > 1000 {
                continue; // slow: it makes every score again for every channel
            }
            let (y, dqkv) = run(rung, dtype, &qkv, &gy, heads, QkvOrder::New);
            y.check(&format!("{rung} T {tokens} d {d} y"), &want, dtype);
            dqkv.check(&format!("{rung} T {tokens} d {d} dqkv"), &want_grad, dtype);
        }
    }
}

#[test]
fn causal_attention_matches_the_reference_on_every_rung() {
    for [tokens, heads, d] in [[77, 2, 64], [17, 3, 16], [130, 1, 32], [70, 1, 12], [19, 2, 7], [1, 2, 4]] {
        let qkv = Array::random(&[2, tokens, 3 * heads * d], 1).map(|x| 2.0 * x);
        let gy = Array::random(&[2, tokens, heads * d], 2);
        let (want, want_grad) = reference_of(&qkv, &gy, heads, true);
        for (rung, dtype) in rungs_and_dtypes() {
            if rung == Rung::Naive && tokens * d > 1000 {
                continue;
            }
            let inputs = std::slice::from_ref(&qkv);
            let (y, grads) = forward_backward_on(rung, dtype, inputs, &gy, |cx, x| {
                attention_causal(cx, &x[0], heads, QkvOrder::New)
            });
            y.check(&format!("{rung} T {tokens} d {d} y"), &want, dtype);
            grads[0].check(&format!("{rung} T {tokens} d {d} dqkv"), &want_grad, dtype);
        }
    }
}

/// What comes later is never looked at, whatever its size.
#[test]
fn a_token_does_not_depend_on_those_after_it() {
    let tokens = 90;
    let short = Array::random(&[1, tokens, 96], 1);
    let mut other = short.clone();
    let cut = 45 * 96;
    other.data[cut..].iter_mut().for_each(|x| *x = 1000.0 - 512.0 * *x);
    let mut gy = Array::random(&[1, tokens, 32], 2);
    gy.data[45 * 32..].fill(0.0);
    for (rung, dtype) in rungs_and_dtypes() {
        let [(y, dqkv), (y_other, dqkv_other)] = [&short, &other].map(|qkv| {
            let (y, mut grads) = forward_backward_on(rung, dtype, std::slice::from_ref(qkv), &gy, |cx, x| {
                attention_causal(cx, &x[0], 2, QkvOrder::Legacy)
            });
            (y, grads.remove(0))
        });
        assert_eq!(y.data[..45 * 32], y_other.data[..45 * 32], "{rung} {dtype:?}");
        assert_eq!(dqkv.data[..cut], dqkv_other.data[..cut], "{rung} {dtype:?}");
        assert!(dqkv_other.data[cut..].iter().all(|&g| g == 0.0), "{rung} {dtype:?}");
    }
}

#[test]
fn checked_tiles_agree_bit_for_bit() {
    for [tokens, heads, d] in [[17, 3, 16], [65, 2, 32], [150, 2, 64], [70, 1, 12], [33, 1, 128], [1, 2, 4]] {
        let qkv = Array::random(&[2, tokens, 3 * heads * d], 1).map(|x| 2.0 * x);
        let gy = Array::random(&[2, tokens, heads * d], 2);
        for dtype in dtypes() {
            let run = |checked: bool| {
                let mut cx = Context::new(gpu());
                cx.set_rung(Rung::Tiled);
                let [qkv, dy] = [&qkv, &gy].map(|a| a.upload(&cx, dtype));
                let params = check("attention", &qkv, heads, QkvOrder::New).unwrap();
                let [q, kv] = [(); 2].map(|()| qkv.clone());
                let problem = Problem { op: "attention", q, kv, rows: None, causal: false, params };
                let y = cx.output("y", &gy.shape, dtype).unwrap();
                let [lse, delta] =
                    [(); 2].map(|()| cx.output("of rows", &[2, heads, tokens], DType::F32).unwrap());
                tiled::forward(&mut cx, &problem, [&y, &lse], checked);
                let launch = cx.launch(&DELTA).bind(&y).bind(&dy).bind(&delta).params(&params);
                launch.over(delta.len(), 64);
                let tensor = cx.output("dqkv", qkv.shape(), dtype).unwrap();
                let dqkv = GradTarget { tensor, accumulate: false };
                for part in 0..3 {
                    tiled::backward(&mut cx, &problem, part, [&dy, &lse, &delta], &dqkv, checked);
                }
                let kept = [&y, &lse, &dqkv.tensor];
                kept.iter().for_each(|tensor| cx.keep(tensor));
                let plan = cx.finish("attention").unwrap();
                plan.run().unwrap();
                kept.map(|tensor| download(&plan, tensor))
            };
            assert_eq!(run(false), run(true), "T {tokens} d {d}");
        }
    }
}

#[test]
fn gradient_is_that_of_finite_differences() {
    check_gradients(&[Array::random(&[2, 3, 3, 48], 1)], |cx, x| attention(cx, &x[0], 2, QkvOrder::Legacy));
    let qkv = Array::random(&[2, 7, 48], 1);
    check_gradients(&[qkv], |cx, x| attention_causal(cx, &x[0], 2, QkvOrder::New));
}

#[test]
fn gradients_add_to_what_is_there() {
    let heads = 2;
    let (qkv, gy) = (Array::random(&[2, 21, 96], 1), Array::random(&[2, 21, 32], 2));
    let (_, want) = reference(&qkv, &gy, heads);
    for (rung, dtype) in rungs_and_dtypes() {
        let qkv = std::slice::from_ref(&qkv);
        let (_, grads) = forward_backward_on(rung, dtype, qkv, &gy, |cx, x| {
            let a = attention(cx, &x[0], heads, QkvOrder::New)?;
            let b = attention(cx, &x[0], heads, QkvOrder::New)?;
            crate::ops::add(cx, &a, &b, 1.0)
        });
        grads[0].check("twice", &want.map(|g| 2.0 * g), dtype);
    }
}

#[test]
fn an_image_does_not_depend_on_its_batch() {
    let (qkv, gy) = (Array::random(&[5, 137, 96], 1), Array::random(&[5, 137, 32], 2));
    let last = |a: &Array| {
        let size = a.data.len() / 5;
        Array::new(&[1, a.shape[1], a.shape[2]], a.data[4 * size..].to_vec())
    };
    for (rung, dtype) in rungs_and_dtypes() {
        let (y5, d5) = run(rung, dtype, &qkv, &gy, 2, QkvOrder::New);
        let (y1, d1) = run(rung, dtype, &last(&qkv), &last(&gy), 2, QkvOrder::New);
        assert_eq!(last(&y5), y1);
        assert_eq!(last(&d5), d1);
    }
}

#[test]
fn large_scores_do_not_overflow() {
    // One key outshines all others by thousands.
    let mut qkv = Array::random(&[1, 40, 96], 1);
    qkv.data[..64].iter_mut().for_each(|x| *x = 64.0);
    let gy = Array::random(&[1, 40, 32], 2);
    let (want, _) = reference(&qkv, &gy, 1);
    for (rung, dtype) in rungs_and_dtypes() {
        let (y, dqkv) = run(rung, dtype, &qkv, &gy, 1, QkvOrder::New);
        y.check_within("y", &want, if dtype == DType::F16 { 2e-3 } else { 1e-4 });
        assert!(dqkv.data.iter().all(|g| g.is_finite()));
    }
}

#[test]
fn a_maximum_may_rise_from_key_to_key() {
    // Scores rise, or fall, by about a quarter from key to key.
    let (tokens, d) = (90, 16);
    for sign in [1.0, -1.0] {
        let mut qkv = Array::random(&[1, tokens, 3 * d], 1);
        for (t, row) in qkv.data.chunks_mut(3 * d).enumerate() {
            row[0] = 8.0;
            row[d] = sign * (t as f32 / 8.0 - 6.0);
        }
        let gy = Array::random(&[1, tokens, d], 2);
        let (want, want_grad) = reference(&qkv, &gy, 1);
        for (rung, dtype) in rungs_and_dtypes() {
            let (y, dqkv) = run(rung, dtype, &qkv, &gy, 1, QkvOrder::New);
            y.check(&format!("{rung} {sign} y"), &want, dtype);
            dqkv.check(&format!("{rung} {sign} dqkv"), &want_grad, dtype);
        }
    }
}

#[test]
fn wrong_shapes_are_told_apart() {
    let mut cx = Context::new(gpu());
    let mut message = |shape: &[usize], heads: usize| {
        let qkv = Array::random(shape, 1).upload(&cx, DType::F32);
        attention(&mut cx, &qkv, heads, QkvOrder::New).unwrap_err().to_string()
    };
    assert_eq!(
        message(&[2, 5, 100], 3),
        "attention: qkv has 100 channels, which 3 heads do not split evenly into q, k and v: \
         it must be a multiple of 9"
    );
    assert_eq!(
        message(&[2, 5, 3072], 1),
        "attention: qkv has 3072 channels, so each of the 1 heads has 1024; at most 512 are supported: \
         use more heads"
    );
    assert_eq!(
        message(&[2, 96], 1),
        "attention: expected qkv as [N, T, 3·heads·d] or [N, H, W, 3·heads·d], got [2, 96]"
    );
}
