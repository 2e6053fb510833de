//! Where a path keeps text encoders: which files of weights, and what lies beside them.

use std::path::{Path, PathBuf};

use super::family::TextFamily;
use crate::error::{Error, Result};
use crate::text::ClipTokenizer;

/// A file of weights and what is known of it from where it lies.
#[derive(Debug)]
pub(super) struct Place {
    pub weights: PathBuf,
    /// `config.json` beside it.
    pub config: Option<PathBuf>,
    /// The folder of its tokenizer.
    pub tokenizer: Option<PathBuf>,
    /// Whose it is; of Stable Diffusion's folders the sizes say which.
    pub family: Option<Whose>,
    pub notes: Vec<String>,
}

/// What a pipeline's folder says of an encoder in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The only one.
    StableDiffusion,
    /// One of two, or a second without a first.
    Of(TextFamily),
}

/// The folders of a pipeline's encoders and of their tokenizers.
const PARTS: [(&str, &str); 2] = [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")];

/// The encoders of a file, of an encoder's folder, or of a pipeline's.
pub(super) fn find(path: &Path) -> Result<Vec<Place>> {
    if !path.exists() {
        return Err(Error::format(path, "there is no such file or folder"));
    }
    if path.is_file() {
        let folder = path.parent().unwrap_or(Path::new("."));
        return Ok(vec![Place { weights: path.to_owned(), notes: Vec::new(), ..in_folder(folder) }]);
    }
    let there: Vec<PathBuf> =
        PARTS.iter().map(|(part, _)| path.join(part)).filter(|part| part.is_dir()).collect();
    if there.is_empty() && !path.join("model_index.json").exists() {
        let (weights, notes) = weights_in(path)?;
        return Ok(vec![Place { weights, notes, ..in_folder(path) }]);
    }
    if there.is_empty() {
        return Err(Error::format(path, "has no text_encoder folder: this model takes no prompts"));
    }
    let place = |folder: &PathBuf| {
        let (weights, notes) = weights_in(folder)?;
        Ok(Place { weights, notes, ..in_folder(folder) })
    };
    let mut places = there.iter().map(place).collect::<Result<Vec<_>>>()?;
    if path.join("text_encoder_3").is_dir() {
        places[0].notes.push("text_encoder_3 beside it is not read".into());
    }
    Ok(places)
}

/// What a folder says of an encoder in it, the file of weights left open.
fn in_folder(folder: &Path) -> Place {
    let config = Some(folder.join("config.json")).filter(|config| config.is_file());
    let name = folder.file_name().unwrap_or_default();
    let part = PARTS.iter().find(|(part, _)| name == *part).filter(|_| config.is_some());
    let pipeline = folder.parent().unwrap_or(Path::new("."));
    let beside = part.map(|(_, tokenizer)| pipeline.join(tokenizer));
    let tokenizer = beside.into_iter().chain([folder.to_owned()]).find(|folder| ClipTokenizer::is_in(folder));
    let family = part.map(|(part, _)| match *part == PARTS[1].0 {
        true => Whose::Of(TextFamily::SdxlSecond),
        false if pipeline.join(PARTS[1].0).is_dir() => Whose::Of(TextFamily::SdxlFirst),
        false => Whose::StableDiffusion,
    });
    let tokenizer = tokenizer.filter(|_| config.is_some());
    Place { weights: PathBuf::new(), config, tokenizer, family, notes: Vec::new() }
}

/// The names of weights in an encoder's folder, the one that goes first in front: what stands before a variant, and behind it.
const NAMES: [(&str, &str); 3] =
    [("model", ".safetensors"), ("model.safetensors.index", ".json"), ("pytorch_model", ".bin")];

pub(super) fn weights_in(folder: &Path) -> Result<(PathBuf, Vec<String>)> {
    let mut files: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        files.push(entry.map_err(Error::io(folder))?.file_name().to_string_lossy().into_owned());
    }
    files.sort();
    for (stem, ending) in NAMES {
        let plain = format!("{stem}{ending}");
        if files.contains(&plain) {
            return Ok((folder.join(plain), Vec::new()));
        }
    }
    for (stem, ending) in NAMES {
        let is_variant = |name: &&String| {
            name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(ending)).is_some_and(|variant| {
                variant.starts_with('.') && !variant.contains("-of-") && !variant.contains(".index")
            })
        };
        match &files.iter().filter(is_variant).collect::<Vec<_>>()[..] {
            [] => {}
            [only] => {
                let note = format!("{only} is taken, the only variant in the folder");
                return Ok((folder.join(only), vec![note]));
            }
            [first, second, ..] => {
                let what =
                    format!("holds several variants of a text encoder, {first} and {second}: give the file");
                return Err(Error::format(folder, what));
            }
        }
    }
    let what = "holds no text encoder: expected model.safetensors, its index, or pytorch_model.bin, with config.json beside";
    Err(Error::format(folder, what))
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
    fn a_pipelines_encoders_are_found_in_their_order() {
        let there = folder(&[
            "model_index.json",
            "text_encoder/config.json",
            "text_encoder/model.fp16.safetensors",
            "text_encoder_2/config.json",
            "text_encoder_2/model.safetensors",
            "text_encoder_2/model.fp16.safetensors",
            "tokenizer/vocab.json",
        ]);
        let places = find(there.path()).unwrap();
        let families: Vec<_> = places.iter().map(|place| place.family.unwrap()).collect();
        assert_eq!(families, [TextFamily::SdxlFirst, TextFamily::SdxlSecond].map(Whose::Of));
        assert!(places[0].weights.ends_with("model.fp16.safetensors") && places[0].notes[0].contains("fp16"));
        assert!(places[1].weights.ends_with("text_encoder_2/model.safetensors"));
        assert!(places[0].tokenizer.as_ref().unwrap().ends_with("tokenizer"));
        assert_eq!(places[1].tokenizer, None);
        // A part by itself is what it is in its pipeline.
        let part = find(&there.path().join("text_encoder")).unwrap();
        assert_eq!(part[0].family, places[0].family);
        let file = find(&places[1].weights).unwrap();
        assert_eq!((file[0].family, &file[0].config), (places[1].family, &places[1].config));
    }

    #[test]
    fn what_is_not_there_is_told() {
        let refused = |files: &[&str], words: &str| {
            let told = find(folder(files).path()).unwrap_err().to_string();
            assert!(told.contains(words), "{told}");
        };
        refused(&[], "holds no text encoder");
        refused(&["model_index.json", "unet/config.json"], "takes no prompts");
        refused(&["text_encoder/config.json"], "holds no text encoder");
        refused(
            &["model.a.safetensors", "model.b.safetensors"],
            "model.a.safetensors and model.b.safetensors",
        );
        assert!(find(Path::new("/no/such/place")).is_err());
        let single = folder(&["x.safetensors"]);
        let places = find(&single.path().join("x.safetensors")).unwrap();
        assert_eq!((places[0].family, &places[0].config, &places[0].tokenizer), (None, &None, &None));
        let shards = folder(&["model.safetensors.index.json", "model-00001-of-00002.safetensors"]);
        assert!(find(shards.path()).unwrap()[0].weights.ends_with("model.safetensors.index.json"));
    }
}
