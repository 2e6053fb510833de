//! The tiles that kernels on cooperative matrices work in, and which of them should be fastest.
//!
//! Which kernel runs, and in how many splits, depends on channels and image size alone, so the order of sums does not
//! depend on the batch (with [`Context::fast`] splits may); the size of tiles does depend on it and does not matter to
//! the order.

use crate::gpu::Rung;
use crate::tensor::{Context, DType, Launch, Tensor};

use super::super::problem::Params;

/// The tile of a workgroup: subgroups down and across, and the matrices of 16x16 that each holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) struct Tile {
    pub rows: u32,
    pub cols: u32,
    pub down: u32,
    pub across: u32,
}

pub(in super::super) const fn tile([rows, cols]: [u32; 2], [down, across]: [u32; 2]) -> Tile {
    Tile { rows, cols, down, across }
}

/// Multiprocessors of the GPUs whose rates are given below, an H100 and an H200.
const MEASURED: f64 = 132.0;

/// Above this much workgroup memory only one workgroup stays on a multiprocessor, so that nothing runs while it waits;
/// eight subgroups may bear that.
const SHARED_BYTES: u32 = 24 * 1024;
const MOST_BYTES: u32 = 48 * 1024;

/// How f32 sums are staged in workgroup memory on their way to f16: of the subgroups below each other, how many do at the
/// same time, and how many fours of padding a row has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stage {
    down: u32,
    padding: u32,
}

impl Stage {
    pub(super) fn set(self, launch: Launch<'_>) -> Launch<'_> {
        launch.constant("STAGED", self.down.into()).constant("PADDING", self.padding.into())
    }
}

impl Tile {
    pub(super) fn m(self) -> u32 {
        16 * self.rows * self.down
    }

    pub(super) fn n(self) -> u32 {
        16 * self.cols * self.across
    }

    pub(super) fn subgroups(self) -> u32 {
        self.down * self.across
    }

    pub(super) fn groups(self, rows: u64, columns: u64) -> u64 {
        rows.div_ceil(self.m().into()) * columns.div_ceil(self.n().into())
    }

    /// The stage for as many subgroups as can be that fits in what `bytes` leave of `most`.
    fn stage(self, bytes: u32, most: u32) -> Option<Stage> {
        let rows = (1..=self.down).rev().filter(|down| self.down.is_multiple_of(*down));
        let mut all = rows.flat_map(|down| [2, 0].map(|padding| Stage { down, padding }));
        all.find(|stage| bytes + 256 * stage.down * (4 * self.across + stage.padding) <= most)
    }

    pub(super) fn set<'a>(self, launch: Launch<'a>, [in_c, out_c]: [u32; 2]) -> Launch<'a> {
        launch
            .constant("IN_C", in_c.into())
            .constant("OUT_C", out_c.into())
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

/// A tile of the halo kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) struct Halo {
    pub tile: Tile,
    /// Subgroups that have other columns of the image.
    pub beside: u32,
    /// Taps whose weights are held.
    pub taps: u32,
}

impl Halo {
    /// Whether rows of 16 pixels waste little: else the product's tiles of any pixels do better.
    fn suits(params: &Params) -> bool {
        let padded = params.in_w.next_multiple_of(16);
        let beside = (params.pad, params.out_w) == (1, params.in_w);
        let narrow = params.in_w == 8 || padded * 4 <= params.in_w * 5;
        params.kernel == 3 && params.step == 1 && beside && narrow
    }

    /// Whether two images share a matrix.
    pub(super) fn pairs(params: &Params) -> bool {
        params.in_w == 8
    }

    pub(super) fn margin(params: &Params) -> u32 {
        if Self::pairs(params) { 0 } else { 2 }
    }

    pub(super) fn width(self) -> u32 {
        16 * self.beside
    }

    pub(super) fn height(self) -> u32 {
        self.tile.rows * self.tile.down / self.beside
    }

    /// Images of a tile.
    pub(super) fn together(self, params: &Params) -> u32 {
        if Self::pairs(params) { self.width() / 8 } else { 1 }
    }

    /// Tiles down, across, and of images.
    pub(super) fn tiles(self, params: &Params) -> [u32; 3] {
        let across = if Self::pairs(params) { 1 } else { params.in_w.div_ceil(self.width()) };
        [params.out_h.div_ceil(self.height()), across, params.batch.div_ceil(self.together(params))]
    }

    fn pixels_held(self, params: &Params) -> u32 {
        (self.height() + 2) * (self.width() + Self::margin(params))
    }

    fn bytes(self, params: &Params) -> u32 {
        16 * (3 * self.pixels_held(params) + 16 * self.taps * (self.tile.n() / 8 + 1))
    }

    /// Whether two workgroups share a multiprocessor.
    fn is_shared(self) -> bool {
        self.tile.subgroups() == 4 && self.taps == 3
    }

