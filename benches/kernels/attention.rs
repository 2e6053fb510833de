//! Self-attention. Multiplications and additions of the two products forward, and of five backward, which makes the
//! scores again.

use freeguide::ops::{QkvOrder, attention};
use freeguide::tensor::DType;

use crate::harness::Bench;
use crate::row::Work;

pub fn run(bench: &mut Bench) {
    // The resolutions of the 64x64 ADM network that have attention, one image, and a long sequence.
    let shapes = if bench.is_software() {
        &[[4, 2, 256, 32]][..]
    } else {
        &[
            [16, 6, 1024, 64],
            [16, 9, 256, 64],
            [16, 12, 64, 64],
            [1, 6, 1024, 64],
            [2, 9, 256, 64],
            [1, 8, 4096, 64],
        ]
    };
    for &shape in shapes {
        for &dtype in bench.dtypes() {
            measure(bench, shape, dtype);
        }
    }
}

fn measure(bench: &mut Bench, [n, heads, tokens, head]: [usize; 4], dtype: DType) {
    let label = format!("{n}x{heads} heads x{tokens}x{head}");
    let product = 2.0 * (n * heads * tokens * tokens * head) as f64;
    let shape = [n, tokens, 3 * heads * head];
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
