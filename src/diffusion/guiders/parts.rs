//! Each part of a condition with its own strength, one after the other (InstructPix2Pix, arXiv 2211.09800, equation 3, for any
//! number of parts): eps̃ = eps_∅ + Σ_i s_i (eps_{1..i} - eps_{1..i-1}) + (1 + w)(eps - eps_{1..m}).
//!
//! eps_{1..i} is the evaluation under the first i named parts alone, eps that under all of the condition: what is not named
//! follows the parts that are, at the picture's own scale 1 + w. As pairs of a strength and a difference from eps_{1..m},
//! which is the form of the device's kernel: (1 + w) eps - w eps_{1..m} + Σ_{i<m} κ_i (eps_{1..i} - eps_{1..m}) with
//! κ_0 = 1 - s_1 and κ_i = s_i - s_{i+1}.

use std::sync::Arc;

use super::guider::{Against, Beside, Entry, Evaluated, Guider, Kind, Memory, Work};
use super::sums::combined;
use crate::error::brief;

/// Strengths of parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Parts {
    /// Part by name, and s_i.
    named: Vec<(String, f64)>,
    /// eps_{1..i} and κ_i of those whose κ_i is not 0, the longest first.
    more: Vec<(Beside, f64)>,
}

impl Parts {
    /// Strengths in the order in which parts are added.
    pub fn new(named: Vec<(String, f64)>) -> Self {
        let names = |count: usize| named[..count].iter().map(|(name, _)| name.clone()).collect();
        let before = |i: usize| if i == 0 { 1.0 } else { named[i - 1].1 };
        let more = (0..named.len()).rev().map(|i| (Beside::Only(names(i)), before(i) - named[i].1));
        let more = more.filter(|(_, strength)| *strength != 0.0).collect();
        Parts { named, more }
    }
}

impl Guider for Parts {
    fn text(&self) -> String {
        let named: Vec<String> =
            self.named.iter().map(|(name, strength)| format!("{name}:{strength}")).collect();
        format!("parts({})", named.join(" "))
    }

    fn kind(&self) -> Kind {
        Kind::Combination
    }

    fn against(&self) -> Against {
        Against::Only(self.named.iter().map(|(name, _)| name.clone()).collect())
    }

    fn more_conditions(&self) -> &[(Beside, f64)] {
        &self.more
    }

    fn combine(&self, weight: f64, eps: &Evaluated<'_>, _memory: &mut Memory) -> Option<Vec<f64>> {
        Some(combined(weight, eps, &self.more))
    }

    fn conflict(&self, other: &dyn Guider) -> Option<String> {
        if other.against() != Against::Null {
            return Some("each says what stands in the place of the unconditional evaluation".into());
        }
        matches!(other.work(), Work::Rescale { .. })
            .then(|| "rescale needs the sums of a combination of two evaluations".into())
    }
}

pub(super) const ENTRY: Entry = Entry {
    name: "parts",
    usage: "parts(vector:1.5)",
    what: "parts of the condition by name, each with its own scale, the others with 1 + w (arXiv 2211.09800)",
    make: |arguments| {
        let text = arguments.text("parts")?;
        let one = |text: &str| {
            let (name, strength) = text.rsplit_once(':')?;
            let strength = strength.parse::<f64>().ok().filter(|strength| strength.is_finite())?;
            (!name.is_empty()).then(|| (name.to_owned(), strength))
        };
        match text.split_whitespace().map(one).collect::<Option<Vec<_>>>() {
            Some(named) if (1..=6).contains(&named.len()) => Ok(Arc::new(Parts::new(named))),
            _ => Err(arguments.wrong(&format!(
                "{text:?} is not one to six of PART:SCALE, spaces between",
                text = brief(&text)
            ))),
        }
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::{Guiders, StepCoefficients};

    /// eps̃ of these evaluations: all parts, those named, and what else the guider asks for.
    fn guided(text: &str, w: f64, all: f64, against: f64, more: &[f64]) -> f64 {
        let guiders: Guiders = text.parse().unwrap();
        assert_eq!(guiders.more_conditions().len(), more.len(), "{text}");
        let more: Vec<[f64; 1]> = more.iter().map(|x| [*x]).collect();
        let more: Vec<&[f64]> = more.iter().map(|x| &x[..]).collect();
        let step = StepCoefficients::last(0.0);
        let (all, against) = ([all], [against]);
        let eps = Evaluated { z: &[0.0], conditional: &all, against: &against, more: &more, step: &step };
        guiders.combine(w, &eps, &mut Memory::default()).unwrap()[0]
    }

    #[test]
    fn each_part_adds_its_difference_at_its_own_scale() {
        let (none, a, ab, all) = (0.3, -1.7, 2.9, 0.85);
        let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-12, "{got}, expected {want}");
        let want = none + 0.5 * (a - none) + 3.0 * (ab - a) + 2.5 * (all - ab);
        near(guided("parts(a:0.5 b:3)", 1.5, all, ab, &[a, none]), want);
        // InstructPix2Pix, equation 3: the picture first, the text at 1 + w.
        near(guided("parts(a:1.5)", 6.5, all, a, &[none]), none + 1.5 * (a - none) + 7.5 * (all - a));
        // At one scale throughout it is plain guidance, of two evaluations; at 1 a part is not guided.
        near(guided("parts(a:2.5 b:2.5)", 1.5, all, ab, &[none]), none + 2.5 * (all - none));
        near(guided("parts(a:1)", 1.5, all, a, &[]), a + 2.5 * (all - a));
    }

    #[test]
    fn what_is_evaluated_is_named() {
        let guiders: Guiders = "parts(vector:1.5 class:2)".parse().unwrap();
        let only = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(guiders.against(), Against::Only(only(&["vector", "class"])));
        let more = [(Beside::Only(only(&["vector"])), -0.5), (Beside::Only(Vec::new()), -0.5)];
        assert_eq!(guiders.more_conditions(), more);
        for (text, part) in [
            ("parts(vector)", "PART:SCALE"),
            ("parts(vector:1)+negative(1)", "in the place of"),
            ("parts(vector:1)+rescale(0.5)", "sums"),
            ("parts(vector:1)+also(1:1)", "combines"),
        ] {
            let error = text.parse::<Guiders>().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
