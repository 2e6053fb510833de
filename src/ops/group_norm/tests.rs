use super::*;
use crate::testing::{
    Array, Golden, check_gradients, dtypes, forward, forward_backward_mixed, gpu, rungs, tolerance,
};

fn run(rung: Rung, dtype: DType, inputs: &[Array], gy: &Array, options: &GroupNorm) -> (Array, Vec<Array>) {
    let types = [dtype, DType::F32, DType::F32, dtype];
    forward_backward_mixed(rung, &types, inputs, gy, |cx, x| {
        group_norm(cx, &x[0], &x[1], &x[2], x.get(3), options)
    })
}

/// `[N, C, ...]` to `[N, ..., C]`.
fn channels_last(array: Array) -> Array {
    let rank = array.shape.len();
    let order: Vec<usize> = std::iter::once(0).chain(2..rank).chain([1]).collect();
    array.permute(&order)
}

#[test]
fn matches_the_golden_cases() {
    let golden = Golden::open("ops");
    let cases = ["c32", "c64", "c96_1x1", "c64_3d", "offset", "tiny_var"].map(|c| format!("groupnorm.{c}"));
    let more = ["gn_silu.c64", "gn_film_silu.c64"].map(str::to_owned);
    for case in cases.into_iter().chain(more) {
        let array = |name: &str| golden.array(&format!("{case}.{name}"));
        let mut inputs = vec![channels_last(array("x")), array("w"), array("b")];
        let mut names = vec!["dx", "dw", "db"];
        if case.starts_with("gn_film") {
            inputs.push(array("emb"));
            names.push("demb");
        }
        let options = GroupNorm { groups: 32, eps: 1e-5, silu: case.contains("silu") };
        for (rung, dtype) in rungs().into_iter().flat_map(|r| dtypes().into_iter().map(move |d| (r, d))) {
            if dtype == DType::F16 && case.ends_with("offset") {
                continue; // a spread of 1 about a mean of 1000 has no f16 digits
            }
            let (y, grads) = run(rung, dtype, &inputs, &channels_last(array("gy")), &options);
            golden.check_as(&format!("{case}.y"), &y, dtype, channels_last);
            for (name, grad) in names.iter().zip(&grads) {
                let order = |a: Array| if *name == "dx" { channels_last(a) } else { a };
                golden.check_as(&format!("{case}.{name}"), grad, dtype, order);
            }
        }
    }
}

