//! Softmax over the last axis.  y = exp(x - max x) / Σ exp(x - max x),  dx = y·(dy - Σ dy·y).  x `[..., C]`.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, Tensor};
use crate::wgsl;

const FORWARD: Kernel = Kernel::new("softmax", wgsl!("softmax"), "forward", &[Access::Read, Access::Write]);
const BACKWARD: Kernel = Kernel::new(
    "softmax_backward",
    wgsl!("softmax"),
    "backward",
    &[Access::Read, Access::Read, Access::Update],
);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    rows: u32,
    width: u32,
    accumulate: u32,
    pad: u32,
}

/// Softmax of x `[..., C]` over its last axis.
///
/// # Errors
/// [`Error::Shape`] when x has no dimension or no element.
pub fn softmax(cx: &mut Context, x: &Tensor) -> Result<Tensor> {
    let &[.., width] = x.shape() else {
        return Err(Error::shape("softmax", "expected one dimension or more, got []"));
    };
    if x.is_empty() {
        return Err(Error::shape("softmax", format!("x is {:?}, which has no element", x.shape())));
    }
    let rows = x.len() / width;
    let y = cx.output("softmax", x.shape(), x.dtype())?;
    let params = Params { rows: rows as u32, width: width as u32, accumulate: 0, pad: 0 };
    cx.launch(&FORWARD).bind(x).bind(&y).params(&params).over(rows, 16);
    cx.backward(&y, &[x], {
        let (x, y) = (x.clone(), y.clone());
        move |cx, dy| {
            if let Some(dx) = cx.grad_target(&x)? {
                let params = Params { accumulate: dx.flag(), ..params };
                cx.launch(&BACKWARD).bind(&y).bind(dy).bind(&dx.tensor).params(&params).over(rows, 16);
            }
            Ok(())
        }
    });
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Array, Golden, check_gradients, dtypes, forward_backward, gpu};

    #[test]
    fn matches_the_golden_case() {
        let golden = Golden::open("ops");
        for dtype in dtypes() {
            let gy = golden.array("softmax.a.gy");
            let (y, grads) =
                forward_backward(dtype, &[golden.array("softmax.a.x")], &gy, |cx, x| softmax(cx, &x[0]));
            golden.check("softmax.a.y", &y, dtype);
            golden.check("softmax.a.dx", &grads[0], dtype);
        }
    }

    #[test]
    fn gradient_is_that_of_finite_differences() {
        check_gradients(&[Array::random(&[3, 5, 7], 1)], |cx, x| softmax(cx, &x[0]));
    }

    #[test]
    fn large_values_do_not_overflow() {
        let x = Array::new(&[1, 3], vec![1e4, 1e4, -1e4]);
        let (y, _) = forward_backward(crate::tensor::DType::F32, std::slice::from_ref(&x), &x, |cx, x| {
            softmax(cx, &x[0])
        });
        assert_eq!(y.data, [0.5, 0.5, 0.0]);
    }

    #[test]
    fn nothing_has_no_softmax() {
        let mut cx = Context::new(gpu());
        let x = cx.output("x", &[3, 0], crate::tensor::DType::F32).unwrap();
        let message = softmax(&mut cx, &x).unwrap_err().to_string();
        assert_eq!(message, "softmax: x is [3, 0], which has no element");
    }
}
