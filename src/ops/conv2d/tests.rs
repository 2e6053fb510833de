//! Every rung against golden tensors, against a plain f64 loop, and against itself at another batch size.

use super::problem::{Tensors, Tile};
use super::*;
use crate::autograd::backprop_from;
use crate::gpu::Rung;
use crate::tensor::DType;
use crate::testing::{
    Array, Golden, check_gradients, download, dtypes, forward_backward_mixed, gpu, rungs, tolerance,
};

/// Inputs of a convolution or a linear layer: activations in `dtype`, parameters in f32.
pub struct Case {
    pub rung: Rung,
    pub dtype: DType,
    pub x: Array,
    pub w: Array,
    pub bias: Option<Array>,
    pub gy: Array,
}

/// The output and the gradients of x, w and the bias.
pub fn run(
    case: &Case,
    op: impl FnOnce(&mut Context, &Tensor, &Tensor, Option<&Tensor>) -> Result<Tensor>,
) -> (Array, Vec<Array>) {
    let mut cx = Context::with_tape(gpu());
    cx.set_rung(case.rung);
    let mut inputs = vec![case.x.upload(&cx, case.dtype), case.w.upload(&cx, DType::F32)];
    inputs.extend(case.bias.as_ref().map(|bias| bias.upload(&cx, DType::F32)));
    inputs.iter().for_each(|input| cx.watch(input));
    let y = op(&mut cx, &inputs[0], &inputs[1], inputs.get(2)).unwrap();
    let gy = case.gy.reshape(y.shape()).upload(&cx, case.dtype);
    backprop_from(&mut cx, &y, &gy).unwrap();
    let grads: Vec<Tensor> = inputs.iter().map(|input| cx.grad(input).unwrap()).collect();
    cx.keep(&y);
    grads.iter().for_each(|grad| cx.keep(grad));
    let plan = cx.finish("test").unwrap();
    plan.run().unwrap();
    (download(&plan, &y), grads.iter().map(|grad| download(&plan, grad)).collect())
}

pub(super) fn run_conv(case: &Case, stride: usize) -> (Array, Vec<Array>) {
    run(case, |cx, x, w, bias| conv2d(cx, x, w, bias, stride))
}

/// A random case: x `[N, H, W, C]`, a `kernel`-sided convolution to `filters` channels.
pub(super) fn random(
    rung: Rung,
    dtype: DType,
    x: [usize; 4],
    kernel: usize,
    filters: usize,
    stride: usize,
) -> Case {
    let [batch, height, width, channels] = x;
    Case {
        rung,
        dtype,
        x: Array::random(&x, 1),
        w: Array::random(&[kernel, kernel, channels, filters], 2),
        bias: Some(Array::random(&[filters], 3)),
        gy: Array::random(&[batch, height.div_ceil(stride), width.div_ceil(stride), filters], 4),
    }
}

/// The formulas in f64, scattered from every (output element, tap) pair: y, dx, dw, db.
pub(super) fn reference(case: &Case, stride: usize) -> [Array; 4] {
    reference_behind(case, stride, [0, 1].map(|axis| (case.w.shape[axis] - 1) / 2))
}

/// The same behind so many rows and columns of padding; what `gy` is for is all that there is of y.
pub(super) fn reference_behind(case: &Case, stride: usize, [above, left]: [usize; 2]) -> [Array; 4] {
    let &[batch, height, width, channels] = &case.x.shape[..] else { panic!() };
    let &[_, out_h, out_w, filters] = &case.gy.shape[..] else { panic!() };
    let ([kernel_h, kernel], bias) = ([case.w.shape[0], case.w.shape[1]], case.bias.as_ref().unwrap());
    let mut y = vec![0f64; case.gy.data.len()];
    let mut dx = vec![0f64; case.x.data.len()];
    let mut dw = vec![0f64; case.w.data.len()];
    let mut db = vec![0f64; filters];
    for pixel in 0..batch * out_h * out_w {
        let (n, oy, ox) = (pixel / (out_h * out_w), pixel / out_w % out_h, pixel % out_w);
        for (k, db) in db.iter_mut().enumerate() {
            let out = pixel * filters + k;
            y[out] += f64::from(bias.data[k]);
            *db += f64::from(case.gy.data[out]);
            for tap in 0..kernel_h * kernel {
                let iy = (oy * stride + tap / kernel).wrapping_sub(above);
                let ix = (ox * stride + tap % kernel).wrapping_sub(left);
                if iy >= height || ix >= width {
                    continue;
                }
                for c in 0..channels {
                    let from = ((n * height + iy) * width + ix) * channels + c;
                    let weight = (tap * channels + c) * filters + k;
                    y[out] += f64::from(case.x.data[from]) * f64::from(case.w.data[weight]);
                    dx[from] += f64::from(case.gy.data[out]) * f64::from(case.w.data[weight]);
                    dw[weight] += f64::from(case.x.data[from]) * f64::from(case.gy.data[out]);
                }
            }
        }
    }
    let array = |shape: &[usize], data: Vec<f64>| Array::new(shape, data.iter().map(|&v| v as f32).collect());
    [array(&case.gy.shape, y), array(&case.x.shape, dx), array(&case.w.shape, dw), array(&bias.shape, db)]
}

