//! What is done to the predicted image x̂ before a sampler goes on from it.

use std::fmt;
use std::str::FromStr;

use crate::error::brief;
use crate::{Error, Result};

/// The quantile of |x̂| that a dynamic threshold takes when none is given.
const DEFAULT_QUANTILE: f64 = 0.995;

/// A clip of x̂. As text: `none`, `static`, `dynamic`, or `dynamic:0.99` for another quantile.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Clip {
    /// x̂ as it comes: for data without bounds, as the toy's.
    None,
    /// Into [-1, 1], the range of images.
    #[default]
    Static,
    /// s = max(1, quantile of |x̂| over one sample), then clamp(x̂, ±s)/s (Saharia et al., arXiv 2205.11487, 2.3).
    Dynamic {
        /// The quantile, in (0, 1].
        quantile: f64,
    },
}

impl Clip {
    /// A dynamic threshold at `quantile`.
    ///
    /// # Errors
    /// [`Error::Config`] when it is not in (0, 1].
    pub fn dynamic(quantile: f64) -> Result<Self> {
        if quantile > 0.0 && quantile <= 1.0 {
            Ok(Clip::Dynamic { quantile })
        } else {
            Err(Error::Config(format!(
                "the quantile of a dynamic clip is {quantile}: it must be above 0 and at most 1"
            )))
        }
    }

    /// Clips all of one sample's x̂ in place.
    pub fn apply(&self, x_hat: &mut [f64]) {
        let bound = match *self {
            Clip::None => return,
            Clip::Static => 1.0,
            Clip::Dynamic { quantile } => dynamic_bound(x_hat, quantile),
        };
        for x in x_hat {
            // max and min rather than clamp: a NaN must pass on to where it is noticed, and clamp panics on a NaN bound.
            *x = if x.is_nan() { *x } else { x.max(-bound).min(bound) / bound };
        }
    }
}

/// s = max(1, quantile of |x|).
fn dynamic_bound(x: &[f64], quantile: f64) -> f64 {
    let magnitudes = x.iter().map(|x| x.abs()).collect();
    quantile_of(magnitudes, quantile).max(1.0)
}

/// The quantile q of n values as `torch.quantile` has it: linear interpolation between the order statistics at
/// floor and ceil of the position q·(n - 1), counted from 0. NaN of no values; a NaN sorts as the largest.
pub fn quantile_of(mut values: Vec<f64>, quantile: f64) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    let position = quantile.clamp(0.0, 1.0) * (values.len() - 1) as f64;
    let below = position.floor() as usize;
    let (_, lower, rest) = values.select_nth_unstable_by(below, f64::total_cmp);
    let lower = *lower;
    let upper = rest.iter().copied().min_by(f64::total_cmp).unwrap_or(lower);
    lower + (upper - lower) * (position - below as f64)
}

impl FromStr for Clip {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "none" => Ok(Clip::None),
            None if text == "static" => Ok(Clip::Static),
            None if text == "dynamic" => Ok(Clip::Dynamic { quantile: DEFAULT_QUANTILE }),
            Some(("dynamic", quantile)) => quantile
                .parse()
                .map_err(|_| {
                    Error::Config(format!("`{quantile}` is no quantile of a dynamic clip; try dynamic:0.99"))
                })
                .and_then(Clip::dynamic),
            _ => Err(Error::Config(format!(
                "`{text}` is no clip; there are none, static, dynamic and dynamic:<quantile>",
                text = brief(text)
            ))),
        }
    }
}

impl fmt::Display for Clip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Clip::None => f.write_str("none"),
            Clip::Static => f.write_str("static"),
            Clip::Dynamic { quantile } if *quantile == DEFAULT_QUANTILE => f.write_str("dynamic"),
            Clip::Dynamic { quantile } => write!(f, "dynamic:{quantile}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for text in ["none", "static", "dynamic", "dynamic:0.9"] {
            assert_eq!(text.parse::<Clip>().unwrap().to_string(), text);
        }
        assert_eq!("dynamic:0.995".parse::<Clip>().unwrap(), "dynamic".parse().unwrap());
        for text in ["", "Static", "dynamic:", "dynamic:0", "dynamic:1.5", "dynamic:nan", "static:1"] {
            assert!(text.parse::<Clip>().is_err(), "`{text}` was taken");
        }
    }

    /// The values are those of `torch.quantile` with its default interpolation.
    #[test]
    fn quantiles_interpolate_linearly() {
        let values = vec![3.0, 0.0, 4.0, 1.0];
        assert_eq!(quantile_of(values.clone(), 0.0), 0.0);
        assert_eq!(quantile_of(values.clone(), 0.5), 2.0);
        assert_eq!(quantile_of(values.clone(), 0.75), 3.25);
        assert_eq!(quantile_of(values, 1.0), 4.0);
        assert_eq!(quantile_of(vec![5.0], 0.995), 5.0);
        assert!(quantile_of(vec![], 0.5).is_nan());
        let ramp: Vec<f64> = (0..=1000).rev().map(f64::from).collect();
        assert!((quantile_of(ramp, 0.995) - 995.0).abs() < 1e-9);
    }

    #[test]
    fn what_each_clip_does() {
        let clipped = |clip: Clip, x: &[f64]| {
            let mut x = x.to_vec();
            clip.apply(&mut x);
            x
        };
        let wide = [-4.0, 0.5, 1.0, 2.0, 3.0];
        assert_eq!(clipped(Clip::None, &wide), wide);
        assert_eq!(clipped(Clip::Static, &wide), [-1.0, 0.5, 1.0, 1.0, 1.0]);
        // |x| sorted is 0.5, 1, 2, 3, 4: the median is 2.
        let dynamic = Clip::dynamic(0.5).unwrap();
        assert_eq!(clipped(dynamic, &wide), [-1.0, 0.25, 0.5, 1.0, 1.0]);
        // Within [-1, 1] the threshold is 1 and nothing changes.
        assert_eq!(clipped(dynamic, &[-0.5, 0.25, 0.1]), [-0.5, 0.25, 0.1]);
        assert!(clipped(Clip::Static, &[f64::NAN])[0].is_nan());
    }
}
