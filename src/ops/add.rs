//! Scaled sum.  y = scale·(a + b),  da = db = scale·dy.  Any shape. With scale = 1 the gradient is handed on
//! without a copy.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, Tensor};
use crate::wgsl;

use super::pack::choose;

const SUM: Kernel = Kernel::new("add", wgsl!("add"), "sum", &[Access::Read, Access::Read, Access::Write]);
const SUM_PACKED: Kernel =
    Kernel::new("add", wgsl!("add"), "sum_packed", &[Access::Read, Access::Read, Access::Write]);
const INTO: Kernel = Kernel::new("add_into", wgsl!("add"), "into", &[Access::Read, Access::Update]);
const INTO_PACKED: Kernel =
    Kernel::new("add_into", wgsl!("add"), "into_packed", &[Access::Read, Access::Update]);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    accumulate: u32,
    scale: f32,
    pad: u32,
}

/// y = scale·(a + b), element by element.
///
/// # Errors
/// [`Error::Shape`] when the shapes or types differ.
pub fn add(cx: &mut Context, a: &Tensor, b: &Tensor, scale: f32) -> Result<Tensor> {
    if a.shape() != b.shape() || a.dtype() != b.dtype() {
        let what = format!("a is {:?} {:?} but b is {:?} {:?}", a.shape(), a.dtype(), b.shape(), b.dtype());
        return Err(Error::shape("add", what));
    }
    let y = cx.output("add", a.shape(), a.dtype())?;
    let chosen = choose(cx, a.dtype(), &[a.len()], &SUM_PACKED, &SUM);
    let count = a.len() / chosen.lanes;
    let params = Params { count: count as u32, accumulate: 0, scale, pad: 0 };
    let launch = cx.launch(chosen.kernel).bind(a).bind(b).bind(&y).params(&params);
    launch.variant(chosen.variant("")).over(count, chosen.size);
    cx.backward(&y, &[a, b], {
        let (a, b) = (a.clone(), b.clone());
        move |cx, dy| {
            for input in [&a, &b] {
                if scale != 1.0 || !cx.pass_grad(input, dy)? {
                    add_into(cx, input, dy, scale)?;
                }
            }
            Ok(())
        }
    });
    Ok(y)
}

/// Adds scale·`contribution` to the gradient of `input`.
pub fn add_into(cx: &mut Context, input: &Tensor, contribution: &Tensor, scale: f32) -> Result<()> {
    if let Some(target) = cx.grad_target(input)? {
        let chosen = choose(cx, contribution.dtype(), &[contribution.len()], &INTO_PACKED, &INTO);
        let count = contribution.len() / chosen.lanes;
        let params = Params { count: count as u32, accumulate: target.flag(), scale, pad: 0 };
        let launch = cx.launch(chosen.kernel).bind(contribution).bind(&target.tensor).params(&params);
        launch.variant(chosen.variant("")).over(count, chosen.size);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Array, check_gradients, dtypes, forward_backward, forward_backward_on, rungs};
    use std::f32::consts::FRAC_1_SQRT_2;

    #[test]
    fn adds_and_scales() {
        for (rung, shape) in rungs().into_iter().flat_map(|r| [(r, [3, 5, 7]), (r, [3, 5, 16])]) {
            let [a, b, gy] = [1, 2, 3].map(|seed| Array::random(&shape, seed));
            for (dtype, scale) in dtypes().into_iter().flat_map(|d| [(d, 1.0), (d, FRAC_1_SQRT_2)]) {
                let (y, grads) = forward_backward_on(rung, dtype, &[a.clone(), b.clone()], &gy, |cx, x| {
                    add(cx, &x[0], &x[1], scale)
                });
                y.check("sum", &a.zip(&b, |a, b| scale * (a + b)), dtype);
                for grad in &grads {
                    grad.check("gradient", &gy.map(|g| scale * g), dtype);
                }
            }
        }
    }

    #[test]
    fn a_value_used_twice_gathers_both_gradients() {
        // y = (x + c) + (x + d): the gradient of x is 2 dy, and c's and d's stay dy though they share its memory.
        let x: Vec<Array> = (0..3).map(|seed| Array::random(&[2, 9], seed)).collect();
        let gy = Array::random(&[2, 9], 9);
        let (_, grads) = forward_backward(crate::tensor::DType::F32, &x, &gy, |cx, x| {
            let left = add(cx, &x[0], &x[1], 1.0)?;
            let right = add(cx, &x[0], &x[2], 1.0)?;
            add(cx, &left, &right, 1.0)
        });
        grads[0].check("x", &gy.map(|g| 2.0 * g), crate::tensor::DType::F32);
        grads[1].check("c", &gy, crate::tensor::DType::F32);
        grads[2].check("d", &gy, crate::tensor::DType::F32);
        check_gradients(&x[..2], |cx, x| {
            let left = add(cx, &x[0], &x[1], 0.7)?;
            add(cx, &left, &x[0], 1.3)
        });
    }
}
