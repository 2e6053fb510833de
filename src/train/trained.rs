//! What a training trains.

use crate::model::Model;
use crate::nn::{Classifier, Parameters, UNet};

/// What is trained.
#[derive(Clone, Copy)]
pub enum Trained<'a> {
    /// A denoising network.
    UNet(&'a UNet),
    /// A classifier of noisy pictures.
    Classifier(&'a Classifier),
    /// A denoising network, and the model that teaches it.
    Student(&'a UNet, &'a Model),
}

impl<'a> Trained<'a> {
    /// Its parameters.
    pub fn parameters(self) -> &'a Parameters {
        match self {
            Trained::UNet(unet) | Trained::Student(unet, _) => unet.parameters(),
            Trained::Classifier(classifier) => classifier.parameters(),
        }
    }
}

impl<'a> From<&'a UNet> for Trained<'a> {
    fn from(unet: &'a UNet) -> Self {
        Trained::UNet(unet)
    }
}

impl<'a> From<&'a Classifier> for Trained<'a> {
    fn from(classifier: &'a Classifier) -> Self {
        Trained::Classifier(classifier)
    }
}
