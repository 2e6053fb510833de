//! Convolutions on cooperative matrices: f16 activations and weights, f32 sums.
//!
//! Three kernels: `halo` for 3x3 with stride 1 on images whose rows fill tiles, `product` for all else (1x1, linear, stride
//! 2, narrow images), `weights` for the weight gradient. Channels that 16 does not divide are padded with zeros. What none
//! of them takes (f32, a stride undone) runs on the tiled kernels. 3x3 of many channels goes by Winograd's way (`winograd.rs`).

mod tile;
pub(super) mod winograd;

use bytemuck::{Pod, Zeroable};

use crate::error::Result;
use crate::gpu::{Access, Kernel, groups_over};
use crate::tensor::{Context, DType, GradTarget, Tensor};
use crate::wgsl;

use super::problem::{Direction, Params, Splits, cast_weights};

#[cfg(test)]
pub(super) use tile::Product;
pub(super) use tile::{Choice, Halo, Kind, Tile, tile};
use tile::{depth, takes};

const READS: &[Access] = &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write];
const ADDS: &[Access] = &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Update];

// Trusted: the shaders' headers say why no access is out of bounds; every loop counts up to a number of the launch.
const HALO: [Kernel; 2] = unsafe {
    [
        Kernel::new("conv2d", wgsl!("conv2d_coop_halo"), "halo", READS).trusted(),
        Kernel::new("conv2d_input_gradient", wgsl!("conv2d_coop_halo"), "halo", ADDS).trusted(),
    ]
};
const PRODUCT: [Kernel; 2] = unsafe {
    [
        Kernel::new("conv2d", wgsl!("conv2d_coop"), "product", READS).trusted(),
        Kernel::new("conv2d_input_gradient", wgsl!("conv2d_coop"), "product", ADDS).trusted(),
    ]
};
const WEIGHTS: Kernel = unsafe {
    let access = &[Access::Read, Access::Read, Access::Update];
    Kernel::new("conv2d_weight_gradient", wgsl!("conv2d_coop_weight"), "weights", access).trusted()
};
const TURN: Kernel =
    Kernel::new("conv2d_transpose", wgsl!("conv2d_coop_parts"), "turn", &[Access::Read, Access::Write]);
const PAD: Kernel =
    Kernel::new("conv2d_pad", wgsl!("conv2d_coop_parts"), "pad", &[Access::Read, Access::Write]);
const NARROW: Kernel =
    Kernel::new("conv2d_narrow", wgsl!("conv2d_coop_parts"), "narrow_sums", &[Access::Read, Access::Update]);
const FINISH: Kernel = Kernel::new(
    "conv2d_finish",
    wgsl!("conv2d_coop_parts"),
    "finish",
    &[Access::Read, Access::Read, Access::Read, Access::Update],
);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Finish {
    rows: u32,
    out_c: u32,
    stored_c: u32,
    splits: u32,
    split_rows: u32,
    accumulate: u32,
    has_bias: u32,
    has_residual: u32,
    width: u32,
    height: u32,
    tile_w: u32,
    tile_h: u32,
    across: u32,
    down: u32,
    together: u32,
    unused: u32,
}

