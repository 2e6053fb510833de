//! Which file of weights a path names, the one place that decides it.
//!
//! A file that is named is the file that is read. In a folder the usual name goes first; a variant of it (`fp16`, an
//! average) that is there alone is taken with a note, and of several one must be named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::average::{Average, held_at};
use super::checkpoint::Found;
use super::diffusers::STEM as THEIRS;
use crate::error::{Error, Result, brief};

/// What is asked of a model beyond its path. Nothing of it is the usual.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// A JSON file of guided-diffusion's flags; it goes before all else that says what the network is.
    pub flags: Option<PathBuf>,
    /// Which of a training's weights.
    pub average: Option<Average>,
    /// Which network of a file that holds several, by its name there.
    pub network: Option<String>,
    /// The last of K + 1 rows of classes is the null class, as in DiT's checkpoints.
    pub null_class_last: bool,
}

impl Choice {
    /// The usual, with a file of flags.
    pub fn flags(flags: Option<&Path>) -> Choice {
        Choice { flags: flags.map(Path::to_owned), ..Choice::default() }
    }
}

/// What this program calls a network's weights.
const OWN: &str = "model";

/// A place of weights.
#[derive(Debug)]
pub(super) struct Place {
    /// The file, or the index of several that belong together.
    pub file: PathBuf,
    /// Why this one, for `info`.
    pub why: String,
    /// The network in it that is wanted.
    pub network: Option<String>,
    /// The average that is wanted; of a folder's files it is found already.
    pub average: Option<Average>,
    /// What is to be told of the choice.
    pub notes: Vec<String>,
}

/// Finds the weights that `path` names: a file, `FILE#NETWORK`, a folder, or `FOLDER#AVERAGE`.
pub(super) fn find(path: &Path, choice: &Choice) -> Result<Place> {
    let (path, named) = split(path);
    if !path.exists() {
        return Err(Error::format(path, "there is no such file or folder"));
    }
    let (mut network, mut average) = (choice.network.clone(), choice.average);
    if let Some(named) = named {
        let twice = |option: String| {
            let what = format!(
                "{} asks for {named}, and the option for {option}",
                path.display(),
                named = brief(&named)
            );
            Error::Config(what)
        };
        match named.parse::<Average>() {
            Ok(asked) if path.is_dir() => match average.replace(asked) {
                Some(other) if other != asked => return Err(twice(other.to_string())),
                _ => {}
            },
            _ => match network.replace(named.clone()) {
                Some(other) if other != named => return Err(twice(other)),
                _ => {}
            },
        }
    }
    if path.is_file() {
        return Ok(Place {
            file: path,
            why: "the one that was named".into(),
            network,
            average,
            notes: Vec::new(),
        });
    }
    let place = in_folder(&path, average)?;
    Ok(Place { network, ..place })
}

/// Whether a folder holds weights under one of the usual names.
pub(super) fn holds_weights(folder: &Path) -> bool {
    let unet = pipelines_network(folder);
    [(folder, OWN), (unet.as_deref().unwrap_or(folder), THEIRS)]
        .into_iter()
        .any(|(folder, stem)| variants(folder, stem).is_ok_and(|found| !found.is_empty()))
}

/// A path, and what stands behind a `#` of one that is not there as a whole.
fn split(path: &Path) -> (PathBuf, Option<String>) {
    let whole = || (path.to_owned(), None);
    let Some(text) = path.to_str().filter(|_| !path.exists()) else { return whole() };
    match text.rsplit_once('#') {
        Some((front, named)) if Path::new(front).exists() => (front.into(), Some(named.to_owned())),
        _ => whole(),
    }
}

/// What `named` names, by its last part: where it lies is left out. Behind a `#` stands what chooses the same weights again:
/// the network of a file that holds several, the average of a folder.
pub fn named_again(named: &Path, found: &Found) -> String {
    let (place, asked) = split(named);
    let name = place.file_name().unwrap_or(place.as_os_str()).to_string_lossy().into_owned();
    // Where two files hold the same average, it chooses none of them.
    let average = || {
        let average = Average::from(found.weights?);
        let again = in_folder(&place, Some(average)).ok().filter(|again| again.file == found.file);
        again.map(|_| average.to_string())
    };
    match asked.or_else(|| found.network.clone()).or_else(|| average().filter(|_| place.is_dir())) {
        Some(choice) => format!("{name}#{choice}"),
        None => name,
    }
}

