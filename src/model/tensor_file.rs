//! A file of tensors, opened by its contents whatever it is called.

use std::path::Path;

use super::diffusers;
use crate::error::{Error, Result};
use crate::io::{FileKind, PtFile, SafetensorsFile, TensorSource};

/// Opens `.safetensors`, PyTorch's `.pt`, `.ckpt` and `.bin`, or several files behind their index; reads headers alone.
///
/// # Errors
/// When it is none of these, or is damaged.
pub(super) fn open_tensors(path: &Path) -> Result<Box<dyn TensorSource>> {
    let named = path.extension().is_some_and(|extension| extension == "safetensors");
    Ok(match FileKind::of(path)? {
        FileKind::Safetensors => Box::new(SafetensorsFile::open(path)?),
        // Its own opening tells what is damaged.
        FileKind::Text | FileKind::Unknown if named => Box::new(SafetensorsFile::open(path)?),
        FileKind::PyTorch | FileKind::Zip | FileKind::Tar | FileKind::Unknown => {
            Box::new(PtFile::open(path)?)
        }
        FileKind::Json => diffusers::shards(path)?,
        kind => return Err(Error::format(path, kind.instead_of("a model's weights"))),
    })
}
