//! Lists and ranges on the command line: seeds `0-15,20`, weights `0:4:0.5`, sizes `8,4`.

use crate::error::{Error, Result, brief};

/// Most entries a list may have; more is surely a slip of the finger.
const MOST: u64 = 1_000_000;

/// `0-15,20` as numbers, in the order given.
///
/// # Errors
/// [`Error::Config`] quoting the part that is not a number or a rising range.
pub fn seeds(text: &str) -> Result<Vec<u64>> {
    let mut seeds = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        let bad = || {
            Error::Config(format!(
                "seeds {text:?}: {part:?} is neither a number nor a range like 0-15",
                text = brief(text),
                part = brief(part)
            ))
        };
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => {
                (first.trim().parse().map_err(|_| bad())?, last.trim().parse().map_err(|_| bad())?)
            }
            None => {
                let one: u64 = part.parse().map_err(|_| bad())?;
                (one, one)
            }
        };
        if last < first {
            return Err(bad());
        }
        if last - first >= MOST || seeds.len() as u64 > MOST {
            return Err(Error::Config(format!(
                "seeds {text:?}: more than {MOST} of them",
                text = brief(text)
            )));
        }
        seeds.extend(first..=last);
    }
    Ok(seeds)
}

/// `FROM:TO:STEP`, or a list `0,1,4`, as numbers; the end is included where the steps reach it.
///
/// # Errors
/// [`Error::Config`] saying what form is expected.
pub fn weights(text: &str) -> Result<Vec<f64>> {
    let bad = |why: &str| {
        Error::Config(format!(
            "{text:?}: {why}; give FROM:TO:STEP as in 0:4:0.5, or a list as in 0,1,4",
            text = brief(text)
        ))
    };
    let number = |part: &str| match part.trim().parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(bad(&format!("{part:?} is not a number", part = brief(part)))),
    };
    let parts: Vec<&str> = text.split(':').collect();
    match parts[..] {
        [list] => list.split(',').map(number).collect(),
        [from, to, step] => {
            let (from, to, step) = (number(from)?, number(to)?, number(step)?);
            if step <= 0.0 || to < from {
                return Err(bad("the step must be positive and the end not below the start"));
            }
            let count = ((to - from) / step + 1e-9).floor();
            if count > 10_000.0 {
                return Err(bad("more than 10000 values"));
            }
            // Multiples of the step, rounded to what a person would have written.
            Ok((0..=count as u64).map(|i| ((from + i as f64 * step) * 1e9).round() / 1e9).collect())
        }
        _ => Err(bad("expected two colons")),
    }
}

/// `FROM:TO` as two numbers.
///
/// # Errors
/// [`Error::Config`] quoting what is no rising range.
pub fn range(text: &str) -> Result<[f64; 2]> {
    let numbers = text
        .split_once(':')
        .and_then(|(from, to)| Some([from.trim().parse::<f64>().ok()?, to.trim().parse::<f64>().ok()?]));
    let rises = |[from, to]: &[f64; 2]| from.is_finite() && to.is_finite() && from <= to;
    numbers.filter(rises).ok_or_else(|| {
        Error::Config(format!("{text:?} is no rising range; give FROM:TO as in 0:4", text = brief(text)))
    })
}

/// `8,4` as numbers; empty or `none` for an empty list.
pub fn sizes(text: &str) -> Result<Vec<usize>> {
    if text.is_empty() || text == "none" {
        return Ok(Vec::new());
    }
    let number = |part: &str| {
        part.trim().parse().map_err(|_| {
            Error::Config(format!(
                "{text:?}: {part:?} is not a whole number",
                text = brief(text),
                part = brief(part)
            ))
        })
    };
    text.split(',').map(number).collect()
}

/// `1,2,0.5` as numbers.
pub fn numbers(text: &str) -> Result<Vec<f64>> {
    let number = |part: &str| {
        part.trim().parse().map_err(|_| {
            Error::Config(format!(
                "{text:?}: {part:?} is not a number",
                text = brief(text),
                part = brief(part)
            ))
        })
    };
    text.split(',').map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_read_as_written() {
        assert_eq!(seeds("0-3,20, 7").unwrap(), [0, 1, 2, 3, 20, 7]);
        assert_eq!(weights("0:1:0.1").unwrap().len(), 11);
        assert_eq!(weights("0:1:0.1").unwrap()[3], 0.3);
        assert_eq!(weights("-1:4:1").unwrap(), [-1.0, 0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(weights("-1,0.5").unwrap(), [-1.0, 0.5]);
        assert_eq!(range("-0.5:4").unwrap(), [-0.5, 4.0]);
        assert_eq!(sizes("8,4").unwrap(), [8, 4]);
        assert!(sizes("none").unwrap().is_empty());
    }

    #[test]
    fn slips_are_refused() {
        for text in ["", "a", "3-1", "1-", "0-99999999999"] {
            assert!(seeds(text).is_err(), "{text}");
        }
        for text in ["", "4", "4:0", "0:inf", "a:b", "0:1:2"] {
            assert!(range(text).is_err(), "{text}");
        }
        for text in ["", "0:1", "0:1:0", "1:0:1", "0:1:nan", "0:1e9:1e-3", "a"] {
            assert!(weights(text).is_err(), "{text}");
        }
    }
}
