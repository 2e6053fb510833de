//! 3x3 convolutions of many channels by Winograd's F(4x4, 3x3): a quarter of the multiplications.
//!
//! y = Aᵀ[(G w Gᵀ) ⊙ (Bᵀ d B)]A for tiles d of 6x6 pixels, every four pixels one (Winograd 1980; Lavin and Gray, arXiv 1509.09308).
//! Of points p₀ … p₄ and infinity: Aᵀ[j, i] = pᵢʲ, G[i, k] = pᵢᵏ / Nᵢ with Nᵢ = ∏(pᵢ - pⱼ), row i of Bᵀ the coefficients of
//! ∏_{j≠i}(x - pⱼ), that of infinity those of ∏(x - pⱼ). The points are 0, ±3/4, ±3/2: in f16 their errors are half of those of
//! 0, ±1, ±2. A layer's relative error is 1.8e-3 beside the direct kernel's 2e-4, both in f16.
//!
//! The 36 products are one launch of the product kernel: its splits, of which each has the channels of one position.
//! Whether a layer goes this way depends on its channels and sizes alone, so that an image has the same bits in every batch.

use bytemuck::{Pod, Zeroable};

use crate::error::Result;
use crate::gpu::{Access, Kernel, groups_over};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

use super::super::problem::{Params, cast_weights, images_of};
use super::tile::{Choice, Kind, Product, takes};
use super::{PRODUCT, flag};

/// Products in a tile.
const POSITIONS: u32 = 36;
/// Fewer channels on either side gain nothing, and lose accuracy.
const FEWEST_CHANNELS: u32 = 384;
/// Of smaller images too little is saved for the transformed weights, which are made anew each time and are four times as
/// many: on an H200 two images of the 64x64 ADM network take 6.1 ms with its 8x8 layers this way too, 5.3 ms without them.
const FEWEST_PIXELS: u32 = 256;
/// Where speed goes before equal bits in every batch, the pixels of all images decide: with 8x8 layers 64 images take 44.9 ms.
const FEWEST_PIXELS_OF_BATCH: u32 = 4096;
/// Of transformed inputs and products at a time. The same 64 images take 54.0, 47.5, 44.9 and 44.1 ms with 16, 48, 128 and 512
/// MiB: fewer launches are worth more than what the cache would hold of them.
const BYTES_AT_ONCE: u64 = 128 << 20;
/// WebGPU's default alignment of a binding's offset.
const ALIGNMENT: u64 = 256;

// Trusted: the shader's header says why no access is out of bounds; there are no loops.
const WEIGHTS: Kernel = unsafe {
    Kernel::new(
        "conv2d_winograd_weights",
        wgsl!("conv2d_winograd"),
        "weights",
        &[Access::Read, Access::Write],
    )
    .trusted()
};
const INPUT: Kernel = unsafe {
    Kernel::new("conv2d_winograd_input", wgsl!("conv2d_winograd"), "input", &[Access::Read, Access::Write])
        .trusted()
};
const OUTPUT: Kernel = unsafe {
    let access = &[Access::Read, Access::Read, Access::Read, Access::Write];
    Kernel::new("conv2d_winograd_output", wgsl!("conv2d_winograd"), "output", access).trusted()
};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Tiles {
    tiles: u32,
    across: u32,
    of_image: u32,
    rows: u32,
    pairs: u32,
    in_pairs: u32,
    has_bias: u32,
    has_residual: u32,
}

/// Whether the kernels here can do it: whole tiles, and channels in whole pairs of the product's steps.
pub(in super::super) fn fits(cx: &Context, x: &Tensor, params: &Params) -> bool {
    takes(cx, x)
        && (params.side(), params.step, params.spread) == (Some(3), 1, 1)
        && params.is_same()
        && params.in_h.is_multiple_of(4)
        && params.in_w.is_multiple_of(4)
        && params.in_c.is_multiple_of(64)
        && params.out_c.is_multiple_of(16)
}

/// Whether it should, for speed, without losing what is promised of accuracy. Not in training, whose curves with it nobody has
/// measured yet (a step of 32 images would take 100 ms instead of 103); on the 64x64 ADM network with random weights of
/// unit gain f16's error is 1.5e-3 with it, 1.27e-3 without, and 2.8e-3 were layers of 192 channels among them.
pub(in super::super) fn suits(cx: &Context, x: &Tensor, params: &Params) -> bool {
    let pixels = params.in_h * params.in_w;
    let pays = match cx.fast() {
        true => params.batch * pixels >= FEWEST_PIXELS_OF_BATCH,
        false => pixels >= FEWEST_PIXELS,
    };
    pays && !cx.has_tape() && params.in_c.min(params.out_c) >= FEWEST_CHANNELS && fits(cx, x, params)
}

