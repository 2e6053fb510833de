//! GELU (Hendrycks & Gimpel 2016).  y = x·Φ(x),  dx = dy·(Φ(x) + x·φ(x)), and its approximations by tanh and by σ(1.702x).
//! Any shape.

use bytemuck::{Pod, Zeroable};

use crate::error::Result;
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, Tensor};
use crate::wgsl;

use super::pack::choose;

use Access::{Read, Update, Write};

const FORWARD: Kernel = Kernel::new("gelu", wgsl!("gelu"), "forward", &[Read, Write]);
const FORWARD_PACKED: Kernel = Kernel::new("gelu", wgsl!("gelu"), "forward_packed", &[Read, Write]);
const BACKWARD: Kernel = Kernel::new("gelu_backward", wgsl!("gelu"), "backward", &[Read, Read, Update]);
const BACKWARD_PACKED: Kernel =
    Kernel::new("gelu_backward", wgsl!("gelu"), "backward_packed", &[Read, Read, Update]);

/// Which GELU: trained with one, a network is wrong by a little with another everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gelu {
    /// x·Φ(x), by the error function: `gelu` in configurations.
    Erf,
    /// x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))): `gelu_new`, `gelu_pytorch_tanh`.
    Tanh,
    /// x·σ(1.702·x): `quick_gelu`.
    Quick,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    accumulate: u32,
    pad: [u32; 2],
}