/// The folder of the network in a pipeline's.
fn pipelines_network(folder: &Path) -> Option<PathBuf> {
    folder.join("model_index.json").exists().then(|| folder.join("unet"))
}

fn in_folder(folder: &Path, average: Option<Average>) -> Result<Place> {
    let unet = pipelines_network(folder);
    let own = variants(folder, OWN)?;
    let theirs = variants(unet.as_deref().unwrap_or(folder), THEIRS)?;
    let found = match (own.is_empty(), theirs.is_empty()) {
        (true, true) => return Err(nothing(folder, unet.as_deref())),
        (true, false) if average.is_some() => {
            return Err(Error::format(folder, "is of diffusers, which keeps no averages beside the weights"));
        }
        (true, false) => theirs,
        (false, true) => own,
        (false, false) => {
            let both =
                [own, theirs].map(|found| found.into_values().flatten().next().expect("none is empty"));
            let [a, b] = both.map(|file| file.display().to_string());
            return Err(Error::format(folder, format!("holds two models, {a} and {b}: give the file")));
        }
    };
    if let Some(average) = average {
        return averaged(folder, &found, average);
    }
    let usual = found.get("");
    let (variant, files) = match (usual, found.len()) {
        (Some(files), _) => ("", files),
        (None, 1) => {
            found.iter().map(|(variant, files)| (variant.as_str(), files)).next().expect("there is one")
        }
        (None, _) => {
            let names: Vec<String> = found.values().map(|files| name(&files[0])).collect();
            let what = format!(
                "holds several variants of a model and not the plain one: {}; give the file, as in {}",
                names.join(", "),
                found.values().next().expect("there are several")[0].display()
            );
            return Err(Error::format(folder, what));
        }
    };
    let mut notes = Vec::new();
    if !variant.is_empty() {
        notes.push(format!("{} is taken, the only variant in the folder", name(&files[0])));
    }
    if let [first, second, ..] = &files[..] {
        notes.push(format!("{} is read; {} beside it is not", name(first), name(second)));
    }
    let why = match variant {
        "" => "the one of that name in the folder",
        _ => "the only variant in the folder",
    };
    Ok(Place { file: files[0].clone(), why: why.into(), network: None, average: None, notes })
}

/// The file of a training's folder that holds this average.
fn averaged(folder: &Path, found: &BTreeMap<String, Vec<PathBuf>>, average: Average) -> Result<Place> {
    let all = averages(folder, found.values().flatten());
    let fitting: Vec<&PathBuf> =
        all.iter().filter(|(_, held)| *held == Some(average)).map(|(path, _)| path).collect();
    match fitting[..] {
        [file] => Ok(Place {
            file: file.clone(),
            why: format!("the average {average} of the folder, as asked"),
            network: None,
            average: Some(average),
            notes: Vec::new(),
        }),
        [] => Err(Error::format(folder, not_there(average, &all))),
        [one, other, ..] => {
            let what = format!(
                "holds the average {average} twice, in {} and {}: give the file",
                name(one),
                name(other)
            );
            Err(Error::format(folder, what))
        }
    }
}

/// Checks that a file that was named holds the average that was asked for.
pub(super) fn check_average(file: &Path, held: Option<Average>, asked: Average) -> Result<()> {
    match held {
        Some(held) if held == asked => Ok(()),
        Some(held) => {
            let folder = file.parent().unwrap_or(Path::new("."));
            let beside = averages(folder, variants(folder, OWN)?.values().flatten());
            let what =
                format!("holds the average {held}, and {asked} is asked for; {}", not_there(asked, &beside));
            Err(Error::format(file, what))
        }
        None => {
            Err(Error::format(file, format!("does not say which average it holds, and {asked} is asked for")))
        }
    }
}

fn not_there(average: Average, all: &[(PathBuf, Option<Average>)]) -> String {
    if let Some((path, _)) = all.iter().find(|(_, held)| *held == Some(average)) {
        return format!("{} does", name(path));
    }
    let known: Vec<String> =
        all.iter().filter_map(|(path, held)| Some(format!("{} ({})", (*held)?, name(path)))).collect();
    match known.is_empty() {
        true => format!("holds no average {average}: its files do not say which they are"),
        false => format!("holds no average {average}; there are {}", known.join(", ")),
    }
}

