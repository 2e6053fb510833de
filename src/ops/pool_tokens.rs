//! The tokens of an attention pool (Radford et al. 2021, as ADM's classifier uses it): the pixels' mean, then the pixels.
//! y[n,0] = mean_p x[n,p] + e[0],  y[n,1+p] = x[n,p] + e[1+p];  dx[n,p] = dy[n,1+p] + dy[n,0]/P,  de[t] = Σ_n dy[n,t].

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const FORWARD: Kernel =
    Kernel::new("pool_tokens", wgsl!("pool_tokens"), "forward", &[Access::Read, Access::Read, Access::Write]);
const BACKWARD_X: Kernel =
    Kernel::new("pool_tokens_backward", wgsl!("pool_tokens"), "backward_x", &[Access::Read, Access::Update]);
const BACKWARD_E: Kernel =
    Kernel::new("pool_tokens_backward", wgsl!("pool_tokens"), "backward_e", &[Access::Read, Access::Update]);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    images: u32,
    pixels: u32,
    channels: u32,
    accumulate: u32,
}

/// Of `x` `[N, H, W, C]` and places `e` `[1 + H·W, C]`, both f32: `[N, 1 + H·W, C]`.
///
/// # Errors
/// [`Error::Shape`] when they do not fit each other, or are not f32.
pub fn pool_tokens(cx: &mut Context, x: &Tensor, e: &Tensor) -> Result<Tensor> {
    let [n, h, w, c] = x.nhwc("pool_tokens")?;
    let tokens = 1 + h * w;
    if e.shape() != [tokens, c] || x.dtype() != DType::F32 || e.dtype() != DType::F32 || x.is_empty() {
        let what = format!(
            "x is {:?} of {:?}, so the places must be [{tokens}, {c}] and both f32, got {:?} of {:?}",
            x.shape(),
            x.dtype(),
            e.shape(),
            e.dtype()
        );
        return Err(Error::shape("pool_tokens", what));
    }
    let y = cx.output("pool_tokens", &[n, tokens, c], DType::F32)?;
    let params = Params { images: n as u32, pixels: (h * w) as u32, channels: c as u32, accumulate: 0 };
    cx.launch(&FORWARD).bind(x).bind(e).bind(&y).params(&params).over(y.len(), 64);
    cx.backward(&y, &[x, e], {
        let (x, e) = (x.clone(), e.clone());
        move |cx, dy| {
            for (input, kernel) in [(&x, &BACKWARD_X), (&e, &BACKWARD_E)] {
                if let Some(grad) = cx.grad_target(input)? {
                    let params = Params { accumulate: grad.flag(), ..params };
                    cx.launch(kernel).bind(dy).bind(&grad.tensor).params(&params).over(input.len(), 64);
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
    use crate::ops::add;
    use crate::testing::{Array, check_gradients, forward_backward, gpu};

    #[test]
    fn the_mean_comes_first() {
        let (x, e) = (Array::random(&[3, 5, 7, 33], 1), Array::random(&[36, 33], 2));
        let gy = Array::random(&[3, 36, 33], 3);
        let (y, grads) =
            forward_backward(DType::F32, &[x.clone(), e.clone()], &gy, |cx, t| pool_tokens(cx, &t[0], &t[1]));
        let at = |n: usize, t: usize, c: usize| (n * 36 + t) * 33 + c;
        let (mut want, mut dx, mut de) = (y.clone(), x.clone(), e.map(|_| 0.0));
        for (n, c) in (0..3).flat_map(|n| (0..33).map(move |c| (n, c))) {
            let mean: f64 = (0..35).map(|p| f64::from(x.data[(n * 35 + p) * 33 + c])).sum::<f64>() / 35.0;
            want.data[at(n, 0, c)] = mean as f32 + e.data[c];
            for p in 0..35 {
                want.data[at(n, p + 1, c)] = x.data[(n * 35 + p) * 33 + c] + e.data[(p + 1) * 33 + c];
                dx.data[(n * 35 + p) * 33 + c] = gy.data[at(n, p + 1, c)] + gy.data[at(n, 0, c)] / 35.0;
            }
            (0..36).for_each(|t| de.data[t * 33 + c] += gy.data[at(n, t, c)]);
        }
        y.check("y", &want, DType::F32);
        grads[0].check("dx", &dx, DType::F32);
        grads[1].check("de", &de, DType::F32);
    }

    #[test]
    fn gradients_accumulate() {
        let inputs = [Array::random(&[2, 3, 2, 5], 1), Array::random(&[7, 5], 2)];
        check_gradients(&inputs, |cx, t| {
            let (a, b) = (pool_tokens(cx, &t[0], &t[1])?, pool_tokens(cx, &t[0], &t[1])?);
            add(cx, &a, &b, 0.5)
        });
    }

    #[test]
    fn places_that_do_not_fit_are_named() {
        let mut cx = Context::new(gpu());
        let x = Array::random(&[1, 2, 2, 3], 1).upload(&cx, DType::F32);
        let e = Array::random(&[4, 3], 2).upload(&cx, DType::F32);
        let message = pool_tokens(&mut cx, &x, &e).unwrap_err().to_string();
        assert!(message.contains("[5, 3]") && message.contains("[4, 3]"), "{message}");
    }
}
