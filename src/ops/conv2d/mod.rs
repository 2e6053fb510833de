//! 2-D convolution, 1x1, 3x3, or 1x3 along a line, stride 1 or 2, "same" padding (k-1)/2 along each axis unless another is
//! asked for.
//!
//! y[n,oy,ox,k] = bias[k] + Σ_{ky,kx,c} x[n, oy·stride+ky-pad, ox·stride+kx-pad, c]·w[ky,kx,c,k]
//!
//! x `[N, H, W, C]`, w `[Kh, Kw, C, K]`, bias `[K]`, y `[N, ⌈H/stride⌉, ⌈W/stride⌉, K]`. Storage of x and y is f32 or
//! f16, that of parameters and their gradients f32; weights may be f16, too. Sums are f32; on cooperative matrices f16
//! activations meet weights rounded to f16 (`coop.rs`).
//!
//! Input gradient: the same gather over dy with turned weights (`gather.rs`). Weight gradient: dw[ky,kx,c,k] =
//! Σ x·dy over pixels, bias gradient: column sums of dy (`weight_gradient.rs`). What they share: `problem.rs`.

mod coop;
mod gather;
mod problem;
mod split;
mod weight_gradient;

use crate::error::{Error, Result};
use crate::tensor::{Context, Tensor};

use super::add::{add, add_into};

use gather::gather;
pub use problem::Padding;
use problem::{Direction, Params};
pub(super) use weight_gradient::bias_gradient;
use weight_gradient::weight_gradient;

/// Convolution of `x` `[N, H, W, C]` with `w` `[Kh, Kw, C, K]` (Kh = Kw = 1 or 3; of lines, H = 1, also 1 and 3), plus `bias`
/// `[K]`.
///
/// # Errors
/// [`Error::Shape`] when shapes, types or the stride do not fit.
pub fn conv2d(
    cx: &mut Context,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
) -> Result<Tensor> {
    conv2d_padded(cx, x, w, bias, stride, None, None)
}

/// [`conv2d`] plus `residual`, of the output's shape and type, whose gradient is the output's.
///
/// # Errors
/// As [`conv2d`].
pub fn conv2d_add(
    cx: &mut Context,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    residual: &Tensor,
) -> Result<Tensor> {
    conv2d_padded(cx, x, w, bias, stride, None, Some(residual))
}

/// [`conv2d`] with any padding, by default that which keeps the size at stride 1, and with or without a residual: y is
/// `[N, Oh, Ow, K]`, O = ⌊(extent + padding - kernel) / stride⌋ + 1.
///
/// # Errors
/// As [`conv2d`], and where the kernel does not fit the padded picture.
pub fn conv2d_padded(
    cx: &mut Context,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: Option<Padding>,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let params = Params::padded(x, w, bias, stride, padding)?;
    let Some(residual) = residual else { return convolve(cx, x, w, [bias, None], params) };
    let shape = params.out_shape();
    if residual.shape() != shape || residual.dtype() != x.dtype() {
        let what = format!(
            "the residual must be {shape:?} {:?}, as what it is added to, got {:?} {:?}",
            x.dtype(),
            residual.shape(),
            residual.dtype()
        );
        return Err(Error::shape("conv2d", what));
    }
    if coop::Choice::best(cx, x, &params.flattened()).is_some() {
        return convolve(cx, x, w, [bias, Some(residual)], params);
    }
    let y = convolve(cx, x, w, [bias, None], params)?;
    add(cx, residual, &y, 1.0)
}

fn convolve(
    cx: &mut Context,
    x: &Tensor,
    w: &Tensor,
    [bias, residual]: [Option<&Tensor>; 2],
    params: Params,
) -> Result<Tensor> {
    let y = cx.output("conv2d", &params.out_shape(), x.dtype())?;
    let params = Params { has_residual: u32::from(residual.is_some()), ..params.flattened() };
    gather(cx, Direction::Forward, [x, w, &y], [bias, residual], params)?;
    cx.count_flops(params.flops());
    let params = Params { has_residual: 0, ..params };
    let inputs: Vec<&Tensor> = [x, w].into_iter().chain(bias).chain(residual).collect();
    cx.backward(&y, &inputs, {
        let (x, w, bias, residual) = (x.clone(), w.clone(), bias.cloned(), residual.cloned());
        move |cx, dy| {
            if let Some(bias) = &bias
                && let Some(db) = cx.grad_target(bias)?
            {
                bias_gradient(cx, dy, &db)?;
            }
            if let Some(dw) = cx.grad_target(&w)? {
                weight_gradient(cx, &x, dy, &dw, params)?;
                cx.count_flops(params.flops());
            }
            if let Some(dx) = cx.grad_target(&x)? {
                cx.count_flops(params.flops());
                let params = Params { accumulate: dx.flag(), ..params.reversed() };
                gather(cx, Direction::InputGradient, [dy, &w, &dx.tensor], [None; 2], params)?;
            }
            // Last: once handed on, the gradient is added to in its place.
            if let Some(residual) = &residual
                && !cx.pass_grad(residual, dy)?
            {
                add_into(cx, residual, dy, 1.0)?;
            }
            Ok(())
        }
    });
    Ok(y)
}

#[cfg(test)]
mod coop_tests;
#[cfg(test)]
mod line_tests;
#[cfg(test)]
mod padding_tests;
#[cfg(test)]
pub(super) mod tests;
