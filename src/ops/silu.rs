//! SiLU.  y = x·σ(x),  dx = dy·σ(x)·(1 + x·(1 - σ(x))).  Any shape.

use bytemuck::{Pod, Zeroable};

use crate::error::Result;
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, Tensor};
use crate::wgsl;

use super::pack::choose;

const FORWARD: Kernel = Kernel::new("silu", wgsl!("silu"), "forward", &[Access::Read, Access::Write]);
const FORWARD_PACKED: Kernel =
    Kernel::new("silu", wgsl!("silu"), "forward_packed", &[Access::Read, Access::Write]);
const BACKWARD: Kernel =
    Kernel::new("silu_backward", wgsl!("silu"), "backward", &[Access::Read, Access::Read, Access::Update]);
const BACKWARD_PACKED: Kernel = Kernel::new(
    "silu_backward",
    wgsl!("silu"),
    "backward_packed",
    &[Access::Read, Access::Read, Access::Update],
);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    accumulate: u32,
    pad: [u32; 2],
}

/// y = x·σ(x), element by element.
pub fn silu(cx: &mut Context, x: &Tensor) -> Result<Tensor> {
    let chosen = choose(cx, x.dtype(), &[x.len()], &FORWARD_PACKED, &FORWARD);
    let count = x.len() / chosen.lanes;
    let y = cx.output("silu", x.shape(), x.dtype())?;
    let params = Params { count: count as u32, accumulate: 0, pad: [0; 2] };
    let launch = cx.launch(chosen.kernel).bind(x).bind(&y).params(&params);
    launch.variant(chosen.variant("")).over(count, chosen.size);
    cx.backward(&y, &[x], {
        let x = x.clone();
        move |cx, dy| {
            if let Some(dx) = cx.grad_target(&x)? {
                let params = Params { accumulate: dx.flag(), ..params };
                let chosen = choose(cx, x.dtype(), &[x.len()], &BACKWARD_PACKED, &BACKWARD);
                let launch = cx.launch(chosen.kernel).bind(&x).bind(dy).bind(&dx.tensor).params(&params);
                launch.variant(chosen.variant("")).over(count, chosen.size);
            }
            Ok(())
        }
    });
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{
        Array, Golden, check_gradients, dtypes, forward_backward, forward_backward_on, rungs,
    };

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
    fn packs_and_single_elements_agree_with_the_definition() {
        for (rung, shape) in rungs().into_iter().flat_map(|r| [(r, [3, 5, 7]), (r, [3, 5, 16])]) {
            let (x, gy) = (Array::random(&shape, 1).map(|x| 8.0 * x), Array::random(&shape, 2));
            let sigmoid = |x: f32| 1.0 / (1.0 + (-f64::from(x)).exp());
            let y = x.map(|x| (f64::from(x) * sigmoid(x)) as f32);
            let slope = |x: f32| sigmoid(x) * (1.0 + f64::from(x) * (1.0 - sigmoid(x)));
            let dx = x.zip(&gy, |x, g| (f64::from(g) * slope(x)) as f32);
            for dtype in dtypes() {
                let (got, grads) =
                    forward_backward_on(rung, dtype, std::slice::from_ref(&x), &gy, |cx, x| silu(cx, &x[0]));
                got.check(&format!("{rung} y"), &y, dtype);
                grads[0].check(&format!("{rung} dx"), &dx, dtype);
            }
        }
        // Gradients that add to one another.
        check_gradients(&[Array::random(&[3, 8], 1)], |cx, x| {
            let (a, b) = (silu(cx, &x[0])?, silu(cx, &x[0])?);
            crate::ops::add(cx, &a, &b, 0.7)
        });
    }

    #[test]
    fn gradient_is_that_of_finite_differences() {
        check_gradients(&[Array::random(&[3, 5, 7], 1)], |cx, x| silu(cx, &x[0]));
    }
}
