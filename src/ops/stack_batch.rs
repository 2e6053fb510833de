//! Puts two batches behind one another.  y[0..N] = a, y[N..N+M] = b.  No gradient: sampling alone uses it, to hand the
//! step kernel two evaluations as one.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, Tensor};
use crate::wgsl;

const FORWARD: Kernel =
    Kernel::new("stack_batch", wgsl!("stack_batch"), "forward", &[Access::Read, Access::Read, Access::Write]);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    first: u32,
    count: u32,
    pad: [u32; 2],
}

/// `a` `[N, ...]` then `b` `[M, ...]`.
///
/// # Errors
/// [`Error::Shape`] when anything but the first extent differs.
pub fn stack_batch(cx: &mut Context, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.shape()[1..] != b.shape()[1..] || a.dtype() != b.dtype() {
        return Err(Error::shape("stack_batch", format!("a is {:?} but b is {:?}", a.shape(), b.shape())));
    }
    let mut shape = a.shape().to_vec();
    shape[0] += b.shape()[0];
    let y = cx.output("stack_batch", &shape, a.dtype())?;
    let params = Params { first: a.len() as u32, count: y.len() as u32, pad: [0; 2] };
    cx.launch(&FORWARD).bind(a).bind(b).bind(&y).params(&params).over(y.len(), 64);
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Array, download, dtypes, gpu};

    #[test]
    fn one_lies_behind_the_other() {
        let (a, b) = (Array::random(&[3, 5, 7], 1), Array::random(&[2, 5, 7], 2));
        for dtype in dtypes() {
            let mut cx = Context::new(gpu());
            let (left, right) = (a.upload(&cx, dtype), b.upload(&cx, dtype));
            let y = stack_batch(&mut cx, &left, &right).unwrap();
            assert!(stack_batch(&mut cx, &left, &y.reshape(&[5, 35]).unwrap()).is_err());
            cx.keep(&y);
            let plan = cx.finish("stack").unwrap();
            plan.run().unwrap();
            assert_eq!(download(&plan, &y).data, [a.data.clone(), b.data.clone()].concat());
        }
    }
}
