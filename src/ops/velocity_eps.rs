//! From v- to eps-prediction.  v = α eps - σ x and z = α x + σ eps give eps = σ z + α v (Salimans & Ho, arXiv 2202.00512).
//!
//! α and σ are those of the sampler's current step. A sampler needs no gradient.

use bytemuck::{Pod, Zeroable};

use super::noised::expect;
use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const OP: &str = "velocity_eps";

const CONVERT: Kernel = Kernel::new(
    OP,
    wgsl!("velocity_eps"),
    "convert",
    &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write],
);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    steps: u32,
    pad: [u32; 2],
}

/// eps of the prediction `v` at the latent `z`, both f32 of one shape. `steps` is `[T, 12]` of
/// [`step_table`](super::step_table), `counter` `[1]` u32.
///
/// # Errors
/// [`Error::Shape`] when one has not this shape and type; [`Error::Config`] when a gradient would be wanted.
pub fn velocity_eps(
    cx: &mut Context,
    z: &Tensor,
    v: &Tensor,
    steps: &Tensor,
    counter: &Tensor,
) -> Result<Tensor> {
    expect(OP, "z", z, z.shape(), DType::F32)?;
    expect(OP, "v", v, z.shape(), DType::F32)?;
    expect(OP, "steps", steps, &[steps.shape().first().copied().unwrap_or(1).max(1), 12], DType::U32)?;
    expect(OP, "counter", counter, &[1], DType::U32)?;
    if cx.needs_grad(z) || cx.needs_grad(v) {
        return Err(Error::Config("velocity_eps has no gradient: train on v itself".into()));
    }
    let eps = cx.output("eps of v", z.shape(), DType::F32)?;
    let params = Params { count: z.len() as u32, steps: steps.shape()[0] as u32, pad: [0; 2] };
    let launch = cx.launch(&CONVERT).bind(z).bind(v).bind(steps).bind(counter).bind(&eps);
    launch.params(&params).over(z.len(), 64);
    Ok(eps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::StepCoefficients;
    use crate::ops::step_table;
    use crate::testing::{Array, forward, gpu};

    #[test]
    fn undoes_what_makes_v() {
        let [x, eps] = [1, 2].map(|seed| Array::random(&[3, 5, 7], seed));
        for log_snr in [-20.0, -1.0, 0.3, 20.0] {
            let level = StepCoefficients::last(log_snr);
            let (alpha, sigma) = (level.alpha as f32, level.sigma as f32);
            let z = x.zip(&eps, |x, eps| alpha * x + sigma * eps);
            let v = x.zip(&eps, |x, eps| alpha * eps - sigma * x);
            let mut cx = Context::new(gpu());
            let rows = [StepCoefficients::last(2.0).scalars(), level.scalars()];
            let steps = step_table(&cx, &rows).unwrap();
            // Past the table's end counts as its last row.
            let counter = cx.constant_u32("counter", &[1], &[9]).unwrap();
            let (z, v) = (z.upload(&cx, DType::F32), v.upload(&cx, DType::F32));
            let got = velocity_eps(&mut cx, &z, &v, &steps, &counter).unwrap();
            forward(&[z, v, steps, counter], cx, &got).check_absolute("eps", &eps, 4e-7);
        }
    }

    #[test]
    fn misfits_are_errors() {
        let mut cx = Context::with_tape(gpu());
        let steps = step_table(&cx, &[StepCoefficients::last(0.0).scalars()]).unwrap();
        let counter = cx.constant_u32("counter", &[1], &[0]).unwrap();
        let [z, v] = [[4, 3], [3, 4]].map(|shape| Array::random(&shape, 1).upload(&cx, DType::F32));
        let error = velocity_eps(&mut cx, &z, &v, &steps, &counter).unwrap_err();
        assert!(error.to_string().contains("v must be [4, 3]"), "{error}");
        cx.watch(&z);
        assert!(
            velocity_eps(&mut cx, &z, &z, &steps, &counter).unwrap_err().to_string().contains("gradient")
        );
    }
}
