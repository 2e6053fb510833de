//! Other padding than that which keeps the size: behind alone, as autoencoders halve pictures, and of strips of a picture.

use super::coop::{Choice, Halo, Kind, Product, tile};
use super::problem::Padding;
use super::tests::{Case, random, reference_behind, run};
use super::*;
use crate::gpu::{DeviceChoice, Gpu, Rung};
use crate::tensor::DType;
use crate::testing::{Array, check_gradients, download_from, dtypes, gpu, rungs};

/// x, the kernel's side, filters, stride, padding.
const CASES: [([usize; 4], usize, usize, usize, Padding); 9] = [
    ([2, 6, 8, 12], 3, 8, 2, Padding::BEHIND),
    ([3, 5, 7, 33], 3, 20, 2, Padding::BEHIND),
    ([1, 2, 2, 4], 3, 4, 2, Padding::BEHIND),
    // The strips of a picture: the first, one between, the last.
    ([1, 6, 9, 8], 3, 12, 1, Padding { rows: [1, 0], columns: [1, 1] }),
    ([1, 7, 16, 16], 3, 16, 1, Padding { rows: [0, 0], columns: [1, 1] }),
    ([2, 5, 16, 32], 3, 36, 1, Padding { rows: [0, 1], columns: [1, 1] }),
    // Nothing around, and as much as there may be.
    ([2, 5, 6, 5], 3, 7, 1, Padding { rows: [0, 0], columns: [0, 0] }),
    ([2, 3, 4, 8], 3, 8, 1, Padding { rows: [2, 2], columns: [2, 2] }),
    ([2, 4, 5, 8], 3, 8, 2, Padding { rows: [0, 0], columns: [2, 0] }),
];

fn padded_case(
    (rung, dtype): (Rung, DType),
    (x, kernel, filters, stride, padding): ([usize; 4], usize, usize, usize, Padding),
) -> Case {
    let along = |size: usize, [before, behind]: [usize; 2]| (size + before + behind - kernel) / stride + 1;
    let shape = [x[0], along(x[1], padding.rows), along(x[2], padding.columns), filters];
    Case { gy: Array::random(&shape, 4), ..random(rung, dtype, x, kernel, filters, stride) }
}

#[test]
fn every_rung_agrees_with_f64() {
    for (dtype, rung) in dtypes().into_iter().flat_map(|dtype| rungs().into_iter().map(move |r| (dtype, r))) {
        for of in CASES {
            let (x, _, filters, stride, padding) = of;
            let case = padded_case((rung, dtype), of);
            let (y, grads) =
                run(&case, |cx, x, w, bias| conv2d_padded(cx, x, w, bias, stride, Some(padding), None));
            let [want_y, want_dx, want_dw, want_db] =
                reference_behind(&case, stride, [padding.rows[0], padding.columns[0]]);
            let name = |part| format!("{rung} {x:?} to {filters} /{stride} {padding:?}: {part}");
            y.check(&name("y"), &want_y, dtype);
            grads[0].check(&name("dx"), &want_dx, dtype);
            grads[1].check(&name("dw"), &want_dw, dtype);
            grads[2].check(&name("db"), &want_db, dtype);
        }
    }
    for (stride, padding) in [(2, Padding::BEHIND), (1, Padding { rows: [0, 1], columns: [1, 1] })] {
        let inputs =
            [Array::random(&[2, 4, 6, 3], 1), Array::random(&[3, 3, 3, 2], 2), Array::random(&[2], 3)];
        check_gradients(&inputs, |cx, x| {
            conv2d_padded(cx, &x[0], &x[1], Some(&x[2]), stride, Some(padding), None)
        });
    }
}

#[test]
fn emulated_matrices_agree_with_f64() {
    let Some(gpu) = Gpu::emulating_matrices(&DeviceChoice::Auto) else { return };
    let halo = Kind::Halo(Halo { tile: tile([2, 1], [2, 1]), beside: 1, taps: 3 });
    let product = Kind::Product(Product { tile: tile([1, 2], [2, 1]), deep: true });
    let inner = Padding { rows: [0, 0], columns: [1, 1] };
    let last = Padding { rows: [0, 1], columns: [1, 1] };
    let first = Padding { rows: [1, 0], columns: [1, 1] };
    for (x, kernel, filters, stride, padding, kind, splits) in [
        ([1, 7, 16, 32], 3, 32, 1, inner, halo, 1),
        ([1, 6, 24, 16], 3, 16, 1, last, halo, 1),
        ([2, 5, 16, 48], 3, 32, 1, first, halo, 2),
        ([2, 6, 10, 32], 3, 48, 2, Padding::BEHIND, product, 1),
        ([2, 5, 7, 16], 3, 32, 2, Padding::BEHIND, product, 1),
        ([1, 7, 5, 16], 3, 32, 1, inner, product, 1),
    ] {
        let case = padded_case((Rung::Coop, DType::F16), (x, kernel, filters, stride, padding));
        let [want, ..] = reference_behind(&case, stride, [padding.rows[0], padding.columns[0]]);
        let residual = Array::random(&want.shape, 9);
        let want = want.zip(&residual, |a, b| a + b);
        let mut cx = Context::new(&gpu);
        let [input, residual] = [&case.x, &residual].map(|a| a.upload(&cx, DType::F16));
        let [w, bias] = [&case.w, case.bias.as_ref().unwrap()].map(|a| a.upload(&cx, DType::F32));
        let params = Params::padded(&input, &w, Some(&bias), stride, Some(padding)).unwrap();
        let params = Params { has_residual: 1, ..params.flattened() };
        let y = cx.output("y", &want.shape, DType::F16).unwrap();
        let (tensors, added) = ([&input, &w, &y], [Some(&bias), Some(&residual)]);
        coop::gather(&mut cx, Direction::Forward, tensors, added, params, Choice { kind, splits }).unwrap();
        cx.keep(&y);
        let plan = cx.finish("test").unwrap();
        plan.run().unwrap();
        download_from(&gpu, &plan, &y).check(&format!("{x:?} {padding:?} {kind:?}"), &want, DType::F16);
    }
}

#[test]
fn kernels_that_do_not_fit_are_refused() {
    let cx = &mut Context::new(gpu());
    let [x, w] = [[1, 2, 5, 3], [3, 3, 3, 2]].map(|shape| Array::random(&shape, 1).upload(cx, DType::F32));
    let mut refused = |rows: [usize; 2]| {
        let padding = Padding { rows, columns: [1, 1] };
        conv2d_padded(cx, &x, &w, None, 1, Some(padding), None).unwrap_err().to_string()
    };
    assert!(refused([0, 0]).contains("a kernel of 3x3"), "higher than the picture");
    assert!(refused([3, 0]).contains("does not fit x [1, 2, 5, 3]"), "padding past the kernel");
}
