//! What a session is made for, what it is asked, and what it tells.

use crate::diffusion::{Clip, Guidance, Guiders, Method};
use crate::model::{Condition, Sequence};
use crate::shape::Extent;
use crate::tensor::DType;

/// What a [`Session`](super::Session) is recorded for.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// GPU time in milliseconds that one call of `step` may record; `None` records a whole denoising step a call. Calls cut
    /// between dispatches and record at least one. Measured by timestamps where the device has `TIMESTAMP_QUERY`, else by
    /// how late the host's calls come.
    pub budget_ms: Option<f64>,
    /// The most steps a request may ask for, of Heun's method two for most of its steps; 48 bytes each, with guiders 80 to
    /// 136.
    pub max_steps: usize,
    /// The extent of the pictures, where it is another than the network was trained at, as
    /// [`SamplerOptions::size`](crate::sample::SamplerOptions::size).
    pub size: Option<Extent>,
    /// Which sampler, and its options; `None` for the model's own in its own number of steps.
    pub method: Option<Method>,
    /// How guidance is done; none for the plain way. With guiders a picture without a class takes all evaluations too.
    pub guiders: Guiders,
    /// How many classes a condition may mix; each is one more evaluation a step.
    pub mixed_classes: usize,
    /// What is done to x̂; `None` for the model's own.
    pub clip: Option<Clip>,
    /// Storage type of activations; f16 needs a device with `SHADER_F16`.
    pub dtype: DType,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            budget_ms: None,
            max_steps: 1024,
            size: None,
            method: None,
            guiders: Guiders::default(),
            mixed_classes: 1,
            clip: None,
            dtype: DType::F32,
        }
    }
}

/// A picture to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What it is to be of.
    pub condition: Condition,
    /// Tokens that stand for "nothing", as [`sample::Request::negative`](crate::sample::Request::negative).
    pub negative: Option<Sequence>,
    /// How strongly the condition pulls; w = 1 by default. Not used without a condition, but by guiders.
    pub guidance: Guidance,
    /// The seed of its noise.
    pub seed: u64,
    /// Steps T; `None` for the model's own.
    pub steps: Option<usize>,
    /// The exponent v of the reverse variance, of ancestral steps in continuous time; `None` for the model's own.
    pub variance_exponent: Option<f64>,
}

impl Default for Request {
    fn default() -> Self {
        let guidance = Guidance::from_weight(1.0).expect("1 is finite");
        Request {
            condition: Condition::default(),
            negative: None,
            guidance,
            seed: 0,
            steps: None,
            variance_exponent: None,
        }
    }
}

/// How far the recorded work has come.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Whole steps recorded, of Heun's method each of its evaluations.
    pub step: usize,
    /// Steps of the request, counted likewise; 0 where there is none.
    pub steps: usize,
    /// From 0 to 1, slices of the current step included.
    pub fraction: f32,
    /// Whether the picture is complete once what was recorded has run.
    pub finished: bool,
}

/// Which of a session's pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Show {
    /// x̃, what the guided network takes the clean picture to be; grey before the first step.
    #[default]
    Picture,
    /// z, the noisy latent, clipped to the range of pictures.
    Latent,
}

/// How a picture is drawn; see [`Session::render`](super::Session::render).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Render {
    /// Which one.
    pub show: Show,
    /// The view's format where it differs from its texture's, as for an sRGB view of a texture without.
    pub format: Option<wgpu::TextureFormat>,
    /// Whether the texture holds linear light. `None`: formats that encode sRGB by themselves and floats do, others do not.
    pub linear_light: Option<bool>,
    /// Bilinear between pixels instead of square ones.
    pub smooth: bool,
    /// Fill the whole view, whatever its proportions; else the picture keeps its own, in the middle of black.
    pub stretch: bool,
}
