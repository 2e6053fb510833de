//! Linear layers of few rows, as embeddings have: forward, input gradient, weight and bias gradient. Bytes: the weights, once.

use freeguide::ops::linear_rows;
use freeguide::tensor::DType;

use crate::harness::Bench;
use crate::row::Work;

/// Rows, inputs, outputs.
const REAL: &[[usize; 3]] =
    &[[1, 512, 512], [2, 512, 512], [8, 512, 512], [128, 512, 512], [2, 768, 1536], [128, 768, 3072]];
const SMALL: &[[usize; 3]] = &[[1, 128, 64], [64, 128, 64]];

pub fn run(bench: &mut Bench) {
    let shapes = if bench.is_software() { SMALL } else { REAL };
    for &[rows, c, k] in shapes {
        let shape = format!("{rows}x{c} to {k}");
        let (work, dtype) = (Work::Bytes((c * k * 4) as f64), DType::F32);
        bench.measure("linear_rows", "forward", &shape, dtype, work, |r| {
            let (x, w, bias) =
                (r.random(&[rows, c], dtype)?, r.random(&[c, k], dtype)?, r.random(&[k], dtype)?);
            linear_rows(&mut r.cx, &x, &w, Some(&bias)).map(drop)
        });
        bench.measure("linear_rows", "input gradient", &shape, dtype, work, |r| {
            let (x, w) = (r.random(&[rows, c], dtype)?, r.random(&[c, k], dtype)?);
            r.cx.watch(&x);
            let y = linear_rows(&mut r.cx, &x, &w, None)?;
            r.backward_of(&y)
        });
        bench.measure("linear_rows", "weight gradient", &shape, dtype, work, |r| {
            let (x, w, bias) = (r.random(&[rows, c], dtype)?, r.parameter(&[c, k])?, r.parameter(&[k])?);
            let y = linear_rows(&mut r.cx, &x, &w, Some(&bias))?;
            r.backward_of(&y)
        });
    }
}
