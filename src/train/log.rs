//! `train.jsonl`: one line a step, and between them one line for each event. No time and no path in it, so that a resumed
//! run writes the same file.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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

/// What happened to a training beside its steps: `{"event": "…", "images": N, …}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogEvent {
    /// Which kind of event: one word, as in `change`.
    pub event: String,
    /// Images seen when it happened.
    pub images: u64,
    /// What else is known of it.
    #[serde(flatten)]
    pub details: Map<String, Value>,
}

impl LogEvent {
    /// An event of this kind after so many images.
    pub fn new<const N: usize>(event: &str, images: u64, details: [(&str, Value); N]) -> LogEvent {
        let details = details.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        LogEvent { event: event.into(), images, details }
    }
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Line {
    Step(StepRecord),
    Event(LogEvent),
}

impl Line {
    fn read(text: &str) -> serde_json::Result<Line> {
        // Nearly all lines are steps. An event lacks what every step has.
        serde_json::from_str(text).map(Line::Step).or_else(|error| {
            // What is neither is told as a step that is none.
            serde_json::from_str(text).map(Line::Event).map_err(|_| error)
        })
    }

    fn images(&self) -> u64 {
        match self {
            Line::Step(record) => record.images,
            Line::Event(event) => event.images,
        }
    }

    fn write(&self, writer: &mut dyn Write) -> std::io::Result<()> {
        let text = match self {
            Line::Step(record) => serde_json::to_string(record),
            Line::Event(event) => serde_json::to_string(event),
        };
        writeln!(writer, "{}", text.expect("numbers and texts are always representable"))
    }
}

/// The name of the log in a training's folder.
const NAME: &str = "train.jsonl";

/// The lines of a log. Half of a last line, which a killed run may leave, is none; nor is what cannot be read after a line
/// of `enough` images, which a resumed run writes again.
pub(super) fn lines(path: &Path, enough: Option<u64>) -> Result<Vec<Line>> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let text = String::from_utf8_lossy(&bytes);
    let (mut lines, mut reached) = (Vec::new(), 0);
    for (at, line) in text.lines().enumerate() {
        match Line::read(line) {
            Ok(line) => {
                reached = line.images().max(reached);
                lines.push(line);
            }
            Err(_) if at + 1 == text.lines().count() || enough.is_some_and(|enough| reached >= enough) => {
                break;
            }
            Err(error) => {
                return Err(Error::format(path, format!("line {}: {error}", at + 1)));
            }
        }
    }
    Ok(lines)
}

/// How many images the lines tell of.
pub(super) fn reached(lines: &[Line]) -> u64 {
    lines.iter().map(Line::images).max().unwrap_or(0)
}

/// The steps that the log in a training's folder tells of.
///
/// # Errors
/// When there is none, or a line of it is neither a step nor an event; half of a last line, which a killed run may leave,
/// is none.
pub fn records(dir: &Path) -> Result<Vec<StepRecord>> {
    Ok(lines(&dir.join(NAME), None)?.into_iter().filter_map(|line| split(line).0).collect())
}

/// The events that the log in a training's folder tells of.
///
/// # Errors
/// Those of [`records`].
pub fn events(dir: &Path) -> Result<Vec<LogEvent>> {
    Ok(lines(&dir.join(NAME), None)?.into_iter().filter_map(|line| split(line).1).collect())
}

fn split(line: Line) -> (Option<StepRecord>, Option<LogEvent>) {
    match line {
        Line::Step(record) => (Some(record), None),
        Line::Event(event) => (None, Some(event)),
    }
}

/// The spans (from, to] of images up to `images` whose steps no record tells of; `batch` says how large a step is that begins
/// after so many images.
pub(super) fn holes(records: &[StepRecord], images: u64, batch: impl Fn(u64) -> u64) -> Vec<(u64, u64)> {
    let (mut holes, mut seen) = (Vec::new(), 0);
    for record in records {
        let begun = record.images.saturating_sub(batch(seen));
        if begun > seen {
            holes.push((seen, begun));
        }
        seen = record.images.max(seen);
    }
    if seen < images {
        holes.push((seen, images));
    }
    holes
}

/// The log of a training.
pub struct Log {
    path: PathBuf,
    writer: BufWriter<File>,
    records: Vec<StepRecord>,
    events: Vec<LogEvent>,
    /// Events of images whose steps are still on their way: lines stand in the order of their images, however late the
    /// steps come.
    waiting: VecDeque<LogEvent>,
}

impl Log {
    /// Opens the log in `dir` and drops what was written after `images`, which a resumed run will do again.
    ///
    /// # Errors
    /// When it cannot be read or written, or what is kept of it is no log.
    pub fn open(dir: &Path, images: u64) -> Result<Log> {
        let path = dir.join(NAME);
        let mut kept = if path.exists() { lines(&path, Some(images))? } else { Vec::new() };
        kept.retain(|line| line.images() <= images);
        write_atomic(&path, |writer| {
            kept.iter().try_for_each(|line| line.write(writer)).map_err(Error::io(&path))
        })?;
        let file = OpenOptions::new().append(true).open(&path).map_err(Error::io(&path))?;
        let writer = BufWriter::new(file);
        let (mut records, mut events) = (Vec::new(), Vec::new());
        for line in kept {
            match line {
                Line::Step(record) => records.push(record),
                Line::Event(event) => events.push(event),
            }
        }
        Ok(Log { path, writer, records, events, waiting: VecDeque::new() })
    }

