//! Dynamic thresholds (Saharia et al., arXiv 2205.11487, 2.3).  s_n = max(1, quantile of |x̂_n|).
//!
//! |x̂| `[N, L]` f32; the result, `[N, 4]` f32, has a row (1 + w, -w, s_n, 0) for each sample, as the guided step reads
//! them. The quantile is exact and interpolated as `torch.quantile` does; NaN counts as the largest.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const COUNT: Kernel = Kernel::new(
    "quantile_count",
    wgsl!("quantile_counts"),
    "count",
    &[Access::Read, Access::Read, Access::Write, Access::Write],
);
const CHOOSE: Kernel = Kernel::new(
    "quantile_choose",
    wgsl!("quantile_counts"),
    "choose",
    &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write],
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

/// The most values of a sample that one invocation looks through, 17 times: lavapipe ends loops after 65535 rounds.
const SERIAL_VALUES: usize = 3800;
/// Values that a workgroup counts, and the most that a digit has, as in the shader.
const BLOCK: usize = 16384;
const DIGITS: usize = 2048;
/// The lowest bit and the values of the digits of an f32 without its sign, the upper first.
const PASSES: [(u32, u32); 3] = [(20, 2048), (10, 1024), (0, 1024)];

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct PassParams {
    samples: u32,
    length: u32,
    blocks: u32,
    shift: u32,
    digits: u32,
    rank: u32,
    fraction: f32,
    first: u32,
    last: u32,
    pad: [u32; 3],
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
    if cx.rung().is_tiled() || length > SERIAL_VALUES {
        return by_counting(cx, magnitudes, guidance, params);
    }
    let rows = cx.output("dynamic threshold", &[samples, 4], DType::F32)?;
    let launch = cx.launch(&SERIAL).bind(magnitudes).bind(guidance).bind(&rows);
    launch.params(&params).variant("serial").groups([samples.div_ceil(8) as u32, 1, 1]);
    Ok(rows)
}

/// By many workgroups a sample, in three passes.
fn by_counting(cx: &mut Context, magnitudes: &Tensor, guidance: &Tensor, of: Params) -> Result<Tensor> {
    let (samples, length) = (of.samples as usize, of.length as usize);
    let blocks = length.div_ceil(BLOCK);
    let mut state: Option<Tensor> = None;
    for (pass, (shift, digits)) in PASSES.into_iter().enumerate() {
        let (first, last) = (pass == 0, pass == PASSES.len() - 1);
        let params = PassParams {
            samples: of.samples,
            length: of.length,
            blocks: blocks as u32,
            shift,
            digits,
            rank: of.rank,
            fraction: of.fraction,
            first: u32::from(first),
            last: u32::from(last),
            pad: [0; 3],
        };
        // The first pass knows nothing yet and does not read what stands in the state's place.
        let known = state.as_ref().unwrap_or(guidance).clone();
        let counts = cx.output("quantile counts", &[samples, blocks, DIGITS], DType::U32)?;
        let above = cx.output("quantile above", &[samples, blocks], DType::U32)?;
        let launch = cx.launch(&COUNT).bind(magnitudes).bind(&known).bind(&counts).bind(&above);
        launch.params(&params).variant("counts").groups([blocks as u32, samples as u32, 1]);
        // The last one's is the result: rows of f32.
        let dtype = if last { DType::F32 } else { DType::U32 };
        let chosen = cx.output("dynamic threshold", &[samples, 4], dtype)?;
        let launch = cx.launch(&CHOOSE).bind(&counts).bind(&known).bind(&above).bind(guidance).bind(&chosen);
        launch.params(&params).variant("counts").groups([samples as u32, 1, 1]);
        state = Some(chosen);
    }
    Ok(state.expect("there is a last pass"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::clip::quantile_of;
    use crate::gpu::Rung;
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
        for length in [1, 2, 5, 257, 1000, 40_001] {
            // Of many sizes, with ties and zeros.
            let x = Array::random(&[3, length], length as u64)
                .map(|x| (x * 8.0).round().abs() * (12.0 * x).exp());
            for quantile in [0.0, 0.3, 0.5, 0.9, 0.995, 1.0] {
                let rows = thresholds(Rung::Tiled, &x, quantile);
                assert_eq!(rows, thresholds(Rung::Cpu, &x, quantile));
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
