//! Scaling.  y = factor·x,  dx = factor·dy.  Any shape.

use bytemuck::{Pod, Zeroable};

use crate::error::Result;
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, Tensor};
use crate::wgsl;

use super::add_into;
use super::pack::choose;

const FORWARD: Kernel = Kernel::new("scale", wgsl!("scale"), "forward", &[Access::Read, Access::Write]);
const FORWARD_PACKED: Kernel =
    Kernel::new("scale", wgsl!("scale"), "forward_packed", &[Access::Read, Access::Write]);

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
    let chosen = choose(cx, x.dtype(), &[x.len()], &FORWARD_PACKED, &FORWARD);
    let count = x.len() / chosen.lanes;
    let params = Params { count: count as u32, factor, pad: [0; 2] };
    let launch = cx.launch(chosen.kernel).bind(x).bind(&y).params(&params);
    launch.variant(chosen.variant("")).over(count, chosen.size);
    cx.backward(&y, &[x], {
        let x = x.clone();
        move |cx, dy| add_into(cx, &x, dy, factor)
    });
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Array, check_gradients, dtypes, forward_backward_on, rungs};

    #[test]
    fn scales_value_and_gradient() {
        for (rung, shape) in rungs().into_iter().flat_map(|r| [(r, [3, 5, 7]), (r, [3, 5, 16])]) {
            let (x, gy) = (Array::random(&shape, 1), Array::random(&shape, 2));
            for dtype in dtypes() {
                let inputs = std::slice::from_ref(&x);
                let (y, grads) =
                    forward_backward_on(rung, dtype, inputs, &gy, |cx, x| scale(cx, &x[0], -0.75));
                y.check("y", &x.map(|x| -0.75 * x), dtype);
                grads[0].check("dx", &gy.map(|g| -0.75 * g), dtype);
            }
        }
        check_gradients(&[Array::random(&[3, 5, 7], 1)], |cx, x| scale(cx, &x[0], 1.3));
    }
}
