//! Attention. Multiplications and additions of the two products forward, and of five backward, which makes the scores
//! again; a causal score counts where it is seen.

use freeguide::ops::{QkvOrder, attention, attention_causal, cross_attention};
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
    let both = bench.dtypes();
    let half = both[both.len() - 1];
    let software = bench.is_software();
    // Stable Diffusion 1.5 at 512x512 under guidance, one picture, then eight; DiT-XL/2 at 256x256.
    let of_text =
        [[2, 8, 4096, 40], [2, 8, 1024, 80], [2, 8, 256, 160], [16, 8, 4096, 40], [32, 16, 256, 72]];
    let of_text = if software { &[[2, 2, 256, 40]][..] } else { &of_text };
    of_text.iter().for_each(|&shape| measure(bench, shape, half));
    let cross = [[2, 8, 4096, 40], [2, 8, 1024, 80], [16, 8, 4096, 40]];
    let cross = if software { &[[2, 2, 256, 40]][..] } else { &cross };
    cross.iter().for_each(|&shape| measure_cross(bench, shape, 77, half));
    // CLIP's text encoder.
    measure_causal(bench, [2, 12, 77, 64], half);
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

/// Each picture's queries against a sequence of its own.
fn measure_cross(bench: &mut Bench, [n, heads, tokens, head]: [usize; 4], keys: usize, dtype: DType) {
    let label = format!("{n}x{heads} heads x{tokens}x{head} over {keys}");
    let product = 2.0 * (n * heads * tokens * keys * head) as f64;
    let (of_q, of_kv) = ([n, tokens, heads * head], [n, keys, 2 * heads * head]);
    bench.measure("attention", "cross forward", &label, dtype, Work::Flops(2.0 * product), |r| {
        let (q, kv) = (r.random(&of_q, dtype)?, r.random(&of_kv, dtype)?);
        cross_attention(&mut r.cx, &q, &kv, None, heads).map(drop)
    });
    bench.measure("attention", "cross backward", &label, dtype, Work::Flops(5.0 * product), |r| {
        let (q, kv) = (r.random(&of_q, dtype)?, r.random(&of_kv, dtype)?);
        r.cx.watch(&q);
        r.cx.watch(&kv);
        let y = cross_attention(&mut r.cx, &q, &kv, None, heads)?;
        r.backward_of(&y)
    });
}

fn measure_causal(bench: &mut Bench, [n, heads, tokens, head]: [usize; 4], dtype: DType) {
    let label = format!("{n}x{heads} heads x{tokens}x{head}");
    let product = (n * heads * tokens * (tokens + 1) * head) as f64;
    let shape = [n, tokens, 3 * heads * head];
    bench.measure("attention", "causal forward", &label, dtype, Work::Flops(2.0 * product), |r| {
        let qkv = r.random(&shape, dtype)?;
        attention_causal(&mut r.cx, &qkv, heads, QkvOrder::New).map(drop)
    });
}
