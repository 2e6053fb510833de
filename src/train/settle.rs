//! What a folder was begun with against what is asked for now: what may change, what may change when that is said, and what
//! cannot change.

use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result, brief};
use crate::io::write_atomic;

use super::options::{Change, TrainOptions};

/// Options that decide what comes out, but only from where they are changed: fields of `train.json` and the names that
/// accept their change.
///
/// All others cannot change: the network and the averages are what the states hold, the objective is what the network's
/// outputs mean, and the seed has drawn the initial weights.
const CHANGEABLE: &[(&str, &str)] = &[
    ("batch", "batch"),
    ("distillation.teacher", "teacher"),
    ("ema_warmup", "ema-warmup"),
    ("flip", "flip"),
    ("grad_clip", "grad-clip"),
    ("images", "images"),
    ("learning_rate", "lr"),
    ("microbatch", "microbatch"),
    ("part_dropout", "p-part"),
    ("precision", "precision"),
    ("random_crop", "crop"),
    ("stretch", "crop"),
    ("unconditional_probability", "p-uncond"),
    ("unet.dropout", "dropout"),
    ("warmup_images", "warmup"),
    ("weight_decay", "weight-decay"),
];

/// The name that accepts other pictures.
const DATA: &str = "data";

/// Fields that decide nothing of what is trained. `class_names` and `data_fingerprint` are compared by [`same_data`].
///
/// What rows the first weights had trained follows from their hash.
const FREE: &[&str] = &[
    "changes",
    "class_names",
    "data",
    "data_fingerprint",
    "init_rows",
    "sample_every",
    "sampling",
    "save_every",
];

/// Whether the pictures are those that the folder was begun with. Only here are they compared: by the fingerprint, or by that
/// which an earlier version had of them.
fn same_data(there: &TrainOptions, here: &TrainOptions) -> bool {
    let known = &there.data_fingerprint;
    (*known == here.data_fingerprint || here.earlier_data_fingerprint.as_ref() == Some(known))
        && there.class_names == here.class_names
}

/// A field that differs.
struct Difference {
    /// What accepts it; for what cannot change, the field.
    name: String,
    from: Value,
    to: Value,
    fixed: bool,
}

/// Options that a folder's training goes on with.
pub(super) struct Settled {
    /// With what the folder knows better: the changes so far, where its weights came from.
    pub options: TrainOptions,
    /// What changes now.
    changes: Vec<Change>,
    /// What `train.json` holds.
    written: Option<TrainOptions>,
}

impl TrainOptions {
    /// Compares with the `train.json` of `dir`, where there is one. Options that do not decide what is trained may differ,
    /// and there may be more images; others only when their names are in `accept`.
    ///
    /// # Errors
    /// [`Error::Config`] naming every option that differs, and for unknown names in `accept`.
    pub(super) fn settle(&self, dir: &Path, accept: &[String]) -> Result<Settled> {
        let known = || CHANGEABLE.iter().map(|(_, name)| *name).chain([DATA]);
        if let Some(name) = accept.iter().find(|name| !known().any(|known| known == name.as_str())) {
            let mut names: Vec<&str> = known().collect();
            names.sort_unstable();
            names.dedup();
            return Err(Error::Config(format!(
                "accept-change: {name:?} is no option that can change in a training; those are {}",
                names.join(", "),
                name = brief(name)
            )));
        }
        let mut options = TrainOptions { changes: Vec::new(), ..self.clone() };
        let Some(there) = begun(dir)? else {
            return Ok(Settled { options, changes: Vec::new(), written: None });
        };
        options.changes.clone_from(&there.changes);
        // Where the weights came from is no longer asked once they are there.
        options.init_from = options.init_from.or_else(|| there.init_from.clone());
        options.init_rows = options.init_rows.or_else(|| there.init_rows.clone());
        let found = differences(&there, &read_again(&options));
        let accepted = |difference: &Difference| !difference.fixed && accept.contains(&difference.name);
        if !found.iter().all(accepted) {
            let asked: Vec<&Difference> = found.iter().filter(|difference| !accepted(difference)).collect();
            return Err(Error::Config(refusal(dir, &asked, accept)));
        }
        let changes = found.into_iter().map(|found| Change {
            images: 0,
            option: found.name,
            from: found.from,
            to: found.to,
        });
        Ok(Settled { options, changes: changes.collect(), written: Some(there) })
    }
}

