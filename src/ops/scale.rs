//! Scaling.  y = factor·x,  dx = factor·dy.  Any shape.

use bytemuck::{Pod, Zeroable};

use crate::error::Result;
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, Tensor};
use crate::wgsl;

use super::add_into;

const FORWARD: Kernel = Kernel::new("scale", wgsl!("scale"), "forward", &[Access::Read, Access::Write]);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    factor: f32,
    pad: [u32; 2],
}

/// y = factor·x, element by element.
pub fn scale(cx: &mut Context, x: &Tensor, factor: f32) -> Result<Tensor> {
    let y = cx.output("scale", x.shape(), x.dtype())?;
    let params = Params { count: x.len() as u32, factor, pad: [0; 2] };
    cx.launch(&FORWARD).bind(x).bind(&y).params(&params).over(x.len(), 64);
    cx.backward(&y, &[x], {
        let x = x.clone();
        move |cx, dy| add_into(cx, &x, dy, factor)
    });
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Array, check_gradients, dtypes, forward_backward};

    #[test]
    fn scales_value_and_gradient() {
        let (x, gy) = (Array::random(&[3, 5, 7], 1), Array::random(&[3, 5, 7], 2));
        for dtype in dtypes() {
            let (y, grads) =
                forward_backward(dtype, std::slice::from_ref(&x), &gy, |cx, x| scale(cx, &x[0], -0.75));
            y.check("y", &x.map(|x| -0.75 * x), dtype);
            grads[0].check("dx", &gy.map(|g| -0.75 * g), dtype);
        }
        check_gradients(&[x], |cx, x| scale(cx, &x[0], 1.3));
    }
}
