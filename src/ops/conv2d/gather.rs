//! The forward pass and the input gradient: both gather, for every output pixel, the input pixels its taps see.
//! One shader family does both; see `shaders/conv2d.wgsl` for the formula.

use bytemuck::{Pod, Zeroable};

use crate::error::Result;
use crate::gpu::{Access, Kernel, Rung, groups_over};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

use super::problem::{Direction, Params, TWICE, Tensors, Tile, cast_weights};
use super::{coop, split};

const READS: &[Access] = &[Access::Read, Access::Read, Access::Read, Access::Write];
const ADDS: &[Access] = &[Access::Read, Access::Read, Access::Read, Access::Update];
const TWICE_ADDS: &[Access] =
    &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Read, Access::Update];

const NAIVE: [Kernel; 2] = [
    Kernel::new("conv2d", wgsl!("conv2d"), "gather", READS),
    Kernel::new("conv2d_input_gradient", wgsl!("conv2d"), "gather", ADDS),
];
const CPU_ROWS3: [Kernel; 2] = [
    Kernel::new("conv2d", wgsl!("conv2d_cpu"), "rows3", TWICE),
    Kernel::new("conv2d_input_gradient", wgsl!("conv2d_cpu"), "rows3", TWICE_ADDS),
];
const CPU_TAPS: [Kernel; 2] = [
    Kernel::new("conv2d", wgsl!("conv2d_cpu"), "taps", TWICE),
    Kernel::new("conv2d_input_gradient", wgsl!("conv2d_cpu"), "taps", TWICE_ADDS),
];
/// Channels that 4 does not divide, and those that it does.
const TILED: [[Kernel; 2]; 2] = [
    [
        Kernel::new("conv2d", wgsl!("conv2d_tiled"), "gather", TWICE),
        Kernel::new("conv2d_input_gradient", wgsl!("conv2d_tiled"), "gather", TWICE_ADDS),
    ],
    [
        Kernel::new("conv2d", wgsl!("conv2d_tiled_fours"), "gather", TWICE),
        Kernel::new("conv2d_input_gradient", wgsl!("conv2d_tiled_fours"), "gather", TWICE_ADDS),
    ],
];
// Trusted: conv2d_gather.wgsl says why no access is out of bounds; every loop counts up to a number of the launch.
const TRUSTED: [[Kernel; 2]; 2] = {
    let [[a, b], [c, d]] = TILED;
    unsafe { [[a.trusted(), b.trusted()], [c.trusted(), d.trusted()]] }
};
const TRANSPOSE: Kernel =
    Kernel::new("conv2d_transpose", wgsl!("conv2d"), "transpose", &[Access::Read, Access::Write]);

/// y = bias + gather of x with w, or y += that if `params.accumulate`. `w` are the forward pass's weights, which the
/// input gradient turns.
pub(super) fn gather(
    cx: &mut Context,
    direction: Direction,
    [x, w, y]: [&Tensor; 3],
    [bias, residual]: [Option<&Tensor>; 2],
    params: Params,
) -> Result<()> {
    if matches!(direction, Direction::Forward) && coop::winograd::suits(cx, x, &params) {
        return coop::winograd::convolve(cx, [x, w, y], [bias, residual], params, None);
    }
    if let Some(choice) = coop::Choice::best(cx, x, &params) {
        return coop::gather(cx, direction, [x, w, y], [bias, residual], params, choice);
    }
    debug_assert!(residual.is_none(), "only kernels on cooperative matrices add one");
    let w = cast_weights(cx, w, DType::F32)?;
    let w = &match direction {
        Direction::Forward => w,
        Direction::InputGradient => turned(cx, &w, params.reversed())?,
    };
    // Without a bias its binding holds the weights; the kernel does not read it.
    let tensors = Tensors { x, w, bias: bias.unwrap_or(w), y };
    match cx.rung() {
        Rung::Cpu => cpu(cx, direction, tensors, params),
        Rung::Tiled | Rung::Coop => {
            let copies = u64::from(params.spread * params.spread);
            let splits = split::count(&params);
            if splits > 1 {
                let most_bytes = cx.capabilities().limits.max_storage_buffer_binding_size;
                return split::gather(cx, direction, tensors, params, splits, most_bytes, false);
            }
            let tile = Tile::choose(&Tile::GATHER, params.phase_pixels(), params.out_c.into(), copies);
            tiled(cx, direction, tensors, params, tile, true);
        }
        Rung::Naive => {
            let Tensors { x, w, bias, y } = tensors;
            let kernel = &NAIVE[direction as usize];
            let launch = cx.launch(kernel).bind(x).bind(w).bind(bias).bind(y).params(&params);
            launch.variant("naive").over(y.len(), 64);
        }
    }
    Ok(())
}

fn cpu(cx: &mut Context, direction: Direction, tensors: Tensors<'_>, params: Params) {
    let Params { batch, spread, out_c, .. } = params;
    let rows3 = params.side() == Some(3) && params.step == 1 && spread == 1 && params.pad == 1;
    let (kernels, variant) = match rows3 {
        true => (&CPU_ROWS3, "cpu 8x8 rows"),
        false => (&CPU_TAPS, "cpu 8x8 taps"),
    };
    // Two segments of 4 pixels by 8 channels an invocation.
    let [height, width] = params.phase_extent();
    let segments = u64::from(batch) * u64::from(height) * u64::from(width.div_ceil(4));
    let invocations = segments.div_ceil(2) * u64::from(out_c.div_ceil(8));
    let [columns, rows, _] = groups_over(invocations.div_ceil(8));
    let Tensors { x, w, bias, y } = tensors;
    let launch = cx.launch(&kernels[direction as usize]).bind(x).bind(x).bind(w).bind(w).bind(bias).bind(y);
    let launch = params.set_fours(launch.params(&params));
    let launch = launch.constant("ACCUMULATE", params.accumulate.into());
    launch.variant(variant).groups([columns, rows, spread * spread]);
}

/// The tiled kernel with a given tile; tests compare the one that is trusted to stay within bounds with the checked one.
pub(super) fn tiled(
    cx: &mut Context,
    direction: Direction,
    tensors: Tensors<'_>,
    params: Params,
    tile: Tile,
    trusted: bool,
) {
    let phases = params.spread * params.spread;
    let [columns, rows, _] = groups_over(tile.groups(params.phase_pixels(), params.out_c.into()));
    let Tensors { x, w, bias, y } = tensors;
    let fours = params.fours();
    let kernels = if trusted { &TRUSTED } else { &TILED };
    let launch = cx
        .launch(&kernels[usize::from(fours)][direction as usize])
        .bind(x)
        .bind(x)
        .bind(w)
        .bind(w)
        .bind(bias)
        .bind(y);
    let launch = tile.set(params.set_fours(launch.params(&params)));
    launch.variant(format!("tiled {tile}")).groups([columns, rows, phases]);
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Turn {
    taps: u32,
    in_c: u32,
    out_c: u32,
    unused: u32,
}

/// The weights of the input gradient: taps in reverse order, `[K, C]` each.
pub(super) fn turned(cx: &mut Context, w: &Tensor, forward: Params) -> Result<Tensor> {
    let shape = [forward.kernel_h, forward.kernel, forward.out_c, forward.in_c].map(|extent| extent as usize);
    let turned = cx.output("conv2d turned weights", &shape, DType::F32)?;
    let params = Turn { taps: forward.taps(), in_c: forward.in_c, out_c: forward.out_c, unused: 0 };
    cx.launch(&TRANSPOSE).bind(w).bind(&turned).params(&params).over(w.len(), 64);
    Ok(turned)
}
