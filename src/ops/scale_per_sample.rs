//! Scaling by a factor a sample.  y[n, …] = factor[n]·x[n, …],  dx = factor·dy. How a preconditioned network's input gets unit
//! variance at every noise level (EDM, arXiv 2206.00364, equation 7); the factors have no gradient.

use bytemuck::{Pod, Zeroable};

use super::noised::expect;
use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const OP: &str = "scale_per_sample";

const FORWARD: Kernel =
    Kernel::new(OP, wgsl!("scale_per_sample"), "forward", &[Access::Read, Access::Read, Access::Write]);
const BACKWARD: Kernel = Kernel::new(
    "scale_per_sample_backward",
    wgsl!("scale_per_sample"),
    "forward",
    &[Access::Read, Access::Read, Access::Update],
);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    length: u32,
    accumulate: u32,
    pad: u32,
}

/// `x` `[N, …]`, each sample times its element of `factors` `[N]` f32.
///
/// # Errors
/// [`Error::Shape`] when there are not N factors in f32.
pub fn scale_per_sample(cx: &mut Context, x: &Tensor, factors: &Tensor) -> Result<Tensor> {
    let samples = x.shape().first().copied().unwrap_or(0);
    if samples == 0 || x.is_empty() {
        return Err(Error::shape(OP, format!("x is {:?}: there is no sample to scale", x.shape())));
    }
    expect(OP, "factors", factors, &[samples], DType::F32)?;
    let y = cx.output(OP, x.shape(), x.dtype())?;
    let params = Params { count: x.len() as u32, length: (x.len() / samples) as u32, accumulate: 0, pad: 0 };
    cx.launch(&FORWARD).bind(x).bind(factors).bind(&y).params(&params).over(x.len(), 64);
    cx.backward(&y, &[x], {
        let (x, factors) = (x.clone(), factors.clone());
        move |cx, dy| {
            if let Some(dx) = cx.grad_target(&x)? {
                let params = Params { accumulate: dx.flag(), ..params };
                let launch = cx.launch(&BACKWARD).bind(dy).bind(&factors).bind(&dx.tensor);
                launch.params(&params).over(x.len(), 64);
            }
            Ok(())
        }
    });
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Array, check_gradients, dtypes, forward_backward_on, gpu, rungs};

    #[test]
    fn every_sample_has_its_factor() {
        let (x, gy) = (Array::random(&[3, 5, 7, 2], 1), Array::random(&[3, 5, 7, 2], 2));
        let factors = [0.5, -2.0, 1.25];
        let scaled = |array: &Array| {
            let values = array.data.iter().enumerate().map(|(i, x)| factors[i / 70] * x);
            Array::new(&array.shape, values.collect())
        };
        for (rung, dtype) in rungs().into_iter().flat_map(|rung| dtypes().into_iter().map(move |d| (rung, d)))
        {
            let inputs = std::slice::from_ref(&x);
            let (y, grads) = forward_backward_on(rung, dtype, inputs, &gy, |cx, x| {
                let factors = cx.constant_f32("factors", &[3], &factors)?;
                scale_per_sample(cx, &x[0], &factors)
            });
            y.check("y", &scaled(&x), dtype);
            grads[0].check("dx", &scaled(&gy), dtype);
        }
        // Twice into one gradient.
        check_gradients(&[x], |cx, x| {
            let factors = cx.constant_f32("factors", &[3], &factors)?;
            let once = scale_per_sample(cx, &x[0], &factors)?;
            let again = scale_per_sample(cx, &x[0], &factors)?;
            crate::ops::add(cx, &once, &again, 1.0)
        });
    }

    #[test]
    fn factors_are_as_many_as_samples() {
        let mut cx = Context::new(gpu());
        let x = Array::random(&[3, 2], 1).upload(&cx, DType::F32);
        let factors = Array::random(&[2], 2).upload(&cx, DType::F32);
        let message = scale_per_sample(&mut cx, &x, &factors).unwrap_err().to_string();
        assert!(message.contains("factors must be [3]"), "{message}");
    }
}
