//! A linear layer of few rows: one a picture, as embeddings have.  y[m,k] = bias[k] + Σ_c x[m,c]·w[c,k].
//! x `[N, C]`, w `[C, K]`, bias `[K]`, y `[N, K]`.
//!
//! [`linear`] makes tiles of 64 rows and walks through C one after the other: with few rows most of a tile is waste, and
//! what is left waits for memory. Here a workgroup shares out the sums. For the same values at other N it gives the same
//! bits. What its kernels do not take (f16, odd channels, software adapters) runs as [`linear`].
//!
//! Gradients: dx = dy·wᵀ, dw = xᵀ·dy, dbias = column sums of dy.

use bytemuck::{Pod, Zeroable};

use crate::error::Result;
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

use super::conv2d::bias_gradient;
use super::linear;

use Access::{Read, Update, Write};

const fn forward(entry: &'static str) -> Kernel {
    // Sound by the shader's header.
    unsafe { Kernel::new("linear_rows", wgsl!("linear_rows"), entry, &[Read, Read, Read, Write]).trusted() }
}

/// By the rows that a workgroup takes, less one.
static FORWARD: [Kernel; 8] = [
    forward("forward1"),
    forward("forward2"),
    forward("forward3"),
    forward("forward4"),
    forward("forward5"),
    forward("forward6"),
    forward("forward7"),
    forward("forward8"),
];
const INPUT_GRADIENT: Kernel = backward("linear_rows_input_gradient", "input_gradient");
const WEIGHT_GRADIENT: Kernel = backward("linear_rows_weight_gradient", "weight_gradient");

const fn backward(name: &'static str, entry: &'static str) -> Kernel {
    // Sound by the shader's header.
    unsafe { Kernel::new(name, wgsl!("linear_rows"), entry, &[Read, Read, Update]).trusted() }
}

/// Lanes of a workgroup that share a sum, as in the shader.
const SLICES: usize = 32;
/// Fewer workgroups than this leave most of a large GPU idle.
const ENOUGH_GROUPS: usize = 128;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    rows: u32,
    in_c: u32,
    out_c: u32,
    accumulate: u32,
    has_bias: u32,
    unused: [u32; 3],
}

