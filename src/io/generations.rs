//! The last two states of a training, so that one damaged file does not end it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::write_atomic;
use crate::error::{Error, Result};

const EXTENSION: &str = "safetensors";

/// Writes `dir/stem-NUMBER.safetensors` through `write`, all or nothing. Returns its path. Older ones stay:
/// [`prune_generations`] deletes them.
///
/// # Errors
/// Those of `write` and of the disk; the older states are then all still there.
pub fn save_generation(
    dir: &Path,
    stem: &str,
    number: u64,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<PathBuf> {
    let path = dir.join(format!("{stem}-{number:012}.{EXTENSION}"));
    write_atomic(&path, write)?;
    Ok(path)
}

/// Deletes all but two states of `stem` in `dir`, never number `current`: the newest stays, and the newest older one that
/// `is_due`, so that a training that was stopped in between leaves the same states as one straight through; where none is
/// due, the newest older one.
///
/// # Errors
/// When one cannot be deleted; no state that counts is lost then, there is only one too many.
pub fn prune_generations(dir: &Path, stem: &str, current: u64, is_due: impl Fn(u64) -> bool) -> Result<()> {
    let found = generations(dir, stem)?;
    let numbers = || found.iter().map(|(number, _)| *number);
    let kept = numbers().skip(1).find(|number| is_due(*number)).or(numbers().nth(1));
    let kept = [numbers().next(), kept, Some(current)];
    let old = found.iter().filter(|(number, _)| !kept.contains(&Some(*number)));
    old.map(|(_, old)| fs::remove_file(old).map_err(Error::io(old))).fold(Ok(()), Result::and)
}

/// The states of `stem` in `dir`, the newest (of the highest number) first. None if there is no such folder.
///
/// # Errors
/// When the folder cannot be read.
pub fn generations(dir: &Path, stem: &str) -> Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io(dir))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io(dir))?.path();
        if let Some(number) = number_of(&path, stem) {
            found.push((number, path));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found)
}

/// The number in `stem-NUMBER.safetensors`, and None for any other name.
fn number_of(path: &Path, stem: &str) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_prefix(stem)?.strip_prefix('-')?.strip_suffix(EXTENSION)?.strip_suffix('.')?;
    let all_digits = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    digits.parse().ok().filter(|_| all_digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(dir: &Path, number: u64) -> Result<PathBuf> {
        let path = save_generation(dir, "state", number, |writer| {
            writer.write_all(&number.to_le_bytes()).map_err(Error::io(dir))
        })?;
        prune_generations(dir, "state", number, |_| true).map(|()| path)
    }

    fn numbers(dir: &Path) -> Vec<u64> {
        generations(dir, "state").unwrap().into_iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn two_are_kept_and_others_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        assert!(numbers(&run).is_empty());
        fs::create_dir(&run).unwrap();
        for name in
            ["state-x.safetensors", "state-+7.safetensors", "other-000000000001.safetensors", "state.json"]
        {
            fs::write(run.join(name), "").unwrap();
        }
        assert!(save(&run, 12_800).unwrap().ends_with("state-000000012800.safetensors"));
        save(&run, 25_600).unwrap();
        save(&run, 1_000_000_000_000_007).unwrap();
        assert_eq!(numbers(&run), [1_000_000_000_000_007, 25_600]);
        // Going back to an earlier number must not delete what was just written.
        save(&run, 3).unwrap();
        assert_eq!(numbers(&run), [1_000_000_000_000_007, 25_600, 3]);
        assert_eq!(fs::read_dir(&run).unwrap().count(), 3 + 4);
    }

    #[test]
    fn what_cannot_be_deleted_is_an_error_after_all_else_was() {
        let dir = tempfile::tempdir().unwrap();
        for number in 1..=2 {
            save(dir.path(), number).unwrap();
        }
        // A folder is no file that could be deleted as one.
        fs::create_dir(dir.path().join("state-000000000000.safetensors")).unwrap();
        fs::write(dir.path().join("state-3.safetensors"), "").unwrap();
        fs::write(dir.path().join("state-4.safetensors"), "").unwrap();
        let error = prune_generations(dir.path(), "state", 4, |_| true).unwrap_err();
        assert!(error.to_string().contains("state-000000000000"), "{error}");
        assert_eq!(numbers(dir.path()), [4, 3, 0]);
    }

    #[test]
    fn a_state_of_a_stop_goes_before_one_that_was_due() {
        let dir = tempfile::tempdir().unwrap();
        let put = |number: u64| {
            fs::write(dir.path().join(format!("state-{number}.safetensors")), "").unwrap();
            prune_generations(dir.path(), "state", number, |number| number.is_multiple_of(32)).unwrap();
            numbers(dir.path())
        };
        put(576);
        assert_eq!(put(608), [608, 576]);
        assert_eq!(put(620), [620, 608]);
        assert_eq!(put(624), [624, 608]);
        assert_eq!(put(640), [640, 608]);
        assert_eq!(put(645), [645, 640]);
        // Of stops alone, the last two.
        fs::remove_file(dir.path().join("state-640.safetensors")).unwrap();
        assert_eq!(put(650), [650, 645]);
        assert_eq!(put(655), [655, 650]);
    }

    #[test]
    fn a_failed_write_deletes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), 1).unwrap();
        save(dir.path(), 2).unwrap();
        let failed = save_generation(dir.path(), "state", 3, |_| Err(Error::Interrupted));
        assert!(failed.is_err());
        assert_eq!(numbers(dir.path()), [2, 1]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