    /// Appends a step, and the events that waited for it.
    pub fn push(&mut self, record: StepRecord) -> Result<()> {
        self.records.push(record);
        self.write(&Line::Step(record))?;
        while self.waiting.front().is_some_and(|event| event.images <= record.images) {
            let event = self.waiting.pop_front().expect("it has a front");
            self.write(&Line::Event(event))?;
        }
        Ok(())
    }

    /// Appends an event, once the step that ends at its images stands in the log. Events come in the order of their images.
    pub fn push_event(&mut self, event: LogEvent) -> Result<()> {
        self.events.push(event.clone());
        let reached = self.records.last().map_or(0, |record| record.images);
        if event.images <= reached && self.waiting.is_empty() {
            return self.write(&Line::Event(event));
        }
        self.waiting.push_back(event);
        Ok(())
    }

    /// Whether this has been told before, after however many images.
    pub fn tells_of(&self, event: &LogEvent) -> bool {
        self.events.iter().any(|told| told.event == event.event && told.details == event.details)
    }

    fn write(&mut self, line: &Line) -> Result<()> {
        line.write(&mut self.writer).map_err(Error::io(&self.path))
    }

    /// Brings every line to the disk itself, so that it outlasts a power cut.
    pub fn sync(&mut self) -> Result<()> {
        self.writer.flush().and_then(|()| self.writer.get_ref().sync_data()).map_err(Error::io(&self.path))
    }

    /// All steps so far.
    pub fn records(&self) -> &[StepRecord] {
        &self.records
    }

    /// All events so far.
    pub fn events(&self) -> &[LogEvent] {
        &self.events
    }
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
        log.sync().unwrap();
        let path = dir.path().join("train.jsonl");
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 7]).unwrap();
        let mut log = Log::open(dir.path(), 30).unwrap();
        assert_eq!(log.records().len(), 3);
        log.push(StepRecord::at(40)).unwrap();
        log.push(StepRecord::at(50)).unwrap();
        log.sync().unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
    }

    #[test]
    fn what_is_not_finite_is_written_and_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path(), 0).unwrap();
        log.push(StepRecord { grad_norm: f32::INFINITY, skipped: true, ..StepRecord::at(10) }).unwrap();
        log.push(StepRecord::at(20)).unwrap();
        log.sync().unwrap();
        let read = records(dir.path()).unwrap();
        assert!(read[0].grad_norm.is_nan() && read[0].skipped);
        assert_eq!(read[1], StepRecord::at(20));
        assert_eq!(Log::open(dir.path(), 20).unwrap().records().len(), 2);
    }

    #[test]
    fn events_stand_between_the_steps_in_the_order_of_images() {
        let dir = tempfile::tempdir().unwrap();
        let change =
            |images, to: f64| LogEvent::new("change", images, [("option", "lr".into()), ("to", to.into())]);
        let write = |late: bool| {
            let _ = std::fs::remove_file(dir.path().join(NAME));
            let mut log = Log::open(dir.path(), 0).unwrap();
            log.push_event(change(0, 0.1)).unwrap();
            log.push(StepRecord::at(10)).unwrap();
            if late {
                log.push(StepRecord::at(20)).unwrap();
            }
            log.push_event(change(20, 0.2)).unwrap();
            if !late {
                log.push(StepRecord::at(20)).unwrap();
            }
            log.push(StepRecord::at(30)).unwrap();
            log.sync().unwrap();
            std::fs::read_to_string(dir.path().join(NAME)).unwrap()
        };
        let whole = write(true);
        assert_eq!(write(false), whole, "a step that comes later changes no order");
        let second = whole.lines().nth(3).unwrap();
        assert_eq!(second, r#"{"event":"change","images":20,"option":"lr","to":0.2}"#);
        assert_eq!(events(dir.path()).unwrap(), [change(0, 0.1), change(20, 0.2)]);
        assert_eq!(records(dir.path()).unwrap(), [10, 20, 30].map(StepRecord::at));

        // Opened again, the same lines stand in the same order; what came later is gone.
        Log::open(dir.path(), 30).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join(NAME)).unwrap(), whole);
        let log = Log::open(dir.path(), 10).unwrap();
        assert_eq!((log.records().len(), log.events()), (1, &[change(0, 0.1)][..]));
    }

    #[test]
    fn what_no_one_can_read_is_named_unless_it_is_done_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        let step = |images| serde_json::to_string(&StepRecord::at(images)).unwrap();
        std::fs::write(&path, [step(10), step(20), "\0\0\u{fffd}".into(), step(30)].join("\n")).unwrap();
        for error in [records(dir.path()).unwrap_err(), Log::open(dir.path(), 30).err().unwrap()] {
            assert!(error.to_string().contains("line 3"), "{error}");
        }
        assert_eq!(Log::open(dir.path(), 20).unwrap().records().len(), 2);
    }

    #[test]
    fn holes_are_found_where_lines_are_missing() {
        let all: Vec<StepRecord> = (1..=10).map(|step| StepRecord::at(step * 8)).collect();
        let holes = |records: &[StepRecord], images| holes(records, images, |_| 8);
        assert!(holes(&all, 80).is_empty());
        assert!(holes(&[], 0).is_empty());
        assert_eq!(holes(&[], 16), [(0, 16)]);
        assert_eq!(holes(&all[2..], 96), [(0, 16), (80, 96)]);
        assert_eq!(holes(&[&all[..3], &all[5..]].concat(), 80), [(24, 40)]);
        // A larger batch from 40 images on.
        let larger: Vec<StepRecord> = [8, 16, 24, 32, 40, 72, 104].into_iter().map(StepRecord::at).collect();
        assert!(super::holes(&larger, 104, |images| if images < 40 { 8 } else { 32 }).is_empty());
    }
}
