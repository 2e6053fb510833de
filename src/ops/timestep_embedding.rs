//! Sinusoidal embedding of a time.  y[n] = [cos(t_n f_i) .., sin(t_n f_i) ..],  f_i = 10000^(-i/half).
//!
//! t `[N]` f32, y `[N, D]` f32 with half = ⌊D/2⌋ and a zero column where D is odd (Vaswani et al., arXiv 1706.03762, in
//! the order of the ADM code). No gradient: nobody learns a time.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

const EMBED: Kernel = Kernel::new(
    "timestep_embedding",
    wgsl!("timestep_embedding"),
    "embed",
    &[Access::Read, Access::Read, Access::Write],
);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    half: u32,
    width: u32,
    pad: u32,
}

/// The embedding of each of `times`, `dim` wide.
///
/// # Errors
/// [`Error::Shape`] unless the times are `[N]` of f32 and `dim` at least 2.
pub fn timestep_embedding(cx: &mut Context, times: &Tensor, dim: usize) -> Result<Tensor> {
    let (&[count], DType::F32, 2..) = (times.shape(), times.dtype(), dim) else {
        let what = format!(
            "expected times [N] of F32 and a width of 2 or more, got {:?} {:?} and {dim}",
            times.shape(),
            times.dtype()
        );
        return Err(Error::shape("timestep_embedding", what));
    };
    let half = dim / 2;
    let frequencies = cx.constant_f32("frequencies", &[half, 4], &frequencies(half))?;
    let y = cx.output("timestep_embedding", &[count, dim], DType::F32)?;
    let params = Params { count: count as u32, half: half as u32, width: dim as u32, pad: 0 };
    let launch = cx.launch(&EMBED).bind(times).bind(&frequencies).bind(&y);
    launch.params(&params).over(count * half, 64);
    Ok(y)
}

/// exp(-ln(10000)·i/half)/2π, each as three f32 that sum to it, the first two of 12 bits.
fn frequencies(half: usize) -> Vec<f32> {
    let turns = |i: usize| (-(1e4f64.ln()) * i as f64 / half as f64).exp() / std::f64::consts::TAU;
    let top_bits = |x: f64| f64::from(f32::from_bits((x as f32).to_bits() & 0xffff_f000));
    (0..half)
        .flat_map(|i| {
            let exact = turns(i);
            let high = top_bits(exact);
            let middle = top_bits(exact - high);
            [high as f32, middle as f32, (exact - high - middle) as f32, 0.0]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Array, Golden, forward, gpu};

    fn embed(t: &Array, dim: usize) -> Array {
        let mut cx = Context::new(gpu());
        let times = t.upload(&cx, DType::F32);
        let y = timestep_embedding(&mut cx, &times, dim).unwrap();
        forward(&[times], cx, &y)
    }

    #[test]
    fn matches_the_golden_cases() {
        let golden = Golden::open("ops");
        let t = golden.array("temb.t");
        for dim in [32, 33, 192] {
            golden.check(&format!("temb.d{dim}"), &embed(&t, dim), DType::F32);
        }
    }

    /// Closer than f32's own angle t·f would allow: 3e-5 at t = 1000.
    #[test]
    fn the_angle_is_reduced_without_rounding() {
        let t = Array::new(&[6], vec![0.0, 0.37, -3.25, 999.999_94, 1000.0, 123_456.78]);
        let (dim, half) = (65, 32);
        let exact = t.data.iter().flat_map(|&t| {
            let angle = move |i: usize| f64::from(t) * (-(1e4f64.ln()) * i as f64 / half as f64).exp();
            let cos = (0..half).map(move |i| angle(i).cos() as f32);
            cos.chain((0..half).map(move |i| angle(i).sin() as f32)).chain([0.0])
        });
        let exact = Array::new(&[6, dim], exact.collect());
        embed(&t, dim).check_absolute("embedding", &exact, 1e-6);
    }

    #[test]
    fn misfits_are_errors() {
        let mut cx = Context::new(gpu());
        let times = Array::random(&[3, 1], 1).upload(&cx, DType::F32);
        assert!(timestep_embedding(&mut cx, &times, 8).unwrap_err().to_string().contains("[3, 1]"));
        let times = times.reshape(&[3]).unwrap();
        assert!(timestep_embedding(&mut cx, &times, 1).is_err());
    }
}
