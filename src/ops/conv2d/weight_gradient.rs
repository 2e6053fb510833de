//! The gradients of a convolution's weights and bias: sums over the pixels of all images.
//!
//! The pixels are split among workgroups, whose partial sums a second kernel adds in a fixed order.

use bytemuck::{Pod, Zeroable};

use crate::error::Result;
use crate::gpu::{Access, Kernel, Rung};
use crate::tensor::{Context, DType, GradTarget, Tensor};
use crate::wgsl;

use super::super::cast::convert;
use super::coop;
use super::problem::{Params, Splits, Tile};

const SUMS: &[Access] = &[Access::Read, Access::Read, Access::Update];

/// x and dy twice, as fours and one by one.
const TWICE: &[Access] = &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Update];

const NAIVE: Kernel = Kernel::new("conv2d_weight_gradient", wgsl!("conv2d_weight"), "weights", SUMS);
const CPU: Kernel = Kernel::new("conv2d_weight_gradient", wgsl!("conv2d_weight_cpu"), "weights", TWICE);
const CHECKED: Kernel = Kernel::new("conv2d_weight_gradient", wgsl!("conv2d_weight_tiled"), "weights", TWICE);
// The shader's header says why no access is out of bounds; every loop counts up to a number of the launch.
const TILED: Kernel = unsafe { CHECKED.trusted() };
const BIAS: Kernel =
    Kernel::new("conv2d_bias_gradient", wgsl!("conv2d_weight"), "bias", &[Access::Read, Access::Update]);
const BIAS_TILED: Kernel =
    Kernel::new("conv2d_bias_gradient", wgsl!("conv2d_bias"), "columns", &[Access::Read, Access::Update]);
/// No split sums much fewer pixels than this: adding the splits up costs, too.
const SHORTEST: usize = 256;

/// dw[ky,kx,c,k] = Σ x·dy; `params` are the forward pass's.
pub(super) fn weight_gradient(
    cx: &mut Context,
    x: &Tensor,
    dy: &Tensor,
    dw: &GradTarget,
    params: Params,
) -> Result<()> {
    if dw.tensor.dtype() != DType::F32 {
        // Of weights kept in f16: summed in f32 all the same.
        let wide = cx.output("conv2d weight gradient", dw.tensor.shape(), DType::F32)?;
        let target = GradTarget { tensor: wide, accumulate: false };
        weight_gradient(cx, x, dy, &target, params)?;
        convert(cx, &target.tensor, &dw.tensor, dw.flag());
        return Ok(());
    }
    if let Some(choice) = coop::best_weights(cx, x, &params) {
        return coop::weight_gradient(cx, [x, dy], dw, params, choice);
    }
    let Params { in_c, out_c, .. } = params;
    let pixels = params.pixels();
    match cx.rung() {
        Rung::Cpu => {
            // 8 by 16 channels of a tap an invocation, 8 invocations a group.
            let tiles = params.taps() * in_c.div_ceil(8) * out_c.div_ceil(16);
            let groups = tiles.div_ceil(8) as usize;
            let splits = Splits::new(pixels, groups, 128, SHORTEST);
            splits.sum(cx, dw, |cx, out, accumulate| {
                let params = splits.tell(params, accumulate);
                let launch = cx.launch(&CPU).bind(x).bind(x).bind(dy).bind(dy).bind(out).params(&params);
                params.set_fours(launch).variant("cpu 8x16").over_groups(groups * splits.count);
            })
        }
        Rung::Tiled | Rung::Coop => {
            let copies = pixels.div_ceil(SHORTEST) as u64;
            let tile = Tile::choose(&Tile::ALL, (params.taps() * in_c).into(), out_c.into(), copies);
            tiled(cx, [x, dy], dw, params, tile, true)
        }
        Rung::Naive => Splits::one(pixels).sum(cx, dw, |cx, out, accumulate| {
            let params = Splits::one(pixels).tell(params, accumulate);
            let launch = cx.launch(&NAIVE).bind(x).bind(dy).bind(out).params(&params);
            launch.variant("naive").over(dw.tensor.len(), 64);
        }),
    }
}

/// The tiled kernel with a given tile; tests compare the one that is trusted to stay within bounds with the checked one.
pub(super) fn tiled(
    cx: &mut Context,
    [x, dy]: [&Tensor; 2],
    dw: &GradTarget,
    params: Params,
    tile: Tile,
    trusted: bool,
) -> Result<()> {
    let rows = params.taps() * params.in_c;
    let groups = tile.groups(rows.into(), params.out_c.into()) as usize;
    let splits = Splits::new(params.pixels(), groups, 512, SHORTEST);
    splits.sum(cx, dw, |cx, out, accumulate| {
        let params = splits.tell(params, accumulate);
        let launch = cx
            .launch(if trusted { &TILED } else { &CHECKED })
            .bind(x)
            .bind(x)
            .bind(dy)
            .bind(dy)
            .bind(out)
            .params(&params);
        let launch = tile.set(params.set_fours(launch)).variant(format!("tiled {tile}"));
        launch.over_groups(groups * splits.count);
    })
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Columns {
    rows: u32,
    out_c: u32,
    accumulate: u32,
    chunk: u32,
    splits: u32,
    unused: [u32; 3],
}

/// db[k] = Σ dy over all pixels.
pub(in crate::ops) fn bias_gradient(cx: &mut Context, dy: &Tensor, db: &GradTarget) -> Result<()> {
    let out_c = db.tensor.len();
    let rows = dy.len() / out_c;
    let tiled = cx.rung().is_tiled() && out_c.is_multiple_of(4);
    let splits = match cx.rung() {
        Rung::Naive => Splits::one(rows),
        // As many as take about as long to add up as each to sum.
        _ if tiled => Splits::of(rows, rows.div_ceil(256).min(64), 1),
        _ => Splits::new(rows, out_c.div_ceil(64), 128, 64),
    };
    splits.sum(cx, db, |cx, out, accumulate| {
        let params = Columns {
            rows: rows as u32,
            out_c: out_c as u32,
            accumulate,
            chunk: splits.chunk as u32,
            splits: splits.count as u32,
            unused: [0; 3],
        };
        if tiled {
            let launch = cx.launch(&BIAS_TILED).bind(dy).bind(out).params(&params);
            return launch.groups([out_c.div_ceil(64) as u32, splits.count as u32, 1]);
        }
        cx.launch(&BIAS).bind(dy).bind(out).params(&params).over(out_c * splits.count, 64);
    })
}
