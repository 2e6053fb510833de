//! Resampling by two, as BigGAN's residual blocks do it; of lines, which have a height of 1, by two along the length alone.
//!
//! With a factor r of 2 down, or 1 of lines:
//! Nearest upsampling: y[n,h,w,c] = x[n,⌊h/r⌋,⌊w/2⌋,c], `[N,H,W,C]` to `[N,rH,2W,C]`.
//! Average pooling: y[n,h,w,c] = 1/2r Σ_ij x[n,rh+i,2w+j,c], `[N,rH,2W,C]` to `[N,H,W,C]`.
//! Up to the factor 1/2r each is the other's gradient, so two kernels do all four passes.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, Tensor};
use crate::wgsl;

use super::pack::choose;

const SPREAD: Kernel =
    Kernel::new("resample_spread", wgsl!("resample"), "spread", &[Access::Read, Access::Update]);
const SPREAD_PACKED: Kernel =
    Kernel::new("resample_spread", wgsl!("resample"), "spread_packed", &[Access::Read, Access::Update]);
const GATHER: Kernel =
    Kernel::new("resample_gather", wgsl!("resample"), "gather", &[Access::Read, Access::Update]);
const GATHER_PACKED: Kernel =
    Kernel::new("resample_gather", wgsl!("resample"), "gather_packed", &[Access::Read, Access::Update]);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    width: u32,
    channels: u32,
    accumulate: u32,
    scale: f32,
    rows: u32,
    pad: [u32; 2],
}

#[derive(Clone, Copy)]
enum Direction {
    Spread,
    Gather,
}

/// Twice the height and width, every pixel repeated four times.
///
/// # Errors
/// [`Error::Shape`] unless x is `[N, H, W, C]`.
pub fn upsample_nearest2(cx: &mut Context, x: &Tensor) -> Result<Tensor> {
    upsample_nearest(cx, x, [2, 2])
}

/// Height and width times `factors`, `[2, 2]` or of lines `[1, 2]`, every pixel repeated.
///
/// # Errors
/// [`Error::Shape`] unless x is `[N, H, W, C]`, and for other factors.
pub fn upsample_nearest(cx: &mut Context, x: &Tensor, factors: [usize; 2]) -> Result<Tensor> {
    let [n, h, w, c] = x.nhwc("upsample_nearest2")?;
    let [down, across] = checked("upsample_nearest2", factors)?;
    let y = cx.output("upsample_nearest2", &[n, down * h, across * w, c], x.dtype())?;
    resample(cx, Direction::Spread, x, &y, 1.0, 0, "");
    cx.backward(&y, &[x], {
        let x = x.clone();
        move |cx, dy| {
            if let Some(dx) = cx.grad_target(&x)? {
                resample(cx, Direction::Gather, dy, &dx.tensor, 1.0, dx.flag(), "backward");
            }
            Ok(())
        }
    });
    Ok(y)
}

/// Half the height and width, every 2x2 square averaged.
///
/// # Errors
/// [`Error::Shape`] unless x is `[N, H, W, C]` with even H and W.
pub fn average_pool2(cx: &mut Context, x: &Tensor) -> Result<Tensor> {
    average_pool(cx, x, [2, 2])
}

/// Height and width divided by `factors`, `[2, 2]` or of lines `[1, 2]`, what becomes one averaged.
///
/// # Errors
/// [`Error::Shape`] unless x is `[N, H, W, C]` with H and W multiples of the factors, and for other factors.
pub fn average_pool(cx: &mut Context, x: &Tensor, factors: [usize; 2]) -> Result<Tensor> {
    let [n, h, w, c] = x.nhwc("average_pool2")?;
    let [down, across] = checked("average_pool2", factors)?;
    if !h.is_multiple_of(down) || !w.is_multiple_of(across) {
        let what = format!("height and width must be even to be halved, got {h}x{w} in {:?}", x.shape());
        return Err(Error::shape("average_pool2", what));
    }
    let scale = 1.0 / (down * across) as f32;
    let y = cx.output("average_pool2", &[n, h / down, w / across, c], x.dtype())?;
    resample(cx, Direction::Gather, x, &y, scale, 0, "");
    cx.backward(&y, &[x], {
        let x = x.clone();
        move |cx, dy| {
            if let Some(dx) = cx.grad_target(&x)? {
                resample(cx, Direction::Spread, dy, &dx.tensor, scale, dx.flag(), "backward");
            }
            Ok(())
        }
    });
    Ok(y)
}

/// Planes are resampled along both axes, lines along their length.
fn checked(op: &'static str, factors: [usize; 2]) -> Result<[usize; 2]> {
    match factors {
        [1 | 2, 2] => Ok(factors),
        other => {
            Err(Error::shape(op, format!("the factors must be [2, 2], or [1, 2] of lines, got {other:?}")))
        }
    }
}

