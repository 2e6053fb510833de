//! The second stage: pictures made larger by a network that sees them small (ADM, arXiv 2105.05233, section 4.3).

use crate::data::Image;
use crate::diffusion::{Guidance, Guiders};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu};
use crate::model::{Conditions, Model};
use crate::shape::{Extent, Shape};

use super::{Networks, Request, Sampler, SamplerOptions, Uncond};

/// An upsampler, recorded for pictures of one size.
pub struct Upsampling {
    gpu: Gpu,
    sampler: Sampler,
    buffer: Buffer,
    small: Shape,
}

impl Upsampling {
    /// Records the steps of `model` on pictures of the extent `small`; what of `options` is about
    /// guidance is not looked at: that is for the base.
    ///
    /// # Errors
    /// [`Error::Config`] when the model is no upsampler, or does not take pictures of this size.
    pub fn new(gpu: &Gpu, model: &Model, small: Extent, options: SamplerOptions) -> Result<Self> {
        let config = &model.config.unet;
        if config.low_res_channels == 0 {
            return Err(Error::Config(format!(
                "{} is no upsampler; train one with --upsample-from {small}",
                model.path.display()
            )));
        }
        if config.sample_size.over(small).is_none_or(|factor| factor == 1) {
            return Err(Error::Config(format!(
                "the upsampler makes pictures of {}, which is no multiple of {small}",
                config.sample_size
            )));
        }
        let small = Shape { channels: config.low_res_channels, extent: small };
        let bytes = crate::sizes::bytes("small pictures", &small.nhwc(options.batch), 4)?;
        let buffer = gpu.buffer("small pictures", bytes)?;
        let conditions = Some(Conditions::of(&model.config));
        let (guiders, uncond) = (Guiders::default(), Uncond::Null);
        let options = SamplerOptions { guided: false, guiders, uncond, conditions, ..options };
        let (weights, process) = (model.weights(), model.config.process()?);
        let low_res = Some((&buffer, small.extent));
        let networks = Networks { low_res, ..Networks::of(&model.unet, &weights) };
        let sampler = Sampler::with(gpu, networks, process, options)?;
        Ok(Upsampling { gpu: gpu.clone(), sampler, buffer, small })
    }

    /// Evaluations a batch takes.
    pub fn moves(&self) -> usize {
        self.sampler.moves()
    }

    /// The sampler that it runs.
    pub fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// What it was recorded for.
    pub fn options(&self) -> &SamplerOptions {
        self.sampler.options()
    }

    /// Makes pictures larger, `requests` naming their classes and the seeds of their noise.
    ///
    /// # Errors
    /// [`Error::Config`] when a picture has not the recorded size, or there are not as many as requests; whatever the
    /// device objects to.
    pub fn upsample(
        &self,
        images: &[Image],
        requests: &[Request],
        mut on_step: impl FnMut() -> Result<()>,
    ) -> Result<Vec<Image>> {
        if images.len() != requests.len() {
            return Err(Error::Config(format!("{} pictures for {} requests", images.len(), requests.len())));
        }
        if let Some(other) = images.iter().find(|image| image.shape() != self.small) {
            let what = format!("a picture of {} in an upsampler of {}", other.shape(), self.small);
            return Err(Error::Config(what));
        }
        let batch = self.sampler.options().batch;
        let mut large = Vec::with_capacity(images.len());
        for (images, requests) in images.chunks(batch).zip(requests.chunks(batch)) {
            let pixels = images.iter().flat_map(|image| &image.pixels);
            let values: Vec<f32> = pixels.map(|&byte| (f32::from(byte) * 2.0 - 255.0) / 255.0).collect();
            self.gpu.write(&self.buffer, 0, bytemuck::cast_slice(&values))?;
            large.extend(self.sampler.sample(requests, Guidance::from_weight(0.0)?, &mut on_step)?);
        }
        Ok(large)
    }
}
