//! The kernel distance KID (Bińkowski et al., arXiv 1801.01401): the squared maximum mean discrepancy under
//! k(x, y) = (x·y/D + 1)³, unbiased, over random subsets of both sets.

use super::linalg::{in_parallel, products};
use super::{Features, same_dim};
use crate::error::{Error, Result};
use crate::random::{Stream, words};

/// What comes out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelDistance {
    /// The mean over subsets. Unbiased, so it may come out a little below 0.
    pub mean: f64,
    /// The standard deviation over subsets (divided by their number); 0 for one subset, where it means nothing.
    pub deviation: f64,
    /// How many subsets there are.
    pub subsets: usize,
    /// Pictures in each.
    pub size: usize,
}

/// KID over `subsets` random subsets of `size` pictures of each set, or of all where there are fewer; usual are 100 of
/// 1000. The subsets are a function of `seed`.
///
/// # Errors
/// [`Error::Shape`] for features of different lengths, [`Error::Config`] for fewer than two pictures on a side.
pub fn kernel_distance(
    a: &Features,
    b: &Features,
    subsets: usize,
    size: usize,
    seed: u64,
) -> Result<KernelDistance> {
    let size = size.min(a.len()).min(b.len());
    // All of both is one subset, however often it is drawn.
    let subsets = if size == a.len() && size == b.len() { 1 } else { subsets.max(1) };
    let of_subset = |subset: usize| {
        let index = 2 * subset as u64;
        let (from_a, from_b) = (choice(a.len(), size, seed, index), choice(b.len(), size, seed, index + 1));
        squared_discrepancy(&a.take(&from_a), &b.take(&from_b))
    };
    let values = in_parallel(subsets, of_subset).into_iter().collect::<Result<Vec<f64>>>()?;
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n;
    Ok(KernelDistance { mean, deviation: variance.sqrt(), subsets, size })
}

/// The unbiased estimate on all of both sets:
/// Σ_{i≠j} k(a_i, a_j)/(n(n-1)) + Σ_{i≠j} k(b_i, b_j)/(m(m-1)) - 2 Σ k(a_i, b_j)/(nm).
///
/// # Errors
/// As [`kernel_distance`].
pub fn squared_discrepancy(a: &Features, b: &Features) -> Result<f64> {
    same_dim("kernel_distance", a.dim, b.dim)?;
    let (n, m) = (a.len(), b.len());
    if n < 2 || m < 2 {
        return Err(Error::Config(format!(
            "a kernel distance needs two pictures of each set, there are {n} and {m}"
        )));
    }
    let wide = |features: &Features| -> Vec<f64> { features.values.iter().map(|&x| x.into()).collect() };
    let (x, y) = (wide(a), wide(b));
    let kernels = |x: &[f64], y: &[f64]| -> Vec<f64> {
        products(x, y, a.dim).iter().map(|product| (product / a.dim as f64 + 1.0).powi(3)).collect()
    };
    let within = |x: &[f64], n: usize| {
        let all = kernels(x, x);
        let diagonal: f64 = all.iter().step_by(n + 1).sum();
        (all.iter().sum::<f64>() - diagonal) / (n as f64 * (n as f64 - 1.0))
    };
    let between = kernels(&x, &y).iter().sum::<f64>() / (n as f64 * m as f64);
    Ok(within(&x, n) + within(&y, m) - 2.0 * between)
}

/// `size` different numbers below `len`: the start of a Fisher-Yates shuffle.
fn choice(len: usize, size: usize, seed: u64, index: u64) -> Vec<usize> {
    let mut all: Vec<usize> = (0..len).collect();
    for i in 0..size.min(len) {
        let word = words(seed, (i / 4) as u32, index, Stream::Shuffle)[i % 4];
        let step = (u64::from(word) * (len - i) as u64) >> 32;
        all.swap(i, i + step as usize);
    }
    all.truncate(size);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsets_are_drawn_without_repetition_and_from_the_seed() {
        let drawn = choice(50, 20, 3, 0);
        let mut sorted = drawn.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert!(sorted.len() == 20 && sorted.iter().all(|&i| i < 50));
        assert_eq!(drawn, choice(50, 20, 3, 0));
        assert_ne!(drawn, choice(50, 20, 3, 1));
    }
}