/// y = bias + residual + convolution of x with w. The products' tile is `product`, or the one that should be fastest.
pub(in super::super) fn convolve(
    cx: &mut Context,
    [x, w, y]: [&Tensor; 3],
    [bias, residual]: [Option<&Tensor>; 2],
    params: Params,
    product: Option<Product>,
) -> Result<()> {
    let w = &cast_weights(cx, w, DType::F16)?;
    let u = &transformed_weights(cx, w, params)?;
    let batch = params.batch as usize;
    let at_once = images_at_once(x, y, &params);
    for first in (0..batch).step_by(at_once) {
        let images = at_once.min(batch - first);
        let part = |tensor: &Tensor| images_of(tensor, batch, first, images);
        let (x, y, residual) = (part(x), part(y), residual.map(part));
        let params = Params { batch: images as u32, ..params };
        some_images(cx, [&x, u, &y], [bias, residual.as_ref()], params, product)?;
    }
    Ok(())
}

/// As many as have the bytes that are wanted, of those numbers at which a binding may begin.
fn images_at_once(x: &Tensor, y: &Tensor, params: &Params) -> usize {
    let batch = params.batch as usize;
    let of_image = [x, y].map(|tensor| tensor.bytes() / batch as u64);
    let tiles = u64::from(params.in_h / 4 * (params.in_w / 4));
    let bytes = tiles * u64::from(POSITIONS * (params.in_c + params.out_c)) * 2;
    let begins = |images: u64| of_image.iter().all(|bytes| (images * bytes).is_multiple_of(ALIGNMENT));
    let wanted = (BYTES_AT_ONCE / bytes).max(1).min(batch as u64);
    (wanted..batch as u64).find(|images| begins(*images)).unwrap_or(batch as u64) as usize
}

fn transformed_weights(cx: &mut Context, w: &Tensor, params: Params) -> Result<Tensor> {
    let [in_c, out_c] = [params.in_c as usize, params.out_c as usize];
    let u = cx.output("conv2d transformed weights", &[POSITIONS as usize * in_c, out_c], DType::F16)?;
    let told = Tiles { pairs: params.out_c / 2, in_pairs: params.in_c / 2, ..Tiles::zeroed() };
    let launch = cx.launch(&WEIGHTS).bind(w).bind(&u).params(&told);
    launch.variant("winograd").over(in_c * out_c / 2, 64);
    Ok(u)
}

fn some_images(
    cx: &mut Context,
    [x, u, y]: [&Tensor; 3],
    [bias, residual]: [Option<&Tensor>; 2],
    params: Params,
    product: Option<Product>,
) -> Result<()> {
    let Params { batch, in_h, in_w, in_c, out_c, .. } = params;
    let of_image = in_h / 4 * (in_w / 4);
    let tiles = batch * of_image;
    let told = Tiles { tiles, across: in_w / 4, of_image, pairs: in_c / 2, ..Tiles::zeroed() };
    let v =
        cx.output("conv2d transformed input", &[tiles as usize, (POSITIONS * in_c) as usize], DType::F16)?;
    let launch = cx.launch(&INPUT).bind(x).bind(&v).params(&told);
    launch.variant("winograd").over((tiles * in_c / 2) as usize, 64);

    // Each position is a split of a product of [tiles, 36·in_c] with [36·in_c, out_c].
    let rows = Params {
        batch: 1,
        in_h: 1,
        in_w: tiles,
        out_h: 1,
        out_w: tiles,
        kernel: 1,
        pad: 0,
        kernel_h: 1,
        pad_h: 0,
        ..params
    };
    let rows = Params { in_c: POSITIONS * in_c, chunk: in_c / 32, splits: POSITIONS, has_bias: 0, ..rows };
    let choice = match product {
        Some(product) => Choice { kind: Kind::Product(product), splits: POSITIONS },
        None => Choice::best_product(cx, &rows, POSITIONS),
    };
    let Kind::Product(product) = choice.kind else { unreachable!("a product was asked for") };
    let (tile, blocks) = (product.tile, choice.blocks(&rows));
    let shape = [POSITIONS, blocks * tile.m(), out_c].map(|extent| extent as usize);
    let m = cx.output("conv2d products", &shape, DType::F16)?;
    let launch = cx.launch(&PRODUCT[0]).bind(&v).bind(u).bind(u).bind(u).bind(&m).params(&rows);
    let launch = tile.set(launch, [rows.in_c, out_c]).constant("SPLIT", 1.0).constant("HALVES", 1.0);
    let launch = product.stage().expect("it was checked to fit").set(launch);
    let launch = launch.constant("KERNEL", 1.0).constant("DEEP", flag(product.deep));
    let groups = u64::from(blocks) * u64::from(out_c.div_ceil(tile.n())) * u64::from(POSITIONS);
    launch.variant(format_args!("winograd {product}")).groups(groups_over(groups));

    let told = Tiles {
        rows: blocks * tile.m(),
        pairs: out_c / 2,
        has_bias: params.has_bias,
        has_residual: params.has_residual,
        ..told
    };
    // Where there is no bias or residual its binding holds the weights, unread.
    let (bias, residual) = (bias.unwrap_or(u), residual.unwrap_or(u));
    let launch = cx.launch(&OUTPUT).bind(&m).bind(bias).bind(residual).bind(y);
    launch.params(&told).variant("winograd").over((tiles * out_c / 2) as usize, 64);
    Ok(())
}
