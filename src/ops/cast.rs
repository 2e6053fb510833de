//! Conversion between f32 and f16.  y = x,  dx = dy, each in its own type. Any shape.
//!
//! f16 overflows to infinity above 65504. The gradient has the type of its value, so that of an f16 value is rounded
//! to f16.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const NARROW: Kernel = Kernel::new("cast_f16", wgsl!("cast"), "narrow", &[Access::Read, Access::Update]);
const WIDEN: Kernel = Kernel::new("cast_f32", wgsl!("cast"), "widen", &[Access::Read, Access::Update]);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    accumulate: u32,
    pad: [u32; 2],
}

/// x in `dtype`; x itself where that is its type.
///
/// # Errors
/// [`Error::Shape`] to or from integers; [`Error::Config`] for f16 on a device without it.
pub fn cast(cx: &mut Context, x: &Tensor, dtype: DType) -> Result<Tensor> {
    if x.dtype() == dtype {
        return Ok(x.clone());
    }
    if x.dtype() == DType::U32 || dtype == DType::U32 {
        return Err(Error::shape("cast", format!("{:?} to {dtype:?}: only floats are converted", x.dtype())));
    }
    let y = cx.output("cast", x.shape(), dtype)?;
    convert(cx, x, &y, 0);
    cx.backward(&y, &[x], {
        let x = x.clone();
        move |cx, dy| {
            if let Some(dx) = cx.grad_target(&x)? {
                convert(cx, dy, &dx.tensor, dx.flag());
            }
            Ok(())
        }
    });
    Ok(y)
}

/// x in `dtype`, without a gradient: what is made of parameters, whose gradients are gathered elsewhere.
///
/// # Errors
/// [`Error::Config`] for f16 on a device without it.
pub(crate) fn cast_constant(cx: &mut Context, x: &Tensor, dtype: DType) -> Result<Tensor> {
    let y = cx.output("cast", x.shape(), dtype)?;
    convert(cx, x, &y, 0);
    Ok(y)
}

/// Records the conversion alone, added to what is there if `accumulate` is set.
pub(super) fn convert(cx: &mut Context, from: &Tensor, to: &Tensor, accumulate: u32) {
    let kernel = if to.dtype() == DType::F16 { &NARROW } else { &WIDEN };
    let count = from.len();
    let params = Params { count: count as u32, accumulate, pad: [0; 2] };
    // The shader names both types itself; one `elem` for both directions is one module to compile.
    cx.launch(kernel).bind(from).bind(to).elem(DType::F16).params(&params).over(count.div_ceil(4), 256);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::backprop_from;
    use crate::testing::{Array, download, dtypes, gpu};

    #[test]
    fn there_and_back_with_gradients() {
        if !dtypes().contains(&DType::F16) {
            return;
        }
        let (x, gy) = (Array::random(&[3, 5, 7], 1), Array::random(&[3, 5, 7], 2));
        for (from, to) in [(DType::F32, DType::F16), (DType::F16, DType::F32)] {
            let mut cx = Context::with_tape(gpu());
            let (x_, gy_) = (x.upload(&cx, from), gy.upload(&cx, to));
            cx.watch(&x_);
            // Twice, so that gradients accumulate.
            let (a, b) = (cast(&mut cx, &x_, to).unwrap(), cast(&mut cx, &x_, to).unwrap());
            let y = crate::ops::add(&mut cx, &a, &b, 0.5).unwrap();
            backprop_from(&mut cx, &y, &gy_).unwrap();
            let dx = cx.grad(&x_).unwrap();
            assert_eq!((y.dtype(), dx.dtype()), (to, from));
            cx.keep(&y);
            cx.keep(&dx);
            let plan = cx.finish("cast").unwrap();
            plan.run().unwrap();
            // What `random` makes is exact in f16.
            assert_eq!(download(&plan, &y), x);
            assert_eq!(download(&plan, &dx), gy);
        }
    }

    #[test]
    fn what_lies_past_the_end_is_left_alone() {
        if !dtypes().contains(&DType::F16) {
            return;
        }
        // A value of five in a buffer of eight, as in an arena of gradients.
        let mut cx = Context::new(gpu());
        let from = Array::random(&[8], 1).map(|x| x + 2.0);
        let (from_, whole) =
            (from.upload(&cx, DType::F16), cx.constant_f32("arena", &[8], &[1.0; 8]).unwrap());
        let part = |x: &Tensor| Tensor::new(x.storage().clone(), 0, &[5], x.dtype());
        convert(&mut cx, &part(&from_), &part(&whole), 1);
        let plan = cx.finish("cast").unwrap();
        plan.run().unwrap();
        let want = from.data.iter().enumerate().map(|(i, x)| if i < 5 { 1.0 + x } else { 1.0 });
        assert_eq!(download(&plan, &whole).data, want.collect::<Vec<_>>());
    }

    #[test]
    fn rounds_to_nearest() {
        if !dtypes().contains(&DType::F16) {
            return;
        }
        let x = Array::new(&[5], vec![0.1, 1.0 / 3.0, -65504.0, 1e-7, 2049.0]);
        let mut cx = Context::new(gpu());
        let x_ = x.upload(&cx, DType::F32);
        let y = cast(&mut cx, &x_, DType::F16).unwrap();
        let y = crate::testing::forward(&[x_], cx, &y);
        // An ulp of allowance: WGSL leaves the rounding of conversions open.
        for (got, want) in y.data.iter().zip(&x.data) {
            assert!((got - want).abs() <= want.abs() / 1024.0 + 6e-8, "{got} is not {want}");
        }
    }

    #[test]
    fn same_type_is_the_tensor_and_integers_are_errors() {
        let mut cx = Context::new(gpu());
        let x = Array::random(&[5], 1).upload(&cx, DType::F32);
        assert_eq!(cast(&mut cx, &x, DType::F32).unwrap().identity(), x.identity());
        assert!(cast(&mut cx, &x, DType::U32).unwrap_err().to_string().contains("U32"));
    }
}
