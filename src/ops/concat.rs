//! Concatenation along channels.  y = [a, b],  da = dy[.., ..A],  db = dy[.., A..].
//!
//! a `[.., A]`, b `[.., B]`, y `[.., A + B]`, leading dimensions alike; mostly `[N, H, W, C]` for the skip
//! connections of a UNet. (With itself as both inputs a tensor would be bound twice, but only to be read.)

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, Tensor};
use crate::wgsl;

use super::pack::choose;

const JOIN: Kernel =
    Kernel::new("concat", wgsl!("concat"), "join", &[Access::Read, Access::Read, Access::Write]);
const JOIN_PACKED: Kernel =
    Kernel::new("concat", wgsl!("concat"), "join_packed", &[Access::Read, Access::Read, Access::Write]);
const PART: Kernel = Kernel::new("concat_backward", wgsl!("concat"), "part", &[Access::Read, Access::Update]);
const PART_PACKED: Kernel =
    Kernel::new("concat_backward", wgsl!("concat"), "part_packed", &[Access::Read, Access::Update]);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    /// Channels of a; in the backward pass, the first channel of the part.
    a: u32,
    /// Channels of b; in the backward pass, those of the part.
    b: u32,
    accumulate: u32,
    whole: u32,
    pad: [u32; 3],
}

/// y = [a, b] along the last dimension.
///
/// # Errors
/// [`Error::Shape`] when the leading dimensions or the types differ.
pub fn concat(cx: &mut Context, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (Some((&wide_a, rows_a)), Some((&wide_b, rows_b))) = (a.shape().split_last(), b.shape().split_last())
    else {
        return Err(Error::shape("concat", "a tensor without dimensions has no channels"));
    };
    if rows_a != rows_b || a.dtype() != b.dtype() {
        let what = format!("a is {:?} {:?} but b is {:?} {:?}", a.shape(), a.dtype(), b.shape(), b.dtype());
        return Err(Error::shape("concat", format!("{what}: all but the channels must be equal")));
    }
    let chosen = choose(cx, a.dtype(), &[wide_a, wide_b], &JOIN_PACKED, &JOIN);
    let lanes = chosen.lanes;
    let whole = wide_a + wide_b;
    let shape = [rows_a, &[whole]].concat();
    let y = cx.output("concat", &shape, a.dtype())?;
    let count = y.len() / lanes;
    let params = Params {
        count: count as u32,
        a: (wide_a / lanes) as u32,
        b: (wide_b / lanes) as u32,
        accumulate: 0,
        whole: (whole / lanes) as u32,
        pad: [0; 3],
    };
    let launch = cx.launch(chosen.kernel).bind(a).bind(b).bind(&y).params(&params);
    launch.variant(chosen.variant("")).over(count, chosen.size);
    cx.backward(&y, &[a, b], {
        let (a, b) = (a.clone(), b.clone());
        move |cx, dy| {
            for (input, first) in [(&a, 0), (&b, wide_a)] {
                if let Some(target) = cx.grad_target(input)? {
                    let count = input.len() / lanes;
                    let params = Params {
                        count: count as u32,
                        a: (first / lanes) as u32,
                        b: if first == 0 { params.a } else { params.b },
                        accumulate: target.flag(),
                        ..params
                    };
                    let chosen = choose(cx, dy.dtype(), &[wide_a, whole - wide_a], &PART_PACKED, &PART);
                    let launch = cx.launch(chosen.kernel).bind(dy).bind(&target.tensor);
                    launch.params(&params).variant(chosen.variant("")).over(count, chosen.size);
                }
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
    fn joins_and_splits() {
        let widths = [(33, 5), (36, 4), (4, 3), (3, 8), (40, 8)];
        for (rung, (wide_a, wide_b)) in rungs().into_iter().flat_map(|r| widths.map(|w| (r, w))) {
            let (a, b) = (Array::random(&[3, 5, 7, wide_a], 1), Array::random(&[3, 5, 7, wide_b], 2));
            let gy = Array::random(&[3, 5, 7, wide_a + wide_b], 3);
            let rows = |x: &Array, first: usize, wide: usize| -> Vec<f32> {
                let whole = x.shape[3];
                x.data.chunks(whole).flat_map(|row| row[first..first + wide].to_vec()).collect()
            };
            let joined = a.data.chunks(wide_a).zip(b.data.chunks(wide_b));
            let joined: Vec<f32> = joined.flat_map(|(a, b)| [a, b].concat()).collect();
            for dtype in dtypes() {
                let inputs = [a.clone(), b.clone()];
                let (y, grads) =
                    forward_backward_on(rung, dtype, &inputs, &gy, |cx, x| concat(cx, &x[0], &x[1]));
                assert_eq!(y.data, joined);
                assert_eq!(grads[0].data, rows(&gy, 0, wide_a));
                assert_eq!(grads[1].data, rows(&gy, wide_a, wide_b));
            }
        }
    }

    #[test]
    fn gradients_accumulate() {
        for (wide_a, wide_b) in [(5, 2), (8, 4)] {
            let x = [Array::random(&[2, 3, 3, wide_a], 1), Array::random(&[2, 3, 3, wide_b], 2)];
            check_gradients(&x, |cx, x| {
                let once = concat(cx, &x[0], &x[1])?;
                concat(cx, &once, &x[0])
            });
        }
        let x = [Array::random(&[2, 3, 3, 5], 1)];
        check_gradients(&x, |cx, x| concat(cx, &x[0], &x[0]));
    }

    #[test]
    fn misfits_are_errors() {
        let mut cx = Context::new(gpu());
        let upload =
            |cx: &Context, shape: &[usize]| Array::random(shape, 1).upload(cx, crate::tensor::DType::F32);
        let (a, b) = (upload(&cx, &[1, 2, 3, 4]), upload(&cx, &[1, 3, 2, 4]));
        let error = concat(&mut cx, &a, &b).unwrap_err().to_string();
        assert!(error.contains("[1, 2, 3, 4]") && error.contains("[1, 3, 2, 4]"), "{error}");
    }
}
