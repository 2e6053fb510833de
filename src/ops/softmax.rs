//! Softmax over the last axis.  y = exp(x - max x) / Σ exp(x - max x),  dx = y·(dy - Σ dy·y).  x `[..., C]`.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, Tensor};
use crate::wgsl;

const FORWARD: Kernel = Kernel::new("softmax", wgsl!("softmax"), "forward", &[Access::Read, Access::Write]);
const FORWARD_WIDE: Kernel =
    Kernel::new("softmax", wgsl!("softmax"), "forward_wide", &[Access::Read, Access::Write]);
const BACKWARD: Kernel = Kernel::new(
    "softmax_backward",
    wgsl!("softmax"),
    "backward",
    &[Access::Read, Access::Read, Access::Update],
);

/// Columns from which on a GPU gives a row a workgroup: with fewer most of its invocations have nothing to do.
const WIDE: usize = 256;
/// And from which on all adapters do: those in software leave all loops of an invocation after 65535 turns together, and a row
/// is gone over three times.
const TOO_WIDE: usize = 20_000;

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
    match width >= if cx.rung().is_tiled() { WIDE } else { TOO_WIDE } {
        true => cx.launch(&FORWARD_WIDE).bind(x).bind(&y).params(&params).variant("wide").over_groups(rows),
        false => cx.launch(&FORWARD).bind(x).bind(&y).params(&params).over(rows, 16),
    }
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
    use crate::tensor::DType;
    use crate::testing::{
        Array, Golden, check_gradients, dtypes, forward_backward, forward_backward_on, gpu, rungs,
    };

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
    fn wide_rows_agree_with_f64_on_every_rung() {
        for (rung, width) in rungs().into_iter().flat_map(|r| [255, 256, 1023, 30000].map(|width| (r, width)))
        {
            let x = Array::random(&[3, width], 1).map(|v| 9.0 * v);
            let gy = Array::random(&[3, width], 2);
            let softmax_of = |row: &[f32]| -> Vec<f32> {
                let most = row.iter().fold(f32::MIN, |m, x| m.max(*x));
                let e: Vec<f64> = row.iter().map(|x| f64::from(x - most).exp()).collect();
                let total: f64 = e.iter().sum();
                e.iter().map(|e| (e / total) as f32).collect()
            };
            let want = Array::new(&x.shape, x.data.chunks(width).flat_map(softmax_of).collect());
            for dtype in dtypes() {
                let (y, _) = forward_backward_on(rung, dtype, std::slice::from_ref(&x), &gy, |cx, x| {
                    softmax(cx, &x[0])
                });
                let within = if dtype == DType::F16 { 1e-2 } else { 1e-5 };
                y.check_within(&format!("{rung} {width}"), &want, within);
            }
        }
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