/// The output and all gradients in f64.
fn reference(inputs: &[Array], gy: &Array, options: &GroupNorm) -> (Array, Vec<Array>) {
    let shape = &inputs[0].shape;
    let (batch, channels) = (shape[0], shape[shape.len() - 1]);
    let pixels = inputs[0].data.len() / (batch * channels);
    let width = channels / options.groups;
    let value = |i: usize, at: usize| f64::from(inputs[i].data[at]);
    let mut y = vec![0f64; inputs[0].data.len()];
    let mut grads: Vec<Vec<f64>> = inputs.iter().map(|a| vec![0f64; a.data.len()]).collect();
    for n in 0..batch {
        for group in 0..options.groups {
            let at = |pixel: usize, c: usize| (n * pixels + pixel) * channels + c;
            let places: Vec<(usize, usize)> = (0..pixels)
                .flat_map(|pixel| (group * width..(group + 1) * width).map(move |c| (pixel, c)))
                .collect();
            let count = places.len() as f64;
            let mean = places.iter().map(|&(pixel, c)| value(0, at(pixel, c))).sum::<f64>() / count;
            let variance =
                places.iter().map(|&(pixel, c)| (value(0, at(pixel, c)) - mean).powi(2)).sum::<f64>() / count;
            let rstd = (variance + f64::from(options.eps)).powf(-0.5);
            let mut normal: Vec<(f64, f64)> = Vec::new(); // (x̂, dx̂) of every place
            for &(pixel, c) in &places {
                let i = at(pixel, c);
                let x = (value(0, i) - mean) * rstd;
                let h = x * value(1, c) + value(2, c);
                let (scale, shift) = match inputs.len() {
                    4 => (1.0 + value(3, n * 2 * channels + c), value(3, (n * 2 + 1) * channels + c)),
                    _ => (1.0, 0.0),
                };
                let u = h * scale + shift;
                let sigmoid = 1.0 / (1.0 + (-u).exp());
                let mut du = f64::from(gy.data[i]);
                y[i] = u;
                if options.silu {
                    y[i] = u * sigmoid;
                    du *= sigmoid * (1.0 + u * (1.0 - sigmoid));
                }
                if inputs.len() == 4 {
                    grads[3][n * 2 * channels + c] += du * h;
                    grads[3][(n * 2 + 1) * channels + c] += du;
                }
                grads[1][c] += du * scale * x;
                grads[2][c] += du * scale;
                normal.push((x, du * scale * value(1, c)));
            }
            let sum: f64 = normal.iter().map(|(_, g)| g).sum();
            let dot: f64 = normal.iter().map(|(x, g)| x * g).sum();
            for (&(pixel, c), (x, g)) in places.iter().zip(&normal) {
                grads[0][at(pixel, c)] = rstd * (g - (sum + x * dot) / count);
            }
        }
    }
    let narrow = |data: &[f64], shape: &[usize]| Array::new(shape, data.iter().map(|&v| v as f32).collect());
    let grads = grads.iter().zip(inputs).map(|(g, input)| narrow(g, &input.shape)).collect();
    (narrow(&y, shape), grads)
}

fn inputs(shape: &[usize], scale_shift: bool) -> Vec<Array> {
    let (batch, channels) = (shape[0], shape[shape.len() - 1]);
    let mut inputs = vec![
        Array::random(shape, 1).map(|v| v + 0.25),
        Array::random(&[channels], 2),
        Array::random(&[channels], 3),
    ];
    if scale_shift {
        inputs.push(Array::random(&[batch, 2 * channels], 4));
    }
    inputs
}

#[test]
fn matches_the_reference_on_every_rung() {
    // Odd sizes; groups that are not whole vectors; several blocks of both sizes with a rest; rank 2.
    let shapes: [(&[usize], usize); 7] = [
        (&[3, 5, 7, 33], 3),
        (&[3, 5, 7, 36], 6),
        (&[2, 5, 7, 64], 32),
        (&[3, 33, 33, 12], 4),
        (&[2, 300, 8], 1),
        (&[3, 48], 3),
        (&[2, 3, 520], 2),
    ];
    for (case, (shape, groups)) in shapes.into_iter().enumerate() {
        let options = GroupNorm { groups, eps: 1e-5, silu: case % 2 == 0 };
        let inputs = inputs(shape, case % 3 != 2);
        let gy = Array::random(shape, 5);
        let (want, want_grads) = reference(&inputs, &gy, &options);
        for (rung, dtype) in rungs().into_iter().flat_map(|r| dtypes().into_iter().map(move |d| (r, d))) {
            let (y, grads) = run(rung, dtype, &inputs, &gy, &options);
            y.check(&format!("{rung} y"), &want, dtype);
            for (i, (grad, want)) in grads.iter().zip(&want_grads).enumerate() {
                grad.check(&format!("{rung} gradient {i}"), want, dtype);
            }
        }
    }
}

#[test]
fn gradient_is_that_of_finite_differences() {
    let options = GroupNorm { groups: 3, eps: 1e-5, silu: true };
    check_gradients(&inputs(&[2, 3, 5, 12], true), |cx, x| {
        group_norm(cx, &x[0], &x[1], &x[2], x.get(3), &options)
    });
}

