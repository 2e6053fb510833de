//! What all kernels of this family share: the problem as they are told it, tiles, how sums are split and added up.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, GradTarget, Launch, Tensor};
use crate::wgsl;

use super::super::cast::convert;

/// Input channels of a tap that the tiled kernels take at once.
pub(super) const STEP: u32 = 16;

/// x and w twice, as fours and one by one.
pub(super) const TWICE: &[Access] =
    &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Read, Access::Write];
const REDUCE: Kernel =
    Kernel::new("conv2d_reduce", wgsl!("conv2d_weight"), "reduce", &[Access::Read, Access::Update]);

/// Zeros around a picture that a convolution reads: rows above and below, columns left and right; each fewer than the
/// kernel's extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding {
    /// Above and below.
    pub rows: [usize; 2],
    /// Left and right.
    pub columns: [usize; 2],
}

impl Padding {
    /// One row below and one column to the right: how autoencoders of latent diffusion halve their pictures, by a 3x3 of stride
    /// 2.
    pub const BEHIND: Padding = Padding { rows: [0, 1], columns: [0, 1] };

    /// What lets a convolution of stride 1 keep the size, of a kernel of this extent.
    pub(super) fn same([height, width]: [usize; 2]) -> Padding {
        let around = |extent: usize| [(extent - 1) / 2; 2];
        Padding { rows: around(height), columns: around(width) }
    }

    /// Places of a kernel over a picture, down and across; `None` where there is none or the padding reaches past the kernel.
    fn places(self, size: [usize; 2], kernel: [usize; 2], stride: usize) -> Option<[usize; 2]> {
        let along = |size: usize, kernel: usize, [before, behind]: [usize; 2]| {
            let room = (size + before + behind).checked_sub(kernel)?;
            (before < kernel && behind < kernel).then_some(room / stride + 1)
        };
        Some([along(size[0], kernel[0], self.rows)?, along(size[1], kernel[1], self.columns)?])
    }
}

/// What every kernel of this family is told: `in` is what is read, `out` what is written (or, for weight
/// gradients, x and dy).
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct Params {
    pub batch: u32,
    pub in_h: u32,
    pub in_w: u32,
    pub in_c: u32,
    pub out_h: u32,
    pub out_w: u32,
    pub out_c: u32,
    pub kernel: u32,
    pub step: u32,
    pub spread: u32,
    pub pad: u32,
    pub accumulate: u32,
    pub has_bias: u32,
    /// Steps a split, of weight gradients pixels, and how many splits.
    pub chunk: u32,
    pub splits: u32,
    pub has_residual: u32,
    /// The kernel's height and the padding above; `kernel` and `pad` are those across.
    pub kernel_h: u32,
    pub pad_h: u32,
    pub unused: [u32; 2],
}

impl Params {
    /// Those of the forward pass, having checked the shapes.
    #[cfg(test)]
    pub fn new(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, stride: usize) -> Result<Self> {
        Params::padded(x, w, bias, stride, None)
    }

    /// The same of any padding; none is what keeps the size at stride 1.
    pub fn padded(
        x: &Tensor,
        w: &Tensor,
        bias: Option<&Tensor>,
        stride: usize,
        padding: Option<Padding>,
    ) -> Result<Self> {
        let [batch, height, width, channels] = x.nhwc("conv2d")?;
        let ([kernel_h, kernel], filters) = check(x, w, bias, stride)?;
        let padding = padding.unwrap_or(Padding::same([kernel_h, kernel]));
        let places = padding.places([height, width], [kernel_h, kernel], stride);
        let [out_h, out_w] = places.ok_or_else(|| {
            let what =
                format!("a kernel of {kernel_h}x{kernel} with {padding:?} does not fit x {:?}", x.shape());
            Error::shape("conv2d", what)
        })?;
        Ok(Params {
            batch: batch as u32,
            in_h: height as u32,
            in_w: width as u32,
            in_c: channels as u32,
            out_h: out_h as u32,
            out_w: out_w as u32,
            out_c: filters as u32,
            kernel: kernel as u32,
            step: stride as u32,
            spread: 1,
            pad: padding.columns[0] as u32,
            accumulate: 0,
            has_bias: u32::from(bias.is_some()),
            chunk: 0,
            splits: 0,
            has_residual: 0,
            kernel_h: kernel_h as u32,
            pad_h: padding.rows[0] as u32,
            unused: [0; 2],
        })
    }

    /// `[N, out_h, out_w, out_c]`.
    pub fn out_shape(&self) -> [usize; 4] {
        [self.batch, self.out_h, self.out_w, self.out_c].map(|extent| extent as usize)
    }

    /// Whether its padding is what keeps the size at stride 1.
    pub fn is_same(&self) -> bool {
        [self.pad_h, self.pad] == [self.kernel_h, self.kernel].map(|extent| (extent - 1) / 2)
            && [self.out_h, self.out_w] == [self.in_h, self.in_w].map(|extent| extent.div_ceil(self.step))
    }

    /// Taps of the kernel.
    pub fn taps(&self) -> u32 {
        self.kernel_h * self.kernel
    }

