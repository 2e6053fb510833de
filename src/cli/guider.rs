//! Guiders on the command line: the sampler that they need, and the table of them.

use crate::data::Image;
use crate::diffusion::guiders::{Against, GUIDERS};
use crate::diffusion::{Guidance, Guiders};
use crate::error::Result;
use crate::gpu::{Gpu, Profile};
use crate::model::Model;
use crate::sample::{FromClassesSampler, GuidedSampler, Request, Sampler, SamplerOptions};

/// The plain sampler, or the one of guiders.
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
pub enum Drawer {
    Plain(Sampler),
    /// And the checksum of the weaker model that guiders name.
    Guided(GuidedSampler, Option<u32>),
    FromClasses(FromClassesSampler),
}

impl Drawer {
    /// The sampler of a model; a weaker model that guiders name is loaded.
    pub fn new(gpu: &Gpu, model: &Model, guiders: Guiders, options: SamplerOptions) -> Result<Drawer> {
        if guiders.is_empty() {
            return Ok(Drawer::Plain(Sampler::of(gpu, model, options)?));
        }
        let weak = match guiders.against() {
            Against::WeakModel(path) => Some(Model::load(gpu, path.as_ref())?),
            _ => None,
        };
        let checksum = weak.as_ref().map(Model::checksum);
        Ok(Drawer::Guided(GuidedSampler::new(gpu, model, weak.as_ref(), guiders, options)?, checksum))
    }

    pub fn options(&self) -> &SamplerOptions {
        match self {
            Drawer::Plain(sampler) => sampler.options(),
            Drawer::Guided(sampler, _) => sampler.options(),
            Drawer::FromClasses(sampler) => sampler.options(),
        }
    }

    /// The guiders, and the checksum of the weaker model that they name.
    pub fn guiders(&self) -> Option<(&Guiders, Option<u32>)> {
        match self {
            Drawer::Guided(sampler, weaker) => Some((sampler.guiders(), *weaker)),
            _ => None,
        }
    }

    /// Steps that make a picture.
    pub fn moves(&self) -> usize {
        match self {
            Drawer::Plain(sampler) => sampler.moves(),
            Drawer::Guided(sampler, _) => sampler.moves(),
            Drawer::FromClasses(sampler) => sampler.options().steps,
        }
    }

    pub fn sample(
        &self,
        requests: &[Request],
        guidance: Guidance,
        on_step: impl FnMut() -> Result<()>,
    ) -> Result<Vec<Image>> {
        match self {
            Drawer::Plain(sampler) => sampler.sample(requests, guidance, on_step),
            Drawer::Guided(sampler, _) => sampler.sample(requests, guidance, on_step),
            Drawer::FromClasses(sampler) => sampler.sample(requests, guidance, on_step),
        }
    }

    pub fn profile_step(&self) -> Result<Profile> {
        match self {
            Drawer::Plain(sampler) => sampler.profile_step(),
            Drawer::Guided(sampler, _) => sampler.profile_step(),
            Drawer::FromClasses(sampler) => sampler.profile_step(),
        }
    }
}

/// Every guider, for the end of a help text.
pub fn table() -> String {
    let entries = GUIDERS.iter().map(|entry| format!("  {}\n          {}\n", entry.usage, entry.what));
    format!("Guiders:\n{}", entries.collect::<String>())
}
