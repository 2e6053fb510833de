//! What a sampler is recorded for, and what a picture is asked for with.

use crate::diffusion::{Clip, Guiders, Method};
use crate::error::{Error, Result};
use crate::model::{Condition, Conditions, ModelConfig, Sequence};
use crate::shape::Extent;
use crate::tensor::DType;

/// Where the unconditional half of guidance comes from.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Uncond {
    /// The null class, or another network where there is one ([`Networks`](super::Networks)).
    #[default]
    Null,
    /// The predictions of all classes, weighed by p(class given z) as the chain so far has it: an evaluation for each of few
    /// classes, in ancestral steps of continuous time.
    FromClasses {
        /// How likely each class is before anything is seen; `None`: all alike.
        prior: Option<Vec<f64>>,
    },
}

/// What a sampler is recorded for.
#[derive(Clone, Debug)]
pub struct SamplerOptions {
    /// Pictures at a time.
    pub batch: usize,
    /// The extent of what is made, where it is another than the network was trained at: any that its halvings divide, a plane
    /// for a plane. The levels that attend are those of the trained extent.
    pub size: Option<Extent>,
    /// Steps T.
    pub steps: usize,
    /// Which sampler, and its options.
    pub method: Method,
    /// The exponent v of the reverse variance.
    pub variance_exponent: f64,
    /// What is done to x̂.
    pub clip: Clip,
    /// Evaluate with and without the condition, as guidance needs it, or only once a step. Not read where guiders or
    /// [`Uncond::FromClasses`] say what is evaluated, nor of a distilled network, whose one evaluation is guided.
    pub guided: bool,
    /// How guidance is done, as many evaluations a step as they ask for; none for the plain way. Steps that they leave
    /// without guidance take one evaluation.
    pub guiders: Guiders,
    /// Where the unconditional half of guidance comes from.
    pub uncond: Uncond,
    /// Evaluate in two passes of N instead of one of 2N: half the memory, the same picture.
    pub two_pass: bool,
    /// Of a network that takes tokens, how many a sequence has.
    pub tokens: usize,
    /// Storage type of activations.
    pub dtype: DType,
    /// Divide sums as suits a small batch: sooner done, but a picture's last bits depend on the batch it was made in.
    pub fast: bool,
    /// What the network may be told, checked when pictures are asked for; `None` for all that its architecture has.
    pub conditions: Option<Conditions>,
}

impl SamplerOptions {
    /// For a network of one's own: guided, in f32, of sequences of 77 tokens as CLIP's, with the process's own sampler, v = 0.3 and x̂ kept in [-1, 1].
    pub fn new(batch: usize, steps: usize) -> Self {
        SamplerOptions {
            batch,
            size: None,
            steps,
            method: Method::default(),
            variance_exponent: 0.3,
            clip: Clip::Static,
            guided: true,
            guiders: Guiders::default(),
            uncond: Uncond::Null,
            two_pass: false,
            tokens: 77,
            dtype: DType::F32,
            fast: false,
            conditions: None,
        }
    }

    /// The defaults of a model, guided where the model can be.
    ///
    /// # Errors
    /// [`Error::Config`] when the configuration names an unknown clip or sampler.
    pub fn of(config: &ModelConfig, batch: usize) -> Result<Self> {
        let conditions = Conditions::of(config);
        Ok(SamplerOptions {
            method: config.method()?,
            variance_exponent: config.sampling.variance_exponent,
            clip: config.clip()?,
            guided: conditions.can_guide(),
            conditions: Some(conditions),
            ..SamplerOptions::new(batch, config.default_steps())
        })
    }
}

/// One picture to be made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// What it is to be of.
    pub condition: Condition,
    /// Of a network that takes tokens, those that stand for "nothing", which guidance leads away from: of a negative prompt, or of
    /// the empty text.
    pub negative: Option<Sequence>,
    /// The seed of its noise.
    pub seed: u64,
}

impl Request {
    /// One picture, guidance leading away from "nothing".
    pub fn new(condition: impl Into<Condition>, seed: u64) -> Request {
        Request { condition: condition.into(), negative: None, seed }
    }

    /// As many as a sampler of batches of `n` makes: places that are not asked for repeat the first request, and their
    /// pictures are not read.
    pub(super) fn fill(requests: &[Request], n: usize) -> Result<Vec<Request>> {
        if requests.len() > n {
            return Err(Error::Config(format!("{} pictures in a sampler for {n}", requests.len())));
        }
        let filler = requests.first().cloned().unwrap_or_default();
        Ok((0..n).map(|i| requests.get(i).unwrap_or(&filler).clone()).collect())
    }

    /// The seed as kernels take it: low, high.
    pub(super) fn seed_words(&self) -> [u32; 2] {
        [self.seed as u32, (self.seed >> 32) as u32]
    }
}
