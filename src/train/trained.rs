//! What a training trains.

use crate::error::{Error, Result};
use crate::model::Model;
use crate::nn::{About, Classifier, Denoiser, Parameters, Takes, UNet, UNetConfig};
use crate::shape::Shape;

/// What is trained.
#[derive(Clone, Copy)]
pub enum Trained<'a> {
    /// A denoising network.
    Denoiser(&'a dyn Denoiser),
    /// A classifier of noisy pictures.
    Classifier(&'a Classifier),
    /// A denoising network, and the model that teaches it.
    Student(&'a UNet, &'a Model),
}

impl<'a> Trained<'a> {
    /// Its parameters.
    pub fn parameters(self) -> &'a Parameters {
        match self {
            Trained::Denoiser(network) => network.parameters(),
            Trained::Student(unet, _) => unet.parameters(),
            Trained::Classifier(classifier) => classifier.parameters(),
        }
    }
}

impl Trained<'_> {
    /// Refuses a denoiser of other samples or conditions than the options' (`unet`), which the data are brought to.
    ///
    /// # Errors
    /// [`Error::Config`] with both.
    pub(super) fn check(self, config: &UNetConfig) -> Result<()> {
        let Trained::Denoiser(network) = self else { return Ok(()) };
        let About { sample, out_channels, takes, .. } = network.about();
        let told = |shape: Shape, out: usize, takes: &Takes| {
            let small = takes.picture.map_or(0, |picture| picture.channels);
            format!(
                "samples of {} in {} channels, {out} out, {} classes, a vector of {}, {small} channels of a small picture",
                shape.extent,
                shape.channels,
                takes.classes(),
                takes.vector_width()
            )
        };
        let has = told(*sample, *out_channels, takes);
        let asked = config.shape();
        let asked = told(asked, config.out_channels, &config.takes());
        match takes.guidance.is_some() || takes.moves {
            true => Err(Error::Config(
                "a network that is told the guidance weight or the sampler's moves is not trained by itself"
                    .into(),
            )),
            false if has != asked => {
                Err(Error::Config(format!("the network is for {has}; the options (`unet`) ask for {asked}")))
            }
            false => Ok(()),
        }
    }
}

impl<'a> From<&'a UNet> for Trained<'a> {
    fn from(unet: &'a UNet) -> Self {
        Trained::Denoiser(unet)
    }
}

impl<'a> From<&'a dyn Denoiser> for Trained<'a> {
    fn from(network: &'a dyn Denoiser) -> Self {
        Trained::Denoiser(network)
    }
}

impl<'a> From<&'a Classifier> for Trained<'a> {
    fn from(classifier: &'a Classifier) -> Self {
        Trained::Classifier(classifier)
    }
}
