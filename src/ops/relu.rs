//! ReLU.  y = max(x, 0),  dx = dy where x > 0, else 0.  Any shape.

use bytemuck::{Pod, Zeroable};

use crate::error::Result;
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, Tensor};
use crate::wgsl;

const FORWARD: Kernel = Kernel::new("relu", wgsl!("relu"), "forward", &[Access::Read, Access::Write]);
const BACKWARD: Kernel =
    Kernel::new("relu_backward", wgsl!("relu"), "backward", &[Access::Read, Access::Read, Access::Update]);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    accumulate: u32,
    pad: [u32; 2],
}

/// y = max(x, 0), element by element.
pub fn relu(cx: &mut Context, x: &Tensor) -> Result<Tensor> {
    let count = x.len();
    let y = cx.output("relu", x.shape(), x.dtype())?;
    let params = Params { count: count as u32, accumulate: 0, pad: [0; 2] };
    cx.launch(&FORWARD).bind(x).bind(&y).params(&params).over(count, 64);
    cx.backward(&y, &[x], {
        let x = x.clone();
        move |cx, dy| {
            if let Some(dx) = cx.grad_target(&x)? {
                let params = Params { accumulate: dx.flag(), ..params };
                cx.launch(&BACKWARD).bind(&x).bind(dy).bind(&dx.tensor).params(&params).over(count, 64);
            }
            Ok(())
        }
    });
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Array, dtypes, forward_backward};

    #[test]
    fn keeps_what_is_positive_and_its_gradient() {
        // Exact in f16, and 0 among them.
        let (x, gy) = (Array::random(&[3, 5, 7], 1), Array::random(&[3, 5, 7], 2));
        let x = x.map(|x| if x.abs() < 0.1 { 0.0 } else { x });
        for dtype in dtypes() {
            let (y, grads) = forward_backward(dtype, std::slice::from_ref(&x), &gy, |cx, x| relu(cx, &x[0]));
            assert_eq!(y, x.map(|x| x.max(0.0)));
            assert_eq!(grads[0], x.zip(&gy, |x, g| if x > 0.0 { g } else { 0.0 }));
        }
    }
}