#[test]
fn gradients_add_to_what_is_there() {
    let options = GroupNorm { groups: 2, eps: 1e-5, silu: false };
    for (rung, channels) in rungs().into_iter().flat_map(|r| [(r, 8), (r, 6)]) {
        let inputs = inputs(&[2, 5, channels], true);
        let gy = Array::random(&[2, 5, channels], 5);
        let (_, want) = reference(&inputs, &gy, &options);
        let (_, grads) = forward_backward_mixed(rung, &[DType::F32; 4], &inputs, &gy, |cx, x| {
            let a = group_norm(cx, &x[0], &x[1], &x[2], x.get(3), &options)?;
            let b = group_norm(cx, &x[0], &x[1], &x[2], x.get(3), &options)?;
            crate::ops::add(cx, &a, &b, 1.0)
        });
        for (grad, want) in grads.iter().zip(&want) {
            grad.check("twice", &want.map(|g| 2.0 * g), DType::F32);
        }
    }
}

#[test]
fn an_image_does_not_depend_on_its_batch() {
    let options = GroupNorm { groups: 4, eps: 1e-5, silu: true };
    let five = inputs(&[5, 9, 7, 24], true);
    let gy = Array::random(&[5, 9, 7, 24], 5);
    let first = |a: &Array, n: usize| {
        let mut shape = a.shape.clone();
        shape[0] = n;
        Array::new(&shape, a.data[..shape.iter().product()].to_vec())
    };
    let one = [first(&five[0], 1), five[1].clone(), five[2].clone(), first(&five[3], 1)];
    for rung in rungs() {
        let (y5, grads5) = run(rung, DType::F32, &five, &gy, &options);
        let (y1, grads1) = run(rung, DType::F32, &one, &first(&gy, 1), &options);
        assert_eq!(first(&y5, 1), y1);
        assert_eq!(first(&grads5[0], 1), grads1[0]);
        assert_eq!(first(&grads5[3], 1), grads1[3]);
    }
}

#[test]
fn a_large_mean_costs_few_digits() {
    // Spread 1 about 4096: x itself keeps 2^-11, and its differences from the mean are exact to that.
    let mut inputs = inputs(&[2, 40, 40, 8], false);
    inputs[0] = inputs[0].map(|v| v + 4096.0);
    let gy = Array::random(&[2, 40, 40, 8], 5);
    let options = GroupNorm { groups: 2, eps: 1e-5, silu: false };
    let (want, want_grads) = reference(&inputs, &gy, &options);
    for rung in rungs() {
        let (y, grads) = run(rung, DType::F32, &inputs, &gy, &options);
        y.check_within("y", &want, 60.0 * tolerance(DType::F32));
        grads[0].check_within("dx", &want_grads[0], 60.0 * tolerance(DType::F32));
    }
}

/// Adapters in software leave all loops of an invocation without a word after 65535 turns together.
#[test]
fn groups_of_many_numbers_are_summed_to_their_end() {
    for (shape, groups) in [([2, 90, 101, 12], 2), ([1, 92, 100, 8], 4), ([2, 70, 80, 33], 1)] {
        let mut inputs = inputs(&shape, true);
        // What the first part of the numbers says of all of them is wrong.
        let last = inputs[0].data.len();
        inputs[0].data[last - last / 4..].iter_mut().for_each(|v| *v = 3.0 - *v);
        let options = GroupNorm { groups, eps: 1e-6, silu: true };
        let (want, _) = reference(&inputs, &Array::random(&shape, 5), &options);
        for (rung, dtype) in rungs().into_iter().flat_map(|r| dtypes().into_iter().map(move |d| (r, d))) {
            let mut cx = Context::new(gpu());
            cx.set_rung(rung);
            let types = [dtype, DType::F32, DType::F32, dtype];
            let x: Vec<Tensor> = inputs.iter().zip(types).map(|(a, dtype)| a.upload(&cx, dtype)).collect();
            let y = group_norm(&mut cx, &x[0], &x[1], &x[2], x.get(3), &options).unwrap();
            forward(&x, cx, &y).check(&format!("{rung} {shape:?}"), &want, dtype);
        }
    }
}

