//! Convolutions on cooperative matrices: f16 activations and weights, f32 sums.
//!
//! Three kernels: `halo` for 3x3 on images whose rows fill tiles, `product` for all else (1x1, linear, stride 2, small
//! images), `weights` for the weight gradient. What none of them takes (channels that 16 does not divide, f32) runs on
//! the tiled kernels. Which kernel runs, and in how many splits, depends on channels and image size alone, so the order
//! of sums does not depend on the batch; the size of tiles does depend on it and does not matter to the order.

use bytemuck::{Pod, Zeroable};

use crate::error::Result;
use crate::gpu::{Access, Kernel, Rung, groups_over};
use crate::tensor::{Context, DType, GradTarget, Launch, Tensor};
use crate::wgsl;

use super::gather::Direction;
use super::weight_gradient::Splits;
use super::{Params, cast_weights};

const READS: &[Access] = &[Access::Read, Access::Read, Access::Read, Access::Write];
const ADDS: &[Access] = &[Access::Read, Access::Read, Access::Read, Access::Update];

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
const FINISH: Kernel = Kernel::new(
    "conv2d_finish",
    wgsl!("conv2d_coop_parts"),
    "finish",
    &[Access::Read, Access::Read, Access::Update],
);

/// The tile of a workgroup: subgroups down and across, and the matrices of 16x16 that each holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tile {
    rows: u32,
    cols: u32,
    down: u32,
    across: u32,
    /// Of the multiplications a second that the best tile reaches, the part that this one does when there are many: in
    /// the halo kernel, the product, the weight gradient. Measured on an H200.
    speeds: [f64; 3],
}

const fn tile([rows, cols]: [u32; 2], [down, across]: [u32; 2], speeds: [f64; 3]) -> Tile {
    Tile { rows, cols, down, across, speeds }
}

pub(super) const TILES: [Tile; 7] = [
    tile([4, 4], [2, 2], [1.0, 1.0, 1.0]),
    tile([4, 3], [2, 2], [0.96, 0.95, 0.8]),
    tile([4, 3], [2, 4], [1.0, 0.95, 0.8]),
    tile([4, 2], [2, 2], [0.98, 0.74, 0.7]),
    tile([2, 4], [2, 2], [0.7, 0.75, 0.68]),
    tile([2, 3], [2, 2], [0.63, 0.8, 0.58]),
    tile([2, 2], [2, 2], [0.6, 0.65, 0.5]),
];

/// And the part of it that is left when subgroups take turns in storing their sums.
const TURNS_SPEED: f64 = 0.78;

/// Multiprocessors of the GPU that tiles are chosen for, and what one multiplies a second: an H200's. On others the
/// choice may not be the best.
const PROCESSORS: f64 = 132.0;
const PRODUCTS_PER_SECOND: f64 = 1.2e12;

/// Above this much workgroup memory only one workgroup stays on a multiprocessor, so that nothing runs while it waits;
/// eight subgroups may bear that.
const USUAL_BYTES: u32 = 24 * 1024;
const MOST_BYTES: u32 = 48 * 1024;

impl Tile {
    fn m(self) -> u32 {
        16 * self.rows * self.down
    }

    fn n(self) -> u32 {
        16 * self.cols * self.across
    }

    fn subgroups(self) -> u32 {
        self.down * self.across
    }

    fn groups(self, rows: u64, columns: u64) -> u64 {
        rows.div_ceil(self.m().into()) * columns.div_ceil(self.n().into())
    }

    /// An estimate of the seconds for `copies` of a product of `depth` each, apart from the tile's speed.
    fn seconds(self, rows: u64, columns: u64, copies: u64, depth: u64) -> f64 {
        let turns = ((self.groups(rows, columns) * copies) as f64 / PROCESSORS).ceil();
        // Two workgroups of four subgroups share a multiprocessor, one of eight has it to itself; either way one half
        // computes while the other waits.
        let shared = if self.subgroups() > 4 { turns } else { (turns / 2.0).floor() * 2.0 };
        let products = f64::from(self.m() * self.n()) * depth as f64;
        (turns - 0.15 * shared) * products / PRODUCTS_PER_SECOND
    }

    fn halo_seconds(self, params: &Params) -> f64 {
        let seconds = self.seconds(params.pixels() as u64, params.out_c.into(), 1, depth(params));
        let turns = self.slots(self.halo_bytes(params.in_w)) < Some(self.subgroups());
        seconds / self.speeds[0] / if turns { TURNS_SPEED } else { 1.0 }
    }

    /// How many subgroups may stage sums beside `bytes` of a step's content; `None` where there is no room for one.
    fn slots(self, bytes: u32) -> Option<u32> {
        let most = if self.subgroups() > 4 { MOST_BYTES } else { USUAL_BYTES };
        [8, 4, 2, 1].into_iter().find(|slots| *slots <= self.subgroups() && bytes + 1024 * slots <= most)
    }

    /// The step's content in the halo kernel: pixels with their margin, and 48 rows of weights.
    fn halo_bytes(self, width: u32) -> u32 {
        16 * (3 * (self.m() / width + 2) * (width + 2) + 48 * (self.n() / 8 + 1))
    }

