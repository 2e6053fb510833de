//! Densities as masses of bins, and the distance between a sampled cloud and an analytic density.
//!
//! Masses are integrals by the midpoint rule over 8x8 cells of each bin, normalised to one over the grid's square.

use super::density::{CLASSES, MixtureAt, Point, direction};
use crate::{Error, Result};

/// Midpoint cells along each side of a bin.
const CELLS: usize = 8;

/// Square bins over [-`half_width`, `half_width`]²; bin (column, row) is number row·`bins` + column, rows from below.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    half_width: f64,
    bins: usize,
}

impl Default for Grid {
    /// Bins of 0.25 over [-3, 3]²: half a standard deviation wide, so that the shape is resolved, and few enough
    /// (576) that a hundred thousand points fill them.
    fn default() -> Self {
        Grid { half_width: 3.0, bins: 24 }
    }
}

impl Grid {
    /// `bins` by `bins` bins over [-`half_width`, `half_width`]².
    ///
    /// # Errors
    /// [`Error::Config`] unless the half width is positive and finite and `bins` is in 1..=4096.
    pub fn new(half_width: f64, bins: usize) -> Result<Self> {
        if !(half_width > 0.0 && half_width.is_finite() && (1..=4096).contains(&bins)) {
            return Err(Error::Config(format!(
                "a grid of {bins}x{bins} bins over ±{half_width}: the width must be positive, the bins 1 to 4096"
            )));
        }
        Ok(Grid { half_width, bins })
    }

    /// Half the side of the square.
    pub fn half_width(&self) -> f64 {
        self.half_width
    }

    /// Bins along a side.
    pub fn bins(&self) -> usize {
        self.bins
    }

    /// The side of a bin.
    pub fn bin_width(&self) -> f64 {
        2.0 * self.half_width / self.bins as f64
    }

    /// The number of the bin that holds a point; none outside the square.
    pub fn bin_of(&self, point: Point) -> Option<usize> {
        let [column, row] = point.map(|x| ((x + self.half_width) / self.bin_width()).floor());
        let inside = |index: f64| index >= 0.0 && index < self.bins as f64;
        (inside(column) && inside(row)).then(|| row as usize * self.bins + column as usize)
    }

    /// The mass of each bin under a density, which need not be normalised; the masses add up to one.
    pub fn masses(&self, density: impl Fn(Point) -> f64) -> Vec<f64> {
        let mut masses = vec![0.0; self.bins * self.bins];
        self.for_each_cell(|bin, point| masses[bin] += density(point));
        normalise(&mut masses);
        masses
    }

    /// The share of the points in each bin. Points outside the square have no bin, so the shares may add up to less
    /// than one.
    pub fn histogram(&self, points: impl IntoIterator<Item = Point>) -> Vec<f64> {
        let mut shares = vec![0.0; self.bins * self.bins];
        let mut count = 0.0f64;
        for point in points {
            count += 1.0;
            if let Some(bin) = self.bin_of(point) {
                shares[bin] += 1.0;
            }
        }
        shares.iter_mut().for_each(|share| *share /= count.max(1.0));
        shares
    }

    /// The total variation that N independent points of these masses show on average although nothing is wrong:
    /// ½ Σ √(2 m (1 - m)/(π N)), the mean deviation of each bin's count in its normal approximation.
    pub fn sampling_floor(masses: &[f64], points: usize) -> f64 {
        let scale = 2.0 / (std::f64::consts::PI * points as f64);
        0.5 * masses.iter().map(|mass| (scale * mass * (1.0 - mass)).sqrt()).sum::<f64>()
    }

    fn for_each_cell(&self, mut visit: impl FnMut(usize, Point)) {
        let side = self.bins * CELLS;
        let centre = |cell: usize| (2.0 * (cell as f64 + 0.5) / side as f64 - 1.0) * self.half_width;
        for row in 0..side {
            for column in 0..side {
                visit(row / CELLS * self.bins + column / CELLS, [centre(column), centre(row)]);
            }
        }
    }
}

fn normalise(masses: &mut [f64]) {
    let total: f64 = masses.iter().sum();
    masses.iter_mut().for_each(|mass| *mass /= total);
}

/// The masses of p̃(z|c) ∝ p(z|c) p(c|z)^w of the data.
pub fn guided_conditional(class: usize, guidance_weight: f64, grid: &Grid) -> Vec<f64> {
    let data = MixtureAt::data();
    grid.masses(|z| data.guided_density(z, class, guidance_weight))
}

