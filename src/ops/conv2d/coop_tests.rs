//! The kernels on cooperative matrices against a plain f64 loop, and their tiles against each other. On devices without such
//! matrices they are emulated, in small tiles.

use super::coop::{Choice, Halo, Kind, Product, tile};
use super::problem::Splits;
use super::tests::{random, reference, run_conv};
use super::*;
use crate::gpu::{DeviceChoice, Gpu, Rung, Storage};
use crate::tensor::DType;
use crate::testing::{Array, download, download_from, gpu};

/// Shapes for cooperative matrices: each kernel, tails of tiles, splits, padded channels, and what falls back.
const COOP_CASES: [([usize; 4], usize, usize, usize, &str); 20] = [
    ([2, 8, 16, 32], 3, 48, 1, "coop halo"),
    ([3, 4, 16, 16], 3, 208, 1, "coop halo"),
    ([2, 4, 32, 48], 3, 80, 1, "coop halo"),
    ([1, 2, 64, 16], 3, 112, 1, "coop halo"),
    ([1, 3, 128, 16], 3, 16, 1, "coop halo"),
    ([3, 19, 16, 32], 3, 112, 1, "coop halo"),
    ([2, 9, 24, 16], 3, 32, 1, "coop"),
    ([2, 16, 27, 48], 3, 64, 1, "coop halo"),
    ([2, 8, 8, 352], 3, 48, 1, "coop halo"),
    ([5, 8, 8, 784], 3, 112, 1, "coop halo"),
    ([3, 5, 7, 48], 3, 80, 1, "coop"),
    ([3, 9, 11, 16], 3, 48, 2, "coop"),
    ([8, 13, 11, 16], 3, 32, 1, "coop"),
    ([1, 1, 70, 48], 1, 144, 1, "coop"),
    ([1, 1, 300, 96], 1, 272, 1, "coop"),
    ([2, 3, 5, 24], 3, 32, 1, "coop"),
    ([2, 16, 16, 3], 3, 64, 1, "coop halo"),
    ([2, 16, 16, 48], 3, 6, 1, "coop halo"),
    ([3, 5, 7, 20], 1, 30, 1, "coop"),
    ([2, 3, 5, 16], 1, 32, 2, "tiled"),
];

/// Matrix units round f32 sums towards zero.
const COOP_TOLERANCE: f32 = 5e-5;

fn coop_device() -> bool {
    gpu().capabilities().rung == Rung::Coop
}

#[test]
fn cooperative_matrices_agree_with_f64() {
    if !coop_device() {
        return;
    }
    for (x, kernel, filters, stride, variant) in COOP_CASES {
        let case = random(Rung::Coop, DType::F16, x, kernel, filters, stride);
        let mut cx = Context::new(gpu());
        let tensors = [case.x.upload(&cx, DType::F16), case.w.upload(&cx, DType::F32)];
        conv2d(&mut cx, &tensors[0], &tensors[1], None, stride).unwrap();
        let plan = cx.finish("test").unwrap();
        let found = plan.labels().any(|label| label.starts_with(&format!("conv2d {variant}")));
        assert!(found, "{x:?}: {:?}", plan.labels().collect::<Vec<_>>());

        let (y, grads) = run_conv(&case, stride);
        let [want_y, want_dx, want_dw, want_db] = reference(&case, stride);
        let name = |part| format!("{x:?} {kernel}x{kernel} to {filters} /{stride}: {part}");
        y.check(&name("y"), &want_y, DType::F16);
        grads[0].check(&name("dx"), &want_dx, DType::F16);
        // Parameters' gradients are f32, and these inputs are exact in f16.
        grads[1].check_within(&name("dw"), &want_dw, COOP_TOLERANCE);
        grads[2].check(&name("db"), &want_db, DType::F32);
    }
}

