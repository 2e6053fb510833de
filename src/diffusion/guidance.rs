//! The strength of classifier-free guidance, in both of its conventions, and the combination itself.
//!
//! eps̃ = (1 + w) eps_c - w eps_∅ = eps_∅ + s (eps_c - eps_∅), s = 1 + w (CFG, equation 6).

use crate::{Error, Result};

/// How strongly a sampler is pushed towards its condition. Holds the paper's w.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance {
    weight: f64,
}

/// Which halves of the network's evaluation a [`Guidance`] needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evaluations {
    /// w = 0: the conditional one alone.
    Conditional,
    /// w = -1: the unconditional one alone.
    Unconditional,
    /// Any other w.
    Both,
}

impl Guidance {
    /// Guidance of weight w: 0 is plain conditional sampling, the paper sweeps 0 to 4, negative is allowed.
    ///
    /// # Errors
    /// [`Error::Config`] when w is not a finite number in f32.
    pub fn from_weight(guidance_weight: f64) -> Result<Self> {
        if !(guidance_weight as f32).is_finite() {
            return Err(Error::Config(format!(
                "the guidance weight is {guidance_weight}: it must be a finite number"
            )));
        }
        // -0 becomes 0, so that equal guidances have equal bits.
        Ok(Guidance { weight: guidance_weight + 0.0 })
    }

    /// Guidance of scale s = 1 + w: 0 is unconditional, 1 plain conditional, most tools use 1.5 to 10.
    ///
    /// w = s - 1 is taken in f64 and only then rounded for a kernel, so both spellings of a strength give the same
    /// bits there.
    ///
    /// # Errors
    /// [`Error::Config`] when s is not a finite number in f32.
    pub fn from_scale(guidance_scale: f64) -> Result<Self> {
        if !(guidance_scale as f32).is_finite() {
            return Err(Error::Config(format!(
                "the guidance scale is {guidance_scale}: it must be a finite number"
            )));
        }
        Guidance::from_weight(guidance_scale - 1.0)
    }

    /// w.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// s = 1 + w.
    pub fn scale(&self) -> f64 {
        1.0 + self.weight
    }

    /// Which evaluations this strength needs; one that would be multiplied by zero is not made.
    pub fn evaluations(&self) -> Evaluations {
        if self.weight == 0.0 {
            Evaluations::Conditional
        } else if self.weight == -1.0 {
            Evaluations::Unconditional
        } else {
            Evaluations::Both
        }
    }

    /// eps̃ = (1 + w) eps_c - w eps_∅ of one element.
    pub fn combine(&self, eps_conditional: f64, eps_unconditional: f64) -> f64 {
        (1.0 + self.weight) * eps_conditional - self.weight * eps_unconditional
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_give_a_kernel_the_same_bits() {
        for hundredths in -500..=2000 {
            let scale = f64::from(hundredths) / 100.0;
            let weight = f64::from(hundredths - 100) / 100.0;
            let (by_scale, by_weight) =
                (Guidance::from_scale(scale).unwrap(), Guidance::from_weight(weight).unwrap());
            let bits = |guidance: Guidance| (guidance.weight() as f32).to_bits();
            assert_eq!(bits(by_scale), bits(by_weight), "scale {scale}, weight {weight}");
            assert_eq!(by_scale.evaluations(), by_weight.evaluations());
        }
    }

    #[test]
    fn single_evaluations() {
        let evaluations = |weight| Guidance::from_weight(weight).unwrap().evaluations();
        assert_eq!(evaluations(0.0), Evaluations::Conditional);
        assert_eq!(evaluations(-0.0), Evaluations::Conditional);
        assert_eq!(evaluations(-1.0), Evaluations::Unconditional);
        assert_eq!(evaluations(1e-30), Evaluations::Both);
        assert_eq!(Guidance::from_scale(1.0).unwrap().evaluations(), Evaluations::Conditional);
        assert_eq!(Guidance::from_scale(0.0).unwrap().evaluations(), Evaluations::Unconditional);
        assert_eq!(Guidance::from_weight(-0.0).unwrap().weight().to_bits(), 0);
    }

    #[test]
    fn the_combination_extrapolates() {
        let guidance = Guidance::from_weight(3.0).unwrap();
        assert_eq!(guidance.scale(), 4.0);
        assert_eq!(guidance.combine(2.0, 1.5), 1.5 + 4.0 * 0.5);
        assert_eq!(Guidance::from_weight(0.0).unwrap().combine(2.0, 7.0), 2.0);
        assert_eq!(Guidance::from_weight(-1.0).unwrap().combine(2.0, 7.0), 7.0);
    }

    #[test]
    fn a_strength_must_be_finite() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            assert!(Guidance::from_weight(bad).is_err());
            assert!(Guidance::from_scale(bad).is_err());
        }
    }
}