#[test]
fn matches_the_golden_cases() {
    let golden = Golden::open("ops");
    let cases = [
        ("conv.k3", 1),
        ("conv.k3_even", 1),
        ("conv.k3_in3", 1),
        ("conv.k3_out6", 1),
        ("conv.k3_c64", 1),
        ("conv.k3_s2_odd", 2),
        ("conv.k3_s2", 2),
        ("conv.k3_s2_c32", 2),
        ("conv.k1", 1),
        ("conv.k1_c96", 1),
        ("conv.k3_1x1", 1),
    ];
    for dtype in dtypes() {
        for rung in rungs() {
            for (name, stride) in cases {
                let get = |part: &str| golden.array(&format!("{name}.{part}"));
                let case = Case {
                    rung,
                    dtype,
                    x: get("x").nhwc(),
                    w: get("w").hwio(),
                    bias: Some(get("b")),
                    gy: get("gy").nhwc(),
                };
                let (y, grads) = run_conv(&case, stride);
                golden.check_as(&format!("{name}.y"), &y, dtype, |want| want.nhwc());
                golden.check_as(&format!("{name}.dx"), &grads[0], dtype, |want| want.nhwc());
                golden.check_as(&format!("{name}.dw"), &grads[1], dtype, |want| want.hwio());
                golden.check_as(&format!("{name}.db"), &grads[2], dtype, |want| want);
            }
        }
    }
}

#[test]
fn every_rung_agrees_with_f64_at_odd_sizes() {
    // (x, kernel, filters, stride): channel counts that divide by nothing, by 4, by 8; sizes off every tile.
    let cases = [
        ([3, 5, 7, 33], 3, 20, 1),
        ([3, 5, 7, 32], 3, 36, 1),
        ([3, 5, 7, 32], 3, 36, 2),
        ([2, 6, 9, 12], 3, 8, 2),
        ([2, 8, 8, 4], 3, 4, 1),
        ([3, 9, 11, 20], 1, 36, 2),
        ([3, 5, 7, 20], 1, 12, 1),
        ([2, 3, 5, 1], 3, 3, 1),
        ([1, 1, 70, 72], 1, 68, 1),
        ([5, 4, 4, 8], 3, 8, 1),
        ([1, 1, 1, 4], 3, 4, 2),
        // Enough pixels for several splits in the weight gradient.
        ([8, 9, 11, 8], 3, 12, 1),
        ([8, 13, 11, 3], 3, 5, 2),
        // Enough channels for several splits in the other two.
        ([2, 3, 5, 196], 3, 180, 1),
    ];
    for dtype in dtypes() {
        for rung in rungs() {
            for (x, kernel, filters, stride) in cases {
                let case = random(rung, dtype, x, kernel, filters, stride);
                let (y, grads) = run_conv(&case, stride);
                let [want_y, want_dx, want_dw, want_db] = reference(&case, stride);
                let name = |part| format!("{rung} {x:?} {kernel}x{kernel} to {filters} /{stride}: {part}");
                y.check(&name("y"), &want_y, dtype);
                grads[0].check(&name("dx"), &want_dx, dtype);
                grads[1].check(&name("dw"), &want_dw, dtype);
                grads[2].check(&name("db"), &want_db, dtype);
            }
        }
    }
}