impl Settled {
    /// Whether an option changes now.
    pub fn changes(&self, option: &str) -> bool {
        self.changes.iter().any(|change| change.option == option)
    }

    /// Writes `train.json`, where it says anything new, for a training that goes on after `images` images.
    pub fn write(mut self, dir: &Path, images: u64) -> Result<TrainOptions> {
        // Who went back to an older state goes on with the changed options from there.
        for change in &mut self.options.changes {
            change.images = change.images.min(images);
        }
        let now = self.changes.into_iter().map(|change| Change { images, ..change });
        self.options.changes.extend(now);
        if self.written.as_ref() != Some(&self.options) {
            let path = dir.join("train.json");
            write_atomic(&path, |writer| {
                serde_json::to_writer_pretty(&mut *writer, &self.options)
                    .map_err(std::io::Error::from)
                    .and_then(|()| writer.write_all(b"\n"))
                    .map_err(Error::io(&path))
            })?;
        }
        Ok(self.options)
    }
}

/// What a training in `dir` was begun with.
pub(super) fn begun(dir: &Path) -> Result<Option<TrainOptions>> {
    let path = dir.join("train.json");
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read(&path).map_err(Error::io(&path))?;
    serde_json::from_slice(&text).map(Some).map_err(|error| Error::format(&path, error.to_string()))
}

/// The options as they would come back from `train.json`: reading may end at a number's neighbour.
fn read_again(options: &TrainOptions) -> TrainOptions {
    let text = serde_json::to_string(options).expect("plain values");
    let again: TrainOptions = serde_json::from_str(&text).unwrap_or_else(|_| options.clone());
    // Which is not written.
    TrainOptions { earlier_data_fingerprint: options.earlier_data_fingerprint.clone(), ..again }
}

fn refusal(dir: &Path, found: &[&Difference], accepted: &[String]) -> String {
    let line = |difference: &&Difference| {
        let Difference { name, from, to, fixed } = difference;
        format!("  {name}: there {from}, now {to}{}\n", if *fixed { " (cannot change)" } else { "" })
    };
    let lines: String = found.iter().map(line).collect();
    let fixed = found.iter().any(|difference| difference.fixed);
    let mut names = accepted.to_vec();
    names.extend(
        found.iter().filter(|difference| !difference.fixed).map(|difference| difference.name.clone()),
    );
    names.dedup();
    let ways = match fixed {
        true => "resume with the same ones, choose another folder (out), where a new training can begin with these \
                 weights (init-from), or begin anew here (restart)"
            .to_owned(),
        false => format!(
            "resume with the same ones, go on with the new ones from here (accept-change {}), or choose another folder \
             (out)",
            names.join(",")
        ),
    };
    format!("{} was begun with other options:\n{lines}{ways}", dir.display())
}

/// Every difference that decides something.
fn differences(there: &TrainOptions, here: &TrainOptions) -> Vec<Difference> {
    let [a, b] = [there, here].map(|options| serde_json::to_value(options).expect("plain values"));
    let mut leaves = Vec::new();
    compare("", &a, &b, &mut leaves);
    let decides = |path: &str| {
        // The hash of its weights is compared; earlier versions did not say which these are.
        if path == "distillation.average" {
            return false;
        }
        let top = path.split('.').next().unwrap_or(path);
        // More images are no difference: the run goes on.
        let goes_on = top == "images" && here.images > there.images;
        !FREE.contains(&top) && !goes_on
    };
    let mut found: Vec<Difference> = leaves
        .into_iter()
        .filter(|(path, ..)| decides(path))
        .map(|(path, from, to)| {
            let name =
                CHANGEABLE.iter().find(|(field, _)| *field == path).map(|(_, name)| (*name).to_owned());
            Difference { fixed: name.is_none(), name: name.unwrap_or(path), from, to }
        })
        .collect();
    if !same_data(there, here) {
        let [from, to] = [there, here].map(|options| {
            let TrainOptions { data, data_fingerprint, class_names, .. } = options;
            Value::from(format!("{data} ({} classes, {data_fingerprint})", class_names.len()))
        });
        found.push(Difference { name: DATA.into(), from, to, fixed: false });
    }
    found
}

