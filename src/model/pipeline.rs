//! What makes a text-to-image model whole.

use crate::error::{Error, Result};

use super::config::ModelConfig;

/// Refuses a network that prompts alone cannot ask for a picture.
///
/// # Errors
/// [`Error::Config`] with what it takes instead, or beside.
pub fn check_prompted(config: &ModelConfig) -> Result<()> {
    let takes = config.unet.takes();
    let refuse = |what: &str| Err(Error::Config(what.into()));
    match (&takes.tokens, &takes.vector, &takes.picture) {
        (None, _, _) => refuse(
            "this network reads no text (`prompt`): it was trained on classes, if on any; ask for a `class`",
        ),
        (_, Some(_), _) => refuse(
            "this network takes a vector beside its text (sizes and a pooled text, as SDXL), which is not made yet",
        ),
        (_, _, Some(_)) => refuse(
            "this network is for inpainting: it takes a mask and a picture beside its text, which is not there yet",
        ),
        _ => Ok(()),
    }
}