#[test]
fn every_tile_gives_the_same_bits() {
    for (x, kernel, filters, stride) in
        [([2, 12, 13, 20], 3, 136, 1), ([3, 9, 11, 33], 3, 70, 1), ([2, 9, 12, 36], 3, 20, 2)]
    {
        let case = random(Rung::Tiled, DType::F32, x, kernel, filters, stride);
        let of_tile = |(tile, trusted): (Tile, bool)| {
            let cx = &mut Context::new(gpu());
            let [x, w, dy] = [&case.x, &case.w, &case.gy].map(|array| array.upload(cx, DType::F32));
            let bias = case.bias.as_ref().unwrap().upload(cx, DType::F32);
            let params = Params::new(&x, &w, Some(&bias), stride).unwrap();
            let [y, dx, dw] = [&dy, &x, &w].map(|like| cx.output("out", like.shape(), DType::F32).unwrap());
            let tensors = Tensors { x: &x, w: &w, bias: &bias, y: &y };
            gather::tiled(cx, Direction::Forward, tensors, params, tile, trusted);
            let turned = gather::turned(cx, &w, params).unwrap();
            let tensors = Tensors { x: &dy, w: &turned, bias: &turned, y: &dx };
            gather::tiled(cx, Direction::InputGradient, tensors, params.reversed(), tile, trusted);
            let target = crate::tensor::GradTarget { tensor: dw, accumulate: false };
            weight_gradient::tiled(cx, [&x, &dy], &target, params, tile, trusted).unwrap();
            let outputs = [y, dx, target.tensor];
            outputs.iter().for_each(|output| cx.keep(output));
            let plan = std::mem::replace(cx, Context::new(gpu())).finish("test").unwrap();
            plan.run().unwrap();
            outputs.map(|output| download(&plan, &output))
        };
        let [large, wide, small] = Tile::ALL.map(|tile| of_tile((tile, true)));
        let checked = Tile::ALL.map(|tile| of_tile((tile, false)));
        let [want_y, want_dx, want_dw, _] = reference(&case, stride);
        small[0].check("y", &want_y, DType::F32);
        small[1].check("dx", &want_dx, DType::F32);
        small[2].check("dw", &want_dw, DType::F32);
        assert!(large == small, "{x:?} to {filters}: 128x128 differs from 64x64");
        assert!(wide == small, "{x:?} to {filters}: 128x64 differs from 64x64");
        assert!(
            checked.iter().all(|checked| *checked == small),
            "{x:?} to {filters}: checked and trusted differ"
        );
    }
}

#[test]
fn splits_of_a_sum_give_the_same_bits_in_any_number_of_images() {
    let (x, filters, splits) = ([5, 6, 8, 36], 24, 3);
    for dtype in dtypes() {
        let case = random(Rung::Tiled, dtype, x, 3, filters, 1);
        // Partial sums of all images, of two at a time, and of two with the checked kernel.
        let of_image = 4 * u64::from(splits) * 6 * 8 * filters as u64;
        let [whole, two, checked] = [(5, false), (2, false), (2, true)].map(|(images, checked)| {
            let cx = &mut Context::new(gpu());
            let [x, w] = [(&case.x, dtype), (&case.w, DType::F32)].map(|(a, dtype)| a.upload(cx, dtype));
            let bias = case.bias.as_ref().unwrap().upload(cx, DType::F32);
            let params = Params::new(&x, &w, Some(&bias), 1).unwrap();
            let y = cx.output("out", &case.gy.shape, dtype).unwrap();
            let tensors = Tensors { x: &x, w: &w, bias: &bias, y: &y };
            split::gather(cx, Direction::Forward, tensors, params, splits, images * of_image, checked)
                .unwrap();
            cx.keep(&y);
            let plan = std::mem::replace(cx, Context::new(gpu())).finish("test").unwrap();
            plan.run().unwrap();
            download(&plan, &y)
        });
        let [want, ..] = reference(&case, 1);
        whole.check("y", &want, dtype);
        assert!(whole == two, "{dtype:?}: two images at once differ from all");
        assert!(whole == checked, "{dtype:?}: checked and trusted differ");
    }
}

