//! Opening a data set for a command, and saying what was found in it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use indicatif::HumanCount;

use super::progress::Lines;
use crate::data::{DataOptions, Dataset, Labelling};
use crate::error::{Result, brief};
use crate::shape::Extent;

/// How data is read, where it is trained on or measured.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Data")]
pub struct DataArgs {
    /// The column of the data's metadata.csv or metadata.jsonl that has the labels [default: label].
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// Decode all pictures at once, and refuse data of which one is damaged [default: damaged pictures are left out].
    #[arg(long)]
    strict_data: bool,
}

impl DataArgs {
    /// Whether anything was asked for.
    pub fn is_given(&self) -> bool {
        self.label.is_some() || self.strict_data
    }

    pub fn options(&self, image_size: Option<Extent>, unlabelled: bool) -> DataOptions {
        DataOptions {
            image_size,
            labelling: if unlabelled { Labelling::None } else { Labelling::Checked },
            label: self.label.clone(),
            strict: self.strict_data,
            cache: cache(),
            ..DataOptions::default()
        }
    }
}

/// How data is read of which labels decide little.
pub fn trusting(image_size: Option<Extent>) -> DataOptions {
    DataOptions { image_size, labelling: Labelling::Trusted, cache: cache(), ..DataOptions::default() }
}

/// Where what was found in files is kept.
fn cache() -> Option<PathBuf> {
    dirs::cache_dir().map(|folder| folder.join("freeguide"))
}

/// When a person begins to wonder, and then between the lines.
const LONG: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

/// Opens a data set and says what was found in it; where that takes its time, meanwhile what is being read.
pub fn open(spec: &str, options: &DataOptions) -> Result<Arc<Dataset>> {
    let dataset = opened(spec, options, LONG, |line| eprintln!("{line}"))?;
    eprintln!("data: {}", dataset.table().to_string().trim_end());
    Ok(Arc::new(dataset))
}

fn opened(
    spec: &str,
    options: &DataOptions,
    times: [Duration; 2],
    say: impl Fn(&str) + Send + 'static,
) -> Result<Dataset> {
    let met = Arc::new(AtomicUsize::new(0));
    let options = DataOptions { files_met: Some(met.clone()), ..options.clone() };
    let spec_told = brief(spec).to_string();
    let line = move || {
        Some(match met.load(Ordering::Relaxed) as u64 {
            // A zip, or one file.
            0 => format!("data: still reading {spec_told}"),
            met => format!("data: still reading {spec_told}, {} files so far", HumanCount(met)),
        })
    };
    let _lines = Lines::begin(times, line, say);
    Dataset::open_with(spec, &options)
}

/// Warns of the pictures that turned out to be damaged when they were decoded.
pub fn warn_of_damage(dataset: &Dataset) {
    let damaged = dataset.damaged();
    let Some(first) = damaged.first() else { return };
    let (name, reason, count) = (&first.name, &first.reason, damaged.len());
    let what = if count == 1 { "1 picture was".to_owned() } else { format!("{count} pictures were") };
    eprintln!("warning: {what} left out of {}: {name} {reason}", dataset.name);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_long_reading_is_told_of_and_a_short_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        // No picture among them, as in a home directory.
        for folder in 0..8 {
            let folder = dir.path().join(format!("folder {folder}"));
            std::fs::create_dir(&folder).unwrap();
            (0..500).for_each(|file| std::fs::write(folder.join(file.to_string()), "").unwrap());
        }
        let spec = dir.path().to_str().unwrap();
        let said = |times| {
            let (say, said) = channel();
            // The test hears all of it once the sender is gone.
            assert!(
                opened(spec, &DataOptions::default(), times, move |line| drop(say.send(line.to_owned())))
                    .is_err()
            );
            said.iter().collect::<Vec<String>>()
        };
        let lines = said([Duration::from_micros(1); 2]);
        assert!(!lines.is_empty() && lines.iter().all(|line| line.contains("still reading ")), "{lines:?}");
        let counts: Vec<usize> = lines
            .iter()
            .filter_map(|line| {
                Some(line.split_once(", ")?.1.split(' ').next()?.replace(',', "").parse().unwrap())
            })
            .collect();
        assert!(
            !counts.is_empty() && counts.is_sorted() && counts.iter().all(|count| *count <= 4008),
            "{counts:?}"
        );
        assert!(said([Duration::from_secs(3600); 2]).is_empty());
    }
}
