//! What a sample is: how many channels over what extent. A line is a plane of height 1, so that one tensor layout and one set of
//! kernels serve both.

use std::fmt;

/// Channels over an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Numbers at each place; any count from 1.
    pub channels: usize,
    /// The places.
    pub extent: Extent,
}

/// Places along a line or over a plane, in pixels or samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// So many samples of a signal.
    Line(usize),
    /// Rows and columns of a picture.
    Plane {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
}

impl Shape {
    /// A square picture.
    pub fn square(channels: usize, side: usize) -> Self {
        Shape { channels, extent: Extent::square(side) }
    }

    /// `[n, H, W, C]`, the tensor of n samples; of lines `[n, 1, L, C]`.
    pub fn nhwc(self, n: usize) -> [usize; 4] {
        [n, self.extent.height(), self.extent.width(), self.channels]
    }

    /// Numbers of one sample.
    #[expect(clippy::len_without_is_empty, reason = "no shape of a network is empty")]
    pub fn len(self) -> usize {
        self.extent.places() * self.channels
    }
}

impl Extent {
    /// A square plane.
    pub fn square(side: usize) -> Self {
        Extent::Plane { height: side, width: side }
    }

    /// Rows; 1 of a line.
    pub fn height(self) -> usize {
        match self {
            Extent::Line(_) => 1,
            Extent::Plane { height, .. } => height,
        }
    }

    /// Columns; the length of a line.
    pub fn width(self) -> usize {
        match self {
            Extent::Line(length) => length,
            Extent::Plane { width, .. } => width,
        }
    }

    /// Height times width.
    pub fn places(self) -> usize {
        self.height() * self.width()
    }

    /// Halved `levels` times, or `None` where an axis is odd on the way. A line keeps its height of 1.
    pub fn halved(self, levels: u32) -> Option<Self> {
        let halved = |axis: usize| axis.is_multiple_of(1 << levels).then_some(axis >> levels);
        Some(match self {
            Extent::Line(length) => Extent::Line(halved(length)?),
            Extent::Plane { height, width } => {
                Extent::Plane { height: halved(height)?, width: halved(width)? }
            }
        })
    }

    /// The `[Kh, Kw]` of a convolution of k: `[1, k]` along a line.
    pub fn kernel(self, k: usize) -> [usize; 2] {
        match self {
            Extent::Line(_) => [1, k],
            Extent::Plane { .. } => [k, k],
        }
    }

    /// Its side, where it is a square.
    pub fn side(self) -> Option<usize> {
        match self {
            Extent::Plane { height, width } if height == width => Some(height),
            _ => None,
        }
    }
}

/// `32x24`, height first, as in a tensor; `1024 samples` of a line.
impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Extent::Line(length) => write!(f, "{length} samples"),
            Extent::Plane { height, width } => write!(f, "{height}x{width}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_plane_of_height_one() {
        let line = Shape { channels: 2, extent: Extent::Line(48) };
        assert_eq!((line.nhwc(3), line.len()), ([3, 1, 48, 2], 96));
        assert_eq!(line.extent.kernel(3), [1, 3]);
        assert_eq!(line.extent.halved(4), Some(Extent::Line(3)));
        assert_eq!(line.extent.halved(5), None);
    }

    #[test]
    fn planes_halve_on_both_axes_or_not_at_all() {
        let plane = Extent::Plane { height: 24, width: 40 };
        assert_eq!(plane.halved(3), Some(Extent::Plane { height: 3, width: 5 }));
        assert_eq!(plane.halved(4), None);
        assert_eq!((plane.side(), Extent::square(8).side()), (None, Some(8)));
        assert_eq!(plane.to_string(), "24x40");
    }
}