/// Lists (path, there, now) of each leaf that differs.
fn compare(path: &str, theirs: &Value, mine: &Value, into: &mut Vec<(String, Value, Value)>) {
    if let (Some(a), Some(b)) = (theirs.as_object(), mine.as_object()) {
        let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            compare(&inner, a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), into);
        }
    } else if theirs != mine {
        into.push((path.to_owned(), theirs.clone(), mine.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;
    use crate::train::Preset;

    fn digits() -> TrainOptions {
        let dataset = Dataset::open("digits", None).unwrap();
        Preset::named("digits").unwrap().options(&dataset, 0)
    }

    fn settle(options: &TrainOptions, dir: &Path, accept: &[&str], images: u64) -> Result<TrainOptions> {
        let accept: Vec<String> = accept.iter().map(|name| (*name).to_owned()).collect();
        options.settle(dir, &accept)?.write(dir, images)
    }

    fn refused(options: &TrainOptions, dir: &Path, accept: &[&str]) -> String {
        settle(options, dir, accept, 0).unwrap_err().to_string()
    }

    #[test]
    fn what_decides_nothing_changes_freely() {
        let dir = tempfile::tempdir().unwrap();
        let options = digits();
        settle(&options, dir.path(), &[], 0).unwrap();
        let mut other = TrainOptions {
            images: options.images + 1,
            save_every: 7,
            sample_every: 8,
            data: "renamed".into(),
            ..options.clone()
        };
        other.sampling.steps = 3;
        assert_eq!(settle(&other, dir.path(), &[], 64).unwrap(), other);
        assert_eq!(begun(dir.path()).unwrap().unwrap(), other, "and train.json says so");
        // Fewer images are a change that is asked about.
        assert!(refused(&options, dir.path(), &[]).contains("images: there 24001, now 24000"));
        settle(&options, dir.path(), &["images"], 64).unwrap();
    }

    #[test]
    fn a_training_of_an_earlier_version_goes_on_with_the_same_data() {
        let dir = tempfile::tempdir().unwrap();
        let of = |now: &str, earlier: Option<&str>| TrainOptions {
            data_fingerprint: now.into(),
            earlier_data_fingerprint: earlier.map(str::to_owned),
            ..digits()
        };
        settle(&of("listing", None), dir.path(), &[], 0).unwrap();
        assert!(
            refused(&of("contents", Some("other listing")), dir.path(), &[]).contains("accept-change data")
        );
        settle(&of("contents", Some("listing")), dir.path(), &[], 0).unwrap();
        // From now on contents count.
        settle(&of("contents", Some("listing")), dir.path(), &[], 0).unwrap();
        refused(&of("other contents", Some("listing")), dir.path(), &[]);
    }

    #[test]
    fn no_number_differs_from_itself() {
        let dir = tempfile::tempdir().unwrap();
        for learning_rate in [1e-30, 1e-5, 0.1 + 0.2, 3e-4 / 7.0, f64::MIN_POSITIVE, 1e300] {
            let options = TrainOptions { learning_rate, ..digits() };
            settle(&options, dir.path(), &["lr"], 0).unwrap();
            settle(&options, dir.path(), &[], 0).unwrap();
        }
    }

    #[test]
    fn what_decides_is_refused_by_name_and_accepted_by_the_same_name() {
        let dir = tempfile::tempdir().unwrap();
        let options = digits();
        settle(&options, dir.path(), &[], 0).unwrap();
        let mut other = TrainOptions { learning_rate: 0.5, data_fingerprint: "x".into(), ..options.clone() };
        other.unet.dropout = 0.25;
        let message = refused(&other, dir.path(), &[]);
        for part in ["lr: there 0.002, now 0.5", "dropout: there 0.0, now 0.25", "data: ", "lr,dropout,data"]
        {
            let part = if part == "lr,dropout,data" { "accept-change lr,dropout,data" } else { part };
            assert!(message.contains(part), "{part} is not in {message}");
        }
        let message = refused(&other, dir.path(), &["lr"]);
        assert!(message.contains("dropout: ") && !message.contains("lr: "), "{message}");
        assert_eq!(begun(dir.path()).unwrap().unwrap(), options, "a refusal changes nothing");

        let settled = settle(&other, dir.path(), &["lr", "data", "dropout"], 320).unwrap();
        let names: Vec<_> = settled.changes.iter().map(|c| (c.option.as_str(), c.images)).collect();
        assert_eq!(names, [("lr", 320), ("dropout", 320), ("data", 320)]);
        assert_eq!(settled.changes[0].from, Value::from(0.002));
        // The same again changes nothing more, and back is a change of its own.
        assert_eq!(settle(&other, dir.path(), &["lr"], 640).unwrap(), settled);
        let mut back = other.clone();
        back.learning_rate = 0.002;
        assert_eq!(settle(&back, dir.path(), &["lr"], 640).unwrap().changes.len(), 4);
        // From an older state on, all of them hold.
        let clamped = settle(&back, dir.path(), &[], 100).unwrap();
        assert!(clamped.changes.iter().all(|change| change.images == 100));
        assert!(refused(&options, dir.path(), &["sample-every"]).contains("batch, crop, data, dropout"));
    }

    #[test]
    fn what_cannot_change_is_refused_even_so() {
        let dir = tempfile::tempdir().unwrap();
        let options = digits();
        settle(&options, dir.path(), &[], 0).unwrap();
        let mut wider = options.clone();
        wider.unet.model_channels = 64;
        let seeded = TrainOptions { seed: 1, ..options.clone() };
        let averaged = TrainOptions { ema_rates: vec![0.5], ..options.clone() };
        let from = TrainOptions { init_from: Some("x".into()), ..options.clone() };
        let everything: Vec<&str> = CHANGEABLE.iter().map(|(_, name)| *name).chain([DATA]).collect();
        for (other, field) in
            [(wider, "unet.model_channels"), (seeded, "seed"), (averaged, "ema_rates"), (from, "init_from")]
        {
            let message = refused(&other, dir.path(), &everything);
            for part in [&format!("{field}: there"), "(cannot change)", "init-from", "restart"] {
                assert!(message.contains(part), "{part} is not in {message}");
            }
        }
    }

    /// Every field of the options is in one list at most, and every listed one exists.
    #[test]
    fn the_lists_name_fields_that_exist() {
        // What is left out of files in its usual value is there in another.
        let mut options = TrainOptions { stretch: true, part_dropout: 0.1, ..digits() };
        options.distillation =
            Some(super::super::Distillation { teacher: "t".into(), average: None, steps: None });
        options.changes = vec![Change { images: 0, option: "lr".into(), from: 1.into(), to: 2.into() }];
        options.init_rows = Some(crate::model::TrainedRows::of(&[0], 1, 0.1));
        let value = serde_json::to_value(&options).unwrap();
        for field in FREE.iter().chain(CHANGEABLE.iter().map(|(field, _)| field)) {
            let pointer = format!("/{}", field.replace('.', "/"));
            assert!(value.pointer(&pointer).is_some(), "{field}");
        }
        assert!(CHANGEABLE.iter().all(|(field, _)| !FREE.contains(field)));
    }
}