    /// And in the product: 32 columns of x, 32 rows of w.
    fn product_bytes(self) -> u32 {
        16 * (5 * self.m() + 32 * (self.n() / 8 + 1))
    }

    fn fits_halo(self, params: &Params) -> bool {
        let width = params.in_w;
        self.m().is_multiple_of(width)
            && params.in_h.is_multiple_of(self.m() / width)
            && self.slots(self.halo_bytes(width)).is_some()
    }

    fn set<'a>(self, launch: Launch<'a>, params: &Params) -> Launch<'a> {
        launch
            .constant("IN_C", params.in_c.into())
            .constant("OUT_C", params.out_c.into())
            .constant("ROWS", self.rows.into())
            .constant("COLS", self.cols.into())
            .constant("DOWN", self.down.into())
            .constant("ACROSS", self.across.into())
    }
}

impl std::fmt::Display for Tile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.m(), self.n())
    }
}

/// The kernel of a gather and its tile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Choice {
    Halo(Tile),
    Product(Tile),
}

impl Choice {
    /// Every tile that fits, of the kernel for these shapes; none where no kernel on cooperative matrices takes them.
    pub(super) fn all(cx: &Context, x: &Tensor, params: &Params) -> Vec<Choice> {
        let whole = params.kernel == 3 || params.step == 1;
        if !takes(cx, x, params) || params.spread != 1 || !whole {
            return Vec::new();
        }
        let halo = params.kernel == 3 && params.step == 1 && params.in_w.is_multiple_of(16);
        let halos: Vec<Choice> =
            TILES.into_iter().filter(|tile| halo && tile.fits_halo(params)).map(Choice::Halo).collect();
        if !halos.is_empty() {
            return halos;
        }
        let fits = |tile: &Tile| tile.slots(tile.product_bytes()).is_some();
        TILES.into_iter().filter(fits).map(Choice::Product).collect()
    }

    /// The one that should be fastest.
    pub(super) fn best(cx: &Context, x: &Tensor, params: &Params) -> Option<Choice> {
        let (rows, columns) = (params.pixels() as u64, u64::from(params.out_c));
        let seconds = |choice: &Choice| match *choice {
            Choice::Halo(tile) => tile.halo_seconds(params),
            Choice::Product(tile) => {
                let splits = u64::from(product_splits(params));
                tile.seconds(rows, columns, splits, depth(params) / splits) / tile.speeds[1]
            }
        };
        let all = Choice::all(cx, x, params);
        all.into_iter().min_by(|a, b| seconds(a).total_cmp(&seconds(b)))
    }
}

/// Whether kernels on cooperative matrices take these types and channels.
fn takes(cx: &Context, x: &Tensor, params: &Params) -> bool {
    // A rung set by hand does not give a device matrices.
    cx.rung() == Rung::Coop
        && cx.capabilities().rung == Rung::Coop
        && x.dtype() == DType::F16
        && params.in_c.is_multiple_of(16)
        && params.out_c.is_multiple_of(16)
}

/// What each output element sums over.
fn depth(params: &Params) -> u64 {
    u64::from(params.kernel * params.kernel * params.in_c)
}

