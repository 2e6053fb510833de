//! Numbers on the command line: each option's definition holds its range, and what lies outside is refused with it.

use std::ops::RangeInclusive;

use crate::error::{Result, brief};
use crate::shape::Extent;
pub(super) use crate::sizes::{MOST_BATCH, MOST_IMAGES, MOST_SIDE, MOST_STEPS};

/// Pictures, points, …: the most that a command makes or measures.
pub const MOST_COUNT: usize = 10_000_000;
/// Side of pictures whose features are measured, each of which is brought to that size.
pub const MOST_MEASURED: usize = 1024;
/// The largest guidance weight, either way; the CFG paper goes to 4.
pub const MOST_WEIGHT: f64 = 1000.0;
/// The largest factor of a multiplier, a rate or a decay.
pub const MOST_FACTOR: f64 = 100.0;

/// Reads a whole number in `range`.
pub fn whole(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync {
    move |text| {
        let (least, most) = (range.start(), range.end());
        text.parse().ok().filter(|value| range.contains(value)).ok_or_else(|| match *most {
            u64::MAX => format!("expected a whole number from {least} on, below 2^64"),
            most => format!("expected a whole number from {least} to {most}"),
        })
    }
}

/// The same as a size in memory.
pub fn count(range: RangeInclusive<usize>) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync {
    let read = whole(*range.start() as u64..=*range.end() as u64);
    move |text| read(text).map(|value| value as usize)
}

/// Reads the size of pictures, a side or both, each of at most `most` pixels.
pub fn size(most: usize) -> impl Fn(&str) -> Result<Extent, String> + Clone + Send + Sync {
    move |text| {
        let found = text.parse::<Extent>().ok().filter(|extent| extent.longer() <= most);
        found.ok_or_else(|| format!("expected a side or HEIGHTxWIDTH, whole numbers from 1 to {most}"))
    }
}

/// Any seed.
pub fn seed() -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync {
    whole(0..=u64::MAX)
}

/// Reads a number in `range`; never infinity or NaN.
pub fn real(range: RangeInclusive<f64>) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync {
    move |text| {
        let found = text.parse::<f64>().ok().filter(|value| value.is_finite() && range.contains(value));
        found.ok_or_else(|| format!("expected a number from {} to {}", range.start(), range.end()))
    }
}

/// The same without the upper end.
pub fn below(least: f64, end: f64) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync {
    let read = real(least..=end);
    move |text| {
        let what = || format!("expected a number from {least} to below {end}");
        read(text).ok().filter(|value| *value < end).ok_or_else(what)
    }
}

/// Checks a list when it is read and keeps it as it was written: `each` is how one number is read.
pub fn list<T>(
    each: impl Fn(&str) -> Result<T, String> + Clone + Send + Sync,
) -> impl Fn(&str) -> Result<String, String> + Clone + Send + Sync {
    move |text| {
        let one = |part: &str| {
            each(part.trim()).map_err(|what| format!("{part:?}: {what} in each place", part = brief(part)))
        };
        text.split(',').try_for_each(|part| one(part).map(drop))?;
        Ok(text.to_owned())
    }
}

/// The same of a list that may be empty, written as `none` or nothing.
pub fn list_or_none<T>(
    each: impl Fn(&str) -> Result<T, String> + Clone + Send + Sync,
) -> impl Fn(&str) -> Result<String, String> + Clone + Send + Sync {
    let list = list(each);
    move |text| if text.is_empty() || text == "none" { Ok(text.to_owned()) } else { list(text) }
}

/// Checks with `read` when the option is read, and keeps what was written.
pub fn checked<T>(
    read: impl Fn(&str) -> Result<T> + Clone + Send + Sync,
) -> impl Fn(&str) -> Result<String, String> + Clone + Send + Sync {
    move |text| read(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is written, what is read lies in the range, and what lies in the range is read.
        #[test]
        fn ranges_hold(value in any::<u64>(), other in any::<f64>(), low in 0u64..1000, room in 0u64..1000) {
            let (least, most) = (low, low + room);
            let read = whole(least..=most);
            for value in [value, value % 2000] {
                prop_assert_eq!(read(&value.to_string()).ok(), (least..=most).contains(&value).then_some(value));
            }
            let range = -(low as f64)..=most as f64;
            for value in [other, (other % 2000.0)] {
                let inside = value.is_finite() && range.contains(&value);
                prop_assert_eq!(real(range.clone())(&format!("{value:e}")).ok(), inside.then_some(value));
                prop_assert_eq!(below(0.0, 1.0)(&format!("{value:e}")).is_ok(), (0.0..1.0).contains(&value));
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,12}") {
            let _ = (whole(1..=9)(&text), real(0.0..=1.0)(&text), list_or_none(count(1..=9))(&text));
            if let Ok(value) = real(-1.0..=1.0)(&text) {
                prop_assert!((-1.0..=1.0).contains(&value));
            }
        }
    }

    #[test]
    fn what_is_refused_is_told_the_range() {
        for text in ["-1", "0", "101", "1e3", "nan", "", "18446744073709551616"] {
            assert_eq!(count(1..=100)(text).unwrap_err(), "expected a whole number from 1 to 100");
        }
        for text in ["NaN", "inf", "-inf", "1e400", "-0.1", "1.1", ""] {
            assert_eq!(real(0.0..=1.0)(text).unwrap_err(), "expected a number from 0 to 1");
        }
        for text in ["0", "101", "8x0", "101x8", "8x101", "x", "8x", "-8", "8x8x8", ""] {
            let told = "expected a side or HEIGHTxWIDTH, whole numbers from 1 to 100";
            assert_eq!(size(100)(text).unwrap_err(), told, "{text}");
        }
        assert_eq!(size(100)("96x64"), Ok(Extent::Plane { height: 96, width: 64 }));
        assert_eq!(size(100)("100"), Ok(Extent::square(100)));
        assert_eq!(below(0.0, 1.0)("1").unwrap_err(), "expected a number from 0 to below 1");
        assert!(list(below(0.0, 1.0))("0.9,1").unwrap_err().contains("\"1\""));
        assert_eq!(list(below(0.0, 1.0))("0.9, 0.99").unwrap(), "0.9, 0.99");
        assert!(list(count(1..=9))("").is_err() && list_or_none(count(1..=9))("").is_ok());
        assert_eq!(seed()("18446744073709551615"), Ok(u64::MAX));
    }
}