/// Each file and the average in it. That of a `model.safetensors` which says nothing stands in `config.json`.
fn averages<'a>(folder: &Path, files: impl Iterator<Item = &'a PathBuf>) -> Vec<(PathBuf, Option<Average>)> {
    let configured = || {
        let text = std::fs::read_to_string(folder.join("config.json")).ok()?;
        let rate = serde_json::from_str::<serde_json::Value>(&text).ok()?.get("ema_rate")?.as_f64()?;
        Some(Average::Rate(rate))
    };
    files
        .map(|file| {
            let usual = name(file) == format!("{OWN}.safetensors");
            (file.clone(), held_at(file).or_else(|| configured().filter(|_| usual)))
        })
        .collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// The files of weights in `folder` that are called `stem`, by variant; the plain one's is "". Of each variant the kind
/// that goes first stands first: one file, an index of several, a pickle.
pub(super) fn variants(folder: &Path, stem: &str) -> Result<BTreeMap<String, Vec<PathBuf>>> {
    let mut found: BTreeMap<String, Vec<(u8, PathBuf)>> = BTreeMap::new();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(Error::io(folder)(error)),
    };
    for entry in entries {
        let path = entry.map_err(Error::io(folder))?.path();
        let file = name(&path);
        if let Some((variant, order)) = file.strip_prefix(stem).and_then(|rest| variant(rest, stem == OWN)) {
            found.entry(variant).or_default().push((order, path));
        }
    }
    let in_order = |mut files: Vec<(u8, PathBuf)>| -> Vec<PathBuf> {
        files.sort();
        files.into_iter().map(|(_, path)| path).collect()
    };
    Ok(found.into_iter().map(|(variant, files)| (variant, in_order(files))).collect())
}

/// What the rest of a name behind its stem says: the variant, and which kind of file goes first. `.fp16.safetensors` is
/// the variant fp16; of this program's own `-raw` and `-ema-0.9999` are such too. Shards of a model are none.
fn variant(rest: &str, own: bool) -> Option<(String, u8)> {
    if rest.contains("-of-") {
        return None;
    }
    let (middle, order) = if let Some(middle) = rest.strip_suffix(".safetensors") {
        (middle.to_owned(), 0)
    } else if own {
        // Others call their files `model` too; of this program's there is this kind alone.
        return None;
    } else if let Some(middle) = rest.strip_suffix(".safetensors.index.json") {
        (middle.to_owned(), 1)
    } else if let Some(middle) = rest.strip_prefix(".safetensors.index").and_then(|r| r.strip_suffix(".json"))
    {
        (middle.to_owned(), 1)
    } else {
        (rest.strip_suffix(".bin")?.to_owned(), 2)
    };
    match middle.strip_prefix('.') {
        _ if middle.is_empty() => Some((String::new(), order)),
        Some(variant) => Some((variant.to_owned(), order)),
        None => {
            let variant = middle
                .strip_prefix('-')
                .filter(|variant| own && (*variant == "raw" || variant.starts_with("ema-")));
            variant.map(|variant| (variant.to_owned(), order))
        }
    }
}

/// What a folder without weights lacks, and what of it may be meant.
fn nothing(folder: &Path, unet: Option<&Path>) -> Error {
    if let Some(unet) = unet {
        let what = format!(
            "is a pipeline's (model_index.json), but {} holds no {THEIRS}.safetensors, its index, or {THEIRS}.bin",
            unet.display()
        );
        return Error::format(folder, what);
    }
    let mut what =
        "holds no model: expected a folder with model.safetensors and config.json, one of diffusers, or a \
                    .safetensors or .pt file"
            .to_owned();
    let mut others: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(name(&entry.ok()?.path())))
        .filter(|name| {
            ["safetensors", "pt", "pth", "ckpt", "bin"]
                .into_iter()
                .any(|known| Path::new(name).extension().is_some_and(|extension| extension == known))
        })
        .collect();
    others.sort();
    if !others.is_empty() {
        others.truncate(5);
        what += &format!("; of what is there, give the file itself: {}", others.join(", "));
    }
    Error::format(folder, what)
}

#[cfg(test)]
mod tests;
