//! Precision and recall by nearest neighbours (Kynkäänniemi et al., arXiv 1904.06991).
//!
//! The manifold of a set is the union of balls around its features, each reaching to its k-th nearest neighbour.
//! Precision is the part of the generated pictures within the manifold of the real ones, recall the part of the real ones
//! within that of the generated.

use super::linalg::{in_parallel, products};
use super::{Features, same_dim};
use crate::error::{Error, Result};

/// k of published numbers.
pub const NEIGHBOURS: usize = 3;

/// Rows of a block of distances.
const BLOCK: usize = 512;

/// Below this part of both norms a squared distance taken as |a|² + |b|² - 2ab is mostly rounding and is taken anew.
const CANCELLED: f64 = 1e-8;

/// Both measures, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrecisionRecall {
    /// Of the generated pictures, the part that looks real.
    pub precision: f64,
    /// Of the real pictures, the part that the generated ones cover.
    pub recall: f64,
}

/// The recall within one class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassRecall {
    /// The class.
    pub class: u32,
    /// Real pictures of it.
    pub real: usize,
    /// Generated pictures of it.
    pub generated: usize,
    /// Nothing where one side has not more than k pictures.
    pub recall: Option<f64>,
}

/// Precision and recall of `generated` against `real`, with k = `neighbours`.
///
/// # Errors
/// [`Error::Shape`] for features of different lengths, [`Error::Config`] when a set has not more than k pictures.
pub fn precision_recall(real: &Features, generated: &Features, neighbours: usize) -> Result<PrecisionRecall> {
    same_dim("precision_recall", real.dim, generated.dim)?;
    let (few, k) = (real.len().min(generated.len()), neighbours);
    if k == 0 || few <= k {
        return Err(Error::Config(format!(
            "a manifold of {k} neighbours needs more than {k} pictures, there are {few}"
        )));
    }
    Ok(PrecisionRecall {
        precision: covered(real, &radii(real, k), generated),
        recall: covered(generated, &radii(generated, k), real),
    })
}

/// The recall of each class by itself; `classes` of them, labels at or above that belong to none.
///
/// # Errors
/// As [`precision_recall`], and [`Error::Shape`] when labels and pictures differ in number.
pub fn class_recall(
    real: (&Features, &[u32]),
    generated: (&Features, &[u32]),
    classes: u32,
    neighbours: usize,
) -> Result<Vec<ClassRecall>> {
    same_dim("class_recall", real.0.dim, generated.0.dim)?;
    for (features, labels) in [real, generated] {
        if features.len() != labels.len() {
            let what = format!("{} labels of {} pictures", labels.len(), features.len());
            return Err(Error::shape("class_recall", what));
        }
    }
    let of_class = |(features, labels): (&Features, &[u32]), class: u32| {
        let indices: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == class).collect();
        features.take(&indices)
    };
    let one = |class: u32| {
        let (real, generated) = (of_class(real, class), of_class(generated, class));
        let enough = neighbours > 0 && real.len().min(generated.len()) > neighbours;
        let recall = enough.then(|| covered(&generated, &radii(&generated, neighbours), &real));
        ClassRecall { class, real: real.len(), generated: generated.len(), recall }
    };
    Ok((0..classes).map(one).collect())
}

/// The squared distance of each picture to its k-th nearest other one.
fn radii(set: &Features, k: usize) -> Vec<f64> {
    let of_block = |first: usize, count: usize| {
        let mut nearest = vec![f64::INFINITY; count * k];
        for_distances(set, first, set, |row, column, distance| {
            let nearest = &mut nearest[row * k..][..k];
            if first + row != column && distance < nearest[k - 1] {
                let place = nearest.partition_point(|&near| near <= distance);
                nearest[place..].rotate_right(1);
                nearest[place] = distance;
            }
        });
        nearest.chunks(k).map(|nearest| nearest[k - 1]).collect::<Vec<f64>>()
    };
    by_blocks(set.len(), of_block).concat()
}

/// The part of `pictures` within a ball of `set`.
fn covered(set: &Features, radii: &[f64], pictures: &Features) -> f64 {
    let of_block = |first: usize, count: usize| {
        let mut inside = vec![false; count];
        for_distances(pictures, first, set, |row, column, distance| inside[row] |= distance <= radii[column]);
        inside.iter().filter(|&&inside| inside).count()
    };
    by_blocks(pictures.len(), of_block).iter().sum::<usize>() as f64 / pictures.len() as f64
}

/// What `of_block` says of (first row, rows) of each block, in order.
fn by_blocks<T: Send>(len: usize, of_block: impl Fn(usize, usize) -> T + Sync) -> Vec<T> {
    in_parallel(len.div_ceil(BLOCK), |block| of_block(block * BLOCK, BLOCK.min(len - block * BLOCK)))
}

/// Calls `see` with each of the block of rows of `a` that begins at `first` (counted from there), every row of `b`, and
/// their squared distance.
fn for_distances(a: &Features, first: usize, b: &Features, mut see: impl FnMut(usize, usize, f64)) {
    let dim = a.dim;
    let wide = |rows: &[f32]| -> Vec<f64> { rows.iter().map(|&x| x.into()).collect() };
    let norms =
        |rows: &[f64]| -> Vec<f64> { rows.chunks(dim).map(|row| row.iter().map(|x| x * x).sum()).collect() };
    let rows = wide(a.rows(first, BLOCK));
    let row_norms = norms(&rows);
    for first_column in (0..b.len()).step_by(BLOCK) {
        let columns = wide(b.rows(first_column, BLOCK));
        let column_norms = norms(&columns);
        for (i, product) in products(&rows, &columns, dim).into_iter().enumerate() {
            let (row, column) = (i / column_norms.len(), i % column_norms.len());
            let both = row_norms[row] + column_norms[column];
            let mut distance = both - 2.0 * product;
            if distance <= CANCELLED * both {
                let pair = rows[row * dim..][..dim].iter().zip(&columns[column * dim..][..dim]);
                distance = pair.map(|(x, y)| (x - y).powi(2)).sum();
            }
            see(row, first_column + column, distance);
        }
    }
}