/// Small images make too few tiles to fill a large GPU: then each is divided among several workgroups.
fn product_splits(params: &Params) -> u32 {
    let steps = depth(params).div_ceil(32) as u32;
    if params.kernel == 3 && params.out_h * params.out_w <= 64 { (steps / 48).clamp(1, 8) } else { 1 }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Finish {
    rows: u32,
    stride: u32,
    out_c: u32,
    splits: u32,
    accumulate: u32,
    has_bias: u32,
    unused: [u32; 2],
}

/// y = bias + gather of x with w, or y += that if `params.accumulate`. `w` are the forward pass's weights.
pub(super) fn gather(
    cx: &mut Context,
    direction: Direction,
    [x, w, y]: [&Tensor; 3],
    bias: Option<&Tensor>,
    params: Params,
    choice: Choice,
) -> Result<()> {
    let w = &match direction {
        Direction::Forward => cast_weights(cx, w, DType::F16)?,
        Direction::InputGradient => turned(cx, w, params)?,
    };
    // Without a bias its binding holds the weights, unread.
    let bias = bias.unwrap_or(w);
    let (rows, columns) = (params.pixels() as u64, u64::from(params.out_c));
    match choice {
        Choice::Halo(tile) => {
            let kernel = &HALO[direction as usize];
            let slots = tile.slots(tile.halo_bytes(params.in_w)).expect("it was checked to fit");
            let launch = cx.launch(kernel).bind(x).bind(w).bind(bias).bind(y).params(&params);
            let launch = tile.set(launch, &params).constant("WIDTH", params.in_w.into());
            let launch = launch.constant("SLOTS", slots.into()).variant(format_args!("coop halo {tile}"));
            launch.groups(groups_over(tile.groups(rows, columns)));
        }
        Choice::Product(tile) => {
            let splits = product_splits(&params);
            let chunk = (depth(&params).div_ceil(32) as u32).div_ceil(splits);
            let told = Params { chunk, splits, ..params };
            let stride = rows.next_multiple_of(tile.m().into());
            let partial = match splits {
                1 => None,
                _ => {
                    let shape = [splits as usize, stride as usize, params.out_c as usize];
                    Some(cx.output("conv2d partial sums", &shape, DType::F32)?)
                }
            };
            let kernel = &PRODUCT[if partial.is_some() { 0 } else { direction as usize }];
            let slots = tile.slots(tile.product_bytes()).expect("it was checked to fit");
            let out = partial.as_ref().unwrap_or(y);
            let launch = cx.launch(kernel).bind(x).bind(w).bind(bias).bind(out).params(&told);
            let launch = tile.set(launch, &params).constant("KERNEL", params.kernel.into());
            let launch =
                launch.constant("SPLIT", f64::from(u8::from(splits > 1))).constant("SLOTS", slots.into());
            let launch = launch.variant(format_args!("coop {tile}x32"));
            launch.groups(groups_over(tile.groups(rows, columns) * u64::from(splits)));
            if let Some(partial) = partial {
                let finish = Finish {
                    rows: rows as u32,
                    stride: stride as u32,
                    out_c: params.out_c,
                    splits,
                    accumulate: params.accumulate,
                    has_bias: params.has_bias,
                    unused: [0; 2],
                };
                let launch = cx.launch(&FINISH).bind(&partial).bind(bias).bind(y).params(&finish);
                launch.over(y.len() / 4, 64);
            }
        }
    }
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Turn {
    taps: u32,
    in_c: u32,
    out_c: u32,
    unused: u32,
}

/// The weights of the input gradient in f16: taps in reverse order, `[K, C]` each. `params` are the gradient's.
fn turned(cx: &mut Context, w: &Tensor, params: Params) -> Result<Tensor> {
    let (taps, in_c, out_c) = (params.kernel * params.kernel, params.out_c, params.in_c);
    let shape = [params.kernel, params.kernel, out_c, in_c].map(|extent| extent as usize);
    let turned = cx.output("conv2d turned weights", &shape, DType::F16)?;
    let turn = Turn { taps, in_c, out_c, unused: 0 };
    let launch = cx.launch(&TURN).bind(w).bind(&turned).elem(w.dtype()).params(&turn);
    launch.groups([out_c.div_ceil(32), in_c.div_ceil(32), taps]);
    Ok(turned)
}

/// Every tile of a weight gradient, in one split and in several; none where its kernel does not take the shapes.
pub(super) fn weight_choices(cx: &Context, x: &Tensor, params: &Params) -> Vec<(Tile, Splits)> {
    if !takes(cx, x, params) || (params.kernel == 1 && params.step != 1) {
        return Vec::new();
    }
    let pixels = params.pixels();
    let splits = |tile| (1..=32).map(move |count| (tile, Splits::of(pixels, count, 32)));
    let tiles = TILES.into_iter().filter(|tile| tile.subgroups() == 4);
    tiles.flat_map(splits).filter(|(_, splits)| splits.count == 1 || splits.chunk >= 256).collect()
}

/// The one that should be fastest.
pub(super) fn best_weights(cx: &Context, x: &Tensor, params: &Params) -> Option<(Tile, Splits)> {
    let (rows, columns) = (depth(params), u64::from(params.out_c));
    let seconds = |(tile, splits): &(Tile, Splits)| {
        let sums = tile.seconds(rows, columns, splits.count as u64, splits.chunk as u64) / tile.speeds[2];
        // Partial sums are written and read, at about 1.5 TB/s, by a kernel of its own.
        let bytes = (8 * rows * columns * splits.count as u64) as f64;
        if splits.count > 1 { sums + 3e-6 + bytes / 1.5e12 } else { sums }
    };
    let all = weight_choices(cx, x, params);
    all.into_iter().min_by(|a, b| seconds(a).total_cmp(&seconds(b)))
}

/// dw = Σ x·dy with a given tile; `params` are the forward pass's.
pub(super) fn weight_gradient(
    cx: &mut Context,
    [x, dy]: [&Tensor; 2],
    dw: &GradTarget,
    params: Params,
    (tile, splits): (Tile, Splits),
) -> Result<()> {
    let groups = tile.groups(depth(&params), params.out_c.into()) * splits.count as u64;
    splits.sum(cx, dw, |cx, out, accumulate| {
        let params = splits.tell(params, accumulate);
        let launch = cx.launch(&WEIGHTS).bind(x).bind(dy).bind(out).params(&params);
        let launch = tile.set(launch, &params).constant("KERNEL", params.kernel.into());
        // Constants of a 3x3 alone: 1x1 does not look at them, and each value compiles another pipeline.
        let launch = match params.kernel {
            1 => launch,
            _ => launch.constant("OUT_W", params.out_w.into()).constant("OUT_H", params.out_h.into()),
        };
        launch.variant(format_args!("coop {tile}x32")).groups(groups_over(groups));
    })
}
