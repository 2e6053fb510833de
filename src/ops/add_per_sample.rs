//! Adds one vector a sample to every pixel.  y[n,h,w,c] = x[n,h,w,c] + e[n,c];  dx = dy,  de[n,c] = Σ_hw dy.
//! How IDDPM's residual blocks without AdaGN take in the embedding.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

use super::add_into;
use super::pack::choose;

const FORWARD: Kernel = Kernel::new(
    "add_per_sample",
    wgsl!("add_per_sample"),
    "forward",
    &[Access::Read, Access::Read, Access::Write],
);
const FORWARD_PACKED: Kernel = Kernel::new(
    "add_per_sample",
    wgsl!("add_per_sample"),
    "forward_packed",
    &[Access::Read, Access::Read, Access::Write],
);
const BACKWARD: Kernel = Kernel::new(
    "add_per_sample_backward",
    wgsl!("add_per_sample"),
    "backward",
    &[Access::Read, Access::Update],
);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    samples: u32,
    pixels: u32,
    channels: u32,
    accumulate: u32,
}

/// `x` `[N, H, W, C]` plus `e` `[N, C]` (f32) at every pixel.
///
/// # Errors
/// [`Error::Shape`] when N or C differ, or `e` is not f32.
pub fn add_per_sample(cx: &mut Context, x: &Tensor, e: &Tensor) -> Result<Tensor> {
    let [n, h, w, c] = x.nhwc("add_per_sample")?;
    if e.shape() != [n, c] || e.dtype() != DType::F32 {
        let what = format!(
            "x is {:?}, so e must be [{n}, {c}] of f32, got {:?} of {:?}",
            x.shape(),
            e.shape(),
            e.dtype()
        );
        return Err(Error::shape("add_per_sample", what));
    }
    let y = cx.output("add_per_sample", x.shape(), x.dtype())?;
    let params = Params { samples: n as u32, pixels: (h * w) as u32, channels: c as u32, accumulate: 0 };
    let chosen = choose(cx, x.dtype(), &[c], &FORWARD_PACKED, &FORWARD);
    let launch = cx.launch(chosen.kernel).bind(x).bind(e).bind(&y).params(&params);
    launch.variant(chosen.variant("")).over(x.len() / chosen.lanes, chosen.size);
    cx.backward(&y, &[x, e], {
        let (x, e) = (x.clone(), e.clone());
        move |cx, dy| {
            if let Some(de) = cx.grad_target(&e)? {
                let params = Params { accumulate: de.flag(), ..params };
                cx.launch(&BACKWARD).bind(dy).bind(&de.tensor).params(&params).over(n * c, 64);
            }
            if !cx.pass_grad(&x, dy)? {
                add_into(cx, &x, dy, 1.0)?;
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
    fn adds_to_every_pixel_and_sums_the_gradient() {
        for (rung, c) in rungs().into_iter().flat_map(|r| [(r, 33), (r, 24)]) {
            let (x, e) = (Array::random(&[3, 5, 7, c], 1), Array::random(&[3, c], 2));
            let mut want = x.clone();
            for (i, y) in want.data.iter_mut().enumerate() {
                *y += e.data[i / (5 * 7 * c) * c + i % c];
            }
            for dtype in dtypes() {
                let (y, _) = forward_backward_on(rung, dtype, std::slice::from_ref(&x), &x, |cx, t| {
                    let e = e.upload(cx, DType::F32);
                    add_per_sample(cx, &t[0], &e)
                });
                y.check(&format!("{rung} y"), &want, dtype);
            }
        }
        let inputs = [Array::random(&[3, 5, 7, 33], 1), Array::random(&[3, 33], 2)];
        check_gradients(&inputs, |cx, t| add_per_sample(cx, &t[0], &t[1]));
    }

    #[test]
    fn shapes_that_do_not_fit_are_named() {
        let mut cx = Context::new(gpu());
        let (x, e) = (
            Array::random(&[2, 3, 3, 4], 1).upload(&cx, DType::F32),
            Array::random(&[2, 5], 2).upload(&cx, DType::F32),
        );
        let message = add_per_sample(&mut cx, &x, &e).unwrap_err().to_string();
        assert!(message.contains("[2, 4]") && message.contains("[2, 5]"), "{message}");
    }
}
