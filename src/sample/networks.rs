//! What a sampler evaluates.

use crate::error::Result;
use crate::gpu::{Buffer, Gpu};
use crate::nn::{UNet, Weights};
use crate::shape::Extent;
use crate::tensor::{DType, Tensor};

use super::denoiser::{Denoiser, Network};
use super::guide::Guide;
use super::settled::Settled;
use super::slots::{Slots, filled};
use super::step::Evaluation;

/// What a sampler evaluates.
#[derive(Clone, Copy)]
pub struct Networks<'a> {
    /// The network.
    pub unet: &'a UNet,
    /// Its weights.
    pub weights: &'a Weights,
    /// Another network for the unconditional half of guidance: one trained without classes, or a weaker one.
    pub unconditional: Option<(&'a UNet, &'a Weights)>,
    /// The weaker network that a guider leads away from; it is told the same condition.
    pub weaker: Option<(&'a UNet, &'a Weights)>,
    /// What guides by a gradient.
    pub guide: Option<&'a dyn Guide>,
    /// For an upsampler the small pictures, `[N, H', W', low_res_channels]` f32 in [-1, 1], and their extent; to be written
    /// before each batch.
    pub low_res: Option<(&'a Buffer, Extent)>,
}

impl<'a> Networks<'a> {
    /// A network alone.
    pub fn of(unet: &'a UNet, weights: &'a Weights) -> Self {
        Networks { unet, weights, unconditional: None, weaker: None, guide: None, low_res: None }
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
        let main = Network::new(gpu, networks.unet, networks.weights, dtype)?;
        let second = match (networks.unconditional, networks.weaker) {
            (_, Some((unet, weights))) => Some(Second::Weaker(Network::new(gpu, unet, weights, dtype)?)),
            (Some((unet, weights)), _) if settled.options.guided => {
                let config = unet.config();
                let rows = config.num_classes.map(|_| labels(gpu, config.null_label(), n)).transpose()?;
                Some(Second::Unconditional(Network::new(gpu, unet, weights, dtype)?, rows))
            }
            _ => None,
        };
        Ok(Fixed { main, second })
    }

    /// The evaluations of a step: together where one network makes them all and nobody asked for less memory.
    pub fn evaluations(&self, gpu: &Gpu, settled: &Settled, slots: &Slots) -> Result<Vec<Evaluation<'_>>> {
        let (n, mixed): (usize, usize) = (settled.options.batch, settled.mixed);
        let main = |rows, conditions| Evaluation { of: &self.main as &dyn Denoiser, rows, conditions };
        let of_first = || slots.rows.clone();
        if let Some(prior) = &settled.prior {
            return Ok(vec![main(of_first(), prior.len())]);
        }
        if self.second.is_none() && !settled.options.two_pass {
            return Ok(vec![main(of_first(), mixed + settled.others.len())]);
        }
        let mut all = vec![main(of_first(), mixed)];
        match &self.second {
            None => {}
            Some(Second::Unconditional(of, rows)) => {
                all.push(Evaluation { of, rows: rows.clone(), conditions: 1 });
            }
            Some(Second::Weaker(of)) => {
                all.push(Evaluation { of, rows: of_first(), conditions: mixed });
            }
        }
        for row in &settled.others {
            // A binding starts at a multiple of 256 bytes, so these rows are a tensor of their own.
            let rows = slots.rows.as_ref().map(|_| labels(gpu, *row, n)).transpose()?;
            all.push(main(rows, 1));
        }
        Ok(all)
    }
}

/// The same row for all samples.
fn labels(gpu: &Gpu, row: u32, samples: usize) -> Result<Tensor> {
    let rows = vec![row; samples];
    filled(gpu, "labels", &[samples], DType::U32, bytemuck::cast_slice(&rows))
}
