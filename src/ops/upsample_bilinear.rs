//! Bilinear upsampling by a whole factor, corners not aligned: what ADM's upsamplers do to their low-resolution input.
//! Output place i reads at s = max((i + ½)/F - ½, 0): the places ⌊s⌋ and ⌊s⌋ + 1, weighted by how near they are; past
//! the last place the last counts. The gradient adds up what each place was read with.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const FORWARD: Kernel =
    Kernel::new("upsample_bilinear", wgsl!("upsample_bilinear"), "forward", &[Access::Read, Access::Update]);
const BACKWARD: Kernel = Kernel::new(
    "upsample_bilinear_backward",
    wgsl!("upsample_bilinear"),
    "backward",
    &[Access::Read, Access::Update],
);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    height: u32,
    width: u32,
    channels: u32,
    factor: u32,
    accumulate: u32,
    pad: [u32; 2],
}

/// `[N, H, W, C]` f32 to `[N, F·H, F·W, C]`.
///
/// # Errors
/// [`Error::Shape`] unless x is `[N, H, W, C]` of f32 and the factor at least 1.
pub fn upsample_bilinear(cx: &mut Context, x: &Tensor, factor: usize) -> Result<Tensor> {
    let [n, h, w, c] = x.nhwc("upsample_bilinear")?;
    if x.dtype() != DType::F32 || factor == 0 || x.is_empty() {
        let what = format!(
            "x is {:?} of {:?}, the factor {factor}: f32 and 1 or more are needed",
            x.shape(),
            x.dtype()
        );
        return Err(Error::shape("upsample_bilinear", what));
    }
    let y = cx.output("upsample_bilinear", &[n, factor * h, factor * w, c], DType::F32)?;
    let [height, width, channels, factor] = [h, w, c, factor].map(|size| size as u32);
    let params =
        Params { count: y.len() as u32, height, width, channels, factor, accumulate: 0, pad: [0; 2] };
    cx.launch(&FORWARD).bind(x).bind(&y).params(&params).over(y.len(), 64);
    cx.backward(&y, &[x], {
        let x = x.clone();
        move |cx, dy| {
            if let Some(dx) = cx.grad_target(&x)? {
                let params = Params { count: x.len() as u32, accumulate: dx.flag(), ..params };
                cx.launch(&BACKWARD).bind(dy).bind(&dx.tensor).params(&params).over(x.len(), 64);
            }
            Ok(())
        }
    });
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::add;
    use crate::testing::{Array, Golden, check_gradients, forward_backward, gpu};

    #[test]
    fn matches_the_golden_case() {
        let golden = Golden::open("ops");
        let [x, gy] = ["x", "gy"].map(|name| golden.array(&format!("upsample.bilinear.{name}")).nhwc());
        let factor = gy.shape[1] / x.shape[1];
        let (y, grads) = forward_backward(DType::F32, std::slice::from_ref(&x), &gy, |cx, t| {
            upsample_bilinear(cx, &t[0], factor)
        });
        golden.check_as("upsample.bilinear.y", &y, DType::F32, |want| want.nhwc());
        golden.check_as("upsample.bilinear.dx", &grads[0], DType::F32, |want| want.nhwc());
    }

    #[test]
    fn odd_sizes_and_factors() {
        for (shape, factor) in [([2, 3, 5, 3], 3), ([1, 1, 4, 2], 4), ([2, 2, 1, 5], 1)] {
            check_gradients(&[Array::random(&shape, 1)], |cx, t| {
                let (a, b) = (upsample_bilinear(cx, &t[0], factor)?, upsample_bilinear(cx, &t[0], factor)?);
                add(cx, &a, &b, 0.5)
            });
        }
        // A line 0, 1 at factor 4: flat to the middle of the first pixel, then an eighth and quarters.
        let x = Array::new(&[1, 1, 2, 1], vec![0.0, 1.0]);
        let mut cx = Context::new(gpu());
        let t = x.upload(&cx, DType::F32);
        let y = upsample_bilinear(&mut cx, &t, 4).unwrap();
        let y = crate::testing::forward(&[t], cx, &y);
        assert_eq!(y.data[..8], [0.0, 0.0, 0.125, 0.375, 0.625, 0.875, 1.0, 1.0]);
    }

    #[test]
    fn a_factor_of_nothing_is_refused() {
        let mut cx = Context::new(gpu());
        let x = Array::random(&[1, 2, 2, 1], 1).upload(&cx, DType::F32);
        assert!(upsample_bilinear(&mut cx, &x, 0).unwrap_err().to_string().contains("factor 0"));
    }
}
