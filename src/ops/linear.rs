//! Linear layer.  y[m,k] = bias[k] + Σ_c x[m,c]·w[c,k] over the last dimension of x: a 1x1 convolution over one row
//! of pixels, with its kernels and its gradients.

use crate::error::{Error, Result};
use crate::tensor::{Context, Tensor};

use super::{conv2d, conv2d_add};

/// y = x·w + bias, with x `[..., C]`, w `[C, K]`, bias `[K]`.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit; types as [`conv2d`] wants them.
pub fn linear(cx: &mut Context, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let as_conv = AsConv::new(x, w)?;
    let y = conv2d(cx, &as_conv.x, &as_conv.w, bias, 1)?;
    y.reshape(&as_conv.shape)
}

/// [`linear`] plus `residual`, of the output's shape and type, whose gradient is the output's.
///
/// # Errors
/// As [`linear`].
pub fn linear_add(
    cx: &mut Context,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    residual: &Tensor,
) -> Result<Tensor> {
    let as_conv = AsConv::new(x, w)?;
    if residual.shape() != as_conv.shape {
        let what = format!("the residual must be {:?}, got {:?}", as_conv.shape, residual.shape());
        return Err(Error::shape("linear", what));
    }
    let row = residual.reshape(&[1, 1, as_conv.x.shape()[2], w.shape()[1]])?;
    let y = conv2d_add(cx, &as_conv.x, &as_conv.w, bias, 1, &row)?;
    y.reshape(&as_conv.shape)
}

/// A linear layer as a 1x1 convolution over one row of pixels.
struct AsConv {
    x: Tensor,
    w: Tensor,
    /// Of y.
    shape: Vec<usize>,
}

impl AsConv {
    fn new(x: &Tensor, w: &Tensor) -> Result<Self> {
        let (&[channels, filters], Some((&last, leading))) = (w.shape(), x.shape().split_last()) else {
            let what =
                format!("expected x [..., C] and weights [C, K], got {:?} and {:?}", x.shape(), w.shape());
            return Err(Error::shape("linear", what));
        };
        if last != channels {
            let (x, w) = (x.shape(), w.shape());
            let what = format!("x {x:?} has {last} channels but the weights {w:?} take {channels}");
            return Err(Error::shape("linear", what));
        }
        Ok(AsConv {
            x: x.reshape(&[1, 1, leading.iter().product(), channels])?,
            w: w.reshape(&[1, 1, channels, filters])?,
            shape: [leading, &[filters]].concat(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Gpu;
    use crate::ops::conv2d::tests::{Case, run};
    use crate::testing::{Array, Golden, check_gradients, dtypes, gpu, rungs};

    fn run_linear(case: &Case) -> (Array, Vec<Array>) {
        run(case, linear)
    }

    #[test]
    fn matches_the_golden_case() {
        let golden = Golden::open("ops");
        let transposed = |array: Array| array.permute(&[1, 0]);
        for dtype in dtypes() {
            for rung in rungs() {
                let case = Case {
                    rung,
                    dtype,
                    x: golden.array("linear.a.x"),
                    w: transposed(golden.array("linear.a.w")),
                    bias: Some(golden.array("linear.a.b")),
                    gy: golden.array("linear.a.gy"),
                };
                let (y, grads) = run_linear(&case);
                golden.check("linear.a.y", &y, dtype);
                golden.check("linear.a.dx", &grads[0], dtype);
                golden.check_as("linear.a.dw", &grads[1], dtype, transposed);
                golden.check("linear.a.db", &grads[2], dtype);
            }
        }
    }

    #[test]
    fn takes_any_leading_dimensions() {
        let inputs = [Array::random(&[2, 3, 5, 4], 1), Array::random(&[4, 8], 2), Array::random(&[8], 3)];
        check_gradients(&inputs, |cx, x| linear(cx, &x[0], &x[1], Some(&x[2])));
        check_gradients(&inputs[..2], |cx, x| linear(cx, &x[0], &x[1], None));
        let residual = Array::random(&[2, 3, 5, 8], 4);
        let inputs = [&inputs[..], &[residual]].concat();
        check_gradients(&inputs, |cx, x| linear_add(cx, &x[0], &x[1], Some(&x[2]), &x[3]));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let gpu: &Gpu = gpu();
        let cx = &mut Context::new(gpu);
        let x = cx.constant_f32("x", &[2, 3], &[0.0; 6]).unwrap();
        let w = cx.constant_f32("w", &[4, 5], &[0.0; 20]).unwrap();
        let error = linear(cx, &x, &w, None).unwrap_err().to_string();
        assert_eq!(error, "linear: x [2, 3] has 3 channels but the weights [4, 5] take 4");
        let error = linear(cx, &x, &x.reshape(&[6]).unwrap(), None).unwrap_err().to_string();
        assert_eq!(error, "linear: expected x [..., C] and weights [C, K], got [2, 3] and [6]");
    }
}
