//! Repetition along the batch.  y[k·N + n] = x[n], `[N, ..]` to `[times·N, ..]`, any type.
//!
//! It makes the guided batch, conditional half and unconditional half, of one latent. No gradient: sampling needs none.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, Tensor};
use crate::wgsl;

const VECTORS: Kernel =
    Kernel::new("repeat_batch", wgsl!("repeat_batch"), "vectors", &[Access::Read, Access::Write]);
const WORDS: Kernel =
    Kernel::new("repeat_batch", wgsl!("repeat_batch"), "words", &[Access::Read, Access::Write]);
const HALVES: Kernel =
    Kernel::new("repeat_batch", wgsl!("repeat_batch"), "halves", &[Access::Read, Access::Write]);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    length: u32,
    times: u32,
    pad: [u32; 2],
}

/// `times` copies of x, one after the other along the first dimension; of one copy, x itself.
///
/// # Errors
/// [`Error::Shape`] when x has no dimension or no element, or for no copy at all; [`Error::Config`] when a gradient would be
/// wanted.
pub fn repeat_batch(cx: &mut Context, x: &Tensor, times: usize) -> Result<Tensor> {
    let (Some((&samples, rest)), false, 1..) = (x.shape().split_first(), x.is_empty(), times) else {
        return Err(Error::shape("repeat_batch", format!("cannot repeat {:?} {times} times", x.shape())));
    };
    if times == 1 {
        return Ok(x.clone());
    }
    if cx.needs_grad(x) {
        return Err(Error::Config("repeat_batch has no gradient: repeat before the tape starts".into()));
    }
    let shape = [&[samples * times], rest].concat();
    let y = cx.output("repeat_batch", &shape, x.dtype())?;
    let (kernel, bytes) = match x.bytes() {
        bytes if bytes.is_multiple_of(16) => (&VECTORS, 16),
        bytes if bytes.is_multiple_of(4) => (&WORDS, 4),
        _ => (&HALVES, 2),
    };
    let length = x.bytes() / bytes;
    let params = Params { length: length as u32, times: times as u32, pad: [0; 2] };
    let launch = cx.launch(kernel).bind(x).bind(&y).params(&params);
    launch.variant(format!("{bytes} bytes")).over(length as usize, 256);
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;
    use crate::testing::{Array, dtypes, forward, gpu};

    #[test]
    fn repeats_whole_batches() {
        for dtype in dtypes().into_iter().chain([DType::U32]) {
            for shape in [[3, 5, 7], [2, 3, 7], [2, 4, 8]] {
                let x =
                    Array::random(&shape, 1).map(|x| if dtype == DType::U32 { (x * 512.0).abs() } else { x });
                let mut cx = Context::new(gpu());
                let x_ = x.upload(&cx, dtype);
                let y = repeat_batch(&mut cx, &x_, 3).unwrap();
                let y = forward(&[x_], cx, &y);
                assert_eq!(y, Array::new(&[3 * shape[0], shape[1], shape[2]], x.data.repeat(3)));
            }
        }
    }

    #[test]
    fn one_copy_is_the_tensor_and_none_an_error() {
        let mut cx = Context::with_tape(gpu());
        let x = Array::random(&[2, 3], 1).upload(&cx, DType::F32);
        assert_eq!(repeat_batch(&mut cx, &x, 1).unwrap().identity(), x.identity());
        assert!(repeat_batch(&mut cx, &x, 0).unwrap_err().to_string().contains("[2, 3]"));
        cx.watch(&x);
        assert!(repeat_batch(&mut cx, &x, 2).is_err());
    }
}
