//! What a sampler evaluates.

use crate::error::Result;
use crate::gpu::{Buffer, Gpu, Plan};
use crate::model::KeptVector;
use crate::nn::{Denoiser, Weights};
use crate::shape::Extent;
use crate::tensor::{DType, Tensor};

use super::guide::Guide;
use super::network::Network;
use super::other::derived;
use super::settled::Settled;
use super::slots::{Slots, filled};
use super::step::Evaluation;

/// What a sampler evaluates.
#[derive(Clone, Copy)]
pub struct Networks<'a> {
    /// The network.
    pub network: &'a dyn Denoiser,
    /// Its weights.
    pub weights: &'a Weights,
    /// Another network for the unconditional half of guidance: one trained without classes, or a weaker one.
    pub unconditional: Option<(&'a dyn Denoiser, &'a Weights)>,
    /// The weaker network that a guider leads away from; it is told the same condition.
    pub weaker: Option<(&'a dyn Denoiser, &'a Weights)>,
    /// What guides by a gradient.
    pub guide: Option<&'a dyn Guide>,
    /// For an upsampler the small pictures, `[N, H', W', C']` f32 in [-1, 1], and their extent; to be written
    /// before each batch.
    pub low_res: Option<(&'a Buffer, Extent)>,
}

impl<'a> Networks<'a> {
    /// A network alone.
    pub fn of(network: &'a dyn Denoiser, weights: &'a Weights) -> Self {
        Networks { network, weights, unconditional: None, weaker: None, guide: None, low_res: None }
    }

    /// All networks with their weights, each with what it is called in messages.
    pub(super) fn all(
        &self,
    ) -> impl Iterator<Item = (&'static str, &'a dyn Denoiser, &'a Weights)> + use<'a> {
        let second =
            self.unconditional.map(|(network, weights)| ("the unconditional network", network, weights));
        let weaker = self.weaker.map(|(network, weights)| ("the weaker network", network, weights));
        [Some(("the network", self.network, self.weights)), second, weaker].into_iter().flatten()
    }
}

/// Networks as plans read them.
pub(crate) struct Fixed<'a> {
    main: Network<'a>,
    second: Option<Second<'a>>,
    /// What is made of tokens before the first step, whenever they change.
    pub prepare: Vec<Plan>,
}

