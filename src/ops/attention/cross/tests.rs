//! Every rung against a plain f64 loop, and against finite differences.

use super::*;
use crate::gpu::Rung;
use crate::testing::{Array, check_gradients, dtypes, forward, forward_backward_on, gpu, rungs, tolerance};

/// The output and the gradients of q and kv in f64; picture n reads sequence `rows[n]`.
pub(in crate::ops::attention) fn reference(
    q: &Array,
    kv: &Array,
    gy: &Array,
    rows: &[usize],
    heads: usize,
) -> [Array; 3] {
    let channels = q.shape[q.shape.len() - 1];
    let (tokens, keys) = (q.data.len() / (q.shape[0] * channels), kv.shape[1]);
    let d = channels / heads;
    let scale = (d as f64).powf(-0.5);
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
    let mut y = vec![0f64; q.data.len()];
    let mut dq = vec![0f64; q.data.len()];
    let mut dkv = vec![0f64; kv.data.len()];
    for (n, &row) in rows.iter().enumerate().filter(|(_, row)| **row < kv.shape[0]) {
        for (h, t) in (0..heads).flat_map(|h| (0..tokens).map(move |t| (h, t))) {
            let q_at = (n * tokens + t) * channels + h * d;
            let k_at = |s: usize| ((row * keys + s) * 2 * heads + h) * d;
            let v_at = |s: usize| k_at(s) + channels;
            let (query, g) = (&q.data[q_at..q_at + d], &gy.data[q_at..q_at + d]);
            let scores: Vec<f64> =
                (0..keys).map(|s| scale * dot(query, &kv.data[k_at(s)..k_at(s) + d])).collect();
            let most = scores.iter().copied().fold(f64::MIN, f64::max);
            let total: f64 = scores.iter().map(|s| (s - most).exp()).sum();
            let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp() / total).collect();
            let products: Vec<f64> = (0..keys).map(|s| dot(g, &kv.data[v_at(s)..v_at(s) + d])).collect();
            let delta: f64 = weights.iter().zip(&products).map(|(w, p)| w * p).sum();
            for s in 0..keys {
                let slope = scale * weights[s] * (products[s] - delta);
                for i in 0..d {
                    y[q_at + i] += weights[s] * f64::from(kv.data[v_at(s) + i]);
                    dq[q_at + i] += slope * f64::from(kv.data[k_at(s) + i]);
                    dkv[k_at(s) + i] += slope * f64::from(query[i]);
                    dkv[v_at(s) + i] += weights[s] * f64::from(g[i]);
                }
            }
        }
    }
    let narrow =
        |data: Vec<f64>, shape: &[usize]| Array::new(shape, data.iter().map(|&v| v as f32).collect());
    [narrow(y, &q.shape), narrow(dq, &q.shape), narrow(dkv, &kv.shape)]
}

fn rungs_and_dtypes() -> impl Iterator<Item = (Rung, DType)> {
    rungs().into_iter().flat_map(|rung| dtypes().into_iter().map(move |dtype| (rung, dtype)))
}

/// q, kv and the gradient of the output, of `[pictures, tokens, sequences, keys, heads, d]`.
fn inputs([pictures, tokens, sequences, keys, heads, d]: [usize; 6]) -> [Array; 3] {
    let q = Array::random(&[pictures, tokens, heads * d], 1).map(|x| 2.0 * x);
    let kv = Array::random(&[sequences, keys, 2 * heads * d], 2).map(|x| 2.0 * x);
    let gy = Array::random(&[pictures, tokens, heads * d], 3);
    [q, kv, gy]
}