#[test]
fn a_residual_is_added() {
    for dtype in dtypes() {
        for rung in rungs() {
            for (x, kernel, filters) in
                [([2, 9, 16, 16], 3, 16), ([3, 5, 7, 20], 1, 30), ([3, 8, 8, 96], 3, 16)]
            {
                let case = random(rung, dtype, x, kernel, filters, 1);
                let residual = case.gy.map(|v| 1.5 - v);
                let of = |fused: bool| {
                    run(&case, |cx, x, w, bias| {
                        let residual = residual.upload(cx, dtype);
                        cx.watch(&residual);
                        // Twice, so that its gradient is added to, too.
                        let y = match fused {
                            true => conv2d_add(cx, x, w, bias, 1, &residual)?,
                            false => {
                                let y = conv2d(cx, x, w, bias, 1)?;
                                add(cx, &residual, &y, 1.0)?
                            }
                        };
                        add(cx, &y, &residual, 1.0)
                    })
                };
                let ((y, grads), (want, want_grads)) = (of(true), of(false));
                y.check(&format!("{rung} {x:?} y"), &want, dtype);
                assert!(grads == want_grads, "{rung} {x:?}: gradients differ");
            }
        }
    }
    let cx = &mut Context::with_tape(gpu());
    let case = random(Rung::Naive, DType::F32, [1, 4, 4, 4], 3, 4, 1);
    let (x, w) = (case.x.upload(cx, DType::F32), case.w.upload(cx, DType::F32));
    let error = conv2d_add(cx, &x, &w, None, 2, &x).unwrap_err().to_string();
    assert!(error.contains("the residual must be [1, 2, 2, 4] F32"), "{error}");
}

#[test]
fn gradients_of_a_residual() {
    let inputs =
        [Array::random(&[2, 4, 5, 4], 1), Array::random(&[3, 3, 4, 4], 2), Array::random(&[2, 4, 5, 4], 3)];
    check_gradients(&inputs, |cx, x| conv2d_add(cx, &x[0], &x[1], None, 1, &x[2]));
    // The block's own input.
    check_gradients(&inputs[..2], |cx, x| conv2d_add(cx, &x[0], &x[1], None, 1, &x[0]));
}

#[test]
fn weights_may_be_f16() {
    if !dtypes().contains(&DType::F16) {
        return;
    }
    for rung in rungs() {
        let case = random(rung, DType::F16, [2, 4, 16, 16], 3, 32, 1);
        let (want, want_grads) = run_conv(&case, 1);
        let (bias, inputs) = (case.bias.clone().unwrap(), [case.x.clone(), case.w.clone()]);
        let inputs = [&inputs[..], &[bias]].concat();
        let types = [DType::F16, DType::F16, DType::F32];
        let (y, grads) = forward_backward_mixed(rung, &types, &inputs, &case.gy, |cx, x| {
            conv2d(cx, &x[0], &x[1], Some(&x[2]), 1)
        });
        // These weights are exact in f16.
        assert!(y == want && grads[0] == want_grads[0], "{rung}");
        grads[1].check(&format!("{rung} dw"), &want_grads[1], DType::F16);
    }
}

#[test]
fn tiles_are_chosen_by_size_and_waste() {
    let of = |all: &[Tile], rows, columns, copies| Tile::choose(all, rows, columns, copies).to_string();
    let chosen = |rows, columns, copies| of(&Tile::ALL, rows, columns, copies);
    assert_eq!(of(&Tile::GATHER, 65536, 384, 1), "128x64x16");
    assert_eq!(chosen(65536, 128, 1), "128x128x16");
    assert_eq!(chosen(65536, 192, 1), "128x64x16", "128x128 would waste a quarter");
    assert_eq!(chosen(4096, 192, 1), "64x64x16", "larger tiles would be too few");
    assert_eq!(chosen(1728, 192, 64), "128x64x16");
    assert_eq!(chosen(64, 64, 1000), "64x64x16");
}

#[test]
fn an_image_does_not_depend_on_its_batch() {
    for dtype in dtypes() {
        for rung in rungs() {
            for (size, channels, filters, kernel, stride) in [
                ([8, 8], 32, 32, 3, 1),
                ([5, 7], 32, 20, 3, 1),
                ([5, 7], 8, 12, 3, 2),
                ([3, 3], 16, 8, 1, 1),
                ([3, 5], 180, 8, 3, 1),
            ] {
                let [height, width] = size;
                let all = random(rung, dtype, [5, height, width, channels], kernel, filters, stride);
                let part = |array: &Array, n: usize| {
                    let each = array.data.len() / 5;
                    let shape = [&[1], &array.shape[1..]].concat();
                    Array::new(&shape, array.data[n * each..(n + 1) * each].to_vec())
                };
                let (y, grads) = run_conv(&all, stride);
                for n in [0, 3] {
                    let (x, gy) = (part(&all.x, n), part(&all.gy, n));
                    let one = Case { x, gy, w: all.w.clone(), bias: all.bias.clone(), ..all };
                    let (y_one, grads_one) = run_conv(&one, stride);
                    assert_eq!(y_one, part(&y, n), "{rung} {dtype:?}: y of image {n}");
                    assert_eq!(grads_one[0], part(&grads[0], n), "{rung} {dtype:?}: dx of image {n}");
                }
            }
        }
    }
}

