//! `train.jsonl`: one line a step. No time and no path in it, so that a resumed run writes the same file.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::io::write_atomic;

/// What is known of a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Images seen, this step's included.
    pub images: u64,
    /// The mean of the loss over the batch; where times are drawn by importance each sample counts by its weight, so that
    /// it estimates what evenly drawn times would give. Written as null where it is not finite.
    #[serde(deserialize_with = "maybe_infinite")]
    pub loss: f32,
    /// Where times are drawn by importance, the plain mean over those drawn: it is larger, as large losses are drawn more
    /// often, and compares with no other training's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unweighted_loss: Option<f32>,
    /// Norm of the gradient before clipping; likewise, as in steps that were skipped.
    #[serde(deserialize_with = "maybe_infinite")]
    pub grad_norm: f32,
    /// That of the first microbatch's gradient, where a step has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_norm: Option<f32>,
    /// The step's learning rate.
    pub learning_rate: f32,
    /// A classifier's hits in each quarter of the process, from clean to noisy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hits: Option<[u32; 4]>,
    /// And how many images there were in each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<[u32; 4]>,
    /// Whether the step was left out because a gradient was not finite.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skipped: bool,
}

/// JSON has no infinity: what is not finite is written as null and read as NaN.
fn maybe_infinite<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<f32, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f32::NAN))
}

#[cfg(test)]
impl StepRecord {
    /// A step of no interest after so many images.
    pub fn at(images: u64) -> StepRecord {
        StepRecord {
            images,
            loss: 1.0 / images as f32,
            unweighted_loss: None,
            grad_norm: 0.5,
            micro_norm: None,
            learning_rate: 1e-3,
            hits: None,
            of: None,
            skipped: false,
        }
    }
}

/// The steps that the log in a training's folder tells of.
///
/// # Errors
/// When there is none, or a line of it is no step; half of a last line, which a killed run may leave, is none.
pub fn records(dir: &Path) -> Result<Vec<StepRecord>> {
    let path = dir.join("train.jsonl");
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let mut records = Vec::new();
    for (at, line) in text.lines().enumerate() {
        match serde_json::from_str::<StepRecord>(line) {
            Ok(record) => records.push(record),
            Err(_) if at + 1 == text.lines().count() => {}
            Err(error) => return Err(Error::format(&path, format!("line {}: {error}", at + 1))),
        }
    }
    Ok(records)
}

/// The log of a training.
pub struct Log {
    path: PathBuf,
    writer: BufWriter<File>,
    records: Vec<StepRecord>,
}

impl Log {
    /// Opens the log in `dir` and drops what was written after `images`, which a resumed run will do again.
    pub fn open(dir: &Path, images: u64) -> Result<Log> {
        let path = dir.join("train.jsonl");
        let mut records = Vec::new();
        if path.exists() {
            records = self::records(dir)?;
            records.retain(|record| record.images <= images);
        }
        write_atomic(&path, |writer| {
            for record in &records {
                writeln!(writer, "{}", line(record)).map_err(Error::io(&path))?;
            }
            Ok(())
        })?;
        let file = OpenOptions::new().append(true).open(&path).map_err(Error::io(&path))?;
        Ok(Log { path, writer: BufWriter::new(file), records })
    }

    /// Appends a step.
    pub fn push(&mut self, record: StepRecord) -> Result<()> {
        self.records.push(record);
        writeln!(self.writer, "{}", line(&record)).map_err(Error::io(&self.path))
    }

    /// Brings everything to the disk.
    pub fn flush(&mut self) -> Result<()> {
        self.writer.flush().map_err(Error::io(&self.path))
    }

    /// All steps so far.
    pub fn records(&self) -> &[StepRecord] {
        &self.records
    }
}

fn line(record: &StepRecord) -> String {
    serde_json::to_string(record).expect("a record of numbers is always representable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resuming_drops_later_steps_and_half_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path(), 0).unwrap();
        for step in 1..=5 {
            log.push(StepRecord::at(step * 10)).unwrap();
        }
        log.flush().unwrap();
        let path = dir.path().join("train.jsonl");
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 7]).unwrap();
        let mut log = Log::open(dir.path(), 30).unwrap();
        assert_eq!(log.records().len(), 3);
        log.push(StepRecord::at(40)).unwrap();
        log.push(StepRecord::at(50)).unwrap();
        log.flush().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
    }

    #[test]
    fn what_is_not_finite_is_written_and_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path(), 0).unwrap();
        log.push(StepRecord { grad_norm: f32::INFINITY, skipped: true, ..StepRecord::at(10) }).unwrap();
        log.push(StepRecord::at(20)).unwrap();
        log.flush().unwrap();
        let read = records(dir.path()).unwrap();
        assert!(read[0].grad_norm.is_nan() && read[0].skipped);
        assert_eq!(read[1], StepRecord::at(20));
        assert_eq!(Log::open(dir.path(), 20).unwrap().records().len(), 2);
    }
}
