//! Mean and covariance of features that come batch by batch.

use super::linalg::add_gram;
use crate::error::{Error, Result};

/// Rows taken at once.
const BLOCK: usize = 512;

/// A normal distribution fitted to features.
#[derive(Clone, Debug, PartialEq)]
pub struct Gaussian {
    /// `[D]`.
    pub mean: Vec<f64>,
    /// `[D, D]`, divided by N - 1.
    pub covariance: Vec<f64>,
}

impl Gaussian {
    /// D.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }
}

/// Sums from which a [`Gaussian`] is made; they take no more room for more pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Pictures so far.
    pub count: u64,
    /// `[D]`: the mean of the first rows; all is summed around it, so that nothing cancels.
    pub shift: Vec<f64>,
    /// `[D]`: Σ (x - shift).
    pub sum: Vec<f64>,
    /// `[D, D]`: Σ (x - shift)(x - shift)ᵀ.
    pub outer: Vec<f64>,
}

impl Moments {
    /// Of no pictures, with features of `dim` numbers.
    pub fn new(dim: usize) -> Self {
        Moments { count: 0, shift: vec![0.0; dim], sum: vec![0.0; dim], outer: vec![0.0; dim * dim] }
    }

    /// D.
    pub fn dim(&self) -> usize {
        self.sum.len()
    }

    /// Takes in `rows` `[N, D]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when they are not whole rows, [`Error::Config`] when a number is not finite.
    pub fn push(&mut self, rows: &[f32]) -> Result<()> {
        let dim = self.dim();
        if dim == 0 || !rows.len().is_multiple_of(dim) {
            return Err(Error::shape("moments", format!("{} numbers are not rows of {dim}", rows.len())));
        }
        if let Some(at) = rows.iter().position(|x| !x.is_finite()) {
            let picture = self.count as usize + at / dim;
            return Err(Error::Config(format!("feature {} of picture {picture} is {}", at % dim, rows[at])));
        }
        for block in rows.chunks(BLOCK * dim) {
            if self.count == 0 {
                let n = (block.len() / dim) as f64;
                block.chunks(dim).for_each(|row| add(&mut self.shift, row.iter().map(|&x| f64::from(x) / n)));
            }
            let shift = self.shift.iter().cycle();
            let centred: Vec<f64> = block.iter().zip(shift).map(|(&x, shift)| f64::from(x) - shift).collect();
            centred.chunks(dim).for_each(|row| add(&mut self.sum, row.iter().copied()));
            add_gram(&mut self.outer, &centred, dim);
            self.count += (block.len() / dim) as u64;
        }
        Ok(())
    }

    /// The distribution of what was taken in.
    ///
    /// # Errors
    /// [`Error::Config`] for fewer than two pictures.
    pub fn gaussian(&self) -> Result<Gaussian> {
        if self.count < 2 {
            return Err(Error::Config(format!(
                "a covariance needs two pictures or more, there are {}",
                self.count
            )));
        }
        let (n, dim) = (self.count as f64, self.dim());
        let off: Vec<f64> = self.sum.iter().map(|sum| sum / n).collect();
        let mean = self.shift.iter().zip(&off).map(|(shift, off)| shift + off).collect();
        let entry = |(i, outer): (usize, &f64)| (outer - n * off[i / dim] * off[i % dim]) / (n - 1.0);
        Ok(Gaussian { mean, covariance: self.outer.iter().enumerate().map(entry).collect() })
    }
}

fn add(to: &mut [f64], values: impl Iterator<Item = f64>) {
    to.iter_mut().zip(values).for_each(|(to, value)| *to += value);
}
