//! A training's folder: which of its files are a training's, when one may begin in it, and how it is made free for another.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::io::generations;

use super::log::{self, Log, LogEvent};
use super::options::{Change, TrainOptions};
use super::settle::begun;
use super::state::STEM;

/// The file that is locked while a process writes here.
pub(super) const LOCK: &str = "train.lock";

/// What a file of a training is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Pictures made on the way, after so many images.
    Samples(u64),
    /// A drawing that is made again with every state.
    Plot,
    /// A model, or what goes with it.
    Model,
    State,
    Log,
    Options,
}

/// What a file of this name is; none for what no training writes.
fn kind(name: &str) -> Option<Kind> {
    let number = |stem: &str, extension: &str| -> Option<u64> {
        let digits = name.strip_prefix(stem)?.strip_suffix(extension)?;
        digits.parse().ok().filter(|_| digits.bytes().all(|digit| digit.is_ascii_digit()))
    };
    let average = name.starts_with("model-") && name.ends_with(".safetensors");
    match name {
        "train.json" => Some(Kind::Options),
        "train.jsonl" => Some(Kind::Log),
        "loss.png" | "accuracy.png" => Some(Kind::Plot),
        "config.json" | "model.safetensors" => Some(Kind::Model),
        _ if average => Some(Kind::Model),
        _ if number("state-", ".safetensors").is_some() => Some(Kind::State),
        _ => number("samples-", ".png").map(Kind::Samples),
    }
}

