//! A network that denoises, as samplers, sessions and trainings ask for it: what it is, and its recording.

use crate::error::Result;
use crate::shape::Shape;
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
}