#[test]
fn every_tile_of_cooperative_matrices_gives_the_same_bits() {
    if !coop_device() {
        return;
    }
    // Every tile is another pipeline, so not of all cases.
    for (x, kernel, filters, stride, _) in [0, 5, 9, 11, 14].map(|case| COOP_CASES[case]) {
        let mut case = random(Rung::Coop, DType::F16, x, kernel, filters, stride);
        // Of so many magnitudes that sums in another order round otherwise.
        case.x.data.iter_mut().enumerate().for_each(|(i, v)| *v *= 2f32.powi((i * 7 % 23) as i32 % 10 - 5));
        let [want_y, _, want_dw, _] = reference(&case, stride);
        let tensors = |cx: &Context| {
            let [x, dy] = [&case.x, &case.gy].map(|array| array.upload(cx, DType::F16));
            let [w, bias] = [&case.w, case.bias.as_ref().unwrap()].map(|array| array.upload(cx, DType::F32));
            let params = Params::new(&x, &w, Some(&bias), stride).unwrap().flattened();
            (x, dy, w, bias, params)
        };
        let mut first: Option<Array> = None;
        let cx = Context::new(gpu());
        let (input, _, _, _, params) = tensors(&cx);
        for choice in coop::Choice::all(&cx, &input, &params) {
            let mut cx = Context::new(gpu());
            let (input, _, w, bias, params) = tensors(&cx);
            let y = cx.output("y", &want_y.shape, DType::F16).unwrap();
            let bias = [Some(&bias), None];
            coop::gather(&mut cx, Direction::Forward, [&input, &w, &y], bias, params, choice).unwrap();
            cx.keep(&y);
            let plan = cx.finish("test").unwrap();
            plan.run().unwrap();
            let y = download(&plan, &y);
            y.check(&format!("{x:?} {choice:?}"), &want_y, DType::F16);
            assert!(first.get_or_insert(y.clone()) == &y, "{x:?}: {choice:?} differs from the first tile");
        }
        // Added to what is there: zeros, then the gradient itself.
        for choice in coop::weight_choices(&cx, &input, &params).into_iter().step_by(3) {
            let mut cx = Context::new(gpu());
            let (input, dy, w, _, params) = tensors(&cx);
            let target = |accumulate| crate::tensor::GradTarget { tensor: w.clone(), accumulate };
            coop::weight_gradient(&mut cx, [&input, &dy], &target(false), params, choice).unwrap();
            coop::weight_gradient(&mut cx, [&input, &dy], &target(true), params, choice).unwrap();
            let plan = cx.finish("test").unwrap();
            plan.run().unwrap();
            let Storage::Buffer(buffer) = w.storage() else { panic!("an upload has a buffer") };
            let bytes = gpu().read(buffer, 0..w.bytes()).unwrap();
            let got = Array::new(w.shape(), bytemuck::pod_collect_to_vec(&bytes));
            let want = want_dw.map(|g| 2.0 * g);
            got.check_within(&format!("{x:?} dw {choice:?}"), &want, COOP_TOLERANCE);
        }
    }
}

/// Everything the gathers do, in tiles small enough to emulate.
#[test]
fn emulated_matrices_agree_with_f64() {
    let Some(gpu) = Gpu::emulating_matrices(&DeviceChoice::Auto) else { return };
    let halo = |matrices, subgroups, beside, taps| {
        Kind::Halo(Halo { tile: tile(matrices, subgroups), beside, taps })
    };
    let product =
        |matrices, subgroups, deep| Kind::Product(Product { tile: tile(matrices, subgroups), deep });
    // x, the kernel's side, filters, stride, tile, splits.
    let cases = [
        ([2, 5, 16, 32], 3, 48, 1, halo([2, 1], [2, 2], 1, 3), 1),
        ([1, 3, 24, 48], 3, 32, 1, halo([1, 2], [2, 1], 2, 3), 2),
        ([3, 8, 8, 48], 3, 48, 1, halo([4, 1], [2, 1], 1, 3), 3),
        ([2, 3, 16, 32], 3, 32, 1, halo([1, 2], [2, 1], 1, 9), 1),
        ([2, 3, 16, 3], 3, 6, 1, halo([1, 1], [2, 1], 1, 3), 1),
        ([1, 5, 32, 32], 3, 80, 1, halo([1, 2], [4, 2], 2, 3), 1),
        // Sums of one row of subgroups are staged at a time.
        ([2, 9, 16, 16], 3, 112, 1, halo([4, 4], [2, 2], 1, 3), 1),
        ([1, 1, 70, 48], 1, 48, 1, product([2, 2], [1, 2], true), 1),
        ([2, 3, 5, 48], 3, 32, 1, product([1, 1], [2, 1], false), 2),
        ([2, 3, 5, 48], 3, 32, 2, product([1, 2], [2, 1], true), 1),
        ([2, 3, 5, 20], 1, 30, 1, product([1, 1], [2, 2], false), 1),
        ([1, 1, 70, 80], 1, 144, 1, product([2, 2], [2, 2], true), 1),
        ([2, 3, 5, 80], 3, 80, 2, product([2, 1], [2, 4], true), 2),
    ];
    for (x, kernel, filters, stride, kind, splits) in cases {
        let case = random(Rung::Coop, DType::F16, x, kernel, filters, stride);
        let [want, ..] = reference(&case, stride);
        let (residual, old) = (Array::random(&want.shape, 9), Array::random(&want.shape, 10));
        let want = want.zip(&residual, |a, b| a + b).zip(&old, |a, b| a + b);
        let mut cx = Context::new(&gpu);
        let [input, residual, old] = [&case.x, &residual, &old].map(|a| a.upload(&cx, DType::F16));
        let [w, bias] = [&case.w, case.bias.as_ref().unwrap()].map(|a| a.upload(&cx, DType::F32));
        let params = Params::new(&input, &w, Some(&bias), stride).unwrap().flattened();
        let params = Params { has_residual: 1, accumulate: 1, ..params };
        let y = cx.copy(&old).unwrap();
        let (tensors, added) = ([&input, &w, &y], [Some(&bias), Some(&residual)]);
        let choice = Choice { kind, splits };
        coop::gather(&mut cx, Direction::Forward, tensors, added, params, choice).unwrap();
        cx.keep(&y);
        let plan = cx.finish("test").unwrap();
        plan.run().unwrap();
        let y = download_from(&gpu, &plan, &y);
        y.check(&format!("{x:?} to {filters} {choice:?}"), &want, DType::F16);
    }
}

