//! A network that denoises, as samplers, sessions and trainings ask for it: what it is, and its recording.

use crate::error::{Error, Result};
use crate::shape::{Extent, Shape};
use crate::sizes::most_along;
use crate::tensor::{Context, Tensor};

use super::parameters::Parameters;
use super::pass::Pass;
use super::takes::Takes;
use super::told::Told;
use super::weights::Weights;

/// What a denoiser is.
#[derive(Clone, Debug, PartialEq)]
pub struct About {
    /// Channels and extent of a sample.
    pub sample: Shape,
    /// Channels of the output: those of a sample, or twice as many with learned variances.
    pub out_channels: usize,
    /// What it is told beside the noise level.
    pub takes: Takes,
    /// What height and width must be multiples of, of a line its length; 1 where any will do.
    pub divides: usize,
}

impl About {
    /// Refuses an extent that the network cannot evaluate: one of the other kind, or one that it does not divide.
    ///
    /// # Errors
    /// [`Error::Config`] with the numbers and the nearest extents that it takes.
    pub fn check_extent(&self, extent: Extent) -> Result<()> {
        let refuse = |what: String| Err(Error::Config(what));
        let (own, divides) = (self.sample.extent, self.divides.max(1));
        if extent.is_line() != own.is_line() {
            let kind = if own.is_line() { "lines" } else { "planes" };
            return refuse(format!("{extent} asked of a network of {kind}, made for {own}"));
        }
        let most = most_along(extent);
        if extent.longer() > most || extent.places() == 0 {
            return refuse(format!("{extent} is not between 1 and {most} along each axis"));
        }
        if extent.map(|axis| axis.is_multiple_of(divides).then_some(axis)).is_some() {
            return Ok(());
        }
        let below = extent.map(|axis| Some((axis / divides * divides).max(divides)));
        let above = extent.map(|axis| Some(axis.next_multiple_of(divides)));
        let near: Vec<String> =
            below.into_iter().chain(above.filter(|_| above != below)).map(|e| e.to_string()).collect();
        refuse(format!(
            "{extent} asked of a network that takes multiples of {divides} along each axis, as in {}",
            near.join(" or ")
        ))
    }
}

/// A predictor of noise, of the sample, or of a velocity, whatever it is made of. It is asked while plans are recorded and never
/// while they run.
pub trait Denoiser: Send + Sync {
    /// What it is. It never changes.
    fn about(&self) -> &About;

    /// The declarations of its parameters; none of a closed form.
    fn parameters(&self) -> &Parameters;

    /// Records its predictions: z `[N, H, W, C]` f32 scaled as trained, time `[N]` f32; gives `[K·N, H, W, out]` f32, the first
    /// condition of all latents first. It alone repeats z, where the condition enters: at the front
    /// ([`ops::repeat_batch`](crate::ops::repeat_batch)), or late, so that what comes before is shared. Where
    /// [`Takes::moves`] is said, `time` has no element.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when something that it is told does not fit; whatever operations return.
    fn record(
        &self,
        cx: &mut Context,
        weights: &Weights,
        z: &Tensor,
        time: &Tensor,
        told: Told<'_>,
        pass: &Pass<'_>,
    ) -> Result<Tensor>;

    /// Records what depends on the tokens alone, once for each sequence of `[R, L, D]` f32 (keys and values of cross-attention,
    /// each `[R, L, ..]`), which [`Told::prepared`] then brings to every [`record`](Self::record) of a sampler. A training records
    /// it in line. Nothing by default.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for tokens of another width; whatever operations return.
    fn prepare(
        &self,
        cx: &mut Context,
        weights: &Weights,
        tokens: &Tensor,
        pass: &Pass<'_>,
    ) -> Result<Vec<Tensor>> {
        let _ = (cx, weights, tokens, pass);
        Ok(Vec::new())
    }
}
