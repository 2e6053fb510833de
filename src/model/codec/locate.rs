//! Where a path keeps an autoencoder: which files of weights, and what lies beside them.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::model::diffusers::STEM;
use crate::model::locate::variants;

/// Files of weights and what is known of them from where they lie.
#[derive(Debug)]
pub(super) struct Place {
    /// One, or the halves of a small autoencoder.
    pub weights: Vec<PathBuf>,
    /// `config.json` beside them.
    pub config: Option<PathBuf>,
    pub notes: Vec<String>,
}

/// The autoencoder of a file, of its own folder, or of a pipeline's.
pub(super) fn find(path: &Path) -> Result<Place> {
    if !path.exists() {
        return Err(Error::format(path, "there is no such file or folder"));
    }
    if path.is_file() {
        let config = Some(path.with_file_name("config.json")).filter(|config| config.is_file());
        let other = other_half(path).filter(|other| other.is_file());
        return Ok(Place {
            weights: [path.to_owned()].into_iter().chain(other).collect(),
            config,
            notes: Vec::new(),
        });
    }
    let part = path.join("vae");
    let pipeline = path.join("model_index.json").exists();
    if pipeline && !part.is_dir() {
        return Err(Error::format(
            path,
            "has no vae folder: this model is of pixels, or its autoencoder is not here",
        ));
    }
    let folder = if part.is_dir() { &part } else { path };
    in_folder(folder)
}

/// The halves of a small autoencoder are two files, as `taesd_encoder.safetensors` and `taesd_decoder.safetensors`.
fn other_half(file: &Path) -> Option<PathBuf> {
    let (stem, ending) = file.file_name()?.to_str()?.rsplit_once('.')?;
    let swapped = match (stem.strip_suffix("_encoder"), stem.strip_suffix("_decoder")) {
        (Some(front), _) => format!("{front}_decoder.{ending}"),
        (_, Some(front)) => format!("{front}_encoder.{ending}"),
        _ => return None,
    };
    Some(file.with_file_name(swapped))
}

fn in_folder(folder: &Path) -> Result<Place> {
    let config = Some(folder.join("config.json")).filter(|config| config.is_file());
    let found = variants(folder, STEM)?;
    let (variant, files) = match (found.get_key_value(""), found.len()) {
        (Some(plain), _) => plain,
        (None, 0) => return halves(folder, config),
        (None, 1) => found.first_key_value().expect("there is one"),
        (None, _) => {
            let names: Vec<String> = found.values().map(|files| name(&files[0])).collect();
            let what =
                format!("holds several variants of an autoencoder: {}; give the file", names.join(", "));
            return Err(Error::format(folder, what));
        }
    };
    let mut notes = Vec::new();
    if !variant.is_empty() {
        notes.push(format!("{} is taken, the only variant in the folder", name(&files[0])));
    }
    Ok(Place { weights: vec![files[0].clone()], config, notes })
}

/// The two files of one small autoencoder, where the folder has those of one.
fn halves(folder: &Path, config: Option<PathBuf>) -> Result<Place> {
    let mut decoders: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("_decoder")) {
            decoders.push(path);
        }
    }
    decoders.sort();
    match &decoders[..] {
        [decoder] => {
            let other = other_half(decoder).filter(|other| other.is_file());
            let weights = [decoder.clone()].into_iter().chain(other).collect();
            Ok(Place { weights, config, notes: Vec::new() })
        }
        [] => {
            let what = format!(
                "holds no autoencoder: expected {STEM}.safetensors with config.json, or the two files of a TAESD; of what is \
                 there, give the file itself"
            );
            Err(Error::format(folder, what))
        }
        [first, second, ..] => {
            let what = format!("holds several decoders, {} and {}: give the file", name(first), name(second));
            Err(Error::format(folder, what))
        }
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "{}").unwrap();
        }
        folder
    }

    #[test]
    fn a_pipelines_autoencoder_is_in_its_folder() {
        let there =
            folder(&["model_index.json", "vae/config.json", "vae/diffusion_pytorch_model.fp16.safetensors"]);
        let place = find(there.path()).unwrap();
        assert!(place.weights[0].ends_with("vae/diffusion_pytorch_model.fp16.safetensors"));
        assert!(place.config.unwrap().ends_with("vae/config.json") && place.notes[0].contains("fp16"));
        let alone = find(&there.path().join("vae")).unwrap();
        assert_eq!(alone.weights, place.weights);
    }

    #[test]
    fn the_halves_of_a_small_one_find_each_other() {
        let there = folder(&["taesd_encoder.safetensors", "taesd_decoder.safetensors", "taef1_decoder.pth"]);
        for named in ["taesd_encoder.safetensors", "taesd_decoder.safetensors"] {
            let place = find(&there.path().join(named)).unwrap();
            assert_eq!(place.weights.len(), 2, "{named}");
            assert!(place.weights[0].ends_with(named));
        }
        assert_eq!(find(&there.path().join("taef1_decoder.pth")).unwrap().weights.len(), 1);
        let told = find(there.path()).unwrap_err().to_string();
        assert!(told.contains("several decoders, taef1_decoder.pth and taesd_decoder.safetensors"), "{told}");
        let pair = folder(&["taesd_encoder.pth", "taesd_decoder.pth"]);
        assert_eq!(find(pair.path()).unwrap().weights.len(), 2);
    }

    #[test]
    fn what_is_not_there_is_told() {
        let refused = |files: &[&str], words: &str| {
            let told = find(folder(files).path()).unwrap_err().to_string();
            assert!(told.contains(words), "{told}");
        };
        refused(&[], "holds no autoencoder");
        refused(&["model_index.json", "unet/config.json"], "has no vae folder");
        refused(
            &["diffusion_pytorch_model.a.safetensors", "diffusion_pytorch_model.b.safetensors"],
            "several variants",
        );
        assert!(find(Path::new("/no/such/place")).is_err());
    }
}
