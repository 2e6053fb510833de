//! The gradients of a convolution's weights and bias: sums over the pixels of all images.

use bytemuck::{Pod, Zeroable};

use crate::error::Result;
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, GradTarget, Tensor};
use crate::wgsl;

use super::Params;

const NAIVE: Kernel = Kernel::new(
    "conv2d_weight_gradient",
    wgsl!("conv2d_weight"),
    "weights",
    &[Access::Read, Access::Read, Access::Update],
);
const BIAS: Kernel =
    Kernel::new("conv2d_bias_gradient", wgsl!("conv2d_weight"), "bias", &[Access::Read, Access::Update]);

/// dw[ky,kx,c,k] = Σ x·dy; `params` are the forward pass's.
pub(super) fn weight_gradient(
    cx: &mut Context,
    x: &Tensor,
    dy: &Tensor,
    dw: &GradTarget,
    params: Params,
) -> Result<()> {
    let params = Params { accumulate: dw.flag(), ..params };
    let count = dw.tensor.len();
    cx.launch(&NAIVE).bind(x).bind(dy).bind(&dw.tensor).params(&params).variant("naive").over(count, 64);
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Columns {
    rows: u32,
    out_c: u32,
    accumulate: u32,
    unused: u32,
}

/// db[k] = Σ dy over all pixels.
pub(super) fn bias_gradient(cx: &mut Context, dy: &Tensor, db: &GradTarget) -> Result<()> {
    let out_c = db.tensor.len();
    let rows = dy.len() / out_c;
    let params = Columns { rows: rows as u32, out_c: out_c as u32, accumulate: db.flag(), unused: 0 };
    cx.launch(&BIAS).bind(dy).bind(&db.tensor).params(&params).variant("naive").over(out_c, 64);
    Ok(())
}