    /// The side of a square kernel; none of one along a line.
    pub fn side(&self) -> Option<u32> {
        (self.kernel_h == self.kernel).then_some(self.kernel)
    }

    /// The pixels of a 1x1 convolution do not see each other: as one row they fill tiles best.
    pub fn flattened(self) -> Self {
        if self.taps() != 1 || self.step != 1 || !self.is_same() {
            return self;
        }
        let pixels = self.batch * self.in_h * self.in_w;
        Params { batch: 1, in_h: 1, in_w: pixels, out_h: 1, out_w: pixels, ..self }
    }

    /// Those of the gather that makes dx of dy.
    pub fn reversed(self) -> Self {
        Params {
            in_h: self.out_h,
            in_w: self.out_w,
            in_c: self.out_c,
            out_h: self.in_h,
            out_w: self.in_w,
            out_c: self.in_c,
            step: 1,
            spread: self.step,
            pad: self.kernel - 1 - self.pad,
            pad_h: self.kernel_h - 1 - self.pad_h,
            has_bias: 0,
            ..self
        }
    }

    /// Tells a kernel whether it may read four channels at once.
    pub fn set_fours<'a>(&self, launch: Launch<'a>) -> Launch<'a> {
        launch.constant("FOURS", f64::from(u8::from(self.fours())))
    }

    pub fn fours(&self) -> bool {
        self.in_c.is_multiple_of(4) && self.out_c.is_multiple_of(4)
    }

    /// Steps of a tiled gather: sixteen channels of a tap each. With a spread a phase has fewer.
    pub fn steps(&self) -> u32 {
        self.taps() * self.in_c.div_ceil(STEP)
    }

    /// Multiplications and additions of the forward pass, and of either gradient.
    pub fn flops(&self) -> f64 {
        let taps = f64::from(self.taps());
        2.0 * self.pixels() as f64 * taps * f64::from(self.in_c) * f64::from(self.out_c)
    }

    /// The pixels that a weight gradient sums over.
    pub fn pixels(&self) -> usize {
        (self.batch * self.out_h * self.out_w) as usize
    }

    /// Height and width of the output in one phase: the pixels of the same oy % spread and ox % spread, for which the
    /// same taps meet an input pixel. The first phase is the largest.
    pub fn phase_extent(&self) -> [u32; 2] {
        [self.out_h, self.out_w].map(|extent| extent.div_ceil(self.spread))
    }

    /// The pixels of the first phase, over all images.
    pub fn phase_pixels(&self) -> u64 {
        self.phase_extent().map(u64::from).iter().product::<u64>() * u64::from(self.batch)
    }
}

/// The tile of a workgroup in the tiled kernels: rows (pixels, or taps and input channels) by output channels.
/// Its choice does not touch the order of sums over taps and channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tile {
    pub m: u32,
    pub n: u32,
}

impl Tile {
    pub const ALL: [Tile; 3] = [Tile { m: 128, n: 128 }, Tile { m: 128, n: 64 }, Tile { m: 64, n: 64 }];
    /// Those of gathers: on an H100 a 3x3 convolution of 192 channels runs at 39 TFLOP/s in tiles of 128x64 and at 37 in tiles
    /// of 128x96; one of 384 channels ran at 36, 37, and in tiles of 128x128 at 35, before the inner loop was written out.
    pub const GATHER: [Tile; 2] = [Tile { m: 128, n: 64 }, Tile { m: 64, n: 64 }];

    pub fn groups(self, rows: u64, columns: u64) -> u64 {
        rows.div_ceil(self.m.into()) * columns.div_ceil(self.n.into())
    }

    /// The largest tile that wastes little more than the smallest, and of which there are enough to fill a large
    /// GPU when there are `copies` of the problem.
    pub fn choose(all: &[Tile], rows: u64, columns: u64, copies: u64) -> Tile {
        const ENOUGH: u64 = 256;
        let area = |tile: Tile| tile.groups(rows, columns) * u64::from(tile.m * tile.n);
        let smallest = all[all.len() - 1];
        let good = |tile: &Tile| {
            tile.groups(rows, columns) * copies >= ENOUGH && area(*tile) * 100 <= area(smallest) * 115
        };
        all.iter().copied().find(good).unwrap_or(smallest)
    }

    /// Sets the constants of a tiled kernel.
    pub fn set(self, launch: Launch<'_>) -> Launch<'_> {
        launch.constant("TILE_M", self.m.into()).constant("TILE_N", self.n.into())
    }
}

impl std::fmt::Display for Tile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x16", self.m, self.n)
    }
}

/// Which of the two a gather is, for its name in profiles.
#[derive(Clone, Copy, Debug)]
pub(super) enum Direction {
    Forward,
    InputGradient,
}

/// What a gather binds.
#[derive(Clone, Copy)]
pub(super) struct Tensors<'a> {
    pub x: &'a Tensor,
    pub w: &'a Tensor,
    pub bias: &'a Tensor,
    pub y: &'a Tensor,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Reduce {
    count: u32,
    splits: u32,
    accumulate: u32,
    unused: u32,
}

