//! What was found in a data set, as a person reads it before a training.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{Display, Formatter, Result};

use super::classes::{counts, listed};
use super::dataset::{Dataset, extent_of};
use super::tree::LeftOut;
use crate::error::one_line;

/// More classes than this are not listed one by one.
const MOST_CLASSES: usize = 48;
/// So many of them are shown all the same.
const SHOWN_CLASSES: usize = 24;
/// Different sizes, and reasons why files were left out, that are shown.
const MOST_SIZES: usize = 4;
const MOST_REASONS: usize = 10;
/// Where lines end, and the longest name within a table.
const WIDTH: usize = 100;
const LONGEST_NAME: usize = 24;

/// Shows a [`Dataset`]: classes, counts, sizes, what was left out and why, and what to beware of.
pub struct Table<'a>(&'a Dataset);

impl Dataset {
    /// What was found, to be shown: classes, counts, sizes, what was left out.
    pub fn table(&self) -> Table<'_> {
        Table(self)
    }
}

impl Display for Table<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let Table(set) = self;
        let colour = if set.channels == 1 { "grey" } else { "RGB" };
        let (len, classes) = (set.len(), set.num_classes());
        let plural = if classes == 1 { "class" } else { "classes" };
        writeln!(
            f,
            "{}, {len} {colour} pictures, {classes} {plural}, labels {}",
            set.name, set.parts.label_source
        )?;
        self.classes(f)?;
        self.sizes(f)?;
        set.attributes().iter().try_for_each(|attribute| writeln!(f, "  attribute: {attribute}"))?;
        left_out(f, set.left_out(), len)?;
        set.parts.notes.iter().try_for_each(|note| writeln!(f, "  note: {note}"))?;
        set.warnings().iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))
    }
}

impl Table<'_> {
    fn classes(&self, f: &mut Formatter<'_>) -> Result {
        let names = &self.0.class_names;
        if self.0.is_unlabelled() {
            return Ok(());
        }
        let counts = counts(names.len(), self.0.labels().iter());
        let shown = if names.len() > MOST_CLASSES { SHOWN_CLASSES } else { names.len() };
        let cells: Vec<(String, String)> =
            (0..shown).map(|i| (short(&names[i]), counts[i].to_string())).collect();
        let widest = |of: fn(&(String, String)) -> usize| cells.iter().map(of).max().unwrap_or(0);
        let (name_width, count_width) =
            (widest(|(name, _)| name.chars().count()), widest(|(_, count)| count.chars().count()));
        writeln!(f, "  pictures of each class:")?;
        for row in cells.chunks((WIDTH / (name_width + count_width + 5)).max(1)) {
            let cell =
                |(name, count): &(String, String)| format!("    {name:name_width$} {count:>count_width$}");
            writeln!(f, "{}", row.iter().map(cell).collect::<String>())?;
        }
        if shown < names.len() {
            let mut sorted = counts;
            sorted.sort_unstable();
            let (least, median, most) = (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
            let more = names.len() - shown;
            writeln!(
                f,
                "    and {more} classes more; of all, {least} to {most} pictures a class, {median} in the middle"
            )?;
        }
        Ok(())
    }

    fn sizes(&self, f: &mut Formatter<'_>) -> Result {
        let mut sizes: HashMap<(usize, usize), usize> = HashMap::new();
        self.0.parts.sizes.iter().for_each(|size| *sizes.entry(*size).or_default() += 1);
        let mut sizes: Vec<_> = sizes.into_iter().collect();
        sizes.sort_by_key(|(size, count)| (std::cmp::Reverse(*count), *size));
        let square =
            sizes.iter().all(|((width, height), _)| width == height) && self.0.image_size().side().is_some();
        write!(f, "  sizes{}: ", if square { "" } else { ", height first" })?;
        for (i, (size, count)) in sizes.iter().take(MOST_SIZES).enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{}", extent_of(*size))?;
            if sizes.len() > 1 {
                write!(f, " ({count})")?;
            }
        }
        if sizes.len() > MOST_SIZES {
            write!(f, " and {} others", sizes.len() - MOST_SIZES)?;
        }
        let wanted = self.0.image_size();
        match sizes[..] {
            [(size, _)] if extent_of(size) == wanted => writeln!(f),
            _ => writeln!(f, ", brought to {wanted}"),
        }
    }
}

/// Files by the reason why they were left out.
fn left_out(f: &mut Formatter<'_>, files: &[LeftOut], good: usize) -> Result {
    if files.is_empty() {
        return Ok(());
    }
    let what = if files.len() == 1 { "file was" } else { "files were" };
    writeln!(f, "  {} {what} left out ({good} are good):", files.len())?;
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    files.iter().for_each(|file| reasons.entry(&file.reason).or_default().push(&file.name));
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
    for (reason, names) in reasons.iter().take(MOST_REASONS) {
        match names[..] {
            [name] => writeln!(f, "    {}: {reason}", one_line(name))?,
            _ => writeln!(f, "    {} files ({}): each {reason}", names.len(), one_line(&listed(names)))?,
        }
    }
    if reasons.len() > MOST_REASONS {
        let more: usize = reasons[MOST_REASONS..].iter().map(|(_, names)| names.len()).sum();
        writeln!(f, "    and {more} more, for other reasons")?;
    }
    Ok(())
}

/// A name that fits a table.
fn short(name: &str) -> String {
    let name = one_line(name);
    if name.chars().count() <= LONGEST_NAME {
        return name;
    }
    name.chars().take(LONGEST_NAME - 1).chain(['…']).collect()
}