#[test]
fn wrong_shapes_are_told_apart() {
    let mut cx = Context::new(gpu());
    let tensor = |cx: &Context, shape: &[usize]| Array::random(shape, 1).upload(cx, DType::F32);
    let options = GroupNorm { groups: 32, eps: 1e-5, silu: false };
    let mut message = |x: &[usize], gamma: &[usize], film: Option<&[usize]>| {
        let (x, gamma) = (tensor(&cx, x), tensor(&cx, gamma));
        let film = film.map(|shape| tensor(&cx, shape));
        group_norm(&mut cx, &x, &gamma, &gamma, film.as_ref(), &options).unwrap_err().to_string()
    };
    assert_eq!(
        message(&[2, 4, 4, 48], &[48], None),
        "group_norm: x is [2, 4, 4, 48]: its 48 channels do not divide into 32 groups"
    );
    assert_eq!(
        message(&[2, 4, 4, 64], &[32], None),
        "group_norm: gamma is [32] F32, expected [64] F32 for x [2, 4, 4, 64]"
    );
    assert_eq!(
        message(&[2, 4, 4, 64], &[64], Some(&[2, 64])),
        "group_norm: scale and shift are [2, 64] F32, expected [2, 128] in F32 or the type of x, \
         [2, 4, 4, 64] F32"
    );
    assert_eq!(
        message(&[64], &[64], None),
        "group_norm: expected [N, ..., C] (two dimensions or more), got [64]"
    );
}

#[test]
fn slabs_tiles_and_their_checked_twins_agree() {
    // Groups within packs, across them, and of several; many blocks of pixels; more rows than a slab has lanes; more blocks
    // than the tiles put together at once, and more work than one workgroup should have.
    let shapes: [(&[usize], usize, bool); 6] = [
        (&[3, 5, 7, 48], 8, true),
        (&[2, 9, 33, 24], 4, true),
        (&[2, 300, 96], 16, true),
        (&[1, 1000, 16], 2, true),
        (&[3, 3, 3, 256], 32, true),
        (&[2, 70, 66, 24], 4, false),
    ];
    for (shape, groups, of_slabs) in shapes {
        let options = GroupNorm { groups, eps: 1e-5, silu: true };
        let inputs = inputs(shape, true);
        let gy = Array::random(shape, 5);
        let (want, _) = reference(&inputs, &gy, &options);
        let kinds: &[bool] = if of_slabs { &[true, false] } else { &[false] };
        for (dtype, &slab) in
            dtypes().into_iter().flat_map(|dtype| kinds.iter().map(move |slab| (dtype, slab)))
        {
            let [trusted, checked] = [false, true].map(|checked| {
                let run = |cx: &mut Context, x: &[Tensor]| -> Result<Tensor> {
                    let params = check(&x[0], &x[1], &x[2], x.get(3), &options)?;
                    let affine = [&x[1], &x[2], &x[3]];
                    let [y, _] = if slab {
                        let slabs = Slabs::new(&params, dtype, 256).expect("it fits");
                        slabs.forward(cx, &x[0], affine, checked)?
                    } else {
                        Tiles::new(&params, dtype).expect("it fits").forward(cx, &x[0], affine, checked)?
                    };
                    Ok(y)
                };
                let mut cx = Context::new(gpu());
                let types = [dtype, DType::F32, DType::F32, dtype];
                let x: Vec<Tensor> =
                    inputs.iter().zip(types).map(|(a, dtype)| a.upload(&cx, dtype)).collect();
                let y = run(&mut cx, &x).unwrap();
                let y = forward(&x, cx, &y);
                y.check(&format!("{shape:?} slab {slab} checked {checked}"), &want, dtype);
                y
            });
            assert_eq!(trusted, checked, "{shape:?} slab {slab}");
        }
    }
}
