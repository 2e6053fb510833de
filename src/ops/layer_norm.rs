//! Layer norm (Ba, Kiros & Hinton 2016).  y = (x - mean)·rstd·gamma + beta,  mean and rstd = (var + eps)^-½ over the
//! channels.  With x̂ = (x - mean)·rstd and g = dy·gamma:  dx = rstd·(g - mean g - x̂·mean(g·x̂)),  dgamma = Σ dy·x̂,
//! dbeta = Σ dy.  x `[.., C]`, gamma and beta `[C]`.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

use super::pack;

use Access::{Read, Update, Write};

const ROWS: Kernel =
    Kernel::new("layer_norm", wgsl!("layer_norm"), "rows", &[Read, Read, Read, Write, Write]);
const TEAMS: Kernel =
    Kernel::new("layer_norm", wgsl!("layer_norm"), "teams", &[Read, Read, Read, Write, Write]);
const INPUT_ROWS: Kernel = Kernel::new(
    "layer_norm_backward",
    wgsl!("layer_norm_backward"),
    "input_rows",
    &[Read, Read, Read, Read, Update],
);
const INPUT_TEAMS: Kernel = Kernel::new(
    "layer_norm_backward",
    wgsl!("layer_norm_backward"),
    "input_teams",
    &[Read, Read, Read, Read, Update],
);
const AFFINE_BLOCKS: Kernel = Kernel::new(
    "layer_norm_blocks",
    wgsl!("layer_norm_backward"),
    "affine_blocks",
    &[Read, Read, Read, Write],
);
const AFFINE: Kernel =
    Kernel::new("layer_norm_affine", wgsl!("layer_norm_backward"), "affine", &[Read, Update]);

/// Invocations of a workgroup of the kernels where several share a row.
const WORKGROUP: usize = 256;
/// Packs that one of them holds at most.
const HELD: usize = 4;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    rows: u32,
    channels: u32,
    eps: f32,
    gamma: u32,
    beta: u32,
    accumulate: u32,
    of_beta: u32,
    /// Rows of a block, of the gradients of gamma and beta.
    block: u32,
    blocks: u32,
    pad: [u32; 3],
}

/// Layer norm of x `[.., C]` over its last axis, with gamma and beta `[C]` in f32 where there are such.
///
/// # Errors
/// [`Error::Shape`] when x has no channels or the shapes or types do not fit.
pub fn layer_norm(
    cx: &mut Context,
    x: &Tensor,
    gamma: Option<&Tensor>,
    beta: Option<&Tensor>,
    eps: f32,
) -> Result<Tensor> {
    let params = check(x, gamma, beta, eps)?;
    let (rows, channels) = (params.rows as usize, params.channels as usize);
    let team = if cx.rung().is_tiled() { team(x.dtype(), channels) } else { None };

    let y = cx.output("layer_norm", x.shape(), x.dtype())?;
    let of_rows = cx.output("layer_norm statistics", &[rows, 2], DType::F32)?;
    // x holds the place of a parameter that is not there, unread.
    let (scale, shift) = (gamma.unwrap_or(x).clone(), beta.unwrap_or(x).clone());
    let launch = cx.launch(if team.is_some() { &TEAMS } else { &ROWS }).bind(x).bind(&scale).bind(&shift);
    let launch = launch.bind(&y).bind(&of_rows).params(&params);
    over_rows(launch, rows, team);

    let inputs: Vec<&Tensor> = [Some(x), gamma, beta].into_iter().flatten().collect();
    cx.backward(&y, &inputs, {
        let (x, gamma, beta) = (x.clone(), gamma.cloned(), beta.cloned());
        move |cx, dy| {
            if let Some(dx) = cx.grad_target(&x)? {
                let params = Params { accumulate: dx.flag(), ..params };
                let kernel = if team.is_some() { &INPUT_TEAMS } else { &INPUT_ROWS };
                let launch = cx.launch(kernel).bind(&x).bind(dy).bind(&scale).bind(&of_rows);
                over_rows(launch.bind(&dx.tensor).params(&params), rows, team);
            }
            let wanted: Vec<(Tensor, u32)> = [(gamma, 0), (beta, 1)]
                .into_iter()
                .filter_map(|(parameter, of_beta)| Some((parameter?, of_beta)))
                .filter(|(parameter, _)| cx.needs_grad(parameter))
                .collect();
            if wanted.is_empty() {
                return Ok(());
            }
            let partial =
                cx.output("layer_norm partial", &[params.blocks as usize, channels, 2], DType::F32)?;
            let launch = cx.launch(&AFFINE_BLOCKS).bind(&x).bind(dy).bind(&of_rows).bind(&partial);
            launch.params(&params).over(params.blocks as usize * channels, 64);
            for (parameter, of_beta) in wanted {
                if let Some(target) = cx.grad_target(&parameter)? {
                    let params = Params { accumulate: target.flag(), of_beta, ..params };
                    let launch = cx.launch(&AFFINE).bind(&partial).bind(&target.tensor).params(&params);
                    launch.over(channels, 64);
                }
            }
            Ok(())
        }
    });
    Ok(y)
}