/// Winograd's way, whose sums round a few thousandths of their size.
#[test]
fn emulated_winograd_agrees_with_f64() {
    let Some(gpu) = Gpu::emulating_matrices(&DeviceChoice::Auto) else { return };
    for (x, filters) in [([3, 8, 8, 64], 64), ([1, 4, 12, 128], 80), ([2, 12, 4, 64], 128)] {
        let case = random(Rung::Coop, DType::F16, x, 3, filters, 1);
        let [want, ..] = reference(&case, 1);
        let residual = Array::random(&want.shape, 9);
        let want = want.zip(&residual, |a, b| a + b);
        let mut cx = Context::new(&gpu);
        let [x, residual] = [&case.x, &residual].map(|array| array.upload(&cx, DType::F16));
        let [w, bias] = [&case.w, case.bias.as_ref().unwrap()].map(|a| a.upload(&cx, DType::F32));
        let params = Params { has_residual: 1, ..Params::new(&x, &w, Some(&bias), 1).unwrap() };
        assert!(coop::winograd::fits(&cx, &x, &params));
        let product = Some(Product { tile: tile([2, 1], [1, 2]), deep: true });
        let y = cx.output("y", &want.shape, DType::F16).unwrap();
        let added = [Some(&bias), Some(&residual)];
        coop::winograd::convolve(&mut cx, [&x, &w, &y], added, params, product).unwrap();
        cx.keep(&y);
        let plan = cx.finish("test").unwrap();
        plan.run().unwrap();
        let error = relative_error(&download_from(&gpu, &plan, &y), &want);
        assert!(error < 2.5e-3, "{:?} to {filters} is off by {error:.2e}", case.x.shape);
    }
}

/// Root mean square of the difference, by that of what is wanted.
fn relative_error(got: &Array, want: &Array) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let mut differences = got.data.iter().zip(&want.data).map(|(a, b)| f64::from(a - b));
    (square(&mut differences) / square(&mut want.data.iter().map(|&v| f64::from(v)))).sqrt()
}

/// Channels that 16 does not divide are padded, and only theirs are left: written, and added to what is there.
#[test]
fn emulated_weight_gradients_of_any_channels_agree_with_f64() {
    let Some(gpu) = Gpu::emulating_matrices(&DeviceChoice::Auto) else { return };
    for (x, kernel, filters, stride) in
        [([2, 5, 6, 3], 3, 20, 1), ([3, 7, 5, 20], 3, 6, 2), ([1, 1, 70, 16], 1, 30, 1)]
    {
        let case = random(Rung::Coop, DType::F16, x, kernel, filters, stride);
        let [_, _, want, _] = reference(&case, stride);
        let mut cx = Context::new(&gpu);
        let [x, dy] = [&case.x, &case.gy].map(|array| array.upload(&cx, DType::F16));
        let [w, bias] = [&case.w, case.bias.as_ref().unwrap()].map(|array| array.upload(&cx, DType::F32));
        let params = Params::new(&x, &w, Some(&bias), stride).unwrap().flattened();
        let small = |(of, splits): &(_, Splits)| *of == tile([2, 2], [2, 2]) && splits.count == 1;
        let choice = coop::weight_choices(&cx, &x, &params).into_iter().find(small).unwrap();
        for accumulate in [false, true] {
            let target = crate::tensor::GradTarget { tensor: w.clone(), accumulate };
            coop::weight_gradient(&mut cx, [&x, &dy], &target, params, choice).unwrap();
        }
        let plan = cx.finish("test").unwrap();
        plan.run().unwrap();
        let Storage::Buffer(buffer) = w.storage() else { panic!("an upload has a buffer") };
        let bytes = gpu.read(buffer, 0..w.bytes()).unwrap();
        let got = Array::new(w.shape(), bytemuck::pod_collect_to_vec(&bytes));
        got.check_within(&format!("{:?} to {filters}", case.x.shape), &want.map(|g| 2.0 * g), COOP_TOLERANCE);
    }
}
