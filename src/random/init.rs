//! Initial values of parameters: functions of (seed, tensor, element), the same whatever else a network holds.

use super::normal::normal;
use super::philox::{Stream, uniform, words};

/// `len` numbers, uniform in [-bound, bound), of the tensor `tensor_index` under `seed`.
pub fn init_uniform(seed: u64, tensor_index: u64, len: usize, bound: f32) -> Vec<f32> {
    fill(seed, tensor_index, len, |word| (f64::from(bound) * (2.0 * uniform(word) - 1.0)) as f32)
}

/// `len` normal numbers of mean 0 and the given standard deviation, of the tensor `tensor_index` under `seed`.
pub fn init_normal(seed: u64, tensor_index: u64, len: usize, standard_deviation: f32) -> Vec<f32> {
    fill(seed, tensor_index, len, |word| normal(word) * standard_deviation)
}

fn fill(seed: u64, tensor_index: u64, len: usize, value: impl Fn(u32) -> f32) -> Vec<f32> {
    let blocks = (0..len.div_ceil(4)).map(|block| words(seed, block as u32, tensor_index, Stream::Init));
    blocks.flatten().take(len).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_within_its_bound_with_its_moments() {
        let values = init_uniform(5, 2, 100_001, 0.25);
        assert_eq!(values.len(), 100_001);
        assert!(values.iter().all(|x| (-0.25..=0.25).contains(x)));
        let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / values.len() as f64;
        let square = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.0025, "mean {mean}");
        assert!((square - 0.0625 / 3.0).abs() < 3e-4, "mean square {square}");
    }

    #[test]
    fn tensors_and_seeds_differ() {
        let one = init_normal(1, 0, 8, 0.02);
        assert_eq!(one, init_normal(1, 0, 8, 0.02));
        assert_ne!(one, init_normal(1, 1, 8, 0.02));
        assert_ne!(one, init_normal(2, 0, 8, 0.02));
        assert!(one.iter().all(|x| x.abs() < 0.2));
    }
}
