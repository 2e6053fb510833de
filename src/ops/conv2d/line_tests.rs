//! Kernels of 1x3 along lines.

use super::tests::{random, reference, run_conv};
use super::*;
use crate::tensor::DType;
use crate::testing::{Array, check_gradients, dtypes, gpu, rungs};

/// Kernels of 1x3 on lines, which have one row: forward and all gradients, of either stride.
#[test]
fn kernels_along_lines_agree_with_f64() {
    let cases = [
        ([3, 1, 7, 33], 20, 1),
        ([2, 1, 8, 32], 36, 2),
        ([3, 1, 9, 12], 8, 2),
        ([2, 1, 1, 4], 8, 1),
        ([2, 1, 1, 5], 3, 2),
        // Several tiles, and several splits in the weight gradient.
        ([3, 1, 301, 8], 12, 1),
        ([2, 1, 300, 16], 64, 2),
        ([1, 1, 70, 196], 180, 1),
    ];
    for (dtype, rung) in dtypes().into_iter().flat_map(|dtype| rungs().into_iter().map(move |r| (dtype, r))) {
        for (x, filters, stride) in cases {
            let mut case = random(rung, dtype, x, 3, filters, stride);
            case.w = Array::random(&[1, 3, x[3], filters], 2);
            let (y, grads) = run_conv(&case, stride);
            let [want_y, want_dx, want_dw, want_db] = reference(&case, stride);
            let name = |part| format!("{rung} {x:?} 1x3 to {filters} /{stride}: {part}");
            y.check(&name("y"), &want_y, dtype);
            grads[0].check(&name("dx"), &want_dx, dtype);
            grads[1].check(&name("dw"), &want_dw, dtype);
            grads[2].check(&name("db"), &want_db, dtype);
        }
    }
    for stride in [1, 2] {
        let inputs =
            [Array::random(&[2, 1, 7, 3], 1), Array::random(&[1, 3, 3, 2], 2), Array::random(&[2], 3)];
        check_gradients(&inputs, |cx, x| conv2d(cx, &x[0], &x[1], Some(&x[2]), stride));
    }
    let mut cx = Context::new(gpu());
    let [x, w, tall] = [[2, 2, 7, 3], [1, 3, 3, 2], [3, 1, 3, 2]]
        .map(|shape| Array::random(&shape, 1).upload(&cx, DType::F32));
    let error = conv2d(&mut cx, &x, &w, None, 1).unwrap_err().to_string();
    assert!(error.contains("is for lines") && error.contains("[2, 2, 7, 3]"), "{error}");
    assert!(conv2d(&mut cx, &x, &tall, None, 1).unwrap_err().to_string().contains("[3, 1, 3, 2]"));
}
