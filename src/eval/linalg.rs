//! The linear algebra of the measures, on row-major slices of f64. Products and singular values are `nalgebra`'s.

use std::sync::atomic::{AtomicUsize, Ordering};

use nalgebra::{DMatrix, DMatrixView, SVD};

use crate::error::{Error, Result};

/// sum + XᵀX for `x` `[N, D]`, in place.
pub fn add_gram(sum: &mut [f64], x: &[f64], dim: usize) {
    // What is a row here is a column there.
    let columns = DMatrixView::from_slice(x, dim, x.len() / dim);
    let gram = columns * columns.transpose();
    sum.iter_mut().zip(gram.iter()).for_each(|(sum, x)| *sum += x);
}

/// A·Bᵀ for `a` `[N, D]` and `b` `[M, D]`: `[N, M]`.
pub fn products(a: &[f64], b: &[f64], dim: usize) -> Vec<f64> {
    let (a, b) =
        (DMatrixView::from_slice(a, dim, a.len() / dim), DMatrixView::from_slice(b, dim, b.len() / dim));
    (b.transpose() * a).data.into()
}

/// Tr((AB)^{1/2}) of two symmetric positive semidefinite matrices `[D, D]`.
///
/// With A = FᵀF and B = GᵀG it is the sum of the singular values of F Gᵀ. So taken nothing is squared and rooted again, and
/// matrices without full rank (fewer samples than dimensions) lose no digits and need no added diagonal.
pub fn trace_of_root(a: &[f64], b: &[f64], dim: usize) -> Result<f64> {
    let (a, b) = (factor(a, dim), factor(b, dim));
    if a.is_empty() || b.is_empty() {
        return Ok(0.0);
    }
    let between = products(&a, &b, dim);
    let (rows, columns) = (b.len() / dim, a.len() / dim);
    let svd = SVD::try_new(DMatrix::from_vec(rows, columns, between), false, false, f64::EPSILON, 100 * dim);
    let svd =
        svd.ok_or_else(|| Error::Config("the singular values of two covariances did not converge".into()))?;
    Ok(svd.singular_values.iter().sum())
}

/// F `[R, D]` with FᵀF = `a`, R its rank: a Cholesky factorisation that takes the largest remaining diagonal element next
/// and stops where only rounding remains.
fn factor(a: &[f64], dim: usize) -> Vec<f64> {
    let mut rest: Vec<f64> = a.iter().step_by(dim + 1).copied().collect();
    let noise = rest.iter().fold(0.0, |most: f64, &x| most.max(x)) * dim as f64 * f64::EPSILON;
    let mut rows: Vec<f64> = Vec::new();
    for _ in 0..dim {
        let pivot = (0..dim).max_by(|&i, &j| rest[i].total_cmp(&rest[j])).expect("dim is above 0");
        if rest[pivot] <= noise {
            break;
        }
        let mut row = a[pivot * dim..][..dim].to_vec();
        for earlier in rows.chunks(dim) {
            let factor = earlier[pivot];
            row.iter_mut().zip(earlier).for_each(|(x, earlier)| *x -= factor * earlier);
        }
        let root = rest[pivot].sqrt();
        row.iter_mut().for_each(|x| *x /= root);
        rest.iter_mut().zip(&row).for_each(|(rest, x)| *rest -= x * x);
        rest[pivot] = 0.0;
        rows.extend(row);
    }
    rows
}

/// `of(0)`, `of(1)`, … in order, shared among the processor's cores.
pub fn in_parallel<T: Send>(count: usize, of: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get()).min(count);
    let next = AtomicUsize::new(0);
    let work = || {
        let taken = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&i| i < count));
        taken.map(|i| (i, of(i))).collect::<Vec<_>>()
    };
    let mut all: Vec<(usize, T)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no part panics")).collect()
    });
    all.sort_by_key(|(i, _)| *i);
    all.into_iter().map(|(_, value)| value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_multiply_to_the_matrix_and_have_its_rank() {
        // Of rank 2 in three dimensions.
        let rows = [1.0, 2.0, -1.0, 0.5, 0.0, 3.0];
        let mut a = vec![0.0; 9];
        add_gram(&mut a, &rows, 3);
        let factor = factor(&a, 3);
        assert_eq!(factor.len(), 6);
        let mut again = vec![0.0; 9];
        add_gram(&mut again, &factor, 3);
        assert!(a.iter().zip(&again).all(|(a, b)| (a - b).abs() < 1e-14), "{a:?} {again:?}");
        assert!((trace_of_root(&a, &a, 3).unwrap() - (a[0] + a[4] + a[8])).abs() < 1e-13);
        assert_eq!(trace_of_root(&a, &[0.0; 9], 3).unwrap(), 0.0);
    }

    #[test]
    fn products_are_rows_by_rows() {
        assert_eq!(
            products(&[1.0, 2.0, 3.0, 4.0], &[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], 2),
            [1.0, 2.0, 3.0, 3.0, 4.0, 7.0]
        );
    }
}
