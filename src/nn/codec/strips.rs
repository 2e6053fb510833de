//! Feature maps that no binding holds, in strips of rows.
//!
//! A map is one tensor, or several of one picture's rows. A convolution makes each strip of its output of the rows of the input
//! that it sees, those of the neighbours among them, and a group norm takes its statistics over all strips: so the result is the
//! whole map's but for the order of sums. Strips that nobody reads any more are free for the next ones, which is why a loop over
//! strips does all that it can with one before it goes to the next.

use std::ops::Range;

use crate::error::Result;
use crate::nn::layers::{Conv2d, Norm};
use crate::nn::weights::Weights;
use crate::ops::{self, Padding, PartsNorm};
use crate::tensor::{Context, DType, Tensor};

/// The largest map that stays whole where a binding may be larger. Stable Diffusion's decoder takes 1.4 GiB of working memory for
/// 1024x1024 in f16, whose largest map is that large, and would take 2.7 GiB in f32.
const MOST_WHOLE: u64 = 512 << 20;
/// The most bytes of a strip: the smaller they are, the less is held of those that are half done, and the more launches there
/// are. The same in f32 takes 1.5 GiB in 503 launches with strips of 128 MiB, 1.25 GiB in 882 with 64, 1.13 GiB in 1616 with 32.
const MOST: u64 = 64 << 20;

/// Into what maps are cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// Bytes of a strip; without it maps stay whole.
    strip: Option<u64>,
}

impl Cut {
    /// Whole maps where the `largest` of them fits a binding and is not too large, else strips that do fit, with all that is made
    /// of one at a time.
    /// `asked` are the bytes of strips that somebody wants.
    pub fn of(cx: &Context, largest: u64, asked: Option<u64>) -> Cut {
        let most = cx.capabilities().limits.max_storage_buffer_binding_size;
        let strip = (largest > most.min(MOST_WHOLE)).then_some((most / 4).min(MOST));
        Cut { strip: asked.or(strip) }
    }

    /// Whether maps stay whole.
    pub fn is_whole(self) -> bool {
        self.strip.is_none()
    }

    /// The rows of each strip of a map of `height` rows that take `row` bytes each: even numbers of them.
    fn rows(self, height: usize, row: u64) -> Vec<Range<usize>> {
        let fits = |strip: u64| ((strip / row) as usize / 2 * 2).max(2);
        let rows = self.strip.map_or(height, fits).min(height);
        (0..height).step_by(rows).map(|first| first..(first + rows).min(height)).collect()
    }
}

/// A map `[N, H, W, C]`: one tensor, or of one picture several of its rows.
#[derive(Clone)]
pub(super) struct Strips {
    height: usize,
    parts: Vec<Tensor>,
}

impl Strips {
    /// A map that is there as a whole.
    pub fn whole(x: &Tensor) -> Result<Strips> {
        let [_, height, ..] = x.nhwc("strips")?;
        Ok(Strips { height, parts: vec![x.clone()] })
    }

    /// Of the parts of a map, from the first row on.
    fn of(parts: Vec<Tensor>) -> Strips {
        Strips { height: parts.iter().map(|part| part.shape()[1]).sum(), parts }
    }

    fn row_shape(&self) -> [usize; 2] {
        let shape = self.parts[0].shape();
        [shape[2], shape[3]]
    }

    fn dtype(&self) -> DType {
        self.parts[0].dtype()
    }

    /// Each part in `rows`, with its own rows of them and where these go among `rows`.
    fn within(&self, rows: &Range<usize>) -> Vec<(&Tensor, Range<usize>, usize)> {
        let mut first = 0;
        let mut found = Vec::new();
        for part in &self.parts {
            let end = first + part.shape()[1];
            let (from, to) = (rows.start.max(first), rows.end.min(end));
            if from < to {
                found.push((part, from - first..to - first, from - rows.start));
            }
            first = end;
        }
        found
    }

    /// Some rows as one tensor: the part's own memory where they lie in one.
    pub fn rows(&self, cx: &mut Context, rows: Range<usize>) -> Result<Tensor> {
        if self.parts.len() == 1 && rows == (0..self.height) {
            return Ok(self.parts[0].clone());
        }
        let [width, channels] = self.row_shape();
        let (shape, row) = ([1, rows.len(), width, channels], width * channels);
        let found = self.within(&rows);
        if let [(part, own, _)] = &found[..] {
            return ops::section(cx, part, own.start * row, &shape);
        }
        let y = cx.output("rows of strips", &shape, self.dtype())?;
        for (part, own, to) in found {
            ops::put_section(cx, (part, own.start * row), (&y, to * row), own.len() * row)?;
        }
        Ok(y)
    }

    /// All of it as one tensor.
    pub fn join(&self, cx: &mut Context) -> Result<Tensor> {
        self.rows(cx, 0..self.height)
    }

    /// What a norm makes of it, for a convolution to read.
    pub fn normed(&self, cx: &mut Context, weights: &Weights, norm: &Norm) -> Result<Seen> {
        Ok(match &self.parts[..] {
            [whole] => Seen::Plain(Strips::whole(&norm.forward(cx, weights, whole, None)?)?),
            parts => Seen::Normed(self.clone(), norm.of_parts(cx, weights, parts)?),
        })
    }

