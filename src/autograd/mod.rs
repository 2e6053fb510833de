//! Gradients of a recorded computation.
//!
//! Operations push their backward closures while they record (see [`Context::backward`]); this layer starts the
//! tape at a loss. It never names an operation.

use crate::error::{Error, Result};
use crate::tensor::{Context, DType, Tensor};

/// Records the backward pass of the scalar `loss`: the gradients of every tracked parameter are accumulated and
/// those of watched inputs can be asked for with [`Context::grad`].
///
/// # Errors
/// [`Error::Shape`] when `loss` has more than one element; whatever the closures return.
pub fn backprop(cx: &mut Context, loss: &Tensor) -> Result<()> {
    if loss.len() != 1 || loss.dtype() != DType::F32 {
        let what = format!("the loss must be one f32, got {:?} of {:?}", loss.shape(), loss.dtype());
        return Err(Error::shape("backprop", what));
    }
    let one = cx.constant_f32("d loss / d loss", loss.shape(), &[1.0])?;
    cx.run_tape(loss, one)
}

/// As [`backprop`], for any output and the given upstream gradient.
pub fn backprop_from(cx: &mut Context, output: &Tensor, gradient: &Tensor) -> Result<()> {
    if output.shape() != gradient.shape() {
        let what = format!("output is {:?} but its gradient {:?}", output.shape(), gradient.shape());
        return Err(Error::shape("backprop", what));
    }
    cx.run_tape(output, gradient.clone())
}
