//! A soft clamp.  y = m·tanh(x/m),  dx = dy·(1 - (y/m)²).  Any shape. Small values stay nearly as they are, large ones come near
//! ±m.

use bytemuck::{Pod, Zeroable};

use crate::error::Result;
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, Tensor};
use crate::wgsl;

const FORWARD: Kernel =
    Kernel::new("soft_clamp", wgsl!("soft_clamp"), "forward", &[Access::Read, Access::Write]);
const BACKWARD: Kernel = Kernel::new(
    "soft_clamp_backward",
    wgsl!("soft_clamp"),
    "backward",
    &[Access::Read, Access::Read, Access::Update],
);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    accumulate: u32,
    most: f32,
    pad: u32,
}

/// y = most·tanh(x/most), element by element.
///
/// # Errors
/// As [`Context::output`].
pub fn soft_clamp(cx: &mut Context, x: &Tensor, most: f32) -> Result<Tensor> {
    let count = x.len();
    let y = cx.output("soft_clamp", x.shape(), x.dtype())?;
    let params = Params { count: count as u32, accumulate: 0, most, pad: 0 };
    cx.launch(&FORWARD).bind(x).bind(&y).params(&params).over(count, 64);
    cx.backward(&y, &[x], {
        let (x, y) = (x.clone(), y.clone());
        move |cx, dy| {
            if let Some(dx) = cx.grad_target(&x)? {
                let params = Params { accumulate: dx.flag(), ..params };
                cx.launch(&BACKWARD).bind(&y).bind(dy).bind(&dx.tensor).params(&params).over(count, 64);
            }
            Ok(())
        }
    });
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;
    use crate::testing::{Array, check_gradients, dtypes, forward_backward};

    #[test]
    fn agrees_with_f64() {
        let (x, gy) = (Array::random(&[3, 5, 7], 1).map(|x| 12.0 * x), Array::random(&[3, 5, 7], 2));
        let y = x.map(|x| (3.0 * (f64::from(x) / 3.0).tanh()) as f32);
        let dx = y.zip(&gy, |y, g| g * (1.0 - (y / 3.0) * (y / 3.0)));
        for dtype in dtypes() {
            let (got, grads) =
                forward_backward(dtype, std::slice::from_ref(&x), &gy, |cx, x| soft_clamp(cx, &x[0], 3.0));
            got.check("y", &y, dtype);
            grads[0].check("dx", &dx, dtype);
        }
        check_gradients(&[Array::random(&[3, 8], 1)], |cx, x| {
            let (a, b) = (soft_clamp(cx, &x[0], 0.5)?, soft_clamp(cx, &x[0], 0.5)?);
            crate::ops::add(cx, &a, &b, 0.7)
        });
    }

    /// tanh of large numbers is NaN on some adapters.
    #[test]
    fn what_is_large_comes_to_the_bounds() {
        let x = Array::new(&[6], vec![1e30, -1e30, 400.0, -400.0, 0.0, 3e-5]);
        let (y, _) =
            forward_backward(DType::F32, std::slice::from_ref(&x), &x, |cx, x| soft_clamp(cx, &x[0], 3.0));
        assert_eq!(y.data[..5], [3.0, -3.0, 3.0, -3.0, 0.0]);
        assert!((y.data[5] - 3e-5).abs() < 1e-6);
    }
}