#[test]
fn matches_the_reference_on_every_rung() {
    // [tokens, keys, heads, d]
    let cases = [
        [17, 77, 2, 8],
        [70, 77, 2, 40],
        [33, 5, 1, 7],
        [1, 9, 3, 12],
        [20, 1, 2, 16],
        [66, 130, 1, 64],
        [19, 77, 1, 80],
        [18, 33, 1, 160],
        [5, 12, 1, 512],
    ];
    for [tokens, keys, heads, d] in cases {
        let [q, kv, gy] = inputs([2, tokens, 2, keys, heads, d]);
        let [want, want_dq, want_dkv] = reference(&q, &kv, &gy, &[0, 1], heads);
        for (rung, dtype) in rungs_and_dtypes() {
            if rung == Rung::Naive && tokens * d > 1000 {
                continue; // slow: it makes every score again for every channel
            }
            let (y, grads) = forward_backward_on(rung, dtype, &[q.clone(), kv.clone()], &gy, |cx, x| {
                cross_attention(cx, &x[0], &x[1], None, heads)
            });
            let name = |what: &str| format!("{rung} T {tokens} L {keys} d {d} {what}");
            y.check(&name("y"), &want, dtype);
            grads[0].check(&name("dq"), &want_dq, dtype);
            grads[1].check(&name("dkv"), &want_dkv, dtype);
        }
    }
}

#[test]
fn pictures_share_sequences_through_rows() {
    let rows = [2usize, 0, 7, 2, 3];
    for (keys, d) in [(77, 16), (11, 6)] {
        let [q, kv, gy] = inputs([5, 35, 3, keys, 2, d]);
        let [want, want_dq, _] = reference(&q, &kv, &gy, &rows, 2);
        for (rung, dtype) in rungs_and_dtypes() {
            let (y, grads) = forward_backward_on(rung, dtype, std::slice::from_ref(&q), &gy, |cx, x| {
                let kv = kv.upload(cx, dtype);
                let rows = cx.constant_u32("rows", &[5], &rows.map(|row| row as u32))?;
                cross_attention(cx, &x[0], &kv, Some(&rows), 2)
            });
            let name = |what: &str| format!("{rung} L {keys} d {d} {what}");
            y.check(&name("y"), &want, dtype);
            grads[0].check(&name("dq"), &want_dq, dtype);
            // Rows 7 and 3 are past the last.
            for n in [2, 4] {
                let picture = n * 70 * d..(n + 1) * 70 * d;
                assert!(y.data[picture.clone()].iter().chain(&grads[0].data[picture]).all(|&v| v == 0.0));
            }
        }
    }
}

