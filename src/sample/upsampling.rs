//! The second stage: pictures made larger by a network that sees them small (ADM, arXiv 2105.05233, section 4.3).

use crate::data::Image;
use crate::diffusion::{Guidance, Guiders};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Gpu};
use crate::model::{Conditions, Model};

use super::{Networks, Request, Sampler, SamplerOptions, Uncond};

/// An upsampler, recorded for pictures of one size.
pub struct Upsampling {
    gpu: Gpu,
    sampler: Sampler,
    small: Buffer,
    side: usize,
    channels: usize,
}

impl Upsampling {
    /// Records the steps of `model` on pictures of `side`; what of `options` is about
    /// guidance is not looked at: that is for the base.
    ///
    /// # Errors
    /// [`Error::Config`] when the model is no upsampler, or does not take pictures of this size.
    pub fn new(gpu: &Gpu, model: &Model, side: usize, options: SamplerOptions) -> Result<Self> {
        let config = &model.config.unet;
        if config.low_res_channels == 0 {
            return Err(Error::Config(format!(
                "{} is no upsampler; train one with --upsample-from {side}",
                model.path.display()
            )));
        }
        if side == 0 || side >= config.sample_size || !config.sample_size.is_multiple_of(side) {
            return Err(Error::Config(format!(
                "the upsampler makes pictures of {0}x{0}, which is no multiple of {side}x{side}",
                config.sample_size
            )));
        }
        let channels = config.low_res_channels;
        let bytes = crate::sizes::bytes("small pictures", &[options.batch, side, side, channels], 4)?;
        let small = gpu.buffer("small pictures", bytes)?;
        let conditions = Some(Conditions::of(&model.config));
        let (guiders, uncond) = (Guiders::default(), Uncond::Null);
        let options = SamplerOptions { guided: false, guiders, uncond, conditions, ..options };
        let (weights, process) = (model.weights(), model.config.process()?);
        let networks = Networks { low_res: Some((&small, side)), ..Networks::of(&model.unet, &weights) };
        let sampler = Sampler::with(gpu, networks, process, options)?;
        Ok(Upsampling { gpu: gpu.clone(), sampler, small, side, channels })
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
        let size = |image: &Image| (image.width, image.height, image.channels);
        if let Some(other) = images.iter().find(|image| size(image) != (self.side, self.side, self.channels))
        {
            let (want, channels) = (self.side, self.channels);
            return Err(Error::Config(format!(
                "a picture of {:?} in an upsampler of ({want}, {want}, {channels})",
                size(other)
            )));
        }
        let batch = self.sampler.options().batch;
        let mut large = Vec::with_capacity(images.len());
        for (images, requests) in images.chunks(batch).zip(requests.chunks(batch)) {
            let pixels = images.iter().flat_map(|image| &image.pixels);
            let values: Vec<f32> = pixels.map(|&byte| (f32::from(byte) * 2.0 - 255.0) / 255.0).collect();
            self.gpu.write(&self.small, 0, bytemuck::cast_slice(&values))?;
            large.extend(self.sampler.sample(requests, Guidance::from_weight(0.0)?, &mut on_step)?);
        }
        Ok(large)
    }
}
