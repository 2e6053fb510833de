//! Group norm with what usually follows it (Wu & He 2018, and the scale-shift norm of Dhariwal & Nichol 2021):
//! y = act(((x - mean)·rstd·gamma + beta)·(1 + scale) + shift),  mean and rstd = (var + eps)^-½ over the pixels and
//! channels of a group, act the identity or SiLU.  x `[N, ..., C]`, gamma and beta `[C]`, scale and shift `[N, C]`.
//!
//! Statistics are f32 and shifted before they are squared. How sums are split depends on the pixels, never on N.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel, Rung};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

use Access::{Read, Update, Write};

const WHOLE_GROUPS: Kernel =
    Kernel::new("group_norm_stats", wgsl!("group_norm"), "whole_groups", &[Read, Read, Read, Read, Write]);
const BLOCK_STATISTICS: Kernel =
    Kernel::new("group_norm_blocks", wgsl!("group_norm"), "block_statistics4", &[Read, Write]);
const COMBINE: Kernel =
    Kernel::new("group_norm_combine", wgsl!("group_norm"), "combine", &[Read, Read, Read, Read, Write]);
const APPLY: Kernel = Kernel::new("group_norm", wgsl!("group_norm"), "apply", &[Read, Read, Write]);
const APPLY4: Kernel = Kernel::new("group_norm", wgsl!("group_norm"), "apply4", &[Read, Read, Write]);

const BLOCK_SUMS: Kernel =
    Kernel::new("group_norm_sums", wgsl!("group_norm_backward"), "block_sums", &[Read, Read, Read, Write]);
const BLOCK_SUMS4: Kernel =
    Kernel::new("group_norm_sums", wgsl!("group_norm_backward"), "block_sums4", &[Read, Read, Read, Write]);
const CHANNEL_SUMS: Kernel =
    Kernel::new("group_norm_channel_sums", wgsl!("group_norm_backward"), "channel_sums", &[Read, Write]);
const GROUP_SUMS: Kernel =
    Kernel::new("group_norm_group_sums", wgsl!("group_norm_backward"), "group_sums", &[Read, Read, Write]);
const INPUT: Kernel = Kernel::new(
    "group_norm_backward",
    wgsl!("group_norm_backward"),
    "input_gradient",
    &[Read, Read, Read, Read, Update],
);
const INPUT4: Kernel = Kernel::new(
    "group_norm_backward",
    wgsl!("group_norm_backward"),
    "input_gradient4",
    &[Read, Read, Read, Read, Update],
);
const AFFINE: Kernel = Kernel::new(
    "group_norm_affine",
    wgsl!("group_norm_backward"),
    "affine_gradient",
    &[Read, Read, Read, Update],
);
const SCALE_SHIFT: Kernel = Kernel::new(
    "group_norm_scale_shift",
    wgsl!("group_norm_backward"),
    "scale_shift_gradient",
    &[Read, Read, Read, Read, Update],
);

/// Pixels that one invocation of an element-wise pass takes, so that it reads its coefficients once.
const APPLY_PIXELS: usize = 8;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    batch: u32,
    pixels: u32,
    channels: u32,
    groups: u32,
    block: u32,
    blocks: u32,
    silu: u32,
    scale_shift: u32,
    eps: f32,
    accumulate: u32,
    of_beta: u32,
    pad: u32,
}

impl Params {
    /// These, with the pixels of an image in blocks of `block`.
    fn blocked(self, block: usize) -> Params {
        let block = (block as u32).min(self.pixels).max(1);
        Params { block, blocks: self.pixels.div_ceil(block), ..self }
    }

    /// Invocations that take `width` channels of a block each.
    fn invocations(&self, width: usize) -> usize {
        self.batch as usize * self.blocks as usize * self.channels as usize / width
    }
}

/// What a group norm is made of besides its tensors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNorm {
    /// Groups that the channels are split into.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
    /// Whether SiLU follows.
    pub silu: bool,
}

