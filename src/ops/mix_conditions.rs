//! Several conditions as one: eps = Σ_k m_k eps_k over the first K·N samples of a batch; those behind are kept. No
//! gradient: sampling alone uses it, before the guided step (composed scores: Liu et al., arXiv 2206.01714, eq. 11).

use bytemuck::{Pod, Zeroable};

use super::noised::expect;
use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const FORWARD: Kernel = Kernel::new(
    "mix_conditions",
    wgsl!("mix_conditions"),
    "forward",
    &[Access::Read, Access::Read, Access::Write],
);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    first: u32,
    mixed: u32,
    count: u32,
    pad: u32,
}

/// `x` `[K·N + M, ...]` f32 or f16 and `weights` `[K]` f32 to `[N + M, ...]` f32: the weighted sum of the K blocks of N samples, then
/// the M samples behind them.
///
/// # Errors
/// [`Error::Shape`] when there are fewer than K·N samples, or the weights are not f32.
pub fn mix_conditions(cx: &mut Context, x: &Tensor, weights: &Tensor, samples: usize) -> Result<Tensor> {
    const OP: &str = "mix_conditions";
    let mixed = weights.len();
    expect(OP, "weights", weights, &[mixed], DType::F32)?;
    let mut shape = x.shape().to_vec();
    let Some(behind) = shape[0].checked_sub(mixed * samples).filter(|_| mixed > 0) else {
        let what = format!("{mixed} conditions of {samples} samples in a batch of {}", shape[0]);
        return Err(Error::shape(OP, what));
    };
    let one = x.len() / shape[0].max(1);
    shape[0] = samples + behind;
    let y = cx.output(OP, &shape, DType::F32)?;
    let params = Params { first: (samples * one) as u32, mixed: mixed as u32, count: y.len() as u32, pad: 0 };
    cx.launch(&FORWARD).bind(x).bind(weights).bind(&y).params(&params).over(y.len(), 64);
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Array, download, dtypes, gpu};

    #[test]
    fn blocks_are_weighed_and_the_rest_is_kept() {
        for (mixed, samples, behind) in [(1, 2, 3), (3, 1, 1), (2, 3, 0)] {
            let x = Array::random(&[mixed * samples + behind, 5, 7], 1);
            let weights: Vec<f32> = (0..mixed).map(|k| 0.75 - k as f32).collect();
            let block = samples * 35;
            let mut want: Vec<f32> = (0..block)
                .map(|i| (0..mixed).map(|k| f64::from(weights[k]) * f64::from(x.data[k * block + i])).sum())
                .map(|sum: f64| sum as f32)
                .collect();
            want.extend(&x.data[mixed * block..]);

            let want = Array::new(&[samples + behind, 5, 7], want);
            for dtype in dtypes() {
                let mut cx = Context::new(gpu());
                let (x_, w_) = (x.upload(&cx, dtype), cx.constant_f32("m", &[mixed], &weights).unwrap());
                let y = mix_conditions(&mut cx, &x_, &w_, samples).unwrap();
                assert!(
                    mix_conditions(&mut cx, &x_, &w_, 9).unwrap_err().to_string().contains("of 9 samples")
                );
                cx.keep(&y);
                let plan = cx.finish("mix").unwrap();
                plan.run().unwrap();
                download(&plan, &y).check("y", &want, DType::F32);
            }
        }
    }
}