/// The training's files in `dir`, what is needed least to go on first.
fn files(dir: &Path) -> Result<Vec<(Kind, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(kind) = name.and_then(kind) {
            found.push((kind, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Removes halves of files that a killed process left. Nobody else may be writing.
pub(super) fn clean(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.and_then(|name| name.strip_suffix(".tmp")).and_then(kind).is_some() {
            fs::remove_file(&path).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}

/// Moves the training in `dir` into the first of its folders `old-1`, `old-2`, … that does not exist, and returns that;
/// none where there is no training. Killed half way, what is left can be resumed or moved aside like any other.
pub(super) fn move_aside(dir: &Path) -> Result<Option<PathBuf>> {
    let files = files(dir)?;
    if files.is_empty() {
        return Ok(None);
    }
    let mut number = 1;
    let aside = loop {
        let aside = dir.join(format!("old-{number}"));
        match fs::create_dir(&aside) {
            Ok(()) => break aside,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(Error::io(aside)(error)),
        }
    };
    for (_, file) in files {
        let name = file.file_name().expect("a file of a folder has a name");
        fs::rename(&file, aside.join(name)).map_err(Error::io(&file))?;
    }
    Ok(Some(aside))
}

/// Refuses to go on, or to begin, where what is there would be lost: a model or a log without a state, states without their
/// options.
///
/// A training that was killed before its first state has options and the beginning of a log, perhaps pictures; those are
/// written again.
pub(super) fn check(dir: &Path) -> Result<()> {
    let options = begun(dir)?;
    let states = !generations(dir, STEM)?.is_empty();
    let first_state = options.as_ref().map_or(0, |options| {
        let batch = (options.batch as u64).max(1);
        options.save_every.min(options.images).div_ceil(batch).saturating_mul(batch)
    });
    let again = |kind: Kind, path: &Path| match kind {
        Kind::Options => true,
        Kind::Samples(images) => images <= first_state,
        // What of it cannot be read is not lost either way.
        Kind::Log => log::lines(path, None).is_ok_and(|lines| log::reached(&lines) <= first_state),
        Kind::Plot | Kind::Model | Kind::State => false,
    };
    let lost = match (states, options.is_some()) {
        (true, true) => None,
        (true, false) => Some("a state, but no train.json that says what it is a state of".to_owned()),
        (false, _) => files(dir)?.into_iter().find(|(kind, path)| !again(*kind, path)).map(|(_, path)| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            format!("{name}, but no state to go on from")
        }),
    };
    match lost {
        None => Ok(()),
        Some(what) => Err(Error::Config(format!(
            "{} holds {what}: choose another folder (out), where a new training can begin with the weights of a model \
             (init-from), or begin anew here (restart), which moves the old files into a folder old-1",
            dir.display()
        ))),
    }
}

/// What the user should know of what was found in a folder, a sentence each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What was done as it was asked for, or is as it should be for a folder of its age.
    pub notes: Vec<String>,
    /// What is not as it should be.
    pub warnings: Vec<String>,
}

/// Opens the log of a training that has seen `images` images; tells what is missing in it and what was changed, to the user
/// and in the log itself.
pub(super) fn open_log(dir: &Path, options: &TrainOptions, images: u64, found: &mut Found) -> Result<Log> {
    let mut log = Log::open(dir, images)?;
    for (from, to) in log::holes(log.records(), images, |images| options.batch_at(images)) {
        found.warnings.push(format!(
            "{}: the steps after {from} images up to {to} are missing; the training itself goes on from its state",
            dir.join("train.jsonl").display()
        ));
        let event = LogEvent::new("hole", images, [("from", from.into()), ("to", to.into())]);
        if !log.tells_of(&event) {
            log.push_event(event)?;
        }
    }
    for change in &options.changes {
        let Change { images, option, from, to } = change;
        let details = [("option", option.clone().into()), ("from", from.clone()), ("to", to.clone())];
        let event = LogEvent::new("change", *images, details);
        if !log.events().contains(&event) {
            found.notes.push(format!("{option} is {to} instead of {from} after {images} images"));
            log.push_event(event)?;
        }
    }
    Ok(log)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::data::Dataset;
    use crate::train::{Preset, StepRecord};

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// `train.json` of a training whose first state is due after 64 images.
    fn options() -> String {
        let dataset = Dataset::open("digits", None).unwrap();
        let options = Preset::named("digits").unwrap().options(&dataset, 0);
        serde_json::to_string(&TrainOptions { save_every: 40, ..options }).unwrap()
    }

    fn log(images: u64) -> String {
        (1..=images / 32)
            .map(|step| serde_json::to_string(&StepRecord::at(step * 32)).unwrap() + "\n")
            .collect()
    }

    #[test]
    fn begins_where_nothing_is_lost() {
        let empty = tempfile::tempdir().unwrap();
        check(empty.path()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        put("train.json", &options());
        put("mine.txt", "");
        check(dir.path()).unwrap();
        // Killed before its first state.
        put("train.jsonl", &(log(64) + "{\"imag"));
        put("samples-000000000064.png", "");
        check(dir.path()).unwrap();
        // Its states were deleted.
        for (name, text) in [
            ("model.safetensors", String::new()),
            ("model-ema-0.9999.safetensors", String::new()),
            ("config.json", String::new()),
            ("loss.png", String::new()),
            ("train.jsonl", log(96)),
            ("samples-000000000096.png", String::new()),
        ] {
            let before = fs::read(dir.path().join(name)).ok();
            put(name, &text);
            let message = check(dir.path()).unwrap_err().to_string();
            for part in [name, "no state", "(out)", "init-from", "restart", "old-1"] {
                assert!(message.contains(part), "{part} is not in {message}");
            }
            match before {
                Some(before) => fs::write(dir.path().join(name), before).unwrap(),
                None => fs::remove_file(dir.path().join(name)).unwrap(),
            }
        }
        put("state-000000000064.safetensors", "");
        put("model.safetensors", "");
        check(dir.path()).unwrap();
        fs::remove_file(dir.path().join("train.json")).unwrap();
        assert!(check(dir.path()).unwrap_err().to_string().contains("no train.json"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever files are there: a training's are moved, all others stay, nothing is lost, and then one may begin.
        #[test]
        fn moving_aside_loses_nothing(which in proptest::sample::subsequence(vec![
            "train.json", "train.jsonl", "config.json", "model.safetensors", "model-raw.safetensors", "loss.png",
            "state-000000000064.safetensors", "state-7.safetensors", "samples-000000000032.png", "accuracy.png",
            "state-.safetensors", "state-x.safetensors", "samples.png", "notes.txt", "model.pt", "model-index.json",
            "train.json.bak", "old-1", "old-3",
        ], 0..19)) {
            let dir = tempfile::tempdir().unwrap();
            for name in &which {
                fs::write(dir.path().join(name), *name).unwrap();
            }
            let ours: Vec<&str> = which.iter().copied().filter(|name| kind(name).is_some()).collect();
            let aside = move_aside(dir.path()).unwrap();
            prop_assert_eq!(aside.is_some(), !ours.is_empty());
            let (mut here, mut moved) = (names(dir.path()), aside.as_deref().map(names).unwrap_or_default());
            let free = if which.contains(&"old-1") { "old-2" } else { "old-1" };
            prop_assert!(aside.is_none_or(|aside| aside.ends_with(free)));
            here.retain(|name| name != free);
            prop_assert!(moved.iter().all(|name| kind(name).is_some()));
            prop_assert!(here.iter().all(|name| kind(name).is_none()));
            here.append(&mut moved);
            here.sort();
            let mut all: Vec<String> = which.iter().map(|name| (*name).to_owned()).collect();
            all.sort();
            prop_assert_eq!(here, all);
            check(dir.path()).unwrap();
        }
    }

    #[test]
    fn halves_of_files_are_cleaned_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        for name in
            ["state-000000000064.safetensors.tmp", "config.json.tmp", "mine.tmp", "state-1.safetensors"]
        {
            fs::write(dir.path().join(name), "").unwrap();
        }
        clean(dir.path()).unwrap();
        assert_eq!(names(dir.path()), ["mine.tmp", "state-1.safetensors"]);
    }
}
