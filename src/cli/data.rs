//! Opening a data set for a command, and saying what was found in it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::data::{DataOptions, Dataset, Labelling};
use crate::error::Result;

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
    pub fn options(&self, image_size: Option<usize>, unlabelled: bool) -> DataOptions {
        DataOptions {
            image_size,
            labelling: if unlabelled { Labelling::None } else { Labelling::Checked },
            label: self.label.clone(),
            strict: self.strict_data,
            cache: cache(),
        }
    }
}

/// How data is read of which labels decide little.
pub fn trusting(image_size: Option<usize>) -> DataOptions {
    DataOptions { image_size, labelling: Labelling::Trusted, cache: cache(), ..DataOptions::default() }
}

/// Where what was found in files is kept.
fn cache() -> Option<PathBuf> {
    dirs::cache_dir().map(|folder| folder.join("freeguide"))
}

/// Opens a data set and says what was found in it.
pub fn open(spec: &str, options: &DataOptions) -> Result<Arc<Dataset>> {
    let dataset = Dataset::open_with(spec, options)?;
    eprintln!("data: {}", dataset.table().to_string().trim_end());
    Ok(Arc::new(dataset))
}

/// Warns of the pictures that turned out to be damaged when they were decoded.
pub fn warn_of_damage(dataset: &Dataset) {
    let damaged = dataset.damaged();
    let Some(first) = damaged.first() else { return };
    let (name, reason, count) = (&first.name, &first.reason, damaged.len());
    let what = if count == 1 { "1 picture was".to_owned() } else { format!("{count} pictures were") };
    eprintln!("warning: {what} left out of {}: {name} {reason}", dataset.name);
}