/// Group norm of x `[N, ..., C]` with gamma and beta `[C]`, then optionally ·(1 + scale) + shift with scale and shift
/// the halves of `scale_shift` `[N, 2C]`, then optionally SiLU.
///
/// # Errors
/// [`Error::Shape`] when the shapes or types do not fit, or the groups do not divide the channels.
pub fn group_norm(
    cx: &mut Context,
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    scale_shift: Option<&Tensor>,
    options: &GroupNorm,
) -> Result<Tensor> {
    let params = check(x, gamma, beta, scale_shift, options)?;
    let (batch, channels) = (params.batch as usize, params.channels as usize);
    let vectors = cx.rung() != Rung::Naive && channels.is_multiple_of(4);
    let tiled = cx.rung().is_tiled() && vectors;

    // Without scale and shift gamma holds their place, unread.
    let modulation = scale_shift.unwrap_or(gamma).clone();
    let coefficients = cx.output("group_norm coefficients", &[batch, 4, channels], DType::F32)?;
    if tiled {
        let split = params.blocked(block_pixels(params.pixels as usize));
        let shape = [batch, split.blocks as usize, 2, channels];
        let partial = cx.output("group_norm partial", &shape, DType::F32)?;
        let launch = cx.launch(&BLOCK_STATISTICS).bind(x).bind(&partial).params(&split);
        launch.variant("tiled").over(split.invocations(4), 64);
        let launch = cx.launch(&COMBINE).bind(&partial).bind(gamma).bind(beta).bind(&modulation);
        launch.bind(&coefficients).params(&split).variant("tiled").over_groups(batch * options.groups);
    } else {
        let launch = cx.launch(&WHOLE_GROUPS).bind(x).bind(gamma).bind(beta).bind(&modulation);
        launch.bind(&coefficients).params(&params).over(batch * options.groups, 16);
    }

    let y = cx.output("group_norm", x.shape(), x.dtype())?;
    if vectors {
        let split = params.blocked(APPLY_PIXELS);
        let launch = cx.launch(&APPLY4).bind(x).bind(&coefficients).bind(&y).params(&split);
        launch.variant("vec4").over(split.invocations(4), 64);
    } else {
        let launch = cx.launch(&APPLY).bind(x).bind(&coefficients).bind(&y).params(&params);
        launch.variant("naive").over(x.len(), 64);
    }

    let inputs: Vec<&Tensor> = [x, gamma, beta].into_iter().chain(scale_shift).collect();
    cx.backward(&y, &inputs, {
        let (x, gamma, beta) = (x.clone(), gamma.clone(), beta.clone());
        let scale_shift = scale_shift.cloned();
        move |cx, dy| {
            // The sums over the pixels, for all of the gradients.
            let split = params.blocked(if tiled { block_pixels(params.pixels as usize) } else { usize::MAX });
            let shape = [batch, split.blocks as usize, 2, channels];
            let partial = cx.output("group_norm partial", &shape, DType::F32)?;
            let (kernel, width) = if vectors { (&BLOCK_SUMS4, 4) } else { (&BLOCK_SUMS, 1) };
            let launch = cx.launch(kernel).bind(&x).bind(dy).bind(&coefficients).bind(&partial);
            launch.params(&split).variant(label(width)).over(split.invocations(width), 64);
            let mut sums = partial.reshape(&[batch * split.blocks as usize, 2, channels])?;
            if split.blocks > 1 {
                sums = cx.output("group_norm sums", &[batch, 2, channels], DType::F32)?;
                let launch = cx.launch(&CHANNEL_SUMS).bind(&partial).bind(&sums).params(&split);
                launch.over(sums.len(), 64);
            }

            if let Some(dx) = cx.grad_target(&x)? {
                let totals = cx.output("group_norm totals", &[batch, 2, channels], DType::F32)?;
                let launch = cx.launch(&GROUP_SUMS).bind(&sums).bind(&coefficients).bind(&totals);
                launch.params(&params).over(batch * params.groups as usize, 16);
                let split = Params { accumulate: dx.flag(), ..params.blocked(APPLY_PIXELS) };
                let (kernel, count) =
                    if vectors { (&INPUT4, split.invocations(4)) } else { (&INPUT, x.len()) };
                let launch = cx.launch(kernel).bind(&x).bind(dy).bind(&coefficients).bind(&totals);
                launch.bind(&dx.tensor).params(&split).variant(label(width)).over(count, 64);
            }
            for (parameter, of_beta) in [(&gamma, 0), (&beta, 1)] {
                if let Some(target) = cx.grad_target(parameter)? {
                    let params = Params { accumulate: target.flag(), of_beta, ..params };
                    let launch = cx.launch(&AFFINE).bind(&sums).bind(&coefficients).bind(&modulation);
                    launch.bind(&target.tensor).params(&params).over(channels, 16);
                }
            }
            if let Some(scale_shift) = &scale_shift
                && let Some(target) = cx.grad_target(scale_shift)?
            {
                let params = Params { accumulate: target.flag(), ..params };
                let launch = cx.launch(&SCALE_SHIFT).bind(&sums).bind(&coefficients).bind(&gamma).bind(&beta);
                launch.bind(&target.tensor).params(&params).over(batch * channels, 64);
            }
            Ok(())
        }
    });
    Ok(y)
}

