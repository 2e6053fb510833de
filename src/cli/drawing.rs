//! How a model's pictures are drawn, for the commands that measure them.

use crate::diffusion::guiders::Against;
use crate::diffusion::{Evaluations, Guidance, Guiders, Method, SamplerKind, Spacing};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::model::{Conditions, Model};
use crate::sample::{Sampler, SamplerOptions};
use crate::tensor::DType;

use super::{guider, number};

/// What `eval` and `sweep` take of the options of `sample`.
#[derive(clap::Args, Clone, Debug)]
pub struct DrawingArgs {
    /// How guidance is done, as in `sample`.
    #[arg(long, value_name = "GUIDERS", default_value = "", help_heading = "Sampler")]
    guider: String,
    /// The sampler, as in `sample`.
    #[arg(long, value_name = "NAME", help_heading = "Sampler")]
    sampler: Option<SamplerKind>,
    /// η of the sampler, as in `sample`.
    #[arg(long, value_name = "F", value_parser = number::real(0.0..=1.0), help_heading = "Sampler")]
    eta: Option<f64>,
    /// The spacing of its levels, as in `sample`.
    #[arg(long, value_name = "NAME")]
    spacing: Option<Spacing>,
    /// Pictures at a time. It never changes a picture.
    #[arg(
        long,
        value_name = "N",
        value_parser = number::count(1..=number::MOST_BATCH),
        help_heading = "Device"
    )]
    batch: Option<usize>,
}

/// The same, read.
#[derive(Clone, Debug)]
pub struct Drawing {
    guiders: Guiders,
    method: Method,
    batch: Option<usize>,
}

impl DrawingArgs {
    pub fn read(&self) -> Result<Drawing> {
        let (eta, spacing) = (self.eta, self.spacing);
        let method = Method { kind: no_reverse(self.sampler)?, eta, spacing, ..Method::default() };
        Ok(Drawing { guiders: self.guider.parse()?, method, batch: self.batch })
    }
}

impl Drawing {
    /// What draws up to `count` pictures of a model, and the checksum of the weaker model that guiders name.
    pub fn sampler(
        &self,
        gpu: &Gpu,
        model: &Model,
        guidance: Guidance,
        steps: Option<usize>,
        dtype: DType,
        count: usize,
    ) -> Result<(Sampler, Option<u32>)> {
        let batch = self.batch.unwrap_or_else(|| measured_batch(gpu, model)).min(count).max(1);
        let defaults = SamplerOptions::of(&model.config, batch)?;
        let options = SamplerOptions {
            steps: steps.unwrap_or(defaults.steps),
            method: model.config.method_for(self.method.clone())?,
            guided: Sampler::needs_both(guidance),
            guiders: self.guiders.clone(),
            dtype,
            ..defaults
        };
        let weaker = guider::weaker(gpu, &self.guiders, dtype)?;
        let sampler = Sampler::beside(gpu, model, weaker.as_ref(), options)?;
        Ok((sampler, weaker.as_ref().map(Model::checksum)))
    }

    /// Refuses a model that was not taught what this draws of it: pictures of every class, or without one where there are none.
    pub fn check(&self, model: &Model, guidance: Guidance) -> Result<()> {
        let conditions = Conditions::of(&model.config);
        let classes: Vec<Option<u32>> = match conditions.classes() as u32 {
            0 => vec![None],
            count => (0..count).map(Some).collect(),
        };
        let elsewhere = self.guiders.against() != Against::Null;
        let evaluations = if self.guiders.is_empty() { guidance.evaluations() } else { Evaluations::Both };
        conditions.check(classes, evaluations, elsewhere)
    }

    /// Refuses weights that a guider would put its own in the place of.
    pub fn check_weights_are_read(&self) -> Result<()> {
        self.guiders.check_weight_is_read()
    }

    /// In words, where it is not the model's own way: nothing for an empty chain and the model's sampler.
    pub fn note(&self) -> String {
        let mut note = String::new();
        if let Some(kind) = self.method.kind {
            note += &format!(", sampler {kind}");
        }
        if let Some(eta) = self.method.eta {
            note += &format!(", eta {eta}");
        }
        if let Some(spacing) = self.method.spacing {
            note += &format!(", spacing {spacing}");
        }
        if !self.guiders.is_empty() {
            note += &format!(", guiders {}", self.guiders);
        }
        note
    }
}

/// As many as keep the device busy: on a GPU more of small pictures, up to what an interruption may lose.
fn measured_batch(gpu: &Gpu, model: &Model) -> usize {
    let pixels = model.unet.config().sample_size.places().max(1);
    match gpu.capabilities().kind {
        wgpu::DeviceType::Cpu => 32,
        _ => (64 * 64 * 64 / pixels).clamp(64, 512),
    }
}

/// Refuses the one sampler that begins with a picture.
pub fn no_reverse(kind: Option<SamplerKind>) -> Result<Option<SamplerKind>> {
    if kind == Some(SamplerKind::DdimReverse) {
        return Err(Error::Config(
            "ddim-reverse goes from a picture to its latent: say `freeguide sample --from PICTURES`".into(),
        ));
    }
    Ok(kind)
}
