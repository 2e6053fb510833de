//! Where pictures go, and the sheet of them all.

use std::path::Path;

use crate::cli::pictures;
use crate::data::Image;
use crate::error::{Error, Result, brief, shown};
use crate::model::ModelConfig;

use super::class_names::class_name;

/// What `--out` names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    Png,
    Npz,
    Folder,
}

impl Output {
    pub fn of(path: &Path) -> Result<Output> {
        match path.extension().and_then(|e| e.to_str()).map(str::to_lowercase).as_deref() {
            // Whatever its name, as `run.v2/`.
            _ if path.is_dir() || path.to_string_lossy().ends_with(std::path::is_separator) => {
                Ok(Output::Folder)
            }
            Some("png") => Ok(Output::Png),
            Some("npz") => Ok(Output::Npz),
            None => Ok(Output::Folder),
            Some(other) => Err(Error::Config(format!(
                "--out {0}: .{1} is neither .png nor .npz; a folder of that name is {0}/",
                shown(path),
                brief(other)
            ))),
        }
    }
}

pub(super) fn contact_sheet(
    config: &ModelConfig,
    classes: &[Option<u32>],
    seeds: &[u64],
    images: Vec<Image>,
) -> Result<Image> {
    if let [one] = &images[..] {
        return Ok(one.clone());
    }
    let rows: Vec<Vec<Vec<Image>>> = match classes {
        // One class fills a square of rows, several get a row each.
        [_] => {
            let columns = (images.len() as f64).sqrt().ceil() as usize;
            let rows =
                images.chunks(columns).map(|row| row.iter().map(|image| vec![image.clone()]).collect());
            rows.collect()
        }
        _ => images.chunks(seeds.len()).map(|row| row.iter().map(|i| vec![i.clone()]).collect()).collect(),
    };
    let labels: Vec<String> = match classes {
        [_] => Vec::new(),
        _ => classes.iter().map(|class| class_name(config, *class)).collect(),
    };
    pictures::sheet(&rows, &labels, &[])
}
