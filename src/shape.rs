//! What a sample is: how many channels over what extent. A line is a plane of height 1, so that one tensor layout and one set of
//! kernels serve both.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, brief};

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

    /// The longer of both axes; a line's length.
    pub fn longer(self) -> usize {
        self.height().max(self.width())
    }

    /// Whether it is a line, which has one axis.
    pub fn is_line(self) -> bool {
        matches!(self, Extent::Line(_))
    }

    /// Each axis as `map` makes it, or `None` where that makes none. A line keeps its height of 1.
    pub fn map(self, map: impl Fn(usize) -> Option<usize>) -> Option<Self> {
        Some(match self {
            Extent::Line(length) => Extent::Line(map(length)?),
            Extent::Plane { height, width } => Extent::Plane { height: map(height)?, width: map(width)? },
        })
    }

    /// Halved `levels` times, or `None` where an axis is odd on the way. A line keeps its height of 1.
    pub fn halved(self, levels: u32) -> Option<Self> {
        let parts = 1usize.checked_shl(levels)?;
        self.map(|axis| axis.is_multiple_of(parts).then_some(axis >> levels))
    }

    /// The whole factor, of both axes, by which it is larger than `small`; `None` where there is none, or one is a line and
    /// the other a plane.
    pub fn over(self, small: Self) -> Option<usize> {
        let factor = self.width().checked_div(small.width()).filter(|factor| *factor > 0)?;
        (small.map(|axis| axis.checked_mul(factor)) == Some(self)).then_some(factor)
    }

    /// By what a level divides height and width: both by two, of a line the length alone.
    pub fn halving(self) -> [usize; 2] {
        match self {
            Extent::Line(_) => [1, 2],
            Extent::Plane { .. } => [2, 2],
        }
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

/// `32x24`, height first, as in a tensor; `1024 samples` of a line. [`FromStr`] reads planes so, and squares by their side.
impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Extent::Line(length) => write!(f, "{length} samples"),
            Extent::Plane { height, width } => write!(f, "{height}x{width}"),
        }
    }
}

/// `24x24 with 3 channels`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { channels, extent } = self;
        write!(f, "{extent} with {channels} channel{}", if *channels == 1 { "" } else { "s" })
    }
}

/// A plane, as `HEIGHTxWIDTH` or as the side of a square.
impl FromStr for Extent {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let axis = |text: &str| text.parse::<usize>().ok().filter(|axis| *axis > 0);
        let extent = match text.split_once('x') {
            None => axis(text).map(Extent::square),
            Some((height, width)) => {
                axis(height).zip(axis(width)).map(|(height, width)| Extent::Plane { height, width })
            }
        };
        extent.ok_or_else(|| {
            let text = brief(text);
            Error::Config(format!(
                "{text:?} is no size: say the side of a square, or HEIGHTxWIDTH, as in 96x64"
            ))
        })
    }
}

/// How files hold an extent: a number for a square, `[height, width]`, or `{"length": l}`.
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected the side of a square, [height, width] or {\"length\": samples}, as whole numbers"
)]
enum InFile {
    Side(usize),
    Axes([usize; 2]),
    Line { length: usize },
}

impl Serialize for Extent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Extent::Line(length) => InFile::Line { length },
            Extent::Plane { height, width } if height == width => InFile::Side(height),
            Extent::Plane { height, width } => InFile::Axes([height, width]),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Extent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match InFile::deserialize(deserializer)? {
            InFile::Side(side) => Extent::square(side),
            InFile::Axes([height, width]) => Extent::Plane { height, width },
            InFile::Line { length } => Extent::Line(length),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_plane_of_height_one() {
        let line = Shape { channels: 2, extent: Extent::Line(48) };
        assert_eq!((line.nhwc(3), line.len()), ([3, 1, 48, 2], 96));
        assert_eq!((line.extent.kernel(3), line.extent.halving()), ([1, 3], [1, 2]));
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

    #[test]
    fn a_factor_is_one_for_both_axes() {
        let plane = |height, width| Extent::Plane { height, width };
        assert_eq!(plane(24, 40).over(plane(6, 10)), Some(4));
        assert_eq!(plane(24, 40).over(plane(6, 20)), None);
        assert_eq!(plane(24, 40).over(plane(0, 0)), None);
        assert_eq!(plane(6, 10).over(plane(24, 40)), None);
        assert_eq!(Extent::Line(64).over(Extent::Line(16)), Some(4));
        assert_eq!(plane(1, 64).over(Extent::Line(16)), None);
    }

    /// Files of squares keep the number that they have always had.
    #[test]
    fn files_hold_squares_as_numbers() {
        for (extent, text) in [
            (Extent::square(32), "32"),
            (Extent::Plane { height: 24, width: 40 }, "[24,40]"),
            (Extent::Plane { height: 1, width: 256 }, "[1,256]"),
            (Extent::Line(256), r#"{"length":256}"#),
        ] {
            assert_eq!(serde_json::to_string(&extent).unwrap(), text);
            assert_eq!(serde_json::from_str::<Extent>(text).unwrap(), extent);
        }
        for wrong in ["null", "-1", "[1]", "[1,2,3]", "\"8x8\"", r#"{"height":3}"#, "1.5"] {
            let error = serde_json::from_str::<Extent>(wrong).unwrap_err().to_string();
            assert!(error.contains("[height, width]"), "{wrong}: {error}");
        }
    }

    #[test]
    fn people_write_a_side_or_both_axes() {
        assert_eq!("64".parse::<Extent>().unwrap(), Extent::square(64));
        assert_eq!("96x64".parse::<Extent>().unwrap(), Extent::Plane { height: 96, width: 64 });
        for wrong in ["", "x", "0", "8x", "x8", "8x0", "8x8x8", "-8", "8 x 8", "8.5"] {
            let error = wrong.parse::<Extent>().unwrap_err().to_string();
            assert!(error.contains("HEIGHTxWIDTH"), "{wrong}: {error}");
        }
    }
}