    /// `None` where the tile does not fit: its invocations hold six eights of pixels and of weights, a kx's each.
    pub(super) fn stage(self, params: &Params) -> Option<Stage> {
        let threads = 32 * self.tile.subgroups();
        let held = 2 * self.pixels_held(params) <= 6 * threads && self.tile.n() <= threads;
        let copies = !Self::pairs(params) || self.taps == 3;
        let most = if self.is_shared() { SHARED_BYTES } else { MOST_BYTES };
        if held && copies { self.tile.stage(self.bytes(params), most) } else { None }
    }
}

impl std::fmt::Display for Halo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.height(), self.width(), self.tile.n())?;
        if self.taps == 9 { f.write_str(" 9 taps") } else { Ok(()) }
    }
}

/// A tile of the product kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) struct Product {
    pub tile: Tile,
    /// Whether two steps are fetched ahead instead of one.
    pub deep: bool,
}

impl Product {
    fn is_shared(self) -> bool {
        self.tile.subgroups() == 4
    }

    /// That of all subgroups at once; `None` where it or the tile does not fit.
    pub(super) fn stage(self) -> Option<Stage> {
        let bytes = 16 * (5 * self.tile.m() + 32 * (self.tile.n() / 8 + 1));
        let threads = 32 * self.tile.subgroups();
        let most = if self.is_shared() { SHARED_BYTES } else { MOST_BYTES };
        let stage = self.tile.stage(bytes, most).filter(|stage| stage.down == self.tile.down);
        stage.filter(|_| self.tile.m().max(self.tile.n()) <= threads)
    }
}

impl std::fmt::Display for Product {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x32", self.tile)
    }
}

/// The kernel of a gather and its tile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) enum Kind {
    Halo(Halo),
    Product(Product),
}

/// That, and in how many splits the sums of an output are divided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) struct Choice {
    pub kind: Kind,
    pub splits: u32,
}

/// Tiles of the halo kernel: subgroups beside each other, taps, and the TFLOP/s that it reaches on an H200 where tiles are
/// many and the depth is 384 channels or more.
const HALOS: [(Tile, u32, u32, f64); 13] = [
    (tile([4, 3], [4, 2]), 1, 9, 360.0),
    (tile([4, 2], [4, 2]), 1, 9, 371.0),
    (tile([4, 4], [4, 1]), 1, 3, 372.0),
    (tile([4, 4], [4, 2]), 1, 3, 390.0),
    (tile([4, 4], [2, 2]), 1, 3, 350.0),
    (tile([4, 3], [2, 2]), 1, 3, 340.0),
    (tile([4, 3], [2, 2]), 2, 3, 335.0),
    (tile([4, 2], [2, 2]), 1, 9, 330.0),
    (tile([4, 2], [1, 4]), 1, 9, 295.0),
    (tile([2, 3], [2, 2]), 1, 9, 222.0),
    (tile([4, 2], [2, 2]), 1, 3, 325.0),
    (tile([4, 1], [1, 4]), 1, 3, 212.0),
    (tile([2, 2], [2, 2]), 1, 3, 205.0),
];

/// And of the product: whether two steps are fetched ahead, and its TFLOP/s but for the time in which sums are written.
const PRODUCTS: [(Tile, bool, f64); 8] = [
    (tile([4, 3], [2, 2]), false, 254.0),
    (tile([4, 3], [2, 4]), false, 252.0),
    (tile([4, 4], [2, 2]), false, 236.0),
    (tile([4, 4], [2, 4]), false, 270.0),
    (tile([4, 4], [4, 2]), true, 255.0),
    (tile([4, 2], [2, 2]), true, 190.0),
    (tile([2, 3], [2, 2]), true, 165.0),
    (tile([2, 2], [2, 2]), true, 135.0),
];

/// Of two workgroups' rate on a multiprocessor, what one alone reaches.
const ALONE: f64 = 0.78;
/// Seconds until the first and after the last multiplication of a launch.
const START: f64 = 3e-6;
/// And in which a multiprocessor writes a sum of the product: fitted, like the rates above, to tiles of 64 to 256 on an
/// H100. The rates of the other kernel have it in them.
const WRITE: f64 = 1e-10;

impl Choice {
    /// Every tile that fits, of the kernel for these shapes; none where no kernel on cooperative matrices takes them.
    #[cfg(test)]
    pub(in super::super) fn all(cx: &Context, x: &Tensor, params: &Params) -> Vec<Choice> {
        let all = Self::rated(cx, x, params).into_iter().map(|(choice, _)| choice);
        all.collect()
    }

