//! What a command will write: refused, or tried, before any work is done for it.

use std::path::Path;

use crate::error::{Error, Result};
use crate::io::prove_writable;

/// Refuses files that are there already, unless `force`, and those that could not be written.
pub fn prove<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>, force: bool) -> Result<()> {
    paths.into_iter().try_for_each(|path| {
        check_free(path.as_ref(), force)?;
        prove_writable(path)
    })
}

/// Refuses a folder that no file could be written into.
pub fn prove_folder(dir: &Path) -> Result<()> {
    if dir.is_file() {
        return Err(Error::Config(format!("{} is a file, where a folder is to be", dir.display())));
    }
    prove_writable(dir.join("new"))
}

/// Refuses a folder that a training could not write into, and, where none was begun in it, one that holds `drawings` of the
/// same names already.
pub fn prove_training(dir: &Path, drawings: &[&str]) -> Result<()> {
    prove_folder(dir)?;
    let begun = dir.join("train.json").exists();
    let there = drawings.iter().map(|name| dir.join(name)).find(|path| path.symlink_metadata().is_ok());
    match there.filter(|_| !begun) {
        Some(path) => Err(Error::Config(format!(
            "{} exists already, and no training was begun beside it; give another folder",
            path.display()
        ))),
        None => Ok(()),
    }
}

/// Refuses to overwrite, unless asked to.
pub fn check_free(path: &Path, force: bool) -> Result<()> {
    // A link that leads nowhere is somebody's, too.
    if path.symlink_metadata().is_ok() && !force {
        return Err(Error::Config(format!("{} exists already; --force overwrites it", path.display())));
    }
    Ok(())
}
