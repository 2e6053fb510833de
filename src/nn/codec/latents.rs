//! How an autoencoder's own latents become those that a denoiser sees: latent = (raw - mean)·factor, channel by channel.

use crate::error::{Error, Result};
use crate::ops;
use crate::tensor::{Context, Tensor};

/// Means and factors of the channels; one of each stands for all of them, none for 0 and 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latents {
    mean: Vec<f64>,
    factor: Vec<f64>,
}

impl Latents {
    /// (raw - shift)·factor: diffusers' `scaling_factor` and `shift_factor`.
    ///
    /// # Errors
    /// [`Error::Config`] for a factor that is 0 or not finite.
    pub fn scaled(factor: f64, shift: f64) -> Result<Latents> {
        match (factor, shift) {
            (1.0, 0.0) => Ok(Latents::default()),
            _ => Latents { mean: vec![shift], factor: vec![factor] }.checked(),
        }
    }

    /// (raw - mean)·factor/std: diffusers' `latents_mean` and `latents_std` beside a `scaling_factor`. EDM2's latents are so,
    /// with 0.5 for a factor.
    ///
    /// # Errors
    /// [`Error::Config`] for lists of two lengths, and spreads that are 0 or not finite.
    pub fn standardised(mean: &[f64], std: &[f64], factor: f64) -> Result<Latents> {
        if mean.len() != std.len() {
            let what = format!("{} means and {} spreads of a latent's channels", mean.len(), std.len());
            return Err(Error::Config(what));
        }
        Latents { mean: mean.to_vec(), factor: std.iter().map(|std| factor / std).collect() }.checked()
    }

    fn checked(self) -> Result<Latents> {
        let good = |factor: &f64| factor.is_finite() && *factor != 0.0;
        if !self.factor.iter().all(good) || !self.mean.iter().all(|mean| mean.is_finite()) {
            let what = format!(
                "latents with means {:?} and factors {:?}, of which one is none",
                self.mean, self.factor
            );
            return Err(Error::Config(what));
        }
        Ok(self)
    }

    /// Whether there are means and factors for so many channels.
    pub fn suits(&self, channels: usize) -> bool {
        [&self.mean, &self.factor].iter().all(|list| list.len() <= 1 || list.len() == channels)
    }

    /// Of a channel: its mean and its factor.
    pub fn of_channel(&self, channel: usize) -> [f64; 2] {
        let of = |list: &[f64], usual: f64| match list {
            [] => usual,
            [one] => *one,
            all => all[channel],
        };
        [of(&self.mean, 0.0), of(&self.factor, 1.0)]
    }

    /// raw `[.., C]` f32 as a denoiser sees it.
    pub(super) fn seen(&self, cx: &mut Context, raw: &Tensor) -> Result<Tensor> {
        affine(cx, raw, |channel| {
            let [mean, factor] = self.of_channel(channel);
            [factor, -mean * factor]
        })
    }

    /// What a denoiser sees `[.., C]` f32 as the autoencoder has it.
    pub(super) fn raw(&self, cx: &mut Context, seen: &Tensor) -> Result<Tensor> {
        affine(cx, seen, |channel| {
            let [mean, factor] = self.of_channel(channel);
            [1.0 / factor, mean]
        })
    }
}

/// x·a + b, channel by channel: a linear layer of a diagonal matrix, whose zeros cost no digit.
pub(super) fn affine(cx: &mut Context, x: &Tensor, of: impl Fn(usize) -> [f64; 2]) -> Result<Tensor> {
    let channels = x.shape().last().copied().unwrap_or(0);
    let all: Vec<[f64; 2]> = (0..channels).map(of).collect();
    if all.iter().all(|one| *one == [1.0, 0.0]) {
        return Ok(x.clone());
    }
    let mut matrix = vec![0.0; channels * channels];
    for (channel, [a, _]) in all.iter().enumerate() {
        matrix[channel * channels + channel] = *a as f32;
    }
    let offsets: Vec<f32> = all.iter().map(|[_, b]| *b as f32).collect();
    let matrix = cx.constant_f32("factors", &[channels, channels], &matrix)?;
    let offsets = cx.constant_f32("offsets", &[channels], &offsets)?;
    ops::linear(cx, x, &matrix, Some(&offsets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;
    use crate::testing::{Array, download, gpu};

    #[test]
    fn there_and_back() {
        let raw = Array::random(&[2, 3, 5, 4], 1).map(|v| 9.0 * v);
        let edm2 = Latents::standardised(&[5.81, 3.25, 0.12, -2.15], &[4.17, 4.62, 3.71, 3.28], 0.5).unwrap();
        for latents in [
            Latents::default(),
            Latents::scaled(0.18215, 0.0).unwrap(),
            Latents::scaled(1.5305, 0.0609).unwrap(),
            edm2,
        ] {
            let mut cx = Context::new(gpu());
            let x = raw.upload(&cx, DType::F32);
            let seen = latents.seen(&mut cx, &x).unwrap();
            let seen = cx.copy(&seen).unwrap();
            let back = latents.raw(&mut cx, &seen).unwrap();
            let back = cx.copy(&back).unwrap();
            cx.keep(&seen);
            cx.keep(&back);
            let plan = cx.finish("latents").unwrap();
            plan.run().unwrap();
            let want = |at: usize| {
                let [mean, factor] = latents.of_channel(at % 4);
                ((f64::from(raw.data[at]) - mean) * factor) as f32
            };
            let want = Array::new(&raw.shape, (0..raw.data.len()).map(want).collect());
            download(&plan, &seen).check(&format!("{latents:?}"), &want, DType::F32);
            download(&plan, &back).check(&format!("{latents:?}"), &raw, DType::F32);
        }
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        assert!(Latents::scaled(0.0, 0.0).is_err() && Latents::scaled(f64::NAN, 0.0).is_err());
        let error = Latents::standardised(&[1.0], &[1.0, 2.0], 0.5).unwrap_err().to_string();
        assert_eq!(error, "1 means and 2 spreads of a latent's channels");
        assert!(Latents::standardised(&[1.0, 2.0], &[1.0, 0.0], 0.5).is_err());
        assert!(!Latents::standardised(&[1.0, 2.0], &[1.0, 3.0], 0.5).unwrap().suits(4));
    }
}
