//! 2-D convolution, 1x1 or 3x3, stride 1 or 2, "same" padding (k-1)/2.
//!
//! y[n,oy,ox,k] = bias[k] + Σ_{ky,kx,c} x[n, oy·stride+ky-pad, ox·stride+kx-pad, c]·w[ky,kx,c,k]
//!
//! x `[N, H, W, C]`, w `[Kh, Kw, C, K]`, bias `[K]`, y `[N, ⌈H/stride⌉, ⌈W/stride⌉, K]`. Storage of x and y is f32 or
//! f16, that of parameters and their gradients f32; weights may be f16, too. Sums are f32; on cooperative matrices f16
//! activations meet weights rounded to f16 (`coop.rs`).
//!
//! Input gradient: the same gather over dy with turned weights (`gather.rs`). Weight gradient: dw[ky,kx,c,k] =
//! Σ x·dy over pixels, bias gradient: column sums of dy (`weight_gradient.rs`).

mod coop;
mod gather;
mod split;
mod weight_gradient;

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::tensor::{Context, DType, Launch, Tensor};

use super::add::{add, add_into};
use super::cast::convert;

use gather::{Direction, gather};
pub(super) use weight_gradient::bias_gradient;
use weight_gradient::weight_gradient;

/// What every kernel of this family is told: `in` is what is read, `out` what is written (or, for weight
/// gradients, x and dy).
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Params {
    batch: u32,
    in_h: u32,
    in_w: u32,
    in_c: u32,
    out_h: u32,
    out_w: u32,
    out_c: u32,
    kernel: u32,
    step: u32,
    spread: u32,
    pad: u32,
    accumulate: u32,
    has_bias: u32,
    /// Steps a split, of weight gradients pixels, and how many splits.
    chunk: u32,
    splits: u32,
    has_residual: u32,
}

impl Params {
    /// Those of the forward pass, having checked the shapes.
    fn new(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, stride: usize) -> Result<Self> {
        let [batch, height, width, channels] = x.nhwc("conv2d")?;
        let (kernel, filters) = check(x, w, bias, stride)?;
        Ok(Params {
            batch: batch as u32,
            in_h: height as u32,
            in_w: width as u32,
            in_c: channels as u32,
            out_h: height.div_ceil(stride) as u32,
            out_w: width.div_ceil(stride) as u32,
            out_c: filters as u32,
            kernel: kernel as u32,
            step: stride as u32,
            spread: 1,
            pad: (kernel as u32 - 1) / 2,
            accumulate: 0,
            has_bias: u32::from(bias.is_some()),
            chunk: 0,
            splits: 0,
            has_residual: 0,
        })
    }

    /// The pixels of a 1x1 convolution do not see each other: as one row they fill tiles best.
    fn flattened(self) -> Self {
        if self.kernel != 1 || self.step != 1 {
            return self;
        }
        let pixels = self.batch * self.in_h * self.in_w;
        Params { batch: 1, in_h: 1, in_w: pixels, out_h: 1, out_w: pixels, ..self }
    }

    /// Those of the gather that makes dx of dy.
    fn reversed(self) -> Self {
        Params {
            in_h: self.out_h,
            in_w: self.out_w,
            in_c: self.out_c,
            out_h: self.in_h,
            out_w: self.in_w,
            out_c: self.in_c,
            step: 1,
            spread: self.step,
            has_bias: 0,
            ..self
        }
    }

    /// Tells a kernel whether it may read four channels at once.
    fn set_fours<'a>(&self, launch: Launch<'a>) -> Launch<'a> {
        launch.constant("FOURS", f64::from(u8::from(self.fours())))
    }

    fn fours(&self) -> bool {
        self.in_c.is_multiple_of(4) && self.out_c.is_multiple_of(4)
    }

    /// Steps of a tiled gather: sixteen channels of a tap each. With a spread a phase has fewer.
    fn steps(&self) -> u32 {
        self.kernel * self.kernel * self.in_c.div_ceil(gather::STEP)
    }

    /// Multiplications and additions of the forward pass, and of either gradient.
    fn flops(&self) -> f64 {
        let taps = f64::from(self.kernel * self.kernel);
        2.0 * self.pixels() as f64 * taps * f64::from(self.in_c) * f64::from(self.out_c)
    }

    /// The pixels that a weight gradient sums over.
    fn pixels(&self) -> usize {
        (self.batch * self.out_h * self.out_w) as usize
    }

    /// Height and width of the output in one phase: the pixels of the same oy % spread and ox % spread, for which the
    /// same taps meet an input pixel. The first phase is the largest.
    fn phase_extent(&self) -> [u32; 2] {
        [self.out_h, self.out_w].map(|extent| extent.div_ceil(self.spread))
    }

    /// The pixels of the first phase, over all images.
    fn phase_pixels(&self) -> u64 {
        self.phase_extent().map(u64::from).iter().product::<u64>() * u64::from(self.batch)
    }
}

/// The tile of a workgroup in the tiled kernels: rows (pixels, or taps and input channels) by output channels.
/// Its choice does not touch the order of sums over taps and channels.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tile {
    m: u32,
    n: u32,
}

impl Tile {
    const ALL: [Tile; 3] = [Tile { m: 128, n: 128 }, Tile { m: 128, n: 64 }, Tile { m: 64, n: 64 }];
    /// Those of gathers: on an H100 a 3x3 convolution of 192 channels runs at 39 TFLOP/s in tiles of 128x64 and at 37 in tiles
    /// of 128x96; one of 384 channels ran at 36, 37, and in tiles of 128x128 at 35, before the inner loop was written out.
    const GATHER: [Tile; 2] = [Tile { m: 128, n: 64 }, Tile { m: 64, n: 64 }];

