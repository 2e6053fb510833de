//! Group norm of a picture that lies in several tensors, strips of its rows: statistics over all of them, then
//! y = act((x - mean)·gain + bias) of any part of any strip. What it computes is what [`group_norm`](super::group_norm) does,
//! but for the order of sums.
//!
//! For networks that are only run: there is no gradient, and a tape refuses it.

use super::GroupNorm;
use super::group_norm::chunks::{Params, chunks_of, sum_chunks};
use super::pack::choose;
use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

use Access::{Read, Update, Write};

const GROUPS: Kernel =
    Kernel::new("group_norm_groups", wgsl!("group_norm_parts"), "whole", &[Read, Read, Read, Write]);
const APPLY: Kernel =
    Kernel::new("group_norm_part", wgsl!("group_norm_parts"), "apply", &[Read, Read, Update]);
const APPLY_PACKED: Kernel =
    Kernel::new("group_norm_part", wgsl!("group_norm_parts"), "apply_packed", &[Read, Read, Update]);

/// The statistics of a picture, as what they make of each channel.
pub struct PartsNorm {
    /// `[3, C]` f32: mean, gain, bias.
    coefficients: Tensor,
    silu: bool,
}

/// Statistics over all `parts` of one picture, each `[1, H, W, C]`, for a group norm with gamma and beta `[C]`.
///
/// # Errors
/// [`Error::Shape`] when the shapes or types do not fit; [`Error::Config`] on a tape that asks for a part's gradient.
pub fn parts_norm(
    cx: &mut Context,
    parts: &[Tensor],
    gamma: &Tensor,
    beta: &Tensor,
    options: &GroupNorm,
) -> Result<PartsNorm> {
    let channels = check(cx, parts, gamma, beta, options)?;
    let chunks = parts.iter().map(|part| chunks_of(part.len() / channels)).sum();
    let all = cx.output("group_norm chunks", &[chunks, options.groups, 4], DType::F32)?;
    let mut first = 0;
    for part in parts {
        let pixels = part.len() / channels;
        sum_chunks(cx, (part, 0, pixels), (&all, first))?;
        first += chunks_of(pixels);
    }
    let told = Params {
        channels: channels as u32,
        groups: options.groups as u32,
        chunks: chunks as u32,
        eps: options.eps,
        ..Params::default()
    };
    let coefficients = cx.output("group_norm coefficients", &[3, channels], DType::F32)?;
    let launch = cx.launch(&GROUPS).bind(&all).bind(gamma).bind(beta).bind(&coefficients).params(&told);
    launch.over(options.groups, 16);
    Ok(PartsNorm { coefficients, silu: options.silu })
}

impl PartsNorm {
    /// Normalises `pixels` pixels of x, from pixel `from` on, into y from pixel `to` on; the rest of y stays as it is.
    ///
    /// # Errors
    /// [`Error::Shape`] for pixels that are not there, and tensors of other channels or types.
    pub fn apply(
        &self,
        cx: &mut Context,
        (x, from): (&Tensor, usize),
        (y, to): (&Tensor, usize),
        pixels: usize,
    ) -> Result<()> {
        let channels = self.coefficients.shape()[1];
        let fits = |tensor: &Tensor, first: usize| {
            tensor.shape().last() == Some(&channels) && (first + pixels) * channels <= tensor.len()
        };
        if pixels == 0 || x.dtype() != y.dtype() || !fits(x, from) || !fits(y, to) {
            let what = format!(
                "{pixels} pixels of {channels} channels from {from} of x {:?} {:?} do not go to {to} of y {:?} {:?}",
                x.shape(),
                x.dtype(),
                y.shape(),
                y.dtype()
            );
            return Err(Error::shape("group_norm_parts", what));
        }
        let [from, to] = [from, to].map(|pixel| pixel as u32);
        let silu = u32::from(self.silu);
        let params = Params {
            pixels: pixels as u32,
            channels: channels as u32,
            source: from,
            to,
            silu,
            ..Params::default()
        };
        let chosen = choose(cx, x.dtype(), &[channels], &APPLY_PACKED, &APPLY);
        let launch = cx.launch(chosen.kernel).bind(x).bind(&self.coefficients).bind(y);
        let launch = launch.elem(x.dtype()).params(&params).variant(chosen.variant(""));
        launch.over(pixels * channels / chosen.lanes, chosen.size);
        Ok(())
    }
}

