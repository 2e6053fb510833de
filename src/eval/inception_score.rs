//! The inception score: exp(E_x KL(p(y|x) ‖ p(y))) (Salimans et al., arXiv 1606.03498), over splits.
//!
//! With p̄ the mean of p(y|x) over a split the mean divergence is E_x Σ_y p log p - Σ_y p̄ log p̄, so each split needs two
//! sums and no picture twice.

use crate::error::{Error, Result};

/// Pictures in a split, as in published numbers.
pub const SPLIT: usize = 5000;

/// The score of each split, gathered as probabilities come.
#[derive(Clone, Debug, PartialEq)]
pub struct InceptionScore {
    classes: usize,
    split: usize,
    /// Of the split under way: pictures, Σ_x Σ_y p log p, Σ_x p.
    count: usize,
    negative_entropy: f64,
    sum: Vec<f64>,
    /// Of those that are full.
    scores: Vec<f64>,
}

/// What comes out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// The mean over splits.
    pub mean: f64,
    /// Their standard deviation (divided by their number); 0 for one split, where it means nothing.
    pub deviation: f64,
    /// How many there are.
    pub splits: usize,
}

impl InceptionScore {
    /// Over `classes` classes, in splits of `split` pictures ([`SPLIT`] where numbers are to be compared).
    pub fn new(classes: usize, split: usize) -> Self {
        let split = split.max(1);
        InceptionScore {
            classes,
            split,
            count: 0,
            negative_entropy: 0.0,
            sum: vec![0.0; classes],
            scores: vec![],
        }
    }

    /// Takes in probabilities `[N, classes]`, each row summing to 1.
    ///
    /// # Errors
    /// [`Error::Shape`] when they are not whole rows.
    pub fn push(&mut self, probabilities: &[f32]) -> Result<()> {
        if self.classes == 0 || !probabilities.len().is_multiple_of(self.classes) {
            let what = format!("{} numbers are not rows of {} classes", probabilities.len(), self.classes);
            return Err(Error::shape("inception_score", what));
        }
        for row in probabilities.chunks(self.classes) {
            self.negative_entropy += row.iter().map(|&p| plogp(p.into())).sum::<f64>();
            self.sum.iter_mut().zip(row).for_each(|(sum, &p)| *sum += f64::from(p));
            self.count += 1;
            if self.count == self.split {
                self.scores.push(self.current());
                (self.count, self.negative_entropy) = (0, 0.0);
                self.sum.fill(0.0);
            }
        }
        Ok(())
    }

    /// The score of the split under way.
    fn current(&self) -> f64 {
        let n = self.count as f64;
        let marginal: f64 = self.sum.iter().map(|sum| plogp(sum / n)).sum();
        (self.negative_entropy / n - marginal).exp()
    }

    /// The mean over splits; the last counts however few pictures it has.
    ///
    /// # Errors
    /// [`Error::Config`] when no picture came.
    pub fn score(&self) -> Result<Score> {
        let mut scores = self.scores.clone();
        if self.count > 0 {
            scores.push(self.current());
        }
        if scores.is_empty() {
            return Err(Error::Config("an inception score of no pictures".into()));
        }
        let n = scores.len() as f64;
        let mean = scores.iter().sum::<f64>() / n;
        let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / n;
        Ok(Score { mean, deviation: variance.sqrt(), splits: scores.len() })
    }
}

/// p log p, 0 at 0.
fn plogp(p: f64) -> f64 {
    if p > 0.0 { p * p.ln() } else { 0.0 }
}
