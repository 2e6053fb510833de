//! GEGLU (Shazeer 2020), the gated unit of transformers of pictures.  x = [value, gate] along channels,
//! y = value·gelu(gate),  dvalue = dy·gelu(gate),  dgate = dy·value·gelu'(gate), with GELU by the error function.
//! x `[.., 2C]`, y `[.., C]`.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, Tensor};
use crate::wgsl;

use super::pack::choose;

use Access::{Read, Update, Write};

const FORWARD: Kernel = Kernel::new("geglu", wgsl!("geglu"), "forward", &[Read, Write]);
const FORWARD_PACKED: Kernel = Kernel::new("geglu", wgsl!("geglu"), "forward_packed", &[Read, Write]);
const BACKWARD: Kernel = Kernel::new("geglu_backward", wgsl!("geglu"), "backward", &[Read, Read, Update]);
const BACKWARD_PACKED: Kernel =
    Kernel::new("geglu_backward", wgsl!("geglu"), "backward_packed", &[Read, Read, Update]);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    channels: u32,
    accumulate: u32,
    pad: u32,
}

/// y `[.., C]` = value·gelu(gate), where x `[.., 2C]` is [value, gate].
///
/// # Errors
/// [`Error::Shape`] when x has no channels, or an odd number.
pub fn geglu(cx: &mut Context, x: &Tensor) -> Result<Tensor> {
    let Some((&wide, rows)) = x.shape().split_last().filter(|(wide, _)| **wide > 0 && wide.is_multiple_of(2))
    else {
        let what = format!("x is {:?}, expected [.., 2C]: as many values as gates", x.shape());
        return Err(Error::shape("geglu", what));
    };
    let channels = wide / 2;
    let chosen = choose(cx, x.dtype(), &[channels], &FORWARD_PACKED, &FORWARD);
    let y = cx.output("geglu", &[rows, &[channels]].concat(), x.dtype())?;
    let count = y.len() / chosen.lanes;
    let params =
        Params { count: count as u32, channels: (channels / chosen.lanes) as u32, accumulate: 0, pad: 0 };
    let launch = cx.launch(chosen.kernel).bind(x).bind(&y).params(&params);
    launch.variant(chosen.variant("")).over(count, chosen.size);
    cx.backward(&y, &[x], {
        let x = x.clone();
        move |cx, dy| {
            if let Some(dx) = cx.grad_target(&x)? {
                let params = Params { accumulate: dx.flag(), ..params };
                let chosen = choose(cx, x.dtype(), &[channels], &BACKWARD_PACKED, &BACKWARD);
                let launch = cx.launch(chosen.kernel).bind(&x).bind(dy).bind(&dx.tensor).params(&params);
                launch.variant(chosen.variant("")).over(count, chosen.size);
            }
            Ok(())
        }
    });
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Gelu, gelu};
    use crate::testing::{Array, check_gradients, dtypes, forward, forward_backward_on, gpu, rungs};

    /// Columns `first..first + wide` of the last dimension.
    fn columns(x: &Array, first: usize, wide: usize) -> Array {
        let whole = x.shape[x.shape.len() - 1];
        let data = x.data.chunks(whole).flat_map(|row| row[first..first + wide].to_vec()).collect();
        let shape = [&x.shape[..x.shape.len() - 1], &[wide]].concat();
        Array::new(&shape, data)
    }

    #[test]
    fn is_the_value_times_the_gate_curve() {
        for (rung, wide) in rungs().into_iter().flat_map(|r| [1, 7, 16].map(|c| (r, c))) {
            let x = Array::random(&[3, 5, 2 * wide], 1).map(|x| 3.0 * x);
            let gy = Array::random(&[3, 5, wide], 2);
            let (value, gate) = (columns(&x, 0, wide), columns(&x, wide, wide));
            // The curve itself has its own reference.
            let ones = gate.map(|_| 1.0);
            let (curve, slope) = forward_backward_on(
                rung,
                crate::tensor::DType::F32,
                std::slice::from_ref(&gate),
                &ones,
                |cx, x| gelu(cx, &x[0], Gelu::Erf),
            );
            let y = value.zip(&curve, |v, c| v * c);
            let of_value = gy.zip(&curve, |g, c| g * c);
            let of_gate = gy.zip(&value, |g, v| g * v).zip(&slope[0], |gv, s| gv * s);
            for dtype in dtypes() {
                let (got, grads) =
                    forward_backward_on(rung, dtype, std::slice::from_ref(&x), &gy, |cx, x| geglu(cx, &x[0]));
                got.check(&format!("{rung} y"), &y, dtype);
                columns(&grads[0], 0, wide).check(&format!("{rung} dvalue"), &of_value, dtype);
                columns(&grads[0], wide, wide).check(&format!("{rung} dgate"), &of_gate, dtype);
            }
        }
    }

    #[test]
    fn the_value_stands_first() {
        let mut cx = Context::new(gpu());
        let x = Array::new(&[1, 2], vec![2.0, -30.0]).upload(&cx, crate::tensor::DType::F32);
        let y = geglu(&mut cx, &x).unwrap();
        assert_eq!(forward(&[], cx, &y).data, [0.0]);
    }

    #[test]
    fn gradient_is_that_of_finite_differences() {
        for wide in [5, 8] {
            check_gradients(&[Array::random(&[3, 4, 2 * wide], 1)], |cx, x| {
                let (a, b) = (geglu(cx, &x[0])?, geglu(cx, &x[0])?);
                crate::ops::add(cx, &a, &b, 0.7)
            });
        }
    }

    #[test]
    fn an_odd_number_of_channels_is_refused() {
        let mut cx = Context::new(gpu());
        let x = Array::random(&[2, 3], 1).upload(&cx, crate::tensor::DType::F32);
        let message = geglu(&mut cx, &x).unwrap_err().to_string();
        assert_eq!(message, "geglu: x is [2, 3], expected [.., 2C]: as many values as gates");
    }
}