    fn groups(self, rows: u64, columns: u64) -> u64 {
        rows.div_ceil(self.m.into()) * columns.div_ceil(self.n.into())
    }

    /// The largest tile that wastes little more than the smallest, and of which there are enough to fill a large
    /// GPU when there are `copies` of the problem.
    fn choose(all: &[Tile], rows: u64, columns: u64, copies: u64) -> Tile {
        const ENOUGH: u64 = 256;
        let area = |tile: Tile| tile.groups(rows, columns) * u64::from(tile.m * tile.n);
        let smallest = all[all.len() - 1];
        let good = |tile: &Tile| {
            tile.groups(rows, columns) * copies >= ENOUGH && area(*tile) * 100 <= area(smallest) * 115
        };
        all.iter().copied().find(good).unwrap_or(smallest)
    }

    /// Sets the constants of a tiled kernel.
    fn set(self, launch: Launch<'_>) -> Launch<'_> {
        launch.constant("TILE_M", self.m.into()).constant("TILE_N", self.n.into())
    }
}

impl std::fmt::Display for Tile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x16", self.m, self.n)
    }
}

/// Convolution of `x` `[N, H, W, C]` with `w` `[Kh, Kw, C, K]` (Kh = Kw = 1 or 3), plus `bias` `[K]`.
///
/// # Errors
/// [`Error::Shape`] when shapes, types or the stride do not fit.
pub fn conv2d(
    cx: &mut Context,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
) -> Result<Tensor> {
    convolve(cx, x, w, [bias, None], stride)
}

/// [`conv2d`] plus `residual`, of the output's shape and type, whose gradient is the output's.
///
/// # Errors
/// As [`conv2d`].
pub fn conv2d_add(
    cx: &mut Context,
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    residual: &Tensor,
) -> Result<Tensor> {
    let params = Params::new(x, w, bias, stride)?;
    let shape = [params.batch, params.out_h, params.out_w, params.out_c].map(|extent| extent as usize);
    if residual.shape() != shape || residual.dtype() != x.dtype() {
        let what = format!(
            "the residual must be {shape:?} {:?}, as what it is added to, got {:?} {:?}",
            x.dtype(),
            residual.shape(),
            residual.dtype()
        );
        return Err(Error::shape("conv2d", what));
    }
    if coop::Choice::best(cx, x, &params.flattened()).is_some() {
        return convolve(cx, x, w, [bias, Some(residual)], stride);
    }
    let y = conv2d(cx, x, w, bias, stride)?;
    add(cx, residual, &y, 1.0)
}

fn convolve(
    cx: &mut Context,
    x: &Tensor,
    w: &Tensor,
    [bias, residual]: [Option<&Tensor>; 2],
    stride: usize,
) -> Result<Tensor> {
    let params = Params::new(x, w, bias, stride)?;
    let shape = [params.batch, params.out_h, params.out_w, params.out_c].map(|extent| extent as usize);
    let y = cx.output("conv2d", &shape, x.dtype())?;
    let params = Params { has_residual: u32::from(residual.is_some()), ..params.flattened() };
    gather(cx, Direction::Forward, [x, w, &y], [bias, residual], params)?;
    cx.count_flops(params.flops());
    let params = Params { has_residual: 0, ..params };
    let inputs: Vec<&Tensor> = [x, w].into_iter().chain(bias).chain(residual).collect();
    cx.backward(&y, &inputs, {
        let (x, w, bias, residual) = (x.clone(), w.clone(), bias.cloned(), residual.cloned());
        move |cx, dy| {
            if let Some(bias) = &bias
                && let Some(db) = cx.grad_target(bias)?
            {
                bias_gradient(cx, dy, &db)?;
            }
            if let Some(dw) = cx.grad_target(&w)? {
                weight_gradient(cx, &x, dy, &dw, params)?;
                cx.count_flops(params.flops());
            }
            if let Some(dx) = cx.grad_target(&x)? {
                cx.count_flops(params.flops());
                let params = Params { accumulate: dx.flag(), ..params.reversed() };
                gather(cx, Direction::InputGradient, [dy, &w, &dx.tensor], [None; 2], params)?;
            }
            // Last: once handed on, the gradient is added to in its place.
            if let Some(residual) = &residual
                && !cx.pass_grad(residual, dy)?
            {
                add_into(cx, residual, dy, 1.0)?;
            }
            Ok(())
        }
    });
    Ok(y)
}

/// The kernel's side and the number of output channels.
fn check(x: &Tensor, w: &Tensor, bias: Option<&Tensor>, stride: usize) -> Result<(usize, usize)> {
    let fail = |what: String| Err(Error::shape("conv2d", what));
    let [batch, height, width, channels] = x.nhwc("conv2d")?;
    let &[kernel, kernel_w, w_channels, filters] = w.shape() else {
        return fail(format!("expected weights [Kh, Kw, C, K] (four dimensions), got {:?}", w.shape()));
    };
    if kernel != kernel_w || ![1, 3].contains(&kernel) {
        return fail(format!("the kernel must be 1x1 or 3x3, got weights {:?}", w.shape()));
    }
    if channels != w_channels {
        return fail(format!(
            "x {:?} has {channels} channels but the weights {:?} take {w_channels}",
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
    Ok((kernel, filters))
}

/// The weights in the type that a kernel reads.
fn cast_weights(cx: &mut Context, w: &Tensor, dtype: DType) -> Result<Tensor> {
    if w.dtype() == dtype {
        return Ok(w.clone());
    }
    let converted = cx.output("conv2d weights", w.shape(), dtype)?;
    convert(cx, w, &converted, 0);
    Ok(converted)
}

#[cfg(test)]
mod coop_tests;
#[cfg(test)]
pub(super) mod tests;
