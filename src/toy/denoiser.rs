//! The toy's predictors of noise as denoisers: the closed form, and the network that learnt it. Both read α and σ of the
//! sampler's own rows: z `[N, 1, 1, 2]`, and the row [`CLASSES`] is the marginal.

use crate::diffusion::toy::{CLASSES, STANDARD_DEVIATION, class_mean};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::nn::{
    About, ClassIn, Denoiser, Init, Layout, Mlp, Moves, ParameterId, Parameters, Pass, Takes, Told, Weights,
};
use crate::ops::{self, Mixture};
use crate::sample::Network;
use crate::shape::Shape;
use crate::tensor::{Context, DType, Tensor};

use super::training::ToyNetwork;

/// What predicts the noise.
#[derive(Clone, Copy)]
pub enum ToyModel<'a> {
    /// The closed forms.
    Exact,
    /// A network that learnt them.
    Learnt(&'a ToyNetwork),
}

/// What both are.
fn about() -> About {
    let takes = Takes { class: Some(ClassIn::of(CLASSES)), moves: true, ..Takes::default() };
    About { sample: Shape::square(2, 1), out_channels: 2, takes, divides: 1 }
}

/// Each latent once for each condition, the rows of their classes, and the sampler's moves.
fn shown<'a>(cx: &mut Context, z: &Tensor, told: &Told<'a>) -> Result<(Tensor, &'a Tensor, Moves<'a>)> {
    let (Some(rows), Some(moves)) = (told.class, told.moves) else {
        return Err(Error::shape("toy", "classes and moves are needed"));
    };
    Ok((ops::repeat_batch(cx, z, told.conditions)?, rows, moves))
}

/// The score of the mixture, whose means are its parameter `[CLASSES, 2]`.
pub(super) struct ClosedForm {
    about: About,
    parameters: Parameters,
    means: ParameterId,
    standard_deviation: f64,
}

impl ClosedForm {
    /// Of classes of this standard deviation.
    pub fn new(standard_deviation: f64) -> Self {
        let mut parameters = Parameters::default();
        let means = parameters.declare("means", &[CLASSES, 2], Layout::Plain, Init::Zero);
        ClosedForm { about: about(), parameters, means, standard_deviation }
    }

    /// The same with the means, to be evaluated.
    pub fn network(&self, gpu: &Gpu) -> Result<Network<'_>> {
        let arena = self.parameters.read_only_arena(gpu, "class means", DType::F32)?;
        let means = (0..CLASSES).flat_map(class_mean).map(|x| x as f32).collect();
        arena.write(gpu, 0, &[means])?;
        Network::new(gpu, self, &arena.weights(&self.parameters, 0), DType::F32)
    }
}

impl Denoiser for ClosedForm {
    fn about(&self) -> &About {
        &self.about
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn record(
        &self,
        cx: &mut Context,
        weights: &Weights,
        z: &Tensor,
        _: &Tensor,
        told: Told<'_>,
        _: &Pass<'_>,
    ) -> Result<Tensor> {
        let (z, rows, moves) = shown(cx, z, &told)?;
        let mixture = Mixture { means: weights.get(self.means), standard_deviation: self.standard_deviation };
        ops::mixture_score(cx, &z, rows, mixture, moves.rows, moves.counter)
    }
}

/// An MLP of points that predicts v, told one time for all of them.
pub(super) struct Learnt<'a> {
    about: About,
    mlp: &'a Mlp,
}

impl Denoiser for Learnt<'_> {
    fn about(&self) -> &About {
        &self.about
    }

    fn parameters(&self) -> &Parameters {
        self.mlp.parameters()
    }

    fn record(
        &self,
        cx: &mut Context,
        weights: &Weights,
        z: &Tensor,
        _: &Tensor,
        told: Told<'_>,
        _: &Pass<'_>,
    ) -> Result<Tensor> {
        let (z, rows, moves) = shown(cx, z, &told)?;
        let time = cx.output("time", &[1], DType::F32)?;
        ops::step_times(cx, moves.rows, moves.counter, &time)?;
        let points = z.reshape(&[rows.len(), 2])?;
        let v = self.mlp.forward(cx, weights, &points, &time, rows)?;
        let v = v.reshape(z.shape())?;
        ops::velocity_eps(cx, &z, &v, moves.rows, moves.counter)
    }
}

/// A model of the toy as a denoiser.
pub(super) enum Evaluated<'a> {
    Exact(ClosedForm),
    Learnt(Learnt<'a>, Weights),
}

impl<'a> Evaluated<'a> {
    pub fn new(model: ToyModel<'a>) -> Self {
        match model {
            ToyModel::Exact => Evaluated::Exact(ClosedForm::new(STANDARD_DEVIATION)),
            ToyModel::Learnt(network) => {
                Evaluated::Learnt(Learnt { about: about(), mlp: network.mlp() }, network.weights())
            }
        }
    }

    pub fn network(&self, gpu: &Gpu) -> Result<Network<'_>> {
        match self {
            Evaluated::Exact(form) => form.network(gpu),
            Evaluated::Learnt(learnt, weights) => Network::new(gpu, learnt, weights, DType::F32),
        }
    }
}
