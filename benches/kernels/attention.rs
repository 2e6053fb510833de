//! Self-attention. Multiplications and additions of the two products forward, and of five backward, which makes the
//! scores again.

use freeguide::ops::{QkvOrder, attention};

use crate::harness::{Bench, Work};

pub fn run(bench: &mut Bench) {
    let (n, heads, tokens, head) = if bench.is_software() { (4, 2, 256, 32) } else { (16, 6, 1024, 64) };
    let label = format!("{n}x{heads} heads x{tokens}x{head}");
    let product = 2.0 * (n * heads * tokens * tokens * head) as f64;
    let shape = [n, tokens, 3 * heads * head];
    for &dtype in bench.dtypes() {
        bench.measure("attention", "forward", &label, dtype, Work::Flops(2.0 * product), |r| {
            let qkv = r.random(&shape, dtype)?;
            attention(&mut r.cx, &qkv, heads, QkvOrder::New).map(drop)
        });
        bench.measure("attention", "backward", &label, dtype, Work::Flops(5.0 * product), |r| {
            let qkv = r.random(&shape, dtype)?;
            r.cx.watch(&qkv);
            let y = attention(&mut r.cx, &qkv, heads, QkvOrder::New)?;
            r.backward_of(&y)
        });
    }
}