/// The channels.
fn check(
    cx: &Context,
    parts: &[Tensor],
    gamma: &Tensor,
    beta: &Tensor,
    options: &GroupNorm,
) -> Result<usize> {
    let fail = |what: String| Err(Error::shape("group_norm_parts", what));
    let Some(&[1, _, width, channels]) = parts.first().map(Tensor::shape) else {
        return fail(format!("expected parts [1, H, W, C], got {:?}", parts.first().map(Tensor::shape)));
    };
    for part in parts {
        let [n, _, w, c] = part.nhwc("group_norm_parts")?;
        let alike = part.dtype() == parts[0].dtype() && part.dtype() != DType::U32;
        if [n, w, c] != [1, width, channels] || part.is_empty() || !alike {
            let (shape, dtype) = (part.shape(), part.dtype());
            return fail(format!(
                "a part is {shape:?} {dtype:?} beside {:?} {:?}",
                parts[0].shape(),
                parts[0].dtype()
            ));
        }
        if cx.needs_grad(part) {
            let what = "group norms of parts have no gradient: they are for networks that are only run";
            return Err(Error::Config(what.into()));
        }
    }
    if options.groups == 0 || !channels.is_multiple_of(options.groups) {
        return fail(format!("{channels} channels do not divide into {} groups", options.groups));
    }
    for (name, parameter) in [("gamma", gamma), ("beta", beta)] {
        if parameter.shape() != [channels] || parameter.dtype() != DType::F32 {
            let (shape, dtype) = (parameter.shape(), parameter.dtype());
            return fail(format!("{name} is {shape:?} {dtype:?}, expected [{channels}] F32"));
        }
    }
    Ok(channels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::group_norm;
    use crate::testing::{Array, download, dtypes, forward, gpu, rungs};

    /// Rows of the strips of a picture, its width, channels and groups: whole packs and not, one strip, strips of one row, and
    /// more blocks than a chunk has.
    const CASES: [(&[usize], usize, usize, usize); 5] = [
        (&[3, 5, 1], 7, 12, 3),
        (&[4], 9, 33, 11),
        (&[1, 1, 2], 5, 16, 2),
        (&[2, 90], 100, 8, 4),
        (&[13, 13, 6], 20, 48, 6),
    ];

    #[test]
    fn strips_are_normed_as_the_whole_is() {
        for (rung, dtype) in rungs().into_iter().flat_map(|r| dtypes().into_iter().map(move |d| (r, d))) {
            for (heights, width, channels, groups) in CASES {
                let options = GroupNorm { groups, eps: 1e-6, silu: channels % 2 == 0 };
                let rows: usize = heights.iter().sum();
                let x = Array::random(&[1, rows, width, channels], 1).map(|v| 3.0 * v + 2.0);
                let [gamma, beta] = [2, 3].map(|seed| Array::random(&[channels], seed));
                let mut cx = Context::new(gpu());
                let [g, b] = [&gamma, &beta].map(|array| array.upload(&cx, DType::F32));
                let whole = x.upload(&cx, dtype);
                let want = group_norm(&mut cx, &whole, &g, &b, None, &options).unwrap();
                let want = forward(&[], cx, &want);

                let mut cx = Context::new(gpu());
                cx.set_rung(rung);
                let [g, b] = [&gamma, &beta].map(|array| array.upload(&cx, DType::F32));
                let mut first = 0;
                let strips: Vec<Tensor> = heights
                    .iter()
                    .map(|height| {
                        let row = width * channels;
                        let values = x.data[first * row..(first + height) * row].to_vec();
                        first += height;
                        Array::new(&[1, *height, width, channels], values).upload(&cx, dtype)
                    })
                    .collect();
                let norm = parts_norm(&mut cx, &strips, &g, &b, &options).unwrap();
                let y = cx.output("y", &want.shape, dtype).unwrap();
                let mut to = 0;
                for strip in &strips {
                    // In two pieces.
                    let pixels = strip.shape()[1] * width;
                    norm.apply(&mut cx, (strip, 0), (&y, to), 2).unwrap();
                    norm.apply(&mut cx, (strip, 2), (&y, to + 2), pixels - 2).unwrap();
                    to += pixels;
                }
                cx.keep(&y);
                let plan = cx.finish("parts").unwrap();
                plan.run().unwrap();
                download(&plan, &y).check(&format!("{rung} {heights:?}x{width}x{channels}"), &want, dtype);
            }
        }
    }

    /// A spread of 1 about 300, whose squares f16 cannot hold, and about 4096.
    #[test]
    fn a_large_mean_costs_few_digits() {
        for (mean, dtype) in [(300.0, DType::F16), (4096.0, DType::F32)] {
            if !dtypes().contains(&dtype) {
                continue;
            }
            let x = Array::random(&[1, 40, 41, 8], 1).map(|v| half::f16::from_f32(v + mean).to_f32());
            let (options, ones) =
                (GroupNorm { groups: 2, eps: 1e-6, silu: false }, Array::new(&[8], vec![1.0; 8]));
            let mut want = x.clone();
            for group in 0..2 {
                let places: Vec<usize> = (0..x.data.len()).filter(|at| at % 8 / 4 == group).collect();
                let count = places.len() as f64;
                let mean = places.iter().map(|at| f64::from(x.data[*at])).sum::<f64>() / count;
                let variance =
                    places.iter().map(|at| (f64::from(x.data[*at]) - mean).powi(2)).sum::<f64>() / count;
                for at in places {
                    want.data[at] = ((f64::from(x.data[at]) - mean) / (variance + 1e-6).sqrt()) as f32;
                }
            }
            let mut cx = Context::new(gpu());
            let [gamma, beta] = [ones.clone(), ones.map(|_| 0.0)].map(|array| array.upload(&cx, DType::F32));
            let half = x.data.len() / 2;
            let strips = [&x.data[..half], &x.data[half..]]
                .map(|values| Array::new(&[1, 20, 41, 8], values.to_vec()).upload(&cx, dtype));
            let norm = parts_norm(&mut cx, &strips, &gamma, &beta, &options).unwrap();
            let y = cx.output("y", &x.shape, dtype).unwrap();
            norm.apply(&mut cx, (&strips[0], 0), (&y, 0), 820).unwrap();
            norm.apply(&mut cx, (&strips[1], 0), (&y, 820), 820).unwrap();
            let y = forward(&strips, cx, &y);
            y.check_within("y", &want, if dtype == DType::F16 { 2e-3 } else { 1e-5 });
        }
    }

    #[test]
    fn misfits_are_errors() {
        let mut cx = Context::with_tape(gpu());
        let [a, b] =
            [[1, 2, 3, 4], [1, 2, 5, 4]].map(|shape| Array::random(&shape, 1).upload(&cx, DType::F32));
        let gamma = Array::random(&[4], 1).upload(&cx, DType::F32);
        let options = GroupNorm { groups: 3, eps: 1e-6, silu: false };
        let error = parts_norm(&mut cx, std::slice::from_ref(&a), &gamma, &gamma, &options)
            .err()
            .unwrap()
            .to_string();
        assert_eq!(error, "group_norm_parts: 4 channels do not divide into 3 groups");
        let options = GroupNorm { groups: 2, ..options };
        let error = parts_norm(&mut cx, &[a.clone(), b], &gamma, &gamma, &options).err().unwrap().to_string();
        assert_eq!(error, "group_norm_parts: a part is [1, 2, 5, 4] F32 beside [1, 2, 3, 4] F32");
        let norm = parts_norm(&mut cx, std::slice::from_ref(&a), &gamma, &gamma, &options).unwrap();
        let y = cx.output("y", &[1, 1, 3, 4], DType::F32).unwrap();
        let error = norm.apply(&mut cx, (&a, 3), (&y, 0), 4).unwrap_err().to_string();
        assert!(error.contains("4 pixels of 4 channels from 3 of x"), "{error}");
        cx.watch(&a);
        let error = parts_norm(&mut cx, &[a], &gamma, &gamma, &options).err().unwrap().to_string();
        assert!(error.contains("no gradient"), "{error}");
    }
}