/// y = x·Φ(x), or the approximation of it that `kind` names, element by element.
///
/// # Errors
/// Those of [`Context::output`].
pub fn gelu(cx: &mut Context, x: &Tensor, kind: Gelu) -> Result<Tensor> {
    let chosen = choose(cx, x.dtype(), &[x.len()], &FORWARD_PACKED, &FORWARD);
    let count = x.len() / chosen.lanes;
    let curve = f64::from(kind as u8);
    let y = cx.output("gelu", x.shape(), x.dtype())?;
    let params = Params { count: count as u32, accumulate: 0, pad: [0; 2] };
    let launch = cx.launch(chosen.kernel).bind(x).bind(&y).params(&params).constant("CURVE", curve);
    launch.variant(chosen.variant("")).over(count, chosen.size);
    cx.backward(&y, &[x], {
        let x = x.clone();
        move |cx, dy| {
            if let Some(dx) = cx.grad_target(&x)? {
                let params = Params { accumulate: dx.flag(), ..params };
                let chosen = choose(cx, x.dtype(), &[x.len()], &BACKWARD_PACKED, &BACKWARD);
                let launch = cx.launch(chosen.kernel).bind(&x).bind(dy).bind(&dx.tensor).params(&params);
                let launch = launch.constant("CURVE", curve);
                launch.variant(chosen.variant("")).over(count, chosen.size);
            }
            Ok(())
        }
    });
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Array, check_gradients, dtypes, forward_backward_on, gpu, rungs};

    /// ∫ exp(-t²/2)/√(2π) from -∞ to x, by its power series or, far out, its continued fraction.
    pub fn normal_below(x: f64) -> f64 {
        let density = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
        if x.abs() < 5.0 {
            let mut term = x;
            let mut sum = x;
            for k in 1..120 {
                term *= x * x / f64::from(2 * k + 1);
                sum += term;
            }
            return 0.5 + density * sum;
        }
        let fraction = (1..60).rev().fold(x.abs(), |below, k| x.abs() + f64::from(k) / below);
        let tail = density / fraction;
        if x < 0.0 { tail } else { 1.0 - tail }
    }

    fn value_and_slope(kind: Gelu, x: f64) -> (f64, f64) {
        let sigmoid = |u: f64| 1.0 / (1.0 + (-u).exp());
        match kind {
            Gelu::Erf => {
                let below = normal_below(x);
                (x * below, below + x * (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt())
            }
            Gelu::Tanh => {
                let c = (2.0 / std::f64::consts::PI).sqrt();
                let t = (c * (x + 0.044715 * x.powi(3))).tanh();
                let slope = c * (1.0 + 3.0 * 0.044715 * x * x);
                (x / 2.0 * (1.0 + t), 0.5 * (1.0 + t) + x / 2.0 * (1.0 - t * t) * slope)
            }
            Gelu::Quick => {
                let s = sigmoid(1.702 * x);
                (x * s, s * (1.0 + 1.702 * x * (1.0 - s)))
            }
        }
    }

    const KINDS: [Gelu; 3] = [Gelu::Erf, Gelu::Tanh, Gelu::Quick];

    #[test]
    fn the_reference_is_the_normal_distribution() {
        for (x, want) in [(0.0, 0.5), (1.0, 0.841344746068543), (-6.0, 9.8658764503770e-10)] {
            assert!((normal_below(x) / want - 1.0).abs() < 1e-12, "{x}: {}", normal_below(x));
        }
        let (left, right) = (normal_below(4.999_999_999), normal_below(5.000_000_001));
        assert!((left - right).abs() < 1e-13);
    }

    #[test]
    fn packs_and_single_elements_agree_with_the_definition() {
        for (rung, shape) in rungs().into_iter().flat_map(|r| [(r, [3, 5, 7]), (r, [3, 5, 16])]) {
            let (x, gy) = (Array::random(&shape, 1).map(|x| 6.0 * x), Array::random(&shape, 2));
            for kind in KINDS {
                let y = x.map(|x| value_and_slope(kind, f64::from(x)).0 as f32);
                let dx = x.zip(&gy, |x, g| (f64::from(g) * value_and_slope(kind, f64::from(x)).1) as f32);
                for dtype in dtypes() {
                    let (got, grads) =
                        forward_backward_on(rung, dtype, std::slice::from_ref(&x), &gy, |cx, x| {
                            gelu(cx, &x[0], kind)
                        });
                    got.check(&format!("{rung} {kind:?} y"), &y, dtype);
                    grads[0].check(&format!("{rung} {kind:?} dx"), &dx, dtype);
                }
            }
        }
    }

    #[test]
    fn the_error_function_is_as_good_as_f32_everywhere() {
        let x = Array::new(&[4096], (0..4096).map(|i| (i as f32 - 2048.0) / 256.0).collect());
        let gy = x.map(|_| 1.0);
        let rung = gpu().capabilities().rung;
        let (y, grads) =
            forward_backward_on(rung, crate::tensor::DType::F32, std::slice::from_ref(&x), &gy, |cx, x| {
                gelu(cx, &x[0], Gelu::Erf)
            });
        for ((&x, &y), &slope) in x.data.iter().zip(&y.data).zip(&grads[0].data) {
            let (want, want_slope) = value_and_slope(Gelu::Erf, f64::from(x));
            let (error, of_slope) = (f64::from(y) - want, f64::from(slope) - want_slope);
            assert!(error.abs() <= 1e-6 * want.abs().max(0.1), "{x}: {y}, expected {want}");
            assert!(of_slope.abs() <= 1e-6, "{x}: slope {slope}, expected {want_slope}");
        }
    }

    #[test]
    fn large_values_are_themselves_or_nothing() {
        let x = Array::new(&[2, 4], vec![1e4, -1e4, 6e4, -6e4, 20.0, -20.0, 0.0, 1e30]);
        let gy = x.map(|_| 1.0);
        for kind in KINDS {
            let (y, grads) = forward_backward_on(
                gpu().capabilities().rung,
                crate::tensor::DType::F32,
                std::slice::from_ref(&x),
                &gy,
                |cx, x| gelu(cx, &x[0], kind),
            );
            for ((&x, &y), &slope) in x.data.iter().zip(&y.data).zip(&grads[0].data) {
                let one = if x == 0.0 { 0.5 } else { f32::from(x > 0.0) };
                assert!(
                    (y - x.max(0.0)).abs() < 1e-6 && (slope - one).abs() < 1e-6,
                    "{kind:?} {x}: {y}, {slope}"
                );
            }
        }
    }

    #[test]
    fn gradient_is_that_of_finite_differences() {
        for kind in KINDS {
            check_gradients(&[Array::random(&[3, 5, 7], 1)], |cx, x| gelu(cx, &x[0], kind));
            // Gradients that add to one another.
            check_gradients(&[Array::random(&[3, 8], 1)], |cx, x| {
                let (a, b) = (gelu(cx, &x[0], kind)?, gelu(cx, &x[0], kind)?);
                crate::ops::add(cx, &a, &b, 0.7)
            });
        }
    }
}
