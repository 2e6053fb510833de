//! Which of a discrete process's timesteps a sampler visits (IDDPM, section 4; DDIM, appendix D.2).

use std::fmt;
use std::str::FromStr;

use crate::error::brief;
use crate::{Error, Result};

/// A choice of timesteps. As text: `250` (evenly), `90,60,60,20,20` (that many in each equal part of the process, the
/// clean part first), `ddim25` (a fixed stride from 0).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Respacing {
    /// So many steps in each of as many equal parts.
    Sections(Vec<usize>),
    /// Every k-th step, k being the smallest stride that gives exactly this many.
    Stride(usize),
}

impl Respacing {
    /// The steps of 0 .. `steps_total` that are kept, rising.
    ///
    /// # Errors
    /// [`Error::Config`] when a part has fewer steps than are asked of it, or no stride gives the number.
    pub fn kept(&self, steps_total: usize) -> Result<Vec<usize>> {
        match self {
            Respacing::Stride(count) => {
                let strides = 1..steps_total.max(2);
                let found = strides.into_iter().find(|stride| steps_total.div_ceil(*stride) == *count);
                let stride = found.ok_or_else(|| {
                    Error::Config(format!(
                        "no stride through {steps_total} steps visits exactly {count}; give --respacing {count}"
                    ))
                })?;
                Ok((0..steps_total).step_by(stride).collect())
            }
            Respacing::Sections(counts) => sections(counts, steps_total),
        }
    }
}

fn sections(counts: &[usize], steps_total: usize) -> Result<Vec<usize>> {
    let parts = counts.len().max(1);
    let (size, longer) = (steps_total / parts, steps_total % parts);
    let mut start = 0;
    let mut kept = Vec::new();
    for (part, &count) in counts.iter().enumerate() {
        let size = size + usize::from(part < longer);
        if count > size {
            return Err(Error::Config(format!(
                "part {part} of the respacing asks for {count} steps, but there are {size} of {steps_total}"
            )));
        }
        let stride = if count <= 1 { 1.0 } else { (size - 1) as f64 / (count - 1) as f64 };
        // Added up rather than multiplied, and rounded half to even: the published rule, bit for bit.
        let mut at = 0.0f64;
        for _ in 0..count {
            kept.push(start + at.round_ties_even() as usize);
            at += stride;
        }
        start += size;
    }
    kept.dedup();
    if kept.is_empty() {
        return Err(Error::Config("a respacing must keep at least one step".into()));
    }
    Ok(kept)
}

impl FromStr for Respacing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::Config(format!(
                "`{text}` is no respacing; try 250, 90,60,60,20,20 or ddim25",
                text = brief(text)
            ))
        };
        let number = |text: &str| match text.trim().parse::<usize>() {
            Ok(count @ 1..=1_000_000) => Ok(count),
            _ => Err(bad()),
        };
        match text.strip_prefix("ddim") {
            Some(count) => Ok(Respacing::Stride(number(count)?)),
            None => Ok(Respacing::Sections(text.split(',').map(number).collect::<Result<_>>()?)),
        }
    }
}

impl fmt::Display for Respacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Respacing::Stride(count) => write!(f, "ddim{count}"),
            Respacing::Sections(counts) => {
                let counts: Vec<String> = counts.iter().map(usize::to_string).collect();
                f.write_str(&counts.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Golden;

    #[test]
    fn agrees_with_the_reference() {
        let golden = Golden::open("schedules");
        for (total, specs) in [
            (
                1000,
                &[
                    "1000",
                    "250",
                    "100",
                    "50",
                    "27",
                    "25",
                    "10",
                    "1",
                    "10,10,15,15,10",
                    "90,60,60,20,20",
                    "ddim25",
                    "ddim50",
                    "ddim100",
                    "ddim250",
                ][..],
            ),
            (4000, &["250", "ddim50", "100,50"]),
            (300, &["10,15,20"]),
            (103, &["7,9,11,2"]),
        ] {
            for spec in specs {
                let kept = spec.parse::<Respacing>().unwrap().kept(total).unwrap();
                let kept: Vec<f64> = kept.into_iter().map(|t| t as f64).collect();
                assert_eq!(kept, golden.f64s(&format!("space.T{total}.{spec}")), "{total} {spec}");
            }
        }
    }

    #[test]
    fn what_cannot_be_kept_is_an_error() {
        let kept = |text: &str, total| text.parse::<Respacing>().and_then(|r| r.kept(total));
        assert!(kept("ddim300", 1000).unwrap_err().to_string().contains("--respacing 300"));
        assert!(kept("60,10", 100).unwrap_err().to_string().contains("part 0"));
        for text in ["", "0", "a", "10,,3", "ddim", "ddim-1", "-5", "99999999999999999999"] {
            assert!(kept(text, 1000).is_err(), "`{text}` was taken");
        }
        assert_eq!(kept("ddim1", 1).unwrap(), [0]);
        assert_eq!("90,60".parse::<Respacing>().unwrap().to_string(), "90,60");
    }
}
