//! What a variational autoencoder's encoder says, as a latent: z = mean + exp(l/2)·ε with l its log-variance, clamped to
//! [-30, 20]; without noise z = mean.  moments `[..., 2C]` f32: mean, log-variance; ε and z `[..., C]` f32.
//! dmean = dz,  dl = dz·ε·exp(l/2)/2, 0 where l was clamped.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};
use crate::gpu::{Access, Kernel};
use crate::tensor::{Context, DType, Tensor};
use crate::wgsl;

use Access::{Read, Update, Write};

const FORWARD: Kernel =
    Kernel::new("posterior_sample", wgsl!("posterior_sample"), "forward", &[Read, Read, Write]);
const BACKWARD: Kernel = Kernel::new(
    "posterior_sample_backward",
    wgsl!("posterior_sample"),
    "backward",
    &[Read, Read, Read, Update],
);

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    channels: u32,
    has_noise: u32,
    accumulate: u32,
}

/// A sample of the posterior, or with no noise its mean. `noise` is standard normal and has no gradient.
///
/// # Errors
/// [`Error::Shape`] when the shapes or types do not fit.
pub fn posterior_sample(cx: &mut Context, moments: &Tensor, noise: Option<&Tensor>) -> Result<Tensor> {
    let fail = |what: String| Err(Error::shape("posterior_sample", what));
    let (shape, dtype) = (moments.shape(), moments.dtype());
    let &[ref leading @ .., twice] = shape else { return fail("expected [..., 2C], got []".into()) };
    if twice % 2 != 0 || moments.is_empty() || dtype != DType::F32 {
        return fail(format!("expected moments [..., 2C] F32, got {shape:?} {dtype:?}"));
    }
    let of_latent = [leading, &[twice / 2]].concat();
    if let Some(noise) = noise
        && (noise.shape() != of_latent || noise.dtype() != DType::F32)
    {
        return fail(format!(
            "the noise must be {of_latent:?} F32, got {:?} {:?}",
            noise.shape(),
            noise.dtype()
        ));
    }
    let z = cx.output("posterior_sample", &of_latent, DType::F32)?;
    let params = Params {
        count: z.len() as u32,
        channels: (twice / 2) as u32,
        has_noise: u32::from(noise.is_some()),
        accumulate: 0,
    };
    // Without noise the moments hold its place, unread.
    let noise = noise.unwrap_or(moments).clone();
    cx.launch(&FORWARD).bind(moments).bind(&noise).bind(&z).params(&params).over(z.len(), 64);
    cx.backward(&z, &[moments], {
        let moments = moments.clone();
        move |cx, dz| {
            if let Some(target) = cx.grad_target(&moments)? {
                let params = Params { accumulate: target.flag(), ..params };
                let launch = cx.launch(&BACKWARD).bind(&moments).bind(&noise).bind(dz).bind(&target.tensor);
                launch.params(&params).over(dz.len(), 64);
            }
            Ok(())
        }
    });
    Ok(z)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Array, check_gradients, forward, gpu};

    #[test]
    fn agrees_with_f64() {
        let moments = Array::random(&[2, 3, 5, 8], 1).map(|v| 40.0 * v);
        let noise = Array::random(&[2, 3, 5, 4], 2);
        let want = |at: usize, with: bool| {
            let (pixel, c) = (at / 4, at % 4);
            let [mean, l] = [c, c + 4].map(|c| f64::from(moments.data[pixel * 8 + c]));
            let spread = (l.clamp(-30.0, 20.0) / 2.0).exp();
            (mean + if with { spread * f64::from(noise.data[at]) } else { 0.0 }) as f32
        };
        for with in [false, true] {
            let mut cx = Context::new(gpu());
            let [m, e] = [&moments, &noise].map(|array| array.upload(&cx, DType::F32));
            let z = posterior_sample(&mut cx, &m, with.then_some(&e)).unwrap();
            let z = forward(&[m, e], cx, &z);
            z.check("z", &Array::new(&noise.shape, (0..120).map(|at| want(at, with)).collect()), DType::F32);
        }
        let noise = Array::random(&[3, 2], 3);
        check_gradients(&[Array::random(&[3, 4], 1)], |cx, x| {
            let noise = noise.upload(cx, DType::F32);
            let (a, b) = (posterior_sample(cx, &x[0], Some(&noise))?, posterior_sample(cx, &x[0], None)?);
            crate::ops::add(cx, &a, &b, 0.5)
        });
    }

    #[test]
    fn misfits_are_errors() {
        let mut cx = Context::new(gpu());
        let [x, odd] = [[2, 4], [2, 3]].map(|shape| Array::random(&shape, 1).upload(&cx, DType::F32));
        let error = posterior_sample(&mut cx, &odd, None).unwrap_err().to_string();
        assert_eq!(error, "posterior_sample: expected moments [..., 2C] F32, got [2, 3] F32");
        let error = posterior_sample(&mut cx, &x, Some(&odd)).unwrap_err().to_string();
        assert_eq!(error, "posterior_sample: the noise must be [2, 2] F32, got [2, 3] F32");
    }
}
