//! Which parts of a condition a training image loses, so that one network learns to do without any of them (CFG, Algorithm 1;
//! InstructPix2Pix, arXiv 2211.09800, section 3.2.1, for several parts).
//!
//! Functions of (seed, image index) alone. Word 0 of an image's `LabelDrop` stream decides about all parts together, word 1
//! about its class alone, word 3 about its vector alone, word 8 + i about attribute i of the vector alone; 2 and 4 are for parts
//! to come.

use crate::random::{Stream, uniform, words};
use crate::{Error, Result};

const TOGETHER: usize = 0;
const CLASS: usize = 1;
const VECTOR: usize = 3;
const ATTRIBUTES: usize = 8;

/// Probabilities of leaving parts of a condition out.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ConditionDropout {
    /// All parts: the unconditional model.
    pub together: f64,
    /// The class alone.
    pub class: f64,
    /// The vector alone.
    pub vector: f64,
    /// Each attribute of the vector alone.
    pub attribute: f64,
}

/// What an image loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Its class.
    pub class: bool,
    /// Its vector.
    pub vector: bool,
}

impl ConditionDropout {
    /// All parts or none.
    pub fn together(probability: f64) -> Self {
        ConditionDropout { together: probability, ..ConditionDropout::default() }
    }

    /// Refuses what is no probability.
    ///
    /// # Errors
    /// [`Error::Config`] with the number.
    pub fn check(&self) -> Result<()> {
        let ConditionDropout { together, class, vector, attribute } = *self;
        match [together, class, vector, attribute].into_iter().find(|p| !(0.0..=1.0).contains(p)) {
            None => Ok(()),
            Some(p) => Err(Error::Config(format!(
                "the probability of dropping a label is {p}: it must lie between 0 and 1"
            ))),
        }
    }

    /// What image `image_index` of the run `seed` loses.
    pub fn of(&self, seed: u64, image_index: u64) -> Dropped {
        let together = drawn(seed, image_index, TOGETHER) < self.together;
        let alone = |p: f64, word: usize| p > 0.0 && drawn(seed, image_index, word) < p;
        Dropped {
            class: together || alone(self.class, CLASS),
            vector: together || alone(self.vector, VECTOR),
        }
    }

    /// Whether it loses this attribute of its vector, by itself.
    pub fn drops_attribute(&self, seed: u64, image_index: u64, attribute: usize) -> bool {
        self.attribute > 0.0 && drawn(seed, image_index, ATTRIBUTES + attribute) < self.attribute
    }
}

/// The number in [0, 1) that one word of an image's stream is.
fn drawn(seed: u64, image_index: u64, word: usize) -> f64 {
    uniform(words(seed, (word / 4) as u32, image_index, Stream::LabelDrop)[word % 4])
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGES: u64 = 40_000;

    #[test]
    fn parts_are_lost_at_their_rates_and_by_themselves() {
        let dropout = ConditionDropout { together: 0.1, class: 0.2, vector: 0.25, attribute: 0.5 };
        let count = |is: &dyn Fn(u64) -> bool| (0..IMAGES).filter(|image| is(*image)).count() as f64;
        // 0.1 + 0.9·p, and of independent draws the product; five standard deviations of at most 100.
        for (found, expected) in [
            (count(&|image| dropout.of(7, image).class), 0.1 + 0.9 * 0.2),
            (count(&|image| dropout.of(7, image).vector), 0.1 + 0.9 * 0.25),
            (count(&|image| dropout.of(7, image) == Dropped { class: true, vector: true }), 0.1 + 0.9 * 0.05),
            (count(&|image| dropout.drops_attribute(7, image, 0)), 0.5),
            (
                count(&|image| dropout.drops_attribute(7, image, 0) && dropout.drops_attribute(7, image, 5)),
                0.25,
            ),
        ] {
            assert!((found - expected * IMAGES as f64).abs() < 500.0, "{found}, expected {expected}");
        }
    }

    /// Classes alone are lost as they always were: by word 0, whatever else may be lost.
    #[test]
    fn labels_alone_are_decided_by_the_first_word() {
        let (alone, ends) = (ConditionDropout::together(0.1), ConditionDropout::together(1.0));
        for image in [0, 1, 999, u64::MAX] {
            let first = uniform(words(3, 0, image, Stream::LabelDrop)[0]) < 0.1;
            assert_eq!(alone.of(3, image), Dropped { class: first, vector: first });
            assert!(ends.of(3, image).class && !ConditionDropout::default().of(3, image).class);
        }
        for bad in [-0.1, 1.01, f64::NAN] {
            assert!(
                ConditionDropout { vector: bad, ..alone }
                    .check()
                    .unwrap_err()
                    .to_string()
                    .contains("0 and 1")
            );
        }
    }
}
