//! Dynamic thresholds (Saharia et al., arXiv 2205.11487, 2.3).  s_n = max(1, quantile of |x̂_n|).
//!
//! |x̂| `[N, L]` f32; the result, `[N, 4]` f32, has a row (1 + w, -w, s_n, 0) for each sample, as the guided step reads
//! them. The quantile is exact and interpolated as `torch.quantile` does; NaN counts as the largest.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel, Rung};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const THRESHOLD: Kernel = Kernel::new(
    "dynamic_threshold",
    wgsl!("dynamic_threshold"),
    "threshold",
    &[Access::Read, Access::Read, Access::Write],
);

const SERIAL: Kernel = Kernel::new(
    "dynamic_threshold",
    wgsl!("dynamic_threshold"),
    "serial",
    &[Access::Read, Access::Read, Access::Write],
);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    samples: u32,
    length: u32,
    rank: u32,
    fraction: f32,
}

/// The rows (1 + w, -w, s, 0) of samples with these magnitudes, w being the first element of `guidance`.
pub(super) fn threshold_rows(
    cx: &mut Context,
    magnitudes: &Tensor,
    guidance: &Tensor,
    quantile: f64,
) -> Result<Tensor> {
    let &[samples, length @ (1..)] = magnitudes.shape() else {
        let what = format!("expected magnitudes [N, L] with L above 0, got {:?}", magnitudes.shape());
        return Err(Error::shape("dynamic_threshold", what));
    };
    let position = quantile.clamp(0.0, 1.0) * (length - 1) as f64;
    let rank = position.floor();
    let params = Params {
        samples: samples as u32,
        length: length as u32,
        rank: rank as u32,
        fraction: (position - rank) as f32,
    };
    let rows = cx.output("dynamic threshold", &[samples, 4], DType::F32)?;
    let (kernel, groups, variant) = match cx.rung() {
        Rung::Tiled | Rung::Coop => (&THRESHOLD, samples, "workgroup"),
        Rung::Naive | Rung::Cpu => (&SERIAL, samples.div_ceil(8), "serial"),
    };
    let launch = cx.launch(kernel).bind(magnitudes).bind(guidance).bind(&rows);
    launch.params(&params).variant(variant).groups([groups as u32, 1, 1]);
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::clip::quantile_of;
    use crate::testing::{Array, forward, gpu, rungs};

    fn thresholds(rung: Rung, x: &Array, quantile: f64) -> Array {
        let mut cx = Context::new(gpu());
        cx.set_rung(rung);
        let (m, w) = (x.upload(&cx, DType::F32), cx.constant_f32("w", &[1], &[0.5]).unwrap());
        let rows = threshold_rows(&mut cx, &m, &w, quantile).unwrap();
        forward(&[m], cx, &rows)
    }

    #[test]
    fn quantiles_are_exact() {
        for length in [1, 2, 5, 257, 1000] {
            // Of many sizes, with ties and zeros.
            let x = Array::random(&[3, length], length as u64)
                .map(|x| (x * 8.0).round().abs() * (12.0 * x).exp());
            for quantile in [0.0, 0.3, 0.5, 0.9, 0.995, 1.0] {
                let rows = thresholds(Rung::Tiled, &x, quantile);
                assert_eq!(rows, thresholds(Rung::Naive, &x, quantile));
                for (values, row) in x.data.chunks(length).zip(rows.data.chunks(4)) {
                    let exact = quantile_of(values.iter().map(|&x| x.into()).collect(), quantile).max(1.0);
                    let error = (f64::from(row[2]) / exact - 1.0).abs();
                    assert!(error < 3e-7, "{length} values, quantile {quantile}: {} is not {exact}", row[2]);
                    assert_eq!([row[0], row[1], row[3]], [1.5, -0.5, 0.0]);
                }
            }
        }
    }

    #[test]
    fn infinities_and_nans_are_the_largest() {
        let x = Array::new(&[1, 4], vec![f32::NAN, 2.0, f32::INFINITY, 3.0]);
        for rung in rungs() {
            assert_eq!(thresholds(rung, &x, 1.0 / 3.0).data[2], 3.0);
            assert_eq!(thresholds(rung, &x, 2.0 / 3.0).data[2], f32::INFINITY);
        }
    }
}
