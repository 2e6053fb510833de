//! Pools over windows: the largest or the mean of the pixels that a window sees.
//!
//! The mean is over the window's places (what is outside counts as 0), or over those inside alone. For networks that are
//! only run: there is no gradient, and a tape refuses it.

use bytemuck::{Pod, Zeroable};

use super::patches::Window;
use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, Tensor};
use crate::wgsl;

const FORWARD: Kernel =
    Kernel::new("window_pool", wgsl!("window_pool"), "forward", &[Access::Read, Access::Write]);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    size: [u32; 3],
    out: [u32; 2],
    kernel: [u32; 2],
    stride: u32,
    pad: u32,
    mean: u32,
    inside: u32,
}

/// What is taken of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The largest.
    Max,
    /// The mean, what is outside counting as 0.
    Mean,
    /// The mean of what is inside.
    MeanInside,
}

/// `[N, H, W, C]` to `[N, Oh, Ow, C]`; the padding is the same on all sides.
///
/// # Errors
/// [`Error::Shape`] when the window does not fit; [`Error::Config`] on a tape that asks for x's gradient.
pub fn window_pool(cx: &mut Context, x: &Tensor, window: Window, pool: Pool) -> Result<Tensor> {
    let [n, h, w, c] = x.nhwc("window_pool")?;
    if cx.needs_grad(x) {
        let what = "pools over windows have no gradient: they are for networks that are only run";
        return Err(Error::Config(what.into()));
    }
    let [out_h, out_w] = window.places("window_pool", [h, w])?;
    if window.padding[0] != window.padding[1] {
        return Err(Error::shape("window_pool", format!("the padding {:?} differs", window.padding)));
    }
    let y = cx.output("window_pool", &[n, out_h, out_w, c], x.dtype())?;
    let params = Params {
        count: y.len() as u32,
        size: [h as u32, w as u32, c as u32],
        out: [out_h as u32, out_w as u32],
        kernel: window.kernel.map(|k| k as u32),
        stride: window.stride as u32,
        pad: window.padding[0] as u32,
        mean: u32::from(pool != Pool::Max),
        inside: u32::from(pool == Pool::MeanInside),
    };
    cx.launch(&FORWARD).bind(x).bind(&y).params(&params).over(y.len(), 64);
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;
    use crate::testing::{Array, forward, gpu};

    #[test]
    fn windows_are_pooled() {
        let x = Array::random(&[2, 7, 5, 3], 1).map(|x| x - 2.0);
        for (kernel, stride, pad) in [([3, 3], 2, 0), ([3, 3], 1, 1), ([7, 5], 1, 0), ([2, 3], 2, 1)] {
            let window = Window { kernel, stride, padding: [pad, pad] };
            let [oh, ow] = window.places("window_pool", [7, 5]).unwrap();
            for pool in [Pool::Max, Pool::Mean, Pool::MeanInside] {
                let value = |i: usize| {
                    let (c, place) = (i % 3, i / 3);
                    let (n, oy, ox) = (place / (oh * ow), place / ow % oh, place % ow);
                    let taps = (0..kernel[0] * kernel[1]).filter_map(|tap| {
                        let iy = (oy * stride + tap / kernel[1]).wrapping_sub(pad);
                        let ix = (ox * stride + tap % kernel[1]).wrapping_sub(pad);
                        (iy < 7 && ix < 5).then(|| f64::from(x.data[((n * 7 + iy) * 5 + ix) * 3 + c]))
                    });
                    let seen: Vec<f64> = taps.collect();
                    let sum = seen.iter().sum::<f64>();
                    let value = match pool {
                        Pool::Max => seen.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                        Pool::Mean => sum / (kernel[0] * kernel[1]) as f64,
                        Pool::MeanInside => sum / seen.len() as f64,
                    };
                    value as f32
                };
                let want = Array::new(&[2, oh, ow, 3], (0..2 * oh * ow * 3).map(value).collect());
                let mut cx = Context::new(gpu());
                let input = x.upload(&cx, DType::F32);
                let y = window_pool(&mut cx, &input, window, pool).unwrap();
                forward(&[input], cx, &y).check(&format!("{pool:?} {window:?}"), &want, DType::F32);
            }
        }
        let mut cx = Context::new(gpu());
        let input = x.upload(&cx, DType::F32);
        let window = Window { kernel: [3, 3], stride: 1, padding: [1, 0] };
        assert!(window_pool(&mut cx, &input, window, Pool::Max).is_err());
    }
}
