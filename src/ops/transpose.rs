//! Transposition.  y[.., j, i] = x[.., i, j],  dx likewise of dy.  x `[.., R, C]`, y `[.., C, R]`.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, Tensor};
use crate::wgsl;

const PLAIN: Kernel =
    Kernel::new("transpose", wgsl!("transpose"), "elements", &[Access::Read, Access::Update]);
const SQUARES: Kernel =
    Kernel::new("transpose", wgsl!("transpose"), "squares", &[Access::Read, Access::Update]);

/// The side of a square that a workgroup turns.
const SQUARE: usize = 32;
/// WebGPU's most workgroups along an axis.
const MOST_GROUPS: usize = 65535;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    rows: u32,
    columns: u32,
    accumulate: u32,
}

/// x `[.., R, C]` as `[.., C, R]`.
///
/// # Errors
/// [`Error::Shape`] when x has fewer than two dimensions or no element.
pub fn transpose(cx: &mut Context, x: &Tensor) -> Result<Tensor> {
    let &[ref leading @ .., rows, columns] = x.shape() else {
        return Err(Error::shape("transpose", format!("expected [.., R, C], got {:?}", x.shape())));
    };
    if x.is_empty() {
        return Err(Error::shape("transpose", format!("x is {:?}, which has no element", x.shape())));
    }
    let y = cx.output("transpose", &[leading, &[columns, rows]].concat(), x.dtype())?;
    turn(cx, x, &y, [rows, columns], 0);
    cx.backward(&y, &[x], {
        let x = x.clone();
        move |cx, dy| {
            if let Some(dx) = cx.grad_target(&x)? {
                turn(cx, dy, &dx.tensor, [columns, rows], dx.flag());
            }
            Ok(())
        }
    });
    Ok(y)
}

fn turn(cx: &mut Context, x: &Tensor, y: &Tensor, [rows, columns]: [usize; 2], accumulate: u32) {
    let count = x.len();
    let params = Params { count: count as u32, rows: rows as u32, columns: columns as u32, accumulate };
    let groups = [columns.div_ceil(SQUARE), rows.div_ceil(SQUARE), count / (rows * columns)];
    let squares = cx.rung().is_tiled() && groups.iter().all(|groups| *groups <= MOST_GROUPS);
    let launch = cx.launch(if squares { &SQUARES } else { &PLAIN }).bind(x).bind(y).params(&params);
    match squares {
        true => launch.variant("tiled").groups(groups.map(|groups| groups as u32)),
        false => launch.variant("naive").over(count, 64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;
    use crate::testing::{Array, check_gradients, dtypes, forward_backward_on, gpu, rungs};

    #[test]
    fn rows_become_columns() {
        let shapes = [[1, 33, 70], [3, 5, 7], [2, 64, 32], [2, 1, 9]];
        for (rung, shape) in rungs().into_iter().flat_map(|r| shapes.map(|shape| (r, shape))) {
            let (x, gy) = (Array::random(&shape, 1), Array::random(&[shape[0], shape[2], shape[1]], 2));
            for dtype in dtypes() {
                let inputs = std::slice::from_ref(&x);
                let (y, grads) = forward_backward_on(rung, dtype, inputs, &gy, |cx, x| transpose(cx, &x[0]));
                assert_eq!(y, x.permute(&[0, 2, 1]), "{rung}");
                assert_eq!(grads[0], gy.permute(&[0, 2, 1]), "{rung}");
            }
        }
        check_gradients(&[Array::random(&[5, 3], 1)], |cx, x| {
            let (a, b) = (transpose(cx, &x[0])?, transpose(cx, &x[0])?);
            crate::ops::add(cx, &a, &b, 0.5)
        });
    }

    #[test]
    fn a_row_alone_is_refused() {
        let mut cx = Context::new(gpu());
        let x = Array::random(&[4], 1).upload(&cx, DType::F32);
        let error = transpose(&mut cx, &x).unwrap_err().to_string();
        assert_eq!(error, "transpose: expected [.., R, C], got [4]");
    }
}