fn over_rows(launch: crate::tensor::Launch<'_>, rows: usize, team: Option<usize>) {
    match team {
        Some(team) => {
            let launch = launch.constant("TEAM", team as f64).variant(format!("{team} a row"));
            launch.over(rows * team, WORKGROUP);
        }
        None => launch.over(rows, 16),
    }
}

/// How many invocations share a row of whole packs: the fewest, a power of two, that hold it; none where it is too long
/// for a workgroup or no whole packs.
fn team(dtype: DType, channels: usize) -> Option<usize> {
    let lanes = pack::lanes(dtype);
    let team = (channels / lanes).div_ceil(HELD).next_power_of_two().max(8);
    (channels.is_multiple_of(lanes) && team <= WORKGROUP).then_some(team)
}

fn check(x: &Tensor, gamma: Option<&Tensor>, beta: Option<&Tensor>, eps: f32) -> Result<Params> {
    let fail = |what: String| Err(Error::shape("layer_norm", what));
    let &[.., channels] = x.shape() else {
        return fail("expected one dimension or more, got []".to_owned());
    };
    if x.is_empty() || x.dtype() == DType::U32 {
        return fail(format!("x is {:?} {:?}, expected floats, at least one", x.shape(), x.dtype()));
    }
    for (name, parameter) in [("gamma", gamma), ("beta", beta)] {
        if let Some(parameter) = parameter
            && (parameter.shape() != [channels] || parameter.dtype() != DType::F32)
        {
            let (shape, dtype) = (parameter.shape(), parameter.dtype());
            return fail(format!(
                "{name} is {shape:?} {dtype:?}, expected [{channels}] F32 for x {:?}",
                x.shape()
            ));
        }
    }
    let rows = x.len() / channels;
    // Enough blocks for a GPU, few enough to add up.
    let block = rows.div_ceil(256).max(16);
    Ok(Params {
        rows: rows as u32,
        channels: channels as u32,
        eps,
        gamma: u32::from(gamma.is_some()),
        beta: u32::from(beta.is_some()),
        accumulate: 0,
        of_beta: 0,
        block: block as u32,
        blocks: rows.div_ceil(block) as u32,
        pad: [0; 3],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Rung;
    use crate::testing::{Array, check_gradients, dtypes, forward_backward_mixed, gpu, rungs};

    const EPS: f32 = 1e-5;

    /// Which of gamma and beta there are.
    const AFFINE: [(bool, bool); 4] = [(true, true), (false, false), (true, false), (false, true)];

    /// The inputs that there are: x, then gamma, beta.
    fn inputs(shape: &[usize], (gamma, beta): (bool, bool)) -> Vec<Array> {
        let channels = shape[shape.len() - 1];
        let mut inputs = vec![Array::random(shape, 1).map(|v| 2.0 * v + 0.25)];
        inputs.extend(gamma.then(|| Array::random(&[channels], 2)));
        inputs.extend(beta.then(|| Array::random(&[channels], 3)));
        inputs
    }

    fn of_inputs(cx: &mut Context, x: &[Tensor], (gamma, beta): (bool, bool)) -> Result<Tensor> {
        let gamma = gamma.then(|| &x[1]);
        layer_norm(cx, &x[0], gamma, beta.then(|| &x[x.len() - 1]), EPS)
    }

    /// y and all gradients in f64.
    fn reference(inputs: &[Array], gy: &Array, (gamma, beta): (bool, bool)) -> (Array, Vec<Array>) {
        let channels = inputs[0].shape[inputs[0].shape.len() - 1];
        let of = |there: bool, at: usize, otherwise: f64| {
            (0..channels)
                .map(|c| if there { f64::from(inputs[at].data[c]) } else { otherwise })
                .collect::<Vec<f64>>()
        };
        let (scale, shift) = (of(gamma, 1, 1.0), of(beta, inputs.len() - 1, 0.0));
        let (mut y, mut dx) = (Vec::new(), Vec::new());
        let (mut of_gamma, mut of_beta) = (vec![0f64; channels], vec![0f64; channels]);
        for (row, dy) in inputs[0].data.chunks(channels).zip(gy.data.chunks(channels)) {
            let mean_of = |values: &[f64]| values.iter().sum::<f64>() / channels as f64;
            let row: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
            let mean = mean_of(&row);
            let variance = mean_of(&row.iter().map(|v| (v - mean).powi(2)).collect::<Vec<f64>>());
            let rstd = (variance + f64::from(EPS)).powf(-0.5);
            let normal: Vec<f64> = row.iter().map(|v| (v - mean) * rstd).collect();
            let g: Vec<f64> = dy.iter().zip(&scale).map(|(&d, s)| f64::from(d) * s).collect();
            let along = mean_of(&g.iter().zip(&normal).map(|(g, n)| g * n).collect::<Vec<f64>>());
            let all = mean_of(&g);
            for c in 0..channels {
                y.push((normal[c] * scale[c] + shift[c]) as f32);
                dx.push((rstd * (g[c] - all - normal[c] * along)) as f32);
                of_gamma[c] += f64::from(dy[c]) * normal[c];
                of_beta[c] += f64::from(dy[c]);
            }
        }
        let narrow = |v: Vec<f64>| Array::new(&[channels], v.into_iter().map(|v| v as f32).collect());
        let shape = &inputs[0].shape;
        let mut grads = vec![Array::new(shape, dx)];
        grads.extend(gamma.then(|| narrow(of_gamma)));
        grads.extend(beta.then(|| narrow(of_beta)));
        (Array::new(shape, y), grads)
    }

    #[test]
    fn matches_the_reference_on_every_rung() {
        // Odd numbers of channels, whole packs, a row of more than 256 packs, one of more than a workgroup holds.
        let shapes: [&[usize]; 6] =
            [&[3, 5, 7, 33], &[2, 5, 40], &[19, 320], &[3, 1288], &[2, 8200], &[7, 1]];
        for (rung, shape) in rungs().into_iter().flat_map(|r| shapes.map(|s| (r, s))) {
            let gy = Array::random(shape, 4);
            for affine in AFFINE.into_iter().take(if shape.len() > 2 { 4 } else { 1 }) {
                let inputs = inputs(shape, affine);
                let (y, grads) = reference(&inputs, &gy, affine);
                for dtype in dtypes() {
                    let types = [dtype, DType::F32, DType::F32];
                    let (got, got_grads) =
                        forward_backward_mixed(rung, &types[..inputs.len()], &inputs, &gy, |cx, x| {
                            of_inputs(cx, x, affine)
                        });
                    let case = format!("{rung} {shape:?} {affine:?}");
                    got.check(&format!("{case} y"), &y, dtype);
                    for (i, (got, want)) in got_grads.iter().zip(&grads).enumerate() {
                        let largest = want.data.iter().fold(1e-3f32, |most, v| most.max(v.abs()));
                        got.check_absolute(
                            &format!("{case} gradient {i}"),
                            want,
                            crate::testing::tolerance(dtype) * largest,
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_mean_far_from_nothing_costs_no_digits() {
        let x = Array::random(&[3, 320], 1).map(|v| v + 1000.0);
        let gy = Array::random(&[3, 320], 2);
        let (y, _) = reference(std::slice::from_ref(&x), &gy, (false, false));
        for rung in [Rung::Naive, Rung::Tiled] {
            let (got, _) =
                forward_backward_mixed(rung, &[DType::F32], std::slice::from_ref(&x), &gy, |cx, x| {
                    layer_norm(cx, &x[0], None, None, EPS)
                });
            // x itself has digits of 6e-5.
            got.check_within(&format!("{rung}"), &y, 2e-4);
        }
    }

    #[test]
    fn eps_counts_where_rows_are_small() {
        let x = Array::random(&[3, 40], 1).map(|v| 1e-3 * v);
        let gy = Array::random(&[3, 40], 2);
        let (y, _) = reference(std::slice::from_ref(&x), &gy, (false, false));
        for rung in rungs() {
            let (got, _) =
                forward_backward_mixed(rung, &[DType::F32], std::slice::from_ref(&x), &gy, |cx, x| {
                    layer_norm(cx, &x[0], None, None, EPS)
                });
            got.check(&format!("{rung}"), &y, DType::F32);
        }
        assert!(y.data.iter().all(|v| v.abs() < 1.0));
    }

    #[test]
    fn gradients_are_those_of_finite_differences() {
        for (channels, affine) in [(7, AFFINE[0]), (16, AFFINE[0]), (16, AFFINE[1])] {
            check_gradients(&inputs(&[3, 5, channels], affine), |cx, x| {
                let (a, b) = (of_inputs(cx, x, affine)?, of_inputs(cx, x, affine)?);
                crate::ops::add(cx, &a, &b, 0.7)
            });
        }
    }

    #[test]
    fn misfits_are_named() {
        let mut cx = Context::new(gpu());
        let x = Array::random(&[2, 6], 1).upload(&cx, DType::F32);
        let gamma = Array::random(&[5], 1).upload(&cx, DType::F32);
        let message = layer_norm(&mut cx, &x, Some(&gamma), None, EPS).unwrap_err().to_string();
        assert_eq!(message, "layer_norm: gamma is [5] F32, expected [6] F32 for x [2, 6]");
    }
}