    /// The strips of what `conv` makes of what it sees.
    pub fn cut(cut: Cut, weights: &Weights, conv: &Conv2d, seen: &Seen) -> Vec<Range<usize>> {
        let ([height, width], channels) = (seen.size(), seen.strips().row_shape()[1]);
        let stride = conv.steps();
        // What it reads takes no more than twice a strip, with its margins.
        let row = width / stride * conv.outputs(weights).max(stride * stride * channels / 2);
        cut.rows(height / stride, (row * seen.strips().dtype().bytes()) as u64)
    }

    /// A convolution of all of it, plus `residual`, then whatever `then` does with each strip.
    pub fn convolve(
        (cx, weights, cut): (&mut Context, &Weights, Cut),
        conv: &Conv2d,
        seen: &Seen,
        reach: Reach,
        residual: Option<&Strips>,
        mut then: impl FnMut(&mut Context, Tensor) -> Result<Tensor>,
    ) -> Result<Strips> {
        let mut parts = Vec::new();
        for rows in Strips::cut(cut, weights, conv, seen) {
            let y = seen.convolve(cx, weights, conv, reach, rows, residual)?;
            parts.push(then(cx, y)?);
        }
        Ok(Strips::of(parts))
    }
}

impl FromIterator<Tensor> for Strips {
    fn from_iter<T: IntoIterator<Item = Tensor>>(parts: T) -> Strips {
        Strips::of(parts.into_iter().collect())
    }
}

/// Where a convolution of 3x3 reads.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Reach {
    /// Around its place.
    Around,
    /// From its place on.
    Behind,
}

/// A map as a convolution sees it.
pub(super) enum Seen {
    /// As it is.
    Plain(Strips),
    /// Normed.
    Normed(Strips, PartsNorm),
    /// Of twice the height and width, each pixel repeated.
    Doubled(Strips),
}

impl Seen {
    fn strips(&self) -> &Strips {
        match self {
            Seen::Plain(strips) | Seen::Normed(strips, _) | Seen::Doubled(strips) => strips,
        }
    }

    /// Height and width.
    fn size(&self) -> [usize; 2] {
        let strips = self.strips();
        let size = [strips.height, strips.row_shape()[0]];
        if matches!(self, Seen::Doubled(_)) { size.map(|axis| 2 * axis) } else { size }
    }

    fn rows(&self, cx: &mut Context, rows: Range<usize>) -> Result<Tensor> {
        match self {
            Seen::Plain(strips) => strips.rows(cx, rows),
            Seen::Normed(strips, norm) => {
                let [width, channels] = strips.row_shape();
                let y = cx.output("normed rows", &[1, rows.len(), width, channels], strips.dtype())?;
                for (part, own, to) in strips.within(&rows) {
                    norm.apply(cx, (part, own.start * width), (&y, to * width), own.len() * width)?;
                }
                Ok(y)
            }
            Seen::Doubled(strips) => {
                let small = strips.rows(cx, rows.start / 2..rows.end.div_ceil(2))?;
                let large = ops::upsample_nearest2(cx, &small)?;
                let &[n, height, width, channels] = large.shape() else { unreachable!("it is [N, H, W, C]") };
                if height == rows.len() {
                    return Ok(large);
                }
                let first = rows.start % 2 * width * channels;
                ops::section(cx, &large, first, &[n, rows.len(), width, channels])
            }
        }
    }

    /// Some rows of a convolution of 3x3, plus those of `residual`.
    pub fn convolve(
        &self,
        cx: &mut Context,
        weights: &Weights,
        conv: &Conv2d,
        reach: Reach,
        rows: Range<usize>,
        residual: Option<&Strips>,
    ) -> Result<Tensor> {
        let height = self.size()[0];
        let above = usize::from(reach == Reach::Around);
        let (from, to) = (rows.start * conv.steps(), (rows.end - 1) * conv.steps() + 3);
        let (first, last) = (from.saturating_sub(above), (to - above).min(height));
        let x = self.rows(cx, first..last)?;
        let padding = Padding { rows: [above - (from - first), to - above - last], columns: [above, 1] };
        let residual = residual.map(|strips| strips.rows(cx, rows)).transpose()?;
        conv.forward_padded(cx, weights, &x, padding, residual.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_have_even_numbers_of_rows_and_all_of_them() {
        let cut = |strip| Cut { strip };
        assert_eq!(cut(None).rows(7, 100), std::slice::from_ref(&(0..7)));
        assert_eq!(cut(Some(700)).rows(7, 100), [0..6, 6..7]);
        assert_eq!(cut(Some(399)).rows(7, 100), [0..2, 2..4, 4..6, 6..7]);
        assert_eq!(cut(Some(1)).rows(4, 100), [0..2, 2..4]);
        assert_eq!(cut(Some(800)).rows(8, 100), std::slice::from_ref(&(0..8)));
    }
}