/// y = x·w + bias for few rows, with x `[N, C]`, w `[C, K]`, bias `[K]`.
///
/// # Errors
/// As [`linear`].
pub fn linear_rows(cx: &mut Context, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (&[rows, channels], &[w_channels, filters]) = (x.shape(), w.shape()) else {
        return linear(cx, x, w, bias);
    };
    let floats = [Some(x), Some(w), bias].into_iter().flatten().all(|t| t.dtype() == DType::F32);
    let whole = [channels, filters].iter().all(|n| n.is_multiple_of(4) && *n > 0) && rows > 0;
    let fits = channels == w_channels && bias.is_none_or(|bias| bias.shape() == [filters]);
    if !cx.rung().is_tiled() || !floats || !whole || !fits {
        return linear(cx, x, w, bias);
    }
    let params = Params {
        rows: rows as u32,
        in_c: channels as u32,
        out_c: filters as u32,
        accumulate: 0,
        has_bias: u32::from(bias.is_some()),
        unused: [0; 3],
    };
    let y = cx.output("linear_rows", &[rows, filters], DType::F32)?;
    let kernel = &FORWARD[rows.min(8) - 1];
    let row_groups = rows.div_ceil(8);
    // Quads of columns a workgroup: which says nothing about the order of a sum.
    let columns = if filters.div_ceil(16) * row_groups < ENOUGH_GROUPS { 2 } else { 4 };
    // Without a bias its binding holds the weights, unread.
    let launch = cx.launch(kernel).bind(x).bind(w).bind(bias.unwrap_or(w)).bind(&y).params(&params);
    let launch = launch.constant("columns", columns as f64).constant("lanes", (SLICES * columns) as f64);
    launch.variant(format!("{}x{}", rows.min(8), 4 * columns)).groups([
        filters.div_ceil(4 * columns) as u32,
        row_groups as u32,
        1,
    ]);
    let flops = 2.0 * (rows * channels * filters) as f64;
    cx.count_flops(flops);

    let inputs: Vec<&Tensor> = [x, w].into_iter().chain(bias).collect();
    cx.backward(&y, &inputs, {
        let (x, w, bias) = (x.clone(), w.clone(), bias.cloned());
        move |cx, dy| {
            if let Some(bias) = &bias
                && let Some(db) = cx.grad_target(bias)?
            {
                bias_gradient(cx, dy, &db)?;
            }
            if let Some(dw) = cx.grad_target(&w)? {
                let params = Params { accumulate: dw.flag(), ..params };
                let launch = cx.launch(&WEIGHT_GRADIENT).bind(&x).bind(dy).bind(&dw.tensor).params(&params);
                launch.groups([filters.div_ceil(256) as u32, (channels / 4) as u32, 1]);
                cx.count_flops(flops);
            }
            if let Some(dx) = cx.grad_target(&x)? {
                let params = Params { accumulate: dx.flag(), ..params };
                let launch = cx.launch(&INPUT_GRADIENT).bind(dy).bind(&w).bind(&dx.tensor).params(&params);
                launch.groups([channels.div_ceil(8) as u32, row_groups as u32, 1]);
                cx.count_flops(flops);
            }
            Ok(())
        }
    });
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::conv2d::tests::{Case, run};
    use crate::testing::{Array, check_gradients, dtypes, rungs};

    /// y, dx, dw and dbias in f64.
    fn reference(x: &Array, w: &Array, bias: &Array, gy: &Array) -> [Array; 4] {
        let [rows, channels, filters] = [x.shape[0], x.shape[1], w.shape[1]];
        let mut y: Vec<f64> = (0..rows * filters).map(|i| f64::from(bias.data[i % filters])).collect();
        let (mut dx, mut dw) = (vec![0f64; rows * channels], vec![0f64; channels * filters]);
        let mut db = vec![0f64; filters];
        for m in 0..rows {
            for k in 0..filters {
                let g = f64::from(gy.data[m * filters + k]);
                db[k] += g;
                for c in 0..channels {
                    let (a, b) = (f64::from(x.data[m * channels + c]), f64::from(w.data[c * filters + k]));
                    y[m * filters + k] += a * b;
                    dx[m * channels + c] += g * b;
                    dw[c * filters + k] += g * a;
                }
            }
        }
        let narrow =
            |v: Vec<f64>, like: &Array| Array::new(&like.shape, v.into_iter().map(|v| v as f32).collect());
        [narrow(y, gy), narrow(dx, x), narrow(dw, w), narrow(db, bias)]
    }

    #[test]
    fn matches_the_reference_on_every_rung() {
        // Rows and channels on both sides of a workgroup's, and some that its kernels leave to `linear`.
        for [rows, channels, filters] in [
            [1, 4, 4],
            [2, 520, 20],
            [3, 132, 36],
            [8, 256, 32],
            [9, 300, 72],
            [19, 68, 260],
            [25, 36, 516],
            [5, 7, 9],
        ] {
            let (x, w) = (Array::random(&[rows, channels], 1), Array::random(&[channels, filters], 2));
            let (bias, gy) = (Array::random(&[filters], 3), Array::random(&[rows, filters], 4));
            let want = reference(&x, &w, &bias, &gy);
            for (rung, dtype) in rungs().into_iter().flat_map(|r| dtypes().into_iter().map(move |d| (r, d))) {
                let case = Case {
                    rung,
                    dtype,
                    x: x.clone(),
                    w: w.clone(),
                    bias: Some(bias.clone()),
                    gy: gy.clone(),
                };
                let (y, grads) = run(&case, linear_rows);
                let what = |name: &str| format!("{rung} {rows}x{channels}x{filters} {name}");
                y.check(&what("y"), &want[0], dtype);
                for (name, (got, want)) in ["dx", "dw", "dbias"].iter().zip(grads.iter().zip(&want[1..])) {
                    got.check(&what(name), want, dtype);
                }
            }
        }
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        let inputs = [Array::random(&[3, 8], 1), Array::random(&[8, 12], 2), Array::random(&[12], 3)];
        check_gradients(&inputs, |cx, x| linear_rows(cx, &x[0], &x[1], Some(&x[2])));
        check_gradients(&inputs[..2], |cx, x| linear_rows(cx, &x[0], &x[1], None));
    }

    #[test]
    fn a_row_does_not_depend_on_the_others() {
        let (x, w) = (Array::random(&[13, 516], 1), Array::random(&[516, 40], 2));
        let gy = Array::random(&[13, 40], 3);
        let last = |a: &Array, rows: usize| {
            Array::new(&[rows, a.shape[1]], a.data[(a.shape[0] - rows) * a.shape[1]..].to_vec())
        };
        for rung in rungs() {
            let case = |x: &Array, gy: &Array| Case {
                rung,
                dtype: DType::F32,
                x: x.clone(),
                w: w.clone(),
                bias: None,
                gy: gy.clone(),
            };
            let (all, all_grads) = run(&case(&x, &gy), linear_rows);
            for rows in [1, 2, 7] {
                let (few, few_grads) = run(&case(&last(&x, rows), &last(&gy, rows)), linear_rows);
                assert_eq!(last(&all, rows), few, "{rung}");
                assert_eq!(last(&all_grads[0], rows), few_grads[0], "{rung}");
            }
        }
    }
}