#[test]
fn gradients_are_added_to_what_is_there() {
    // y = conv(x, w) + conv(x, w) with shared parameters doubles every gradient.
    for rung in rungs() {
        for filters in [8, 5] {
            let case = random(rung, DType::F32, [2, 5, 6, 8], 3, filters, 1);
            let (_, once) = run_conv(&case, 1);
            let (_, twice) = run(&case, |cx, x, w, bias| {
                let (a, b) = (conv2d(cx, x, w, bias, 1)?, conv2d(cx, x, w, bias, 1)?);
                crate::ops::add(cx, &a, &b, 1.0)
            });
            for (i, (once, twice)) in once.iter().zip(&twice).enumerate() {
                let name = format!("{rung} gradient {i}");
                twice.check_within(&name, &once.map(|g| 2.0 * g), tolerance(DType::F32));
            }
        }
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let inputs = |channels, filters| {
        let x = Array::random(&[2, 4, 5, channels], 1);
        [x, Array::random(&[3, 3, channels, filters], 2), Array::random(&[filters], 3)]
    };
    for (channels, filters) in [(4, 8), (3, 5)] {
        for stride in [1, 2] {
            let inputs = inputs(channels, filters);
            check_gradients(&inputs, |cx, x| conv2d(cx, &x[0], &x[1], Some(&x[2]), stride));
            check_gradients(&inputs[..2], |cx, x| conv2d(cx, &x[0], &x[1], None, stride));
        }
    }
}

#[test]
fn skips_gradients_that_nobody_wants() {
    let mut cx = Context::with_tape(gpu());
    let case = random(Rung::Naive, DType::F32, [1, 4, 4, 4], 3, 4, 1);
    let (x, w) = (case.x.upload(&cx, DType::F32), case.w.upload(&cx, DType::F32));
    cx.watch(&w);
    let y = conv2d(&mut cx, &x, &w, None, 1).unwrap();
    let gy = case.gy.upload(&cx, DType::F32);
    backprop_from(&mut cx, &y, &gy).unwrap();
    let plan = cx.finish("test").unwrap();
    assert!(plan.labels().all(|label| !label.contains("input") && !label.contains("bias")));
}

#[test]
fn refuses_what_does_not_fit() {
    let cx = &mut Context::new(gpu());
    let zeros = |shape: &[usize]| {
        cx.constant_f32("zeros", shape, &vec![0.0; shape.iter().product::<usize>()]).unwrap()
    };
    let (x, flat) = (zeros(&[1, 4, 4, 3]), zeros(&[4, 3]));
    let (w, wide, channels, bias) =
        (zeros(&[3, 3, 3, 2]), zeros(&[5, 5, 3, 2]), zeros(&[3, 3, 4, 2]), zeros(&[3]));
    let labels = cx.constant_u32("labels", &[1, 4, 4, 3], &[0; 48]).unwrap();
    let mut fails = |x: &Tensor, w: &Tensor, bias: Option<&Tensor>, stride, want: &str| {
        let error = conv2d(cx, x, w, bias, stride).unwrap_err().to_string();
        assert!(error.contains(want), "{error:?} does not say {want:?}");
    };
    fails(&flat, &w, None, 1, "expected [N, H, W, C] (four dimensions), got [4, 3]");
    fails(&x, &flat, None, 1, "expected weights [Kh, Kw, C, K] (four dimensions), got [4, 3]");
    fails(&x, &wide, None, 1, "must be 1x1, 3x3, or 1x3 along a line, got weights [5, 5, 3, 2]");
    fails(&x, &channels, None, 1, "x [1, 4, 4, 3] has 3 channels but the weights [3, 3, 4, 2] take 4");
    fails(&x, &w, Some(&bias), 1, "expected a bias [2], got [3]");
    fails(&x, &w, None, 3, "the stride must be 1 or 2, got 3");
    fails(&labels, &w, None, 1, "x must be f32 or f16");
}
