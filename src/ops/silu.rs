//! SiLU.  y = x·σ(x),  dx = dy·σ(x)·(1 + x·(1 - σ(x))).  Any shape.

use bytemuck::{Pod, Zeroable};

use crate::error::Result;
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, Tensor};
use crate::wgsl;

const FORWARD: Kernel = Kernel::new("silu", wgsl!("silu"), "forward", &[Access::Read, Access::Write]);
const BACKWARD: Kernel =
    Kernel::new("silu_backward", wgsl!("silu"), "backward", &[Access::Read, Access::Read, Access::Update]);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    accumulate: u32,
    pad: [u32; 2],
}

/// y = x·σ(x), element by element.
pub fn silu(cx: &mut Context, x: &Tensor) -> Result<Tensor> {
    let count = x.len();
    let y = cx.output("silu", x.shape(), x.dtype())?;
    let params = Params { count: count as u32, accumulate: 0, pad: [0; 2] };
    cx.launch(&FORWARD).bind(x).bind(&y).params(&params).over(count, 64);
    cx.backward(&y, &[x], {
        let x = x.clone();
        move |cx, dy| {
            if let Some(dx) = cx.grad_target(&x)? {
                let params = Params { accumulate: dx.flag(), ..params };
                cx.launch(&BACKWARD).bind(&x).bind(dy).bind(&dx.tensor).params(&params).over(count, 64);
            }
            Ok(())
        }
    });
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Array, Golden, check_gradients, dtypes, forward_backward};

    #[test]
    fn matches_the_golden_case() {
        let golden = Golden::open("ops");
        for dtype in dtypes() {
            let (y, grads) =
                forward_backward(dtype, &[golden.array("silu.a.x")], &golden.array("silu.a.gy"), |cx, x| {
                    silu(cx, &x[0])
                });
            golden.check("silu.a.y", &y, dtype);
            golden.check("silu.a.dx", &grads[0], dtype);
        }
    }

    #[test]
    fn gradient_is_that_of_finite_differences() {
        check_gradients(&[Array::random(&[3, 5, 7], 1)], |cx, x| silu(cx, &x[0]));
    }
}