fn label(width: usize) -> &'static str {
    if width == 4 { "vec4" } else { "naive" }
}

/// Pixels of a block of partial sums: enough blocks to fill a GPU, few enough to be summed in one go.
fn block_pixels(pixels: usize) -> usize {
    if pixels <= 1024 { 8 } else { 32 }
}

fn check(
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    scale_shift: Option<&Tensor>,
    options: &GroupNorm,
) -> Result<Params> {
    let fail = |what: String| Err(Error::shape("group_norm", what));
    let (shape, groups) = (x.shape(), options.groups);
    let &[batch, .., channels] = shape else {
        return fail(format!("expected [N, ..., C] (two dimensions or more), got {shape:?}"));
    };
    if x.is_empty() || x.dtype() == DType::U32 {
        return fail(format!("x is {shape:?} {:?}, expected floats, at least one", x.dtype()));
    }
    if groups == 0 || !channels.is_multiple_of(groups) {
        return fail(format!("x is {shape:?}: its {channels} channels do not divide into {groups} groups"));
    }
    for (name, parameter) in [("gamma", gamma), ("beta", beta)] {
        if parameter.shape() != [channels] || parameter.dtype() != DType::F32 {
            let (shape, dtype) = (parameter.shape(), parameter.dtype());
            return fail(format!(
                "{name} is {shape:?} {dtype:?}, expected [{channels}] F32 for x {:?}",
                x.shape()
            ));
        }
    }
    let mut kind = 0;
    if let Some(scale_shift) = scale_shift {
        let (shape, dtype) = (scale_shift.shape(), scale_shift.dtype());
        if shape != [batch, 2 * channels] || (dtype != DType::F32 && dtype != x.dtype()) {
            return fail(format!(
                "scale and shift are {shape:?} {dtype:?}, expected [{batch}, {}] in F32 or the type of x, {:?} {:?}",
                2 * channels,
                x.shape(),
                x.dtype()
            ));
        }
        kind = if dtype == DType::F16 { 2 } else { 1 };
    }
    Ok(Params {
        batch: batch as u32,
        pixels: (x.len() / (batch * channels)) as u32,
        channels: channels as u32,
        groups: groups as u32,
        block: 1,
        blocks: 1,
        silu: u32::from(options.silu),
        scale_shift: kind,
        eps: options.eps,
        accumulate: 0,
        of_beta: 0,
        pad: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        Array, Golden, check_gradients, dtypes, forward_backward_mixed, gpu, rungs, tolerance,
    };

    fn run(
        rung: Rung,
        dtype: DType,
        inputs: &[Array],
        gy: &Array,
        options: &GroupNorm,
    ) -> (Array, Vec<Array>) {
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
        let cases =
            ["c32", "c64", "c96_1x1", "c64_3d", "offset", "tiny_var"].map(|c| format!("groupnorm.{c}"));
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
                    places.iter().map(|&(pixel, c)| (value(0, at(pixel, c)) - mean).powi(2)).sum::<f64>()
                        / count;
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
        let narrow =
            |data: &[f64], shape: &[usize]| Array::new(shape, data.iter().map(|&v| v as f32).collect());
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
}
