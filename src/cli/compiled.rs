//! Kernels that the driver compiled, kept in the user's cache folder: the next start takes a fraction of the time.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::gpu::Gpu;
use crate::io::write_atomic;

struct Opened {
    gpu: Gpu,
    path: PathBuf,
    loaded: bool,
}

static OPENED: OnceLock<Opened> = OnceLock::new();

/// Gives a device what an earlier run compiled. Whatever goes wrong only costs time, so it is not told.
pub fn load(gpu: &Gpu) {
    let (Some(key), Some(folder)) = (gpu.pipelines_key(), dirs::cache_dir()) else { return };
    // Another version of the program has other kernels.
    let path = folder.join("freeguide").join(format!("{key}-{}.bin", env!("CARGO_PKG_VERSION")));
    let bytes = std::fs::read(&path).ok();
    // Sound: the file lies in a folder of the user's own and was written by `save`.
    let loaded = unsafe { gpu.use_compiled_pipelines(bytes.as_deref()) }.is_ok() && bytes.is_some();
    let _ = OPENED.set(Opened { gpu: gpu.clone(), path, loaded });
}

/// Keeps what was compiled, at the end of the program.
pub fn save() {
    let Some(Opened { gpu, path, loaded }) = OPENED.get() else { return };
    let Some(bytes) = gpu.compiled_pipelines() else { return };
    let kept = std::fs::metadata(path).map_or(0, |found| found.len());
    if *loaded && bytes.len() as u64 <= kept {
        return; // nothing new
    }
    let folder = path.parent().expect("it was joined to one");
    let _ = std::fs::create_dir_all(folder);
    let _ = write_atomic(path, |writer| writer.write_all(&bytes).map_err(crate::error::Error::io(path)));
}
