//! The first token of each image.  y[n,c] = x[n,0,c];  dx[n,t,c] = dy[n,c] for t = 0, else 0.
//! What an attention pool hands on.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const FORWARD: Kernel =
    Kernel::new("first_token", wgsl!("first_token"), "forward", &[Access::Read, Access::Update]);
const BACKWARD: Kernel =
    Kernel::new("first_token_backward", wgsl!("first_token"), "backward", &[Access::Read, Access::Update]);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    images: u32,
    tokens: u32,
    channels: u32,
    accumulate: u32,
}

/// `[N, T, C]` f32 to `[N, C]`.
///
/// # Errors
/// [`Error::Shape`] for any other shape or type.
pub fn first_token(cx: &mut Context, x: &Tensor) -> Result<Tensor> {
    let (&[n, t, c], DType::F32) = (x.shape(), x.dtype()) else {
        let what = format!("expected [N, T, C] of f32, got {:?} of {:?}", x.shape(), x.dtype());
        return Err(Error::shape("first_token", what));
    };
    if x.is_empty() {
        return Err(Error::shape("first_token", format!("{:?} has no token", x.shape())));
    }
    let y = cx.output("first_token", &[n, c], DType::F32)?;
    let params = Params { images: n as u32, tokens: t as u32, channels: c as u32, accumulate: 0 };
    cx.launch(&FORWARD).bind(x).bind(&y).params(&params).over(y.len(), 64);
    cx.backward(&y, &[x], {
        let x = x.clone();
        move |cx, dy| {
            if let Some(dx) = cx.grad_target(&x)? {
                let params = Params { accumulate: dx.flag(), ..params };
                cx.launch(&BACKWARD).bind(dy).bind(&dx.tensor).params(&params).over(x.len(), 64);
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
    fn takes_the_first_and_gives_it_the_gradient() {
        let (x, gy) = (Array::random(&[3, 5, 7], 1), Array::random(&[3, 7], 2));
        let (y, grads) =
            forward_backward(DType::F32, std::slice::from_ref(&x), &gy, |cx, t| first_token(cx, &t[0]));
        for n in 0..3 {
            assert_eq!(y.data[n * 7..][..7], x.data[n * 35..][..7]);
            assert_eq!(grads[0].data[n * 35..][..7], gy.data[n * 7..][..7]);
            assert_eq!(grads[0].data[n * 35 + 7..(n + 1) * 35], [0.0; 28]);
        }
        check_gradients(&[x], |cx, t| {
            let (a, b) = (first_token(cx, &t[0])?, first_token(cx, &t[0])?);
            add(cx, &a, &b, 0.5)
        });
    }

    #[test]
    fn other_shapes_are_refused() {
        let mut cx = Context::new(gpu());
        let x = Array::random(&[2, 3], 1).upload(&cx, DType::F32);
        assert!(first_token(&mut cx, &x).unwrap_err().to_string().contains("[2, 3]"));
    }
}