/// The masses of the mixture of the three guided conditionals, each normalised first: what figure 2 draws.
pub fn guided_mixture(guidance_weight: f64, grid: &Grid) -> Vec<f64> {
    let mut mixture = vec![0.0; grid.bins * grid.bins];
    for class in 0..CLASSES {
        let masses = guided_conditional(class, guidance_weight, grid);
        mixture.iter_mut().zip(masses).for_each(|(sum, mass)| *sum += mass / CLASSES as f64);
    }
    mixture
}

/// The mean of p̃(z|c) along the direction of the class's mean, integrated over the grid's cells.
pub fn mean_along(class: usize, guidance_weight: f64, grid: &Grid) -> f64 {
    let (data, [x, y]) = (MixtureAt::data(), direction(class));
    let (mut total, mut moment) = (0.0, 0.0);
    grid.for_each_cell(|_, z| {
        let density = data.guided_density(z, class, guidance_weight);
        total += density;
        moment += density * (x * z[0] + y * z[1]);
    });
    moment / total
}

/// The mean of points along the direction of the class's mean; NaN of no points.
pub fn sampled_mean_along(class: usize, points: impl IntoIterator<Item = Point>) -> f64 {
    let [x, y] = direction(class);
    let (mut count, mut sum) = (0.0, 0.0);
    for point in points {
        count += 1.0;
        sum += x * point[0] + y * point[1];
    }
    sum / count
}

/// The total variation ½ Σ |share - mass| between the points' histogram and the masses of a density on one grid.
///
/// Points outside the square count as mass where the density has none. It is an estimate from above: even points of
/// the density itself show about [`Grid::sampling_floor`], and binning hides what happens within a bin.
///
/// # Errors
/// [`Error::Shape`] when `masses` is not of this grid.
pub fn total_variation(points: impl IntoIterator<Item = Point>, masses: &[f64], grid: &Grid) -> Result<f64> {
    let shares = grid.histogram(points);
    if shares.len() != masses.len() {
        let what = format!("the grid has {} bins but there are {} masses", shares.len(), masses.len());
        return Err(Error::shape("total_variation", what));
    }
    let outside = 1.0 - shares.iter().sum::<f64>();
    let inside: f64 = shares.iter().zip(masses).map(|(share, mass)| (share - mass).abs()).sum();
    Ok(0.5 * (inside + outside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_and_their_edges() {
        let grid = Grid::new(2.0, 4).unwrap();
        assert_eq!(grid.bin_width(), 1.0);
        assert_eq!(grid.bin_of([-2.0, -2.0]), Some(0));
        assert_eq!(grid.bin_of([1.5, -0.5]), Some(7));
        assert_eq!(grid.bin_of([2.0, 0.0]), None);
        assert_eq!(grid.bin_of([0.0, -2.1]), None);
        assert_eq!(grid.bin_of([f64::NAN, 0.0]), None);
        for (half_width, bins) in [(0.0, 4), (f64::NAN, 4), (1.0, 0), (f64::INFINITY, 3), (1.0, 1 << 20)] {
            assert!(Grid::new(half_width, bins).is_err());
        }
    }

    #[test]
    fn total_variation_between_simple_things() {
        let grid = Grid::new(1.0, 2).unwrap();
        let uniform = grid.masses(|_| 7.0);
        assert_eq!(uniform, [0.25; 4]);
        let corners = [[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]];
        assert_eq!(total_variation(corners, &uniform, &grid).unwrap(), 0.0);
        assert_eq!(total_variation([corners[0]], &uniform, &grid).unwrap(), 0.75);
        assert_eq!(total_variation([[9.0, 0.0]], &uniform, &grid).unwrap(), 1.0);
        assert!(total_variation(corners, &uniform[..3], &grid).is_err());
    }

    #[test]
    fn masses_are_the_integrals() {
        let grid = Grid::default();
        let data = MixtureAt::data();
        let guided = guided_mixture(0.0, &grid);
        let marginal = grid.masses(|z| data.marginal_density(z));
        for (guided, marginal) in guided.iter().zip(&marginal) {
            assert!((guided - marginal).abs() < 1e-6);
        }
        assert!((guided_mixture(3.0, &grid).iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }

    /// The analytic class means of the guided densities, by w.
    #[test]
    fn guided_means_move_outwards() {
        let grid = Grid::new(4.0, 32).unwrap();
        for (weight, mean) in [(0.0, 1.0), (1.0, 1.086), (3.0, 1.146)] {
            for class in 0..CLASSES {
                let actual = mean_along(class, weight, &grid);
                assert!(
                    (actual - mean).abs() < 6e-4,
                    "class {class}, w = {weight}: {actual}, expected {mean}"
                );
            }
        }
    }
}
