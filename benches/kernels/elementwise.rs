//! Operations that only move memory.

use freeguide::ops::{add, concat, silu, upsample_nearest2};

use crate::harness::{Bench, Work};

pub fn run(bench: &mut Bench) {
    let shape = if bench.is_software() { [16, 32, 32, 64] } else { [16, 64, 64, 384] };
    let [n, h, w, c] = shape;
    let label = format!("{n}x{h}x{w}x{c}");
    for &dtype in bench.dtypes() {
        let bytes = (n * h * w * c * dtype.bytes()) as f64;
        bench.measure("elementwise", "silu", &label, dtype, Work::Bytes(2.0 * bytes), |r| {
            let x = r.random(&shape, dtype)?;
            silu(&mut r.cx, &x).map(drop)
        });
        bench.measure("elementwise", "silu backward", &label, dtype, Work::Bytes(3.0 * bytes), |r| {
            let x = r.random(&shape, dtype)?;
            r.cx.watch(&x);
            let y = silu(&mut r.cx, &x)?;
            r.backward_of(&y)
        });
        bench.measure("elementwise", "add", &label, dtype, Work::Bytes(3.0 * bytes), |r| {
            let (a, b) = (r.random(&shape, dtype)?, r.random(&shape, dtype)?);
            add(&mut r.cx, &a, &b, 1.0).map(drop)
        });
        bench.measure("elementwise", "concat", &label, dtype, Work::Bytes(4.0 * bytes), |r| {
            let (a, b) = (r.random(&shape, dtype)?, r.random(&shape, dtype)?);
            concat(&mut r.cx, &a, &b).map(drop)
        });
        bench.measure("elementwise", "upsample", &label, dtype, Work::Bytes(5.0 * bytes), |r| {
            let x = r.random(&shape, dtype)?;
            upsample_nearest2(&mut r.cx, &x).map(drop)
        });
    }
}
