//! What a sampler evaluates.

use crate::error::Result;
use crate::gpu::{Buffer, Gpu};
use crate::nn::{UNet, Weights};
use crate::tensor::{DType, Tensor};

use super::checks::Settled;
use super::denoiser::{Denoiser, Network};
use super::guide::Guide;
use super::slots::{Slots, filled, first};
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
    /// What guides by a gradient.
    pub guide: Option<&'a dyn Guide>,
    /// For an upsampler the small pictures, `[N, side, side, low_res_channels]` f32 in [-1, 1], and their side; to be written
    /// before each batch.
    pub low_res: Option<(&'a Buffer, usize)>,
}

/// Networks as plans read them, and the rows that stay as they are.
pub(crate) struct Fixed<'a> {
    main: Network<'a>,
    second: Option<(Network<'a>, Option<Tensor>)>,
}

impl<'a> Fixed<'a> {
    /// # Errors
    /// What the device objects to.
    pub fn new(gpu: &Gpu, networks: &Networks<'a>, settled: &Settled) -> Result<Self> {
        let (n, dtype) = (settled.options.batch, settled.options.dtype);
        let null_rows = |unet: &UNet| {
            let rows = vec![unet.config().null_label(); n];
            let rows = unet.config().num_classes.map(|_| rows);
            rows.map(|rows| labels(gpu, &rows)).transpose()
        };
        let second = match networks.unconditional {
            Some((unet, weights)) if settled.options.guided => {
                Some((Network::new(gpu, unet, weights, dtype)?, null_rows(unet)?))
            }
            _ => None,
        };
        Ok(Fixed { main: Network::new(gpu, networks.unet, networks.weights, dtype)?, second })
    }

    /// The evaluations of a step: together where one network makes them all and nobody asked for less memory.
    pub fn evaluations(&self, gpu: &Gpu, settled: &Settled, slots: &Slots) -> Result<Vec<Evaluation<'_>>> {
        let (n, main): (usize, &dyn Denoiser) = (settled.options.batch, &self.main);
        let rows = |conditions: usize| slots.rows.as_ref().map(|rows| first(rows, conditions * n));
        if self.second.is_none() && !settled.options.two_pass {
            let conditions = 1 + settled.others.len();
            return Ok(vec![Evaluation { of: main, rows: rows(conditions), conditions }]);
        }
        let mut all = vec![Evaluation { of: main, rows: rows(1), conditions: 1 }];
        if let Some((network, rows)) = &self.second {
            all.push(Evaluation { of: network, rows: rows.clone(), conditions: 1 });
        }
        for row in &settled.others {
            // A binding starts at a multiple of 256 bytes, so these rows are a tensor of their own.
            let rows = slots.rows.as_ref().map(|_| labels(gpu, &vec![*row; n])).transpose()?;
            all.push(Evaluation { of: main, rows, conditions: 1 });
        }
        Ok(all)
    }
}

fn labels(gpu: &Gpu, rows: &[u32]) -> Result<Tensor> {
    filled(gpu, "labels", &[rows.len()], DType::U32, bytemuck::cast_slice(rows))
}
