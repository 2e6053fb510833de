//! What the targets share: readers take paths, so each input becomes a file, in memory where the system has that.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Writes `bytes` under `name` in this process's own folder, and hands the path on.
pub fn with_file(name: &str, bytes: &[u8], read: impl FnOnce(&Path)) {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = base.join(format!("freeguide-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the inputs");
        folder
    });
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("an input as a file");
    read(&path);
}
