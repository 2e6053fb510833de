//! The pixels that each place of a convolution reads, side by side, so that any convolution is a linear layer.
//!
//! y[n,oy,ox,(ky,kx,c)] = x[n, oy·stride+ky-pad, ox·stride+kx-pad, c], 0 outside of the picture. For networks that are
//! only run: there is no gradient, and a tape refuses it.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, Tensor};
use crate::wgsl;

const FORWARD: Kernel = Kernel::new("patches", wgsl!("patches"), "forward", &[Access::Read, Access::Write]);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    size: [u32; 3],
    out: [u32; 2],
    kernel: [u32; 2],
    stride: u32,
    padding: [u32; 2],
    unused: u32,
}

/// Where a window stands: its extent, how far it moves, and how far it reaches past the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// (down, across) in pixels.
    pub kernel: [usize; 2],
    /// Pixels from one place to the next.
    pub stride: usize,
    /// (above and below, left and right) in pixels.
    pub padding: [usize; 2],
}

impl Window {
    /// The places (down, across) over a picture of (height, width).
    ///
    /// # Errors
    /// [`Error::Shape`] when the window is larger than the padded picture, or does not move.
    pub fn places(&self, op: &'static str, size: [usize; 2]) -> Result<[usize; 2]> {
        let Window { kernel, stride, padding } = *self;
        let place = |i: usize| {
            let room = (size[i] + 2 * padding[i]).checked_sub(kernel[i])?;
            (kernel[i] > padding[i] && stride > 0).then(|| room / stride + 1)
        };
        let none = || Error::shape(op, format!("{self:?} does not fit a picture of {size:?}"));
        Ok([place(0).ok_or_else(none)?, place(1).ok_or_else(none)?])
    }
}

/// `[N, H, W, C]` to `[N, Oh, Ow, Kh·Kw·C]`.
///
/// # Errors
/// [`Error::Shape`] when the window does not fit; [`Error::Config`] on a tape that asks for x's gradient.
pub fn patches(cx: &mut Context, x: &Tensor, window: Window) -> Result<Tensor> {
    let [n, h, w, c] = x.nhwc("patches")?;
    if cx.needs_grad(x) {
        return Err(Error::Config(
            "patches have no gradient: they are for networks that are only run".into(),
        ));
    }
    let [out_h, out_w] = window.places("patches", [h, w])?;
    let [kernel_h, kernel_w] = window.kernel;
    let y = cx.output("patches", &[n, out_h, out_w, kernel_h * kernel_w * c], x.dtype())?;
    let params = Params {
        count: y.len() as u32,
        size: [h as u32, w as u32, c as u32],
        out: [out_h as u32, out_w as u32],
        kernel: [kernel_h as u32, kernel_w as u32],
        stride: window.stride as u32,
        padding: window.padding.map(|pad| pad as u32),
        unused: 0,
    };
    cx.launch(&FORWARD).bind(x).bind(&y).params(&params).over(y.len(), 64);
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;
    use crate::testing::{Array, dtypes, forward, gpu};

    #[test]
    fn every_place_sees_its_window() {
        let x = Array::random(&[2, 7, 5, 3], 1);
        for (kernel, stride, padding) in [
            ([3, 3], 2, [0, 0]),
            ([1, 5], 1, [0, 2]),
            ([7, 1], 1, [3, 0]),
            ([3, 3], 1, [1, 1]),
            ([2, 3], 3, [1, 0]),
        ] {
            let window = Window { kernel, stride, padding };
            let [oh, ow] = window.places("patches", [7, 5]).unwrap();
            let mut want = Vec::new();
            for place in 0..2 * oh * ow {
                let (n, oy, ox) = (place / (oh * ow), place / ow % oh, place % ow);
                for tap in 0..kernel[0] * kernel[1] {
                    let iy = (oy * stride + tap / kernel[1]).wrapping_sub(padding[0]);
                    let ix = (ox * stride + tap % kernel[1]).wrapping_sub(padding[1]);
                    let inside = iy < 7 && ix < 5;
                    want.extend(
                        (0..3).map(|c| if inside { x.data[((n * 7 + iy) * 5 + ix) * 3 + c] } else { 0.0 }),
                    );
                }
            }
            for dtype in dtypes() {
                let mut cx = Context::new(gpu());
                let input = x.upload(&cx, dtype);
                let y = patches(&mut cx, &input, window).unwrap();
                assert_eq!(forward(&[input], cx, &y).data, want, "{window:?}");
            }
        }
    }

    #[test]
    fn misfits_are_errors() {
        let mut cx = Context::with_tape(gpu());
        let x = Array::random(&[1, 2, 2, 1], 1).upload(&cx, DType::F32);
        let window = Window { kernel: [3, 3], stride: 1, padding: [0, 0] };
        assert!(patches(&mut cx, &x, window).unwrap_err().to_string().contains("does not fit"));
        cx.watch(&x);
        let window = Window { kernel: [1, 1], ..window };
        assert!(patches(&mut cx, &x, window).unwrap_err().to_string().contains("no gradient"));
    }
}