    /// The same with what each reaches, in TFLOP/s.
    fn rated(cx: &Context, x: &Tensor, params: &Params) -> Vec<(Choice, f64)> {
        if !takes(cx, x)
            || params.side().is_none()
            || params.spread != 1
            || (params.kernel == 1 && (params.step != 1 || !params.is_same()))
        {
            return Vec::new();
        }
        let kinds: Vec<(Kind, f64)> = if Halo::suits(params) {
            let halos = HALOS.map(|(tile, beside, taps, rate)| (Halo { tile, beside, taps }, rate));
            let halos = halos.into_iter().filter(|(halo, _)| halo.stage(params).is_some());
            halos.map(|(halo, rate)| (Kind::Halo(halo), rate)).collect()
        } else {
            let products = PRODUCTS.map(|(tile, deep, rate)| (Product { tile, deep }, rate));
            products.map(|(product, rate)| (Kind::Product(product), rate)).to_vec()
        };
        let splits = splits(params, cx.fast());
        let choices = kinds
            .into_iter()
            .flat_map(|(kind, rate)| splits.iter().map(move |&splits| (Choice { kind, splits }, rate)));
        choices.collect()
    }

    /// The one that should be fastest.
    pub(in super::super) fn best(cx: &Context, x: &Tensor, params: &Params) -> Option<Choice> {
        let processors = f64::from(cx.capabilities().processors);
        let all = Self::rated(cx, x, params).into_iter();
        let all = all.map(|(choice, rate)| (choice, choice.seconds(params, rate, processors)));
        all.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(choice, _)| choice)
    }

    /// The tile of a product in `splits` that should be fastest.
    pub(super) fn best_product(cx: &Context, params: &Params, splits: u32) -> Choice {
        let processors = f64::from(cx.capabilities().processors);
        let all = PRODUCTS
            .map(|(tile, deep, rate)| (Choice { kind: Kind::Product(Product { tile, deep }), splits }, rate));
        let seconds = |(choice, rate): &(Choice, f64)| choice.seconds(params, *rate, processors);
        let best = all.into_iter().min_by(|a, b| seconds(a).total_cmp(&seconds(b)));
        best.expect("there are tiles").0
    }

    pub(super) fn tile(self) -> Tile {
        match self.kind {
            Kind::Halo(halo) => halo.tile,
            Kind::Product(product) => product.tile,
        }
    }

    /// Tiles of output pixels.
    pub(super) fn blocks(self, params: &Params) -> u32 {
        match self.kind {
            Kind::Halo(halo) => halo.tiles(params).into_iter().product(),
            Kind::Product(product) => (params.pixels() as u32).div_ceil(product.tile.m()),
        }
    }

    /// On a GPU with so many multiprocessors, each as fast as those that were measured: other clocks change all choices'
    /// seconds alike.
    fn seconds(self, params: &Params, rate: f64, processors: f64) -> f64 {
        let tile = self.tile();
        let shared = match self.kind {
            Kind::Halo(halo) => halo.is_shared(),
            Kind::Product(product) => product.is_shared(),
        };
        let groups = f64::from(self.blocks(params) * params.out_c.div_ceil(tile.n()) * self.splits);
        let flops = 2.0 * f64::from(tile.m() * tile.n()) * depth(params) as f64 / f64::from(self.splits);
        // Of one workgroup that has a multiprocessor, or half of it, to itself.
        let writing = match self.kind {
            Kind::Halo(_) => 0.0,
            Kind::Product(_) => f64::from(tile.m() * tile.n()) * WRITE,
        };
        let once = flops * MEASURED / (rate * 1e12) + writing;
        let turns = if shared {
            let full = (groups / (2.0 * processors)).floor();
            let rest = groups - full * 2.0 * processors;
            let last = if rest == 0.0 {
                0.0
            } else if rest <= processors {
                1.0 / ALONE
            } else {
                2.0
            };
            2.0 * full + last
        } else {
            (groups / processors).ceil()
        };
        // Partial sums are written and read, by a kernel of its own.
        let outputs = params.pixels() as f64 * f64::from(params.out_c) * 4.0 * f64::from(self.splits);
        let adding = if self.splits > 1 { 4e-6 + outputs / 2e12 } else { 0.0 };
        START + turns * once + adding
    }
}

/// Whether kernels on cooperative matrices take these types.
pub(super) fn takes(cx: &Context, x: &Tensor) -> bool {
    // A rung set by hand does not give a device matrices.
    cx.rung() == Rung::Coop && cx.capabilities().rung == Rung::Coop && x.dtype() == DType::F16
}

/// What each output element sums over.
pub(super) fn depth(params: &Params) -> u64 {
    u64::from(params.kernel * params.kernel * params.in_c)
}

/// Small images make too few tiles to fill a large GPU: then each is divided among several workgroups. Where speed goes
/// before equal bits in every batch, small batches too.
fn splits(params: &Params, fast: bool) -> Vec<u32> {
    let steps = depth(params).div_ceil(32) as u32;
    if fast {
        return [1, 2, 3, 4, 6, 8, 12, 16]
            .into_iter()
            .filter(|splits| *splits == 1 || steps / splits >= 12)
            .collect();
    }
    let small = params.kernel == 3 && params.out_h * params.out_w <= 64;
    vec![if small { (steps / 48).clamp(1, 8) } else { 1 }]
}
