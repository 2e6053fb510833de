//! Self-attention with one wide head, as the middle of autoencoders has it: o = softmax(q·kᵀ·C^-½)·v, q, k, v and o
//! `[N, L, C]`. Any C; the scores of some rows at a time are stored, and both products run on the kernels of linear layers.
//! For networks that are only run: there is no gradient, and a tape refuses it.

use crate::error::{Error, Result};
use crate::tensor::{Context, Tensor};

use super::{linear, put_section, scale, section, softmax, transpose};

/// Bytes of the scores that are stored at a time.
const SCORES: u64 = 32 << 20;
/// Rows come in multiples of it: then whatever C is, they begin where a binding may.
const ROWS: usize = 128;

/// One head over tokens `[N, L, C]`.
///
/// # Errors
/// [`Error::Shape`] when the three are not of one shape and type; [`Error::Config`] on a tape that asks for a gradient.
pub fn wide_attention(cx: &mut Context, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let &[batch, tokens, channels] = q.shape() else {
        return Err(Error::shape("wide_attention", format!("expected q [N, L, C], got {:?}", q.shape())));
    };
    for (name, other) in [("k", k), ("v", v)] {
        if other.shape() != q.shape() || other.dtype() != q.dtype() {
            let [a, b] = [q, other].map(|x| format!("{:?} {:?}", x.shape(), x.dtype()));
            return Err(Error::shape("wide_attention", format!("q is {a} but {name} is {b}")));
        }
    }
    if [q, k, v].iter().any(|x| cx.needs_grad(x)) {
        let what = "attention with one wide head has no gradient: it is for networks that are only run";
        return Err(Error::Config(what.into()));
    }
    let row = (tokens * q.dtype().bytes()) as u64;
    let at_once = ((SCORES / row) as usize / ROWS * ROWS).max(ROWS);
    // Before the product, whose sums may be larger than f16 holds.
    let q = scale(cx, q, (channels as f32).powf(-0.5))?;
    let y = cx.output("wide_attention", q.shape(), q.dtype())?;
    for image in 0..batch {
        let first = image * tokens * channels;
        let k = section(cx, k, first, &[tokens, channels])?;
        let v = section(cx, v, first, &[tokens, channels])?;
        let k = transpose(cx, &k)?;
        for row in (0..tokens).step_by(at_once) {
            let rows = at_once.min(tokens - row);
            let at = first + row * channels;
            let q = section(cx, &q, at, &[rows, channels])?;
            let scores = linear(cx, &q, &k, None)?;
            let weights = softmax(cx, &scores)?;
            let part = linear(cx, &weights, &v, None)?;
            put_section(cx, (&part, 0), (&y, at), rows * channels)?;
        }
    }
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;
    use crate::testing::{Array, download, dtypes, gpu, rungs};

    fn reference([q, k, v]: [&Array; 3]) -> Array {
        let &[batch, tokens, channels] = &q.shape[..] else { panic!() };
        let mut want = Vec::new();
        for (n, i) in (0..batch).flat_map(|n| (0..tokens).map(move |i| (n, i))) {
            let at = |x: &Array, j: usize, c: usize| f64::from(x.data[(n * tokens + j) * channels + c]);
            let score =
                |j| (0..channels).map(|c| at(q, i, c) * at(k, j, c)).sum::<f64>() / (channels as f64).sqrt();
            let scores: Vec<f64> = (0..tokens).map(score).collect();
            let most = scores.iter().fold(f64::MIN, |m, s| m.max(*s));
            let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
            let total: f64 = weights.iter().sum();
            want.extend((0..channels).map(|c| {
                (weights.iter().enumerate().map(|(j, w)| w * at(v, j, c)).sum::<f64>() / total) as f32
            }));
        }
        Array::new(&q.shape, want)
    }

    #[test]
    fn agrees_with_f64() {
        for shape in [[2, 35, 20], [1, 300, 32], [3, 9, 5], [1, 1, 8]] {
            let arrays = [1, 2, 3].map(|seed| Array::random(&shape, seed).map(|v| 2.0 * v));
            let want = reference([&arrays[0], &arrays[1], &arrays[2]]);
            for (rung, dtype) in rungs().into_iter().flat_map(|r| dtypes().into_iter().map(move |d| (r, d))) {
                let mut cx = Context::new(gpu());
                cx.set_rung(rung);
                let [q, k, v] = arrays.each_ref().map(|array| array.upload(&cx, dtype));
                let y = wide_attention(&mut cx, &q, &k, &v).unwrap();
                cx.keep(&y);
                let plan = cx.finish("attention").unwrap();
                plan.run().unwrap();
                let within = if dtype == DType::F16 { 4e-3 } else { 1e-5 };
                download(&plan, &y).check_within(&format!("{rung} {shape:?}"), &want, within);
            }
        }
    }

    /// The queries of a picture of 1024x1024 are taken some at a time: the scores of all would be a GiB.
    #[test]
    fn scores_are_stored_some_rows_at_a_time() {
        let gpu = gpu().estimating();
        let mut cx = Context::new(&gpu);
        let [q, k, v] = ["q", "k", "v"].map(|name| cx.output(name, &[1, 16384, 512], DType::F32).unwrap());
        wide_attention(&mut cx, &q, &k, &v).unwrap();
        // Keys turned, scaled queries, result and a part of it, two times the scores.
        assert!(cx.transient_bytes() <= (6 * 32 + 3 * 32) << 20, "{}", cx.transient_bytes());
    }

    #[test]
    fn misfits_are_errors() {
        let mut cx = Context::with_tape(gpu());
        let [q, k] = [[1, 4, 8], [1, 4, 6]].map(|shape| Array::random(&shape, 1).upload(&cx, DType::F32));
        let error = wide_attention(&mut cx, &q, &k, &q).unwrap_err().to_string();
        assert_eq!(error, "wide_attention: q is [1, 4, 8] F32 but k is [1, 4, 6] F32");
        cx.watch(&q);
        assert!(wide_attention(&mut cx, &q, &q, &q).unwrap_err().to_string().contains("no gradient"));
    }
}