/// What takes the place of the unconditional half.
enum Second<'a> {
    /// Told nothing: its null rows, where it has classes.
    Unconditional(Network<'a>, Option<Tensor>),
    /// Told what the first is told.
    Weaker(Network<'a>),
}

impl<'a> Fixed<'a> {
    /// # Errors
    /// What the device objects to.
    pub fn new(gpu: &Gpu, networks: &Networks<'a>, settled: &Settled, slots: &Slots) -> Result<Self> {
        let (n, dtype) = (settled.options.batch, settled.options.dtype);
        let mut main = Network::new(gpu, networks.network, networks.weights, dtype)?;
        let mut second = match (networks.unconditional, networks.weaker) {
            (_, Some((other, weights))) => Some(Second::Weaker(Network::new(gpu, other, weights, dtype)?)),
            (Some((other, weights)), _) if settled.options.guided => {
                let takes = &other.about().takes;
                let rows = takes.class.map(|_| labels(gpu, takes.null_row(), n)).transpose()?;
                Some(Second::Unconditional(Network::new(gpu, other, weights, dtype)?, rows))
            }
            _ => None,
        };
        let tokens = slots.tokens.as_ref();
        let mut prepare: Vec<Plan> = main.prepare(gpu, tokens)?.into_iter().collect();
        if let Some(Second::Unconditional(other, _) | Second::Weaker(other)) = &mut second {
            prepare.extend(other.prepare(gpu, tokens)?);
        }
        Ok(Fixed { main, second, prepare })
    }

    /// The evaluations of a step: together where one network makes them all and nobody asked for less memory.
    pub fn evaluations(&self, gpu: &Gpu, settled: &Settled, slots: &Slots) -> Result<Vec<Evaluation<'_>>> {
        let (n, mixed): (usize, usize) = (settled.options.batch, settled.mixed);
        let bank = derived(&settled.others);
        let vectors = |of: &Network<'_>, kept: &[&KeptVector]| {
            of.about().takes.vector.map(|_| vector_rows(gpu, &bank, kept, n)).transpose()
        };
        // Of each condition, whether the pictures' own tokens are told.
        let tokens = |of: &Network<'_>, own: &[bool]| {
            of.about().takes.tokens.map(|_| token_rows(gpu, own, n)).transpose()
        };
        let main = |rows: Option<Tensor>, own: &[bool], kept: &[&KeptVector]| {
            let (token_rows, vector_rows) = (tokens(&self.main, own)?, vectors(&self.main, kept)?);
            Ok(Evaluation { of: &self.main, rows, token_rows, vector_rows, conditions: kept.len() })
        };
        let of_first = || slots.rows.clone();
        if let Some(prior) = &settled.prior {
            let all = (vec![true; prior.len()], vec![&KeptVector::Whole; prior.len()]);
            return Ok(vec![main(of_first(), &all.0, &all.1)?]);
        }
        let (told, own) = (vec![true; mixed], vec![&KeptVector::Whole; mixed]);
        if self.second.is_none() && !settled.options.two_pass {
            let others = settled.others.iter().map(|other| &other.vector);
            let all: Vec<&KeptVector> = own.into_iter().chain(others).collect();
            let told: Vec<bool> =
                told.into_iter().chain(settled.others.iter().map(|other| other.tokens)).collect();
            return Ok(vec![main(of_first(), &told, &all)?]);
        }
        let mut all = vec![main(of_first(), &told, &own)?];
        match &self.second {
            None => {}
            Some(Second::Unconditional(of, rows)) => {
                let (token_rows, vector_rows) =
                    (tokens(of, &[false])?, vectors(of, &[&KeptVector::Nothing])?);
                all.push(Evaluation { of, rows: rows.clone(), token_rows, vector_rows, conditions: 1 });
            }
            Some(Second::Weaker(of)) => {
                let (token_rows, vector_rows) = (tokens(of, &told)?, vectors(of, &own)?);
                all.push(Evaluation { of, rows: of_first(), token_rows, vector_rows, conditions: mixed });
            }
        }
        for other in &settled.others {
            // A binding starts at a multiple of 256 bytes, so these rows are a tensor of their own.
            let rows = match (&slots.rows, other.class) {
                (Some(_), Some(class)) => Some(labels(gpu, class, n)?),
                (own, _) => own.clone(),
            };
            all.push(main(rows, &[other.tokens], &[&other.vector])?);
        }
        Ok(all)
    }
}

/// Rows of the bank of tokens for conditions which are told the pictures' own, or those that stand for "nothing" behind them.
fn token_rows(gpu: &Gpu, own: &[bool], samples: usize) -> Result<Tensor> {
    let first = |own: bool| if own { 0 } else { samples };
    let rows: Vec<u32> =
        own.iter().flat_map(|own| (0..samples).map(move |i| (first(*own) + i) as u32)).collect();
    filled(gpu, "token rows", &[rows.len()], DType::U32, bytemuck::cast_slice(&rows))
}

/// Rows of `bank` for conditions of which so much of the pictures' vectors stays; past the last row where nothing does.
fn vector_rows(gpu: &Gpu, bank: &[&KeptVector], kept: &[&KeptVector], samples: usize) -> Result<Tensor> {
    let first = |kept: &KeptVector| bank.iter().position(|held| *held == kept).map(|at| at * samples);
    let row = |first: Option<usize>, i: usize| first.map_or(u32::MAX, |first| (first + i) as u32);
    let rows = kept.iter().flat_map(|kept| (0..samples).map(move |i| row(first(kept), i)));
    let rows: Vec<u32> = rows.collect();
    filled(gpu, "vector rows", &[rows.len()], DType::U32, bytemuck::cast_slice(&rows))
}

/// The same row for all samples.
fn labels(gpu: &Gpu, row: u32, samples: usize) -> Result<Tensor> {
    let rows = vec![row; samples];
    filled(gpu, "labels", &[samples], DType::U32, bytemuck::cast_slice(&rows))
}
