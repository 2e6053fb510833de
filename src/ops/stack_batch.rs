//! Puts two batches behind one another.  y[0..N] = a, y[N..N+M] = b.  No gradient: sampling alone uses it, to hand the
//! step kernel two evaluations as one.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, Tensor};
use crate::wgsl;

const VECTORS: Kernel =
    Kernel::new("stack_batch", wgsl!("stack_batch"), "vectors", &[Access::Read, Access::Read, Access::Write]);
const WORDS: Kernel =
    Kernel::new("stack_batch", wgsl!("stack_batch"), "words", &[Access::Read, Access::Read, Access::Write]);
const HALVES: Kernel =
    Kernel::new("stack_batch", wgsl!("stack_batch"), "halves", &[Access::Read, Access::Read, Access::Write]);

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
    let whole = |unit: u64| a.bytes().is_multiple_of(unit) && b.bytes().is_multiple_of(unit);
    let (kernel, bytes) = match () {
        () if whole(16) => (&VECTORS, 16),
        () if whole(4) => (&WORDS, 4),
        () => (&HALVES, 2),
    };
    let (first, count) = (a.bytes() / bytes, y.bytes() / bytes);
    let params = Params { first: first as u32, count: count as u32, pad: [0; 2] };
    let launch = cx.launch(kernel).bind(a).bind(b).bind(&y).params(&params);
    launch.variant(format!("{bytes} bytes")).over(count as usize, 256);
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Array, download, dtypes, gpu};

    #[test]
    fn one_lies_behind_the_other() {
        // Of whole words, of half a word too much, of whole vectors.
        for (dtype, width) in dtypes().into_iter().flat_map(|d| [(d, 8), (d, 7), (d, 16)]) {
            let (a, b) = (Array::random(&[3, 5, width], 1), Array::random(&[2, 5, width], 2));
            let mut cx = Context::new(gpu());
            let (left, right) = (a.upload(&cx, dtype), b.upload(&cx, dtype));
            let y = stack_batch(&mut cx, &left, &right).unwrap();
            assert!(stack_batch(&mut cx, &left, &y.reshape(&[5, 5 * width]).unwrap()).is_err());
            cx.keep(&y);
            let plan = cx.finish("stack").unwrap();
            plan.run().unwrap();
            assert_eq!(download(&plan, &y).data, [a.data.clone(), b.data.clone()].concat());
        }
    }
}
