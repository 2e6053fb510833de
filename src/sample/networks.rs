//! What a sampler evaluates.

use crate::error::Result;
use crate::gpu::{Buffer, Gpu};
use crate::nn::{Denoiser, Weights};
use crate::tensor::{DType, Tensor};

use super::guide::Guide;
use super::network::Network;
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
    /// For an upsampler the small pictures, `[N, side, side, C']` f32 in [-1, 1], and their side; to be written
    /// before each batch.
    pub low_res: Option<(&'a Buffer, usize)>,
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
    pub fn new(gpu: &Gpu, networks: &Networks<'a>, settled: &Settled) -> Result<Self> {
        let (n, dtype) = (settled.options.batch, settled.options.dtype);
        let main = Network::new(gpu, networks.network, networks.weights, dtype)?;
        let second = match (networks.unconditional, networks.weaker) {
            (_, Some((other, weights))) => Some(Second::Weaker(Network::new(gpu, other, weights, dtype)?)),
            (Some((other, weights)), _) if settled.options.guided => {
                let takes = &other.about().takes;
                let rows = takes.class.map(|_| labels(gpu, takes.null_row(), n)).transpose()?;
                Some(Second::Unconditional(Network::new(gpu, other, weights, dtype)?, rows))
            }
            _ => None,
        };
        Ok(Fixed { main, second })
    }

    /// The evaluations of a step: together where one network makes them all and nobody asked for less memory.
    pub fn evaluations(&self, gpu: &Gpu, settled: &Settled, slots: &Slots) -> Result<Vec<Evaluation<'_>>> {
        let (n, mixed): (usize, usize) = (settled.options.batch, settled.mixed);
        // The bank's rows of the vectors of these conditions, each the pictures' own or nothing.
        let vectors = |of: &Network<'_>, own: &[bool]| {
            of.about().takes.vector.map(|_| vector_rows(gpu, own, n)).transpose()
        };
        let evaluation = |of, rows: Option<Tensor>, own: &[bool]| {
            Ok(Evaluation { of, rows, vector_rows: vectors(of, own)?, conditions: own.len() })
        };
        let of_first = || slots.rows.clone();
        if let Some(prior) = &settled.prior {
            return Ok(vec![evaluation(&self.main, of_first(), &vec![true; prior.len()])?]);
        }
        let own = vec![true; mixed];
        if self.second.is_none() && !settled.options.two_pass {
            let others = settled.others.iter().map(|other| other.keeps_vector);
            let all: Vec<bool> = own.into_iter().chain(others).collect();
            return Ok(vec![evaluation(&self.main, of_first(), &all)?]);
        }
        let mut all = vec![evaluation(&self.main, of_first(), &own)?];
        match &self.second {
            None => {}
            Some(Second::Unconditional(of, rows)) => all.push(evaluation(of, rows.clone(), &[false])?),
            Some(Second::Weaker(of)) => all.push(evaluation(of, of_first(), &own)?),
        }
        for other in &settled.others {
            // A binding starts at a multiple of 256 bytes, so these rows are a tensor of their own.
            let rows = slots.rows.as_ref().map(|_| labels(gpu, other.class, n)).transpose()?;
            all.push(evaluation(&self.main, rows, &[other.keeps_vector])?);
        }
        Ok(all)
    }
}

/// Rows of the pictures' own vectors, and past the last one where a condition has none.
fn vector_rows(gpu: &Gpu, own: &[bool], samples: usize) -> Result<Tensor> {
    let of = |own: &bool| (0..samples as u32).map(if *own { |i| i } else { |_| u32::MAX });
    let rows: Vec<u32> = own.iter().flat_map(of).collect();
    filled(gpu, "vector rows", &[rows.len()], DType::U32, bytemuck::cast_slice(&rows))
}

/// The same row for all samples.
fn labels(gpu: &Gpu, row: u32, samples: usize) -> Result<Tensor> {
    let rows = vec![row; samples];
    filled(gpu, "labels", &[samples], DType::U32, bytemuck::cast_slice(&rows))
}