#[test]
fn a_picture_does_not_depend_on_its_batch_or_row() {
    let [q, kv, _] = inputs([5, 70, 3, 77, 2, 16]);
    for (rung, dtype) in rungs_and_dtypes() {
        let run = |q: &Array, kv: &Array, rows: Option<&[u32]>| {
            let mut cx = Context::new(gpu());
            cx.set_rung(rung);
            let [q, kv] = [q, kv].map(|a| a.upload(&cx, dtype));
            let rows = rows.map(|rows| cx.constant_u32("rows", &[rows.len()], rows).unwrap());
            let y = cross_attention(&mut cx, &q, &kv, rows.as_ref(), 2).unwrap();
            forward(&[], cx, &y)
        };
        let many = run(&q, &kv, Some(&[0, 2, 1, 0, 1]));
        let last = |a: &Array, n: usize, of: usize| {
            let size = a.data.len() / of;
            Array::new(&[1, a.shape[1], a.shape[2]], a.data[n * size..(n + 1) * size].to_vec())
        };
        let alone = run(&last(&q, 4, 5), &last(&kv, 1, 3), None);
        assert_eq!(last(&many, 4, 5), alone, "{rung} {dtype:?}");
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let [q, kv, _] = inputs([2, 6, 2, 7, 2, 8]);
    let q = q.reshape(&[2, 2, 3, 16]);
    check_gradients(&[q.clone(), kv.clone()], |cx, x| cross_attention(cx, &x[0], &x[1], None, 2));
    check_gradients(&[q], |cx, x| {
        let kv = kv.upload(cx, DType::F32);
        let rows = cx.constant_u32("rows", &[2], &[1, 1])?;
        cross_attention(cx, &x[0], &kv, Some(&rows), 2)
    });
}

#[test]
fn gradients_add_to_what_is_there() {
    let [q, kv, gy] = inputs([2, 21, 2, 18, 2, 16]);
    let [_, want_dq, want_dkv] = reference(&q, &kv, &gy, &[0, 1], 2);
    for (rung, dtype) in rungs_and_dtypes() {
        let (_, grads) = forward_backward_on(rung, dtype, &[q.clone(), kv.clone()], &gy, |cx, x| {
            let a = cross_attention(cx, &x[0], &x[1], None, 2)?;
            let b = cross_attention(cx, &x[0], &x[1], None, 2)?;
            crate::ops::add(cx, &a, &b, 1.0)
        });
        grads[0].check("twice dq", &want_dq.map(|g| 2.0 * g), dtype);
        grads[1].check("twice dkv", &want_dkv.map(|g| 2.0 * g), dtype);
    }
}

/// Queries and keys whose products before scaling are beyond f16: 64 dimensions of 330.
#[test]
fn large_queries_and_keys_do_not_overflow() {
    let [mut q, mut kv, gy] = inputs([1, 20, 1, 19, 1, 64]);
    q.data.iter_mut().for_each(|x| *x *= 165.0);
    kv.data.chunks_mut(128).for_each(|row| row[..64].iter_mut().for_each(|x| *x *= 165.0));
    // One query and one key point the same way.
    q.data[..64].fill(330.0);
    kv.data[..64].fill(330.0);
    let half = |a: &Array| a.map(|x| half::f16::from_f32(x).to_f32());
    let (q, kv) = (half(&q), half(&kv));
    let [want, ..] = reference(&q, &kv, &gy, &[0], 1);
    for (rung, dtype) in rungs_and_dtypes() {
        let (y, grads) = forward_backward_on(rung, dtype, &[q.clone(), kv.clone()], &gy, |cx, x| {
            cross_attention(cx, &x[0], &x[1], None, 1)
        });
        // Scores of 10⁵ have no more than 2^-7 of absolute precision in f32.
        y.check_within("y", &want, tolerance(dtype).max(2e-2));
        assert!(grads.iter().flat_map(|grad| &grad.data).all(|g| g.is_finite()), "{rung} {dtype:?}");
    }
}

#[test]
fn misfits_are_errors() {
    let mut cx = Context::with_tape(gpu());
    let [q, kv, _] = inputs([2, 5, 3, 7, 2, 8]).map(|a| a.upload(&cx, DType::F32));
    let rows = cx.constant_u32("rows", &[2], &[0, 2]).unwrap();
    let three = cx.constant_u32("rows", &[3], &[0, 2, 1]).unwrap();
    let mut message = |q: &Tensor, kv: &Tensor, rows: Option<&Tensor>, heads: usize| {
        cross_attention(&mut cx, q, kv, rows, heads).unwrap_err().to_string()
    };
    assert_eq!(
        message(&q, &kv, None, 2),
        "cross_attention: kv has 3 sequences for 2 pictures; without rows each reads its own"
    );
    assert_eq!(
        message(&q, &kv, Some(&three), 2),
        "cross_attention: rows is [3] U32, expected [2] U32, the sequence of each picture"
    );
    assert_eq!(
        message(&q, &kv, Some(&rows), 3),
        "cross_attention: q has 16 channels, which 3 heads do not split evenly"
    );
    assert_eq!(
        message(&kv, &kv, Some(&rows), 2),
        "cross_attention: kv has 32 channels, but keys and values of q's 32 are 64"
    );
    assert!(message(&rows, &kv, None, 2).contains("expected q as"));
    let kv = kv.clone();
    let mut cx = Context::with_tape(gpu());
    cx.watch(&kv);
    let refused = cross_attention(&mut cx, &q, &kv, Some(&rows), 2).unwrap_err().to_string();
    assert!(refused.contains("own keys and values, without rows"), "{refused}");
}
