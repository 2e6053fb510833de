//! Convolutions at the shapes UNets have: forward, input gradient, weight and bias gradient.

use freeguide::ops::conv2d;
use freeguide::tensor::DType;

use crate::harness::Bench;
use crate::row::Work;

/// N, C, H = W, K, and the kernel's side.
type Shape = (usize, usize, usize, usize, usize);

const REAL: &[Shape] = &[
    (16, 192, 64, 192, 3),
    (16, 384, 32, 384, 3),
    (16, 576, 16, 576, 3),
    (16, 768, 8, 768, 3),
    (1, 192, 64, 192, 3),
    (2, 768, 8, 768, 3),
    // The first and the last.
    (16, 3, 64, 192, 3),
    (16, 192, 64, 6, 3),
    (16, 384, 32, 1152, 1),
];
const SMALL: &[Shape] = &[(64, 32, 8, 32, 3), (16, 64, 8, 64, 3), (64, 32, 8, 96, 1)];

pub fn run(bench: &mut Bench) {
    let shapes = if bench.is_software() { SMALL } else { REAL };
    for &(n, c, side, k, kernel) in shapes {
        let shape = format!("{n}x{side}x{side}x{c} to {k}");
        let work = Work::Flops(2.0 * (n * side * side * c * k * kernel * kernel) as f64);
        let name = |what: &str| format!("{kernel}x{kernel} {what}");
        let (x_shape, w_shape) = ([n, side, side, c], [kernel, kernel, c, k]);
        for &dtype in bench.dtypes() {
            // Weights are kept in the type of activations.
            for fast in [false, true] {
                // Where the order of sums may depend on the batch: of interest where that is small.
                if fast && (n > 2 || dtype == DType::F32) {
                    continue;
                }
                let name = name(if fast { "forward, fast" } else { "forward" });
                bench.measure("conv", &name, &shape, dtype, work, |r| {
                    let (x, w) = (r.random(&x_shape, dtype)?, r.random(&w_shape, dtype)?);
                    let bias = r.random(&[k], DType::F32)?;
                    r.cx.set_fast(fast);
                    conv2d(&mut r.cx, &x, &w, Some(&bias), 1).map(drop)
                });
            }
            bench.measure("conv", &name("input gradient"), &shape, dtype, work, |r| {
                let (x, w) = (r.random(&x_shape, dtype)?, r.random(&w_shape, dtype)?);
                r.cx.watch(&x);
                let y = conv2d(&mut r.cx, &x, &w, None, 1)?;
                r.backward_of(&y)
            });
            bench.measure("conv", &name("weight gradient"), &shape, dtype, work, |r| {
                let (x, w) = (r.random(&x_shape, dtype)?, r.parameter(&w_shape)?);
                let y = conv2d(&mut r.cx, &x, &w, None, 1)?;
                r.backward_of(&y)
            });
            // Its own row: other engines have it as another operation, too.
            let sums = Work::Bytes((n * side * side * k * dtype.bytes()) as f64);
            bench.measure("conv", &name("bias gradient"), &shape, dtype, sums, |r| {
                let (x, w) = (r.random(&x_shape, dtype)?, r.random(&w_shape, dtype)?);
                let bias = r.parameter(&[k])?;
                let y = conv2d(&mut r.cx, &x, &w, Some(&bias), 1)?;
                r.backward_of(&y)
            });
        }
    }
}