/// y = bias + residual + gather of x with w, or y += that if `params.accumulate`. `w` are the forward pass's weights.
pub(super) fn gather(
    cx: &mut Context,
    direction: Direction,
    [x, w, y]: [&Tensor; 3],
    [bias, residual]: [Option<&Tensor>; 2],
    params: Params,
    choice: Choice,
) -> Result<()> {
    let channels = [params.in_c, params.out_c].map(|channels| channels.next_multiple_of(16));
    let [in_c, out_c] = channels;
    let x = &match in_c == params.in_c {
        true => x.clone(),
        false => padded(cx, x, [params.batch * params.in_h * params.in_w, 1, params.in_c], [1, in_c])?,
    };
    let taps = params.kernel * params.kernel;
    let whole = channels == [params.in_c, params.out_c];
    let w = &match direction {
        Direction::Forward if whole => cast_weights(cx, w, DType::F16)?,
        Direction::Forward => padded(cx, w, [taps, params.in_c, params.out_c], channels)?,
        Direction::InputGradient => turned(cx, w, params, channels)?,
    };
    // Where there is no bias or residual its binding holds the weights, unread.
    let (bias, residual) = (bias.unwrap_or(w), residual.unwrap_or(w));
    let pixels = params.pixels() as u32;
    let (tile, blocks) = (choice.tile(), choice.blocks(&params));
    let (chunks, place) = match choice.kind {
        Kind::Halo(halo) => {
            let [down, across, _] = halo.tiles(&params);
            let [width, height] = [halo.width(), halo.height()];
            (in_c / 16, [params.in_w, params.out_h, width, height, across, down, halo.together(&params)])
        }
        Kind::Product(_) => ((taps * in_c).div_ceil(32), [pixels, 1, pixels, 1, 1, 1, 1]),
    };
    // The product takes two steps at a time.
    let chunk = if choice.splits > 1 { chunks.div_ceil(choice.splits).next_multiple_of(2) } else { chunks };
    let splits = chunks.div_ceil(chunk);
    let split_rows = blocks * tile.m();
    let partial = match splits == 1 && out_c == params.out_c {
        true => None,
        false => {
            let shape = [splits, split_rows, out_c].map(|extent| extent as usize);
            Some(cx.output("conv2d partial sums", &shape, DType::F32)?)
        }
    };
    let told = Params { chunk, splits, in_c, out_c, ..params };
    let out = partial.as_ref().unwrap_or(y);
    let kernel = match choice.kind {
        Kind::Halo(_) => &HALO,
        Kind::Product(_) => &PRODUCT,
    };
    let kernel = &kernel[if partial.is_some() { 0 } else { direction as usize }];
    let launch = cx.launch(kernel).bind(x).bind(w).bind(bias).bind(residual).bind(out).params(&told);
    let launch = tile.set(launch, channels).constant("SPLIT", flag(partial.is_some()));
    let added = |wanted: u32| flag(wanted != 0 && partial.is_none());
    let launch = launch.constant("RESIDUAL", added(params.has_residual));
    let launch = launch.constant("ACCUMULATE", added(params.accumulate));
    let launch = match choice.kind {
        Kind::Halo(halo) => {
            let launch = halo.stage(&params).expect("it was checked to fit").set(launch);
            let launch = launch.constant("WIDTH", params.in_w.into()).constant("HEIGHT", params.in_h.into());
            let launch =
                launch.constant("OUT_HEIGHT", params.out_h.into()).constant("ABOVE", params.pad_h.into());
            let launch = launch.constant("PAIRS", flag(Halo::pairs(&params)));
            let launch = launch.constant("MARGIN", Halo::margin(&params).into());
            let launch = launch.constant("BESIDE", halo.beside.into()).constant("TAPS", halo.taps.into());
            launch.variant(format_args!("coop halo {halo}"))
        }
        Kind::Product(product) => {
            let launch = product.stage().expect("it was checked to fit").set(launch);
            let launch = launch.constant("KERNEL", params.kernel.into()).constant("DEEP", flag(product.deep));
            launch.variant(format_args!("coop {product}"))
        }
    };
    launch.groups(groups_over(u64::from(blocks) * u64::from(out_c.div_ceil(tile.n())) * u64::from(splits)));
    if let Some(partial) = partial {
        let [width, height, tile_w, tile_h, across, down, together] = place;
        let finish = Finish {
            rows: pixels,
            out_c: params.out_c,
            stored_c: out_c,
            splits,
            split_rows,
            accumulate: params.accumulate,
            has_bias: params.has_bias,
            has_residual: params.has_residual,
            width,
            height,
            tile_w,
            tile_h,
            across,
            down,
            together,
            unused: 0,
        };
        let launch = cx.launch(&FINISH).bind(&partial).bind(bias).bind(residual).bind(y).params(&finish);
        launch.over(pixels as usize * params.out_c.div_ceil(4) as usize, 64);
    }
    Ok(())
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Pad {
    rows: u32,
    cols: u32,
    to_rows: u32,
    to_cols: u32,
    blocks: u32,
    unused: [u32; 3],
}

/// `[blocks, rows, cols]` in f16, with zeros up to `to`.
fn padded(cx: &mut Context, x: &Tensor, [blocks, rows, cols]: [u32; 3], to: [u32; 2]) -> Result<Tensor> {
    let [to_rows, to_cols] = to;
    let shape = [blocks, to_rows, to_cols].map(|extent| extent as usize);
    let wide = cx.output("conv2d padded", &shape, DType::F16)?;
    let pad = Pad { rows, cols, to_rows, to_cols, blocks, unused: [0; 3] };
    cx.launch(&PAD).bind(x).bind(&wide).elem(x.dtype()).params(&pad).over(wide.len(), 64);
    Ok(wide)
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Turn {
    taps: u32,
    in_c: u32,
    out_c: u32,
    to_in_c: u32,
    to_out_c: u32,
    unused: [u32; 3],
}

/// The weights of the input gradient in f16: taps in reverse order, `[K, C]` each, padded to `to`. `params` are the
/// gradient's.
fn turned(cx: &mut Context, w: &Tensor, params: Params, to: [u32; 2]) -> Result<Tensor> {
    let (taps, in_c, out_c) = (params.kernel * params.kernel, params.out_c, params.in_c);
    let [to_out_c, to_in_c] = to;
    let shape = [params.kernel, params.kernel, to_out_c, to_in_c].map(|extent| extent as usize);
    let turned = cx.output("conv2d turned weights", &shape, DType::F16)?;
    let turn = Turn { taps, in_c, out_c, to_in_c, to_out_c, unused: [0; 3] };
    let launch = cx.launch(&TURN).bind(w).bind(&turned).elem(w.dtype()).params(&turn);
    launch.groups([to_out_c.div_ceil(32), to_in_c.div_ceil(32), taps]);
    Ok(turned)
}

/// Tiles of the weight gradient, and the part of the best one's speed that each reaches when there are many.
const WEIGHT_TILES: [(Tile, f64); 6] = [
    (tile([4, 4], [2, 2]), 1.0),
    (tile([4, 3], [2, 2]), 0.8),
    (tile([4, 2], [2, 2]), 0.7),
    (tile([2, 4], [2, 2]), 0.68),
    (tile([2, 3], [2, 2]), 0.58),
    (tile([2, 2], [2, 2]), 0.5),
];

/// What a multiprocessor multiplies a second there.
const PRODUCTS_PER_SECOND: f64 = 1.2e12;

/// Every tile of a weight gradient, in one split and in several; none where its kernel does not take the shapes.
pub(super) fn weight_choices(cx: &Context, x: &Tensor, params: &Params) -> Vec<(Tile, Splits)> {
    // Of pictures' few channels too little is left of a tile: on an H200 16x64x64x3 to 192 takes 210 us, tiled 161.
    let wasted = params.in_c < 16 && params.out_c.is_multiple_of(16);
    let other = params.side().is_none() || !params.is_same();
    if !takes(cx, x) || other || wasted || (params.kernel == 1 && params.step != 1) {
        return Vec::new();
    }
    let pixels = params.pixels();
    let splits = |tile| (1..=32).map(move |count| (tile, Splits::of(pixels, count, 32)));
    let tiles = WEIGHT_TILES.into_iter().map(|(tile, _)| tile);
    tiles.flat_map(splits).filter(|(_, splits)| splits.count == 1 || splits.chunk >= 256).collect()
}

/// The one that should be fastest.
pub(super) fn best_weights(cx: &Context, x: &Tensor, params: &Params) -> Option<(Tile, Splits)> {
    let wide = wide(params);
    let (rows, columns) = (depth(&wide), u64::from(wide.out_c));
    let processors = f64::from(cx.capabilities().processors);
    let seconds = |(tile, splits): &(Tile, Splits)| {
        let turns = ((tile.groups(rows, columns) * splits.count as u64) as f64 / processors).ceil();
        // Two workgroups share a multiprocessor: one computes while the other waits.
        let turns = turns - 0.15 * (turns / 2.0).floor() * 2.0;
        let products = f64::from(tile.m() * tile.n()) * splits.chunk as f64;
        let (_, speed) = WEIGHT_TILES.into_iter().find(|(known, _)| known == tile).unwrap_or((*tile, 0.5));
        let sums = turns * products / PRODUCTS_PER_SECOND / speed;
        // Partial sums are written and read, at about 1.5 TB/s, by a kernel of its own.
        let bytes = (8 * rows * columns * splits.count as u64) as f64;
        if splits.count > 1 { sums + 3e-6 + bytes / 1.5e12 } else { sums }
    };
    let all = weight_choices(cx, x, params);
    all.into_iter().min_by(|a, b| seconds(a).total_cmp(&seconds(b)))
}

/// With channels up to multiples of 16.
fn wide(params: &Params) -> Params {
    let [in_c, out_c] = [params.in_c, params.out_c].map(|channels| channels.next_multiple_of(16));
    Params { in_c, out_c, ..*params }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Narrow {
    rows: u32,
    in_c: u32,
    out_c: u32,
    wide_in_c: u32,
    wide_out_c: u32,
    accumulate: u32,
    unused: [u32; 2],
}

/// dw = Σ x·dy with a given tile; `params` are the forward pass's. Channels that 16 does not divide are padded with zeros,
/// whose sums are left out.
pub(super) fn weight_gradient(
    cx: &mut Context,
    [x, dy]: [&Tensor; 2],
    dw: &GradTarget,
    params: Params,
    (tile, splits): (Tile, Splits),
) -> Result<()> {
    let wide = wide(&params);
    if [wide.in_c, wide.out_c] != [params.in_c, params.out_c] {
        let [inputs, outputs] = [x, dy].map(|t| t.len() / t.shape()[t.shape().len() - 1]);
        let x = &match wide.in_c == params.in_c {
            true => x.clone(),
            false => padded(cx, x, [inputs as u32, 1, params.in_c], [1, wide.in_c])?,
        };
        let dy = &match wide.out_c == params.out_c {
            true => dy.clone(),
            false => padded(cx, dy, [outputs as u32, 1, params.out_c], [1, wide.out_c])?,
        };
        let taps = params.kernel * params.kernel;
        let shape = [taps, wide.in_c, wide.out_c].map(|extent| extent as usize);
        let sums = cx.output("conv2d padded weight gradient", &shape, DType::F32)?;
        let target = GradTarget { tensor: sums, accumulate: false };
        weight_gradient(cx, [x, dy], &target, wide, (tile, splits))?;
        let narrow = Narrow {
            rows: taps * params.in_c,
            in_c: params.in_c,
            out_c: params.out_c,
            wide_in_c: wide.in_c,
            wide_out_c: wide.out_c,
            accumulate: dw.flag(),
            unused: [0; 2],
        };
        let launch = cx.launch(&NARROW).bind(&target.tensor).bind(&dw.tensor).params(&narrow);
        launch.over(dw.tensor.len(), 64);
        return Ok(());
    }
    let groups = tile.groups(depth(&params), params.out_c.into()) * splits.count as u64;
    splits.sum(cx, dw, |cx, out, accumulate| {
        let params = splits.tell(params, accumulate);
        let launch = cx.launch(&WEIGHTS).bind(x).bind(dy).bind(out).params(&params);
        let launch = tile.set(launch, [params.in_c, params.out_c]).constant("KERNEL", params.kernel.into());
        // Constants of a 3x3 alone: 1x1 does not look at them, and each value compiles another pipeline.
        let launch = match params.kernel {
            1 => launch,
            _ => launch.constant("OUT_W", params.out_w.into()).constant("OUT_H", params.out_h.into()),
        };
        launch.variant(format_args!("coop {tile}x32")).groups(groups_over(groups));
    })
}
