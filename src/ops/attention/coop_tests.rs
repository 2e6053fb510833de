//! The kernels on cooperative matrices against a plain f64 loop. Devices without such matrices emulate them.

use std::sync::OnceLock;

use super::tests::reference_of;
use super::*;
use crate::autograd::backprop_from;
use crate::gpu::{DeviceChoice, Gpu};
use crate::testing::{Array, download_from};

/// A device with matrices, or one that emulates them.
fn matrices() -> Option<&'static Gpu> {
    static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
    GPU.get_or_init(|| Gpu::emulating_matrices(&DeviceChoice::Auto)).as_ref()
}

/// The output, the gradients of the inputs, and the labels of what was launched, in f16.
fn run(
    gpu: &Gpu,
    inputs: &[&Array],
    gy: &Array,
    op: impl FnOnce(&mut Context, &[Tensor]) -> Result<Tensor>,
) -> (Array, Vec<Array>, Vec<String>) {
    let mut cx = Context::with_tape(gpu);
    let inputs: Vec<Tensor> = inputs.iter().map(|array| array.upload(&cx, DType::F16)).collect();
    inputs.iter().for_each(|input| cx.watch(input));
    let y = op(&mut cx, &inputs).unwrap();
    let gy = gy.reshape(y.shape()).upload(&cx, DType::F16);
    backprop_from(&mut cx, &y, &gy).unwrap();
    let grads: Vec<Tensor> = inputs.iter().map(|x| cx.grad(x).unwrap()).collect();
    cx.keep(&y);
    grads.iter().for_each(|grad| cx.keep(grad));
    let plan = cx.finish("test").unwrap();
    plan.run().unwrap();
    let labels = plan.labels().map(str::to_owned).collect();
    let grads = grads.iter().map(|grad| download_from(gpu, &plan, grad)).collect();
    (download_from(gpu, &plan, &y), grads, labels)
}

#[test]
fn emulated_matrices_agree_with_f64() {
    let Some(gpu) = matrices() else { return };
    // [tokens, heads, d], and whether the gradient is made on matrices, too.
    let cases = [
        ([35, 3, 16], true),
        ([150, 2, 40], true),
        ([33, 1, 72], true),
        ([64, 2, 8], true),
        ([20, 1, 128], true),
        ([70, 1, 160], false),
        ([17, 2, 136], false),
    ];
    for ([tokens, heads, d], both) in cases {
        let qkv = Array::random(&[2, tokens, 3 * heads * d], 1).map(|x| 2.0 * x);
        let gy = Array::random(&[2, tokens, heads * d], 2);
        let (want, want_grad) = reference_of(&qkv, &gy, heads, false);
        let (y, grads, labels) = run(gpu, &[&qkv], &gy, |cx, x| attention(cx, &x[0], heads, QkvOrder::New));
        assert!(labels.iter().any(|label| label.starts_with("attention coop")), "{labels:?}");
        let backward = if both { "attention_backward q coop" } else { "attention_backward q tiled" };
        assert!(labels.iter().any(|label| label.starts_with(backward)), "{labels:?}");
        y.check(&format!("T {tokens} d {d} y"), &want, DType::F16);
        grads[0].check(&format!("T {tokens} d {d} dqkv"), &want_grad, DType::F16);
    }
}

#[test]
fn emulated_matrices_follow_a_rising_maximum() {
    let Some(gpu) = matrices() else { return };
    let (tokens, heads, d) = (90, 2, 40);
    let mut qkv = Array::random(&[1, tokens, 3 * heads * d], 1);
    for (t, row) in qkv.data.chunks_mut(3 * heads * d).enumerate() {
        row[0] = 8.0;
        row[heads * d] = t as f32 - 30.0;
    }
    let gy = Array::random(&[1, tokens, heads * d], 2);
    let (want, want_grad) = reference_of(&qkv, &gy, heads, false);
    let (y, grads, _) = run(gpu, &[&qkv], &gy, |cx, x| attention(cx, &x[0], heads, QkvOrder::New));
    y.check("y", &want, DType::F16);
    grads[0].check("dqkv", &want_grad, DType::F16);
}

#[test]
fn emulated_matrices_look_at_no_later_token() {
    let Some(gpu) = matrices() else { return };
    for [tokens, heads, d] in [[77, 2, 64], [33, 1, 40]] {
        let qkv = Array::random(&[2, tokens, 3 * heads * d], 1).map(|x| 2.0 * x);
        let gy = Array::random(&[2, tokens, heads * d], 2);
        let (want, want_grad) = reference_of(&qkv, &gy, heads, true);
        let (y, grads, labels) =
            run(gpu, &[&qkv], &gy, |cx, x| attention_causal(cx, &x[0], heads, QkvOrder::New));
        assert!(labels.iter().any(|label| label.starts_with("attention causal coop")), "{labels:?}");
        assert!(
            labels.iter().any(|label| label.starts_with("attention_backward causal k tiled")),
            "{labels:?}"
        );
        y.check(&format!("T {tokens} d {d} y"), &want, DType::F16);
        grads[0].check(&format!("T {tokens} d {d} dqkv"), &want_grad, DType::F16);
    }
}

#[test]
fn emulated_matrices_read_sequences_through_rows() {
    let Some(gpu) = matrices() else { return };
    let rows = [2usize, 0, 7, 2];
    for [tokens, keys, d] in [[70, 77, 40], [35, 12, 80]] {
        let q = Array::random(&[4, tokens, 2 * d], 1).map(|x| 2.0 * x);
        let kv = Array::random(&[3, keys, 4 * d], 2).map(|x| 2.0 * x);
        let gy = Array::random(&q.shape, 3);
        let [want, want_dq, _] = cross::tests::reference(&q, &kv, &gy, &rows, 2);
        let op = |cx: &mut Context, x: &[Tensor]| {
            let kv = kv.upload(cx, DType::F16);
            let rows = cx.constant_u32("rows", &[4], &rows.map(|row| row as u32))?;
            cross_attention(cx, &x[0], &kv, Some(&rows), 2)
        };
        let (y, grads, labels) = run(gpu, &[&q], &gy, op);
        assert!(labels.iter().any(|label| label.starts_with("attention cross coop")), "{labels:?}");
        y.check(&format!("L {keys} d {d} y"), &want, DType::F16);
        grads[0].check(&format!("L {keys} d {d} dq"), &want_dq, DType::F16);
        assert!(y.data[2 * tokens * 2 * d..3 * tokens * 2 * d].iter().all(|&v| v == 0.0));
        // The same picture alone, with its own sequence, bit for bit.
        let last = |a: &Array, n: usize| {
            let size = a.data.len() / a.shape[0];
            Array::new(&[1, a.shape[1], a.shape[2]], a.data[n * size..(n + 1) * size].to_vec())
        };
        let alone = [last(&q, 3), last(&kv, 2)];
        let (y_alone, ..) = run(gpu, &[&alone[0], &alone[1]], &last(&gy, 3), |cx, x| {
            cross_attention(cx, &x[0], &x[1], None, 2)
        });
        assert_eq!(last(&y, 3), y_alone);
    }
}