/// How the pixels are divided: a function of the shapes alone, so that the order of the sum is too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Splits {
    pub count: usize,
    /// Pixels in each but the last.
    pub chunk: usize,
}

impl Splits {
    pub fn one(pixels: usize) -> Self {
        Splits { count: 1, chunk: pixels }
    }

    /// About `wanted` of them, each but the last a multiple of `step` pixels.
    pub fn of(pixels: usize, wanted: usize, step: usize) -> Self {
        let chunk = pixels.div_ceil(wanted).next_multiple_of(step);
        Splits { count: pixels.div_ceil(chunk), chunk }
    }

    /// For a kernel of `groups` workgroups a split: `enough` workgroups in all, but no split much shorter than
    /// `shortest` pixels.
    pub fn new(pixels: usize, groups: usize, enough: usize, shortest: usize) -> Self {
        let wanted = enough.div_ceil(groups).min(pixels.div_ceil(shortest)).max(1);
        let chunk = pixels.div_ceil(wanted);
        Splits { count: pixels.div_ceil(chunk), chunk }
    }

    /// The parameters of a kernel that sums these splits.
    pub fn tell(self, params: Params, accumulate: u32) -> Params {
        Params { accumulate, chunk: self.chunk as u32, splits: self.count as u32, ..params }
    }

    /// Has `launch(cx, out, accumulate)` write `[splits, …]` partial sums and adds them up in `target`. A single
    /// split goes there straight away.
    pub fn sum(
        self,
        cx: &mut Context,
        target: &GradTarget,
        launch: impl FnOnce(&mut Context, &Tensor, u32),
    ) -> Result<()> {
        if self.count == 1 {
            launch(cx, &target.tensor, target.flag());
            return Ok(());
        }
        let count = target.tensor.len();
        let partial = cx.output("conv2d partial sums", &[self.count, count], DType::F32)?;
        launch(cx, &partial, 0);
        let params =
            Reduce { count: count as u32, splits: self.count as u32, accumulate: target.flag(), unused: 0 };
        cx.launch(&REDUCE).bind(&partial).bind(&target.tensor).params(&params).over(count, 64);
        Ok(())
    }
}

/// The weights in the type that a kernel reads.
pub(super) fn cast_weights(cx: &mut Context, w: &Tensor, dtype: DType) -> Result<Tensor> {
    if w.dtype() == dtype {
        return Ok(w.clone());
    }
    let converted = cx.output("conv2d weights", w.shape(), dtype)?;
    convert(cx, w, &converted, 0);
    Ok(converted)
}

/// `images` of the `batch` of a tensor, from `first` on, as a tensor.
pub(super) fn images_of(tensor: &Tensor, batch: usize, first: usize, images: usize) -> Tensor {
    let mut shape = tensor.shape().to_vec();
    shape[0] = images;
    let offset = tensor.offset() + tensor.bytes() / batch as u64 * first as u64;
    Tensor::new(tensor.storage().clone(), offset, &shape, tensor.dtype())
}

/// The kernel's height and width, and the number of output channels.
fn check(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, stride: usize) -> Result<([usize; 2], usize)> {
    let fail = |what: String| Err(Error::shape("conv2d", what));
    let [batch, height, width, channels] = x.nhwc("conv2d")?;
    let &[kernel_h, kernel, w_channels, filters] = w.shape() else {
        return fail(format!("expected weights [Kh, Kw, C, K] (four dimensions), got {:?}", w.shape()));
    };
    if ![[1, 1], [3, 3], [1, 3]].contains(&[kernel_h, kernel]) {
        return fail(format!(
            "the kernel must be 1x1, 3x3, or 1x3 along a line, got weights {:?}",
            w.shape()
        ));
    }
    if channels != w_channels {
        return fail(format!(
            "x {:?} has {channels} channels but the weights {:?} take {w_channels}",
            x.shape(),
            w.shape()
        ));
    }
    if kernel_h != kernel && height != 1 {
        return fail(format!(
            "a kernel along a line is for lines, [N, 1, L, C]; got x {:?} and weights {:?}",
            x.shape(),
            w.shape()
        ));
    }
    if ![1, 2].contains(&stride) {
        return fail(format!("the stride must be 1 or 2, got {stride}"));
    }
    if batch * height * width * channels * filters == 0 {
        return fail(format!("empty input: x is {:?}, the weights {:?}", x.shape(), w.shape()));
    }
    if let Some(bias) = bias
        && bias.shape() != [filters]
    {
        return fail(format!("expected a bias [{filters}], got {:?}", bias.shape()));
    }
    if x.dtype() == DType::U32 {
        return fail("x must be f32 or f16, got U32".to_owned());
    }
    if w.dtype() == DType::U32 {
        return fail(format!("weights must be f32 or f16, got U32 of {:?}", w.shape()));
    }
    if let Some(bias) = bias
        && bias.dtype() != DType::F32
    {
        return fail(format!("the bias must be f32, got {:?} of {:?}", bias.dtype(), bias.shape()));
    }
    Ok(([kernel_h, kernel], filters))
}