/// Both are `[N, H, W, C]`, one twice as wide as the other, and twice as high or as high.
fn resample(
    cx: &mut Context,
    direction: Direction,
    from: &Tensor,
    to: &Tensor,
    scale: f32,
    accumulate: u32,
    pass: &str,
) {
    let (small, large) = match direction {
        Direction::Spread => (from, to),
        Direction::Gather => (to, from),
    };
    let &[_, height, width, channels] = small.shape() else {
        unreachable!("both were checked to be [N, H, W, C]")
    };
    let (packed, scalar): (&'static Kernel, &'static Kernel) = match direction {
        Direction::Spread => (&SPREAD_PACKED, &SPREAD),
        Direction::Gather => (&GATHER_PACKED, &GATHER),
    };
    let chosen = choose(cx, from.dtype(), &[channels], packed, scalar);
    let lanes = chosen.lanes;
    let count = small.len() / lanes;
    let params = Params {
        count: count as u32,
        width: width as u32,
        channels: (channels / lanes) as u32,
        accumulate,
        scale,
        rows: (large.shape()[1] / height.max(1)) as u32,
        pad: [0; 2],
    };
    let launch = cx.launch(chosen.kernel).bind(from).bind(to).params(&params);
    launch.variant(chosen.variant(pass)).over(count, chosen.size);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        Array, Golden, check_gradients, dtypes, forward_backward, forward_backward_on, gpu, rungs,
    };

    #[test]
    fn matches_the_golden_cases() {
        let golden = Golden::open("ops");
        type Op = fn(&mut Context, &Tensor) -> Result<Tensor>;
        for (case, op) in [("upsample.nearest2", upsample_nearest2 as Op), ("avgpool.2", average_pool2 as Op)]
        {
            let [x, gy] = ["x", "gy"].map(|name| golden.array(&format!("{case}.{name}")).nhwc());
            for dtype in dtypes() {
                let (y, grads) =
                    forward_backward(dtype, std::slice::from_ref(&x), &gy, |cx, x| op(cx, &x[0]));
                golden.check_as(&format!("{case}.y"), &y, dtype, |want| want.nhwc());
                golden.check_as(&format!("{case}.dx"), &grads[0], dtype, |want| want.nhwc());
            }
        }
    }

    fn upsampled(x: &Array, down: usize) -> Array {
        let [n, h, w, c] = x.shape[..] else { panic!() };
        let mut y = Vec::new();
        for row in 0..n * h * down {
            let (image, row) = (row / (down * h), row % (down * h) / down);
            for column in 0..2 * w {
                let at = ((image * h + row) * w + column / 2) * c;
                y.extend_from_slice(&x.data[at..at + c]);
            }
        }
        Array::new(&[n, down * h, 2 * w, c], y)
    }

    fn pooled(x: &Array, down: usize) -> Array {
        let [n, h, w, c] = x.shape[..] else { panic!() };
        let at = |row, column, channel| f64::from(x.data[(row * w + column) * c + channel]);
        let mut y = Vec::new();
        for row in 0..n * h / down {
            for (column, channel) in
                (0..w / 2).flat_map(|column| (0..c).map(move |channel| (column, channel)))
            {
                let terms = (0..2 * down).map(|i| at(down * row + i / 2, 2 * column + i % 2, channel));
                y.push((terms.sum::<f64>() / (2 * down) as f64) as f32);
            }
        }
        Array::new(&[n, h / down, w / 2, c], y)
    }

    #[test]
    fn packs_and_odd_channels_agree_with_the_definition() {
        let cases = |rung| [33, 36, 40].into_iter().flat_map(move |c| [(rung, c, 2), (rung, c, 1)]);
        for (rung, channels, down) in rungs().into_iter().flat_map(cases) {
            // A line has one row; the kernel takes any number of them.
            let (small, large) =
                (Array::random(&[3, 5, 7, channels], 1), Array::random(&[3, 5 * down, 14, channels], 2));
            for dtype in dtypes() {
                let (y, grads) =
                    forward_backward_on(rung, dtype, std::slice::from_ref(&small), &large, |cx, x| {
                        upsample_nearest(cx, &x[0], [down, 2])
                    });
                let all = (2 * down) as f32;
                y.check("up", &upsampled(&small, down), dtype);
                grads[0].check("gradient of up", &pooled(&large, down).map(|v| all * v), dtype);
                let (y, grads) =
                    forward_backward_on(rung, dtype, std::slice::from_ref(&large), &small, |cx, x| {
                        average_pool(cx, &x[0], [down, 2])
                    });
                y.check("pool", &pooled(&large, down), dtype);
                grads[0].check("gradient of pool", &upsampled(&small, down).map(|v| v / all), dtype);
            }
        }
    }

    #[test]
    fn gradients_accumulate() {
        check_gradients(&[Array::random(&[2, 4, 6, 4], 1)], |cx, x| {
            let half = average_pool2(cx, &x[0])?;
            let whole = upsample_nearest2(cx, &half)?;
            let again = average_pool2(cx, &whole)?;
            let other = average_pool2(cx, &x[0])?;
            crate::ops::add(cx, &again, &other, 1.0)
        });
        check_gradients(&[Array::random(&[2, 1, 6, 3], 1)], |cx, x| {
            let half = average_pool(cx, &x[0], [1, 2])?;
            let whole = upsample_nearest(cx, &half, [1, 2])?;
            crate::ops::add(cx, &whole, &x[0], 1.0)
        });
    }

    #[test]
    fn odd_sizes_are_not_halved() {
        let mut cx = Context::new(gpu());
        let x = Array::random(&[1, 7, 5, 3], 1).upload(&cx, crate::tensor::DType::F32);
        let error = average_pool2(&mut cx, &x).unwrap_err().to_string();
        assert!(error.contains("7x5"), "{error}");
        let flat = x.reshape(&[35, 3]).unwrap();
        let error = average_pool(&mut cx, &x, [2, 1]).unwrap_err().to_string();
        assert!(error.contains("[1, 2] of lines, got [2, 1]"), "{error}");
        let line = Array::random(&[1, 1, 5, 3], 1).upload(&cx, crate::tensor::DType::F32);
        assert!(average_pool(&mut cx, &line, [1, 2]).unwrap_err().to_string().contains("1x5"));
        assert!(average_pool2(&mut cx, &flat).is_err() && upsample_nearest2(&mut cx, &flat).is_err());
    }
}
