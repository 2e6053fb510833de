//! Resampling by two, as BigGAN's residual blocks do it.
//!
//! Nearest upsampling: y[n,h,w,c] = x[n,⌊h/2⌋,⌊w/2⌋,c], `[N,H,W,C]` to `[N,2H,2W,C]`.
//! Average pooling: y[n,h,w,c] = ¼ Σ_ij x[n,2h+i,2w+j,c], `[N,2H,2W,C]` to `[N,H,W,C]`.
//! Up to the factor ¼ each is the other's gradient, so two kernels do all four passes.

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
    pad: [u32; 3],
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
    let [n, h, w, c] = x.nhwc("upsample_nearest2")?;
    let y = cx.output("upsample_nearest2", &[n, 2 * h, 2 * w, c], x.dtype())?;
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
    let [n, h, w, c] = x.nhwc("average_pool2")?;
    if h % 2 != 0 || w % 2 != 0 {
        let what = format!("height and width must be even to be halved, got {h}x{w} in {:?}", x.shape());
        return Err(Error::shape("average_pool2", what));
    }
    let y = cx.output("average_pool2", &[n, h / 2, w / 2, c], x.dtype())?;
    resample(cx, Direction::Gather, x, &y, 0.25, 0, "");
    cx.backward(&y, &[x], {
        let x = x.clone();
        move |cx, dy| {
            if let Some(dx) = cx.grad_target(&x)? {
                resample(cx, Direction::Spread, dy, &dx.tensor, 0.25, dx.flag(), "backward");
            }
            Ok(())
        }
    });
    Ok(y)
}

/// Both are `[N, H, W, C]`, one twice as high and wide as the other.
fn resample(
    cx: &mut Context,
    direction: Direction,
    from: &Tensor,
    to: &Tensor,
    scale: f32,
    accumulate: u32,
    pass: &str,
) {
    let small = match direction {
        Direction::Spread => from,
        Direction::Gather => to,
    };
    let &[_, _, width, channels] = small.shape() else {
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
        pad: [0; 3],
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

    fn upsampled(x: &Array) -> Array {
        let [n, h, w, c] = x.shape[..] else { panic!() };
        let mut y = Vec::new();
        for row in 0..n * h * 2 {
            let (image, row) = (row / (2 * h), row % (2 * h) / 2);
            for column in 0..2 * w {
                let at = ((image * h + row) * w + column / 2) * c;
                y.extend_from_slice(&x.data[at..at + c]);
            }
        }
        Array::new(&[n, 2 * h, 2 * w, c], y)
    }

    fn pooled(x: &Array) -> Array {
        let [n, h, w, c] = x.shape[..] else { panic!() };
        let at = |row, column, channel| x.data[(row * w + column) * c + channel];
        let mut y = Vec::new();
        for row in 0..n * h / 2 {
            for (column, channel) in
                (0..w / 2).flat_map(|column| (0..c).map(move |channel| (column, channel)))
            {
                let terms =
                    [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(i, j)| at(2 * row + i, 2 * column + j, channel));
                y.push(terms.iter().sum::<f32>() / 4.0);
            }
        }
        Array::new(&[n, h / 2, w / 2, c], y)
    }

    #[test]
    fn packs_and_odd_channels_agree_with_the_definition() {
        for (rung, channels) in rungs().into_iter().flat_map(|r| [(r, 33), (r, 36), (r, 40)]) {
            let (small, large) =
                (Array::random(&[3, 5, 7, channels], 1), Array::random(&[3, 10, 14, channels], 2));
            for dtype in dtypes() {
                let (y, grads) =
                    forward_backward_on(rung, dtype, std::slice::from_ref(&small), &large, |cx, x| {
                        upsample_nearest2(cx, &x[0])
                    });
                y.check("up", &upsampled(&small), dtype);
                grads[0].check("gradient of up", &pooled(&large).map(|v| 4.0 * v), dtype);
                let (y, grads) =
                    forward_backward_on(rung, dtype, std::slice::from_ref(&large), &small, |cx, x| {
                        average_pool2(cx, &x[0])
                    });
                y.check("pool", &pooled(&large), dtype);
                grads[0].check("gradient of pool", &upsampled(&small).map(|v| v / 4.0), dtype);
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
    }

    #[test]
    fn odd_sizes_are_not_halved() {
        let mut cx = Context::new(gpu());
        let x = Array::random(&[1, 7, 5, 3], 1).upload(&cx, crate::tensor::DType::F32);
        let error = average_pool2(&mut cx, &x).unwrap_err().to_string();
        assert!(error.contains("7x5"), "{error}");
        let flat = x.reshape(&[35, 3]).unwrap();
        assert!(average_pool2(&mut cx, &flat).is_err() && upsample_nearest2(&mut cx, &flat).is_err());
    }
}
