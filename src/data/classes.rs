//! Which class each picture is of: what labels files say, else what folders and names say; and what speaks against it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::attributes::Column;
use super::labels::{self, Label, Labels};
use super::parts::{DataOptions, Labelling, ONLY_CLASS};
use super::tree::{LABELS, LeftOut, Tree};
use crate::error::{Error, Result};

/// Names of folders that are parts of a set, not classes.
const PARTS: [&str; 11] = [
    "train",
    "training",
    "val",
    "valid",
    "validation",
    "test",
    "testing",
    "dev",
    "eval",
    "holdout",
    "unlabeled",
];

/// The classes of some pictures.
#[derive(Default)]
pub struct Classes {
    /// The name of each class; the label is the position.
    pub names: Vec<String>,
    /// The label of each picture; none for those that are left out.
    pub labels: Vec<Option<u32>>,
    /// Why pictures, or files that should be there, are left out.
    pub left_out: Vec<LeftOut>,
    /// What is said of each picture in words.
    pub captions: Vec<Option<String>>,
    /// What is said of each picture in the columns that were asked for.
    pub columns: Vec<Column>,
    /// Where the labels come from, in words that go after "labels".
    pub source: String,
    pub warnings: Vec<String>,
    /// Whether a labels file says so, and it was not guessed from names.
    pub is_told: bool,
    /// Whether nothing says what the pictures show.
    pub is_unlabelled: bool,
}

/// The classes of the pictures of these names, in the order of names.
///
/// # Errors
/// When a labels file is damaged, and when what was found is no labelling, unless that was asked for.
pub fn of(tree: &Tree, pictures: &[&str], options: &DataOptions) -> Result<Classes> {
    if options.labelling == Labelling::None {
        if options.label.is_some() {
            return Err(Error::Config("a set that is to be unlabelled has no column of labels".into()));
        }
        let mut classes = without(pictures.len(), "not asked for");
        if options.columns().next().is_some() {
            classes.columns = columns(pictures, labels::read(tree, options)?.as_ref(), options);
        }
        return Ok(classes);
    }
    let found = labels::read(tree, options)?;
    let columns = columns(pictures, found.as_ref(), options);
    let mut classes = match found {
        Some(labels) if labels.is_labelled || tree.find(LABELS[0]).is_some() => {
            of_file(tree, pictures, labels)?
        }
        found => {
            let mut classes = of_names(tree, pictures, found.is_some());
            if let Some(mut labels) = found {
                classes.warnings.push(format!(
                    "{} has no column `label`{}; classes are {}",
                    labels.source,
                    match &labels.other_columns[..] {
                        [] => String::new(),
                        others =>
                            format!(" (but {}; one of them may be named as the label)", others.join(", ")),
                    },
                    classes.source
                ));
                classes.captions = captions(pictures, &mut labels);
            }
            classes
        }
    };
    classes.columns = columns;
    doubts(tree, pictures, options, &mut classes)?;
    Ok(classes)
}

/// What the columns that were asked for say of each picture.
fn columns(pictures: &[&str], labels: Option<&Labels>, options: &DataOptions) -> Vec<Column> {
    let row = |name: &&str| labels.and_then(|labels| labels.rows.get(*name));
    let cell = |name: &&str, at: usize| row(name).and_then(|row| row.columns.get(at).cloned().flatten());
    let column = |(at, name): (usize, &str)| Column {
        name: name.to_owned(),
        cells: pictures.iter().map(|picture| cell(picture, at)).collect(),
    };
    options.columns().enumerate().map(column).collect()
}

/// Pictures of one class.
fn without(count: usize, source: &str) -> Classes {
    Classes {
        names: vec![ONLY_CLASS.to_owned()],
        labels: vec![Some(0); count],
        source: source.to_owned(),
        is_unlabelled: true,
        ..Classes::default()
    }
}

fn captions(pictures: &[&str], labels: &mut Labels) -> Vec<Option<String>> {
    let captions: Vec<_> = pictures.iter().map(|name| labels.rows.get_mut(*name)?.caption.take()).collect();
    if captions.iter().any(Option::is_some) { captions } else { Vec::new() }
}

fn of_file(tree: &Tree, pictures: &[&str], mut labels: Labels) -> Result<Classes> {
    let source = format!("of {}", labels.source);
    if !labels.is_labelled {
        return Ok(without(pictures.len(), &format!("none, as {} says", labels.source)));
    }
    let mut left_out = Vec::new();
    let mut told: Vec<Option<Label>> = Vec::with_capacity(pictures.len());
    for name in pictures {
        let label = labels.rows.get(*name).and_then(|row| row.label.clone());
        if label.is_none() {
            left_out.push(LeftOut::new(*name, format!("has no label in {}", labels.source)));
        }
        told.push(label);
    }
    let there: HashSet<&str> = tree
        .entries
        .iter()
        .map(|entry| entry.name.as_str())
        .chain(tree.left_out.iter().map(|left| left.name.as_str()))
        .collect();
    for name in labels.rows.keys().filter(|name| !there.contains(name.as_str())) {
        let place = if tree.is_zip { "zip" } else { "folder" };
        left_out.push(LeftOut::new(name, format!("is in {}, but not in the {place}", labels.source)));
    }
    let captions = captions(pictures, &mut labels);
    let as_number = |label: &Label| match label {
        Label::Number(number) => Some(*number),
        Label::Name(_) => None,
    };
    let (names, labels) = if told.iter().flatten().all(|label| as_number(label).is_some()) {
        let labels: Vec<Option<u32>> = told.iter().map(|label| label.as_ref().and_then(as_number)).collect();
        let needed = labels.iter().flatten().max().map_or(1, |&label| label as usize + 1);
        let names = labels::class_names(tree, needed)?;
        (names.unwrap_or_else(|| (0..needed).map(|class| class.to_string()).collect()), labels)
    } else {
        let name = |label: &Label| match label {
            Label::Number(number) => number.to_string(),
            Label::Name(name) => name.clone(),
        };
        numbered(told.iter().map(|label| label.as_ref().map(name)).collect())
    };
    Ok(Classes { names, labels, left_out, captions, source, is_told: true, ..Classes::default() })
}

/// Sorted names, and the position of each.
fn numbered(told: Vec<Option<String>>) -> (Vec<String>, Vec<Option<u32>>) {
    let names: Vec<String> = told.iter().flatten().collect::<BTreeSet<_>>().into_iter().cloned().collect();
    let label = |name: &String| names.binary_search(name).expect("every class is among the names") as u32;
    let labels = told.iter().map(|name| name.as_ref().map(label)).collect();
    (names, labels)
}

/// Classes by folders; without any, by names, unless there is a file that could have had labels.
fn of_names(tree: &Tree, pictures: &[&str], has_metadata: bool) -> Classes {
    if !pictures.iter().any(|name| name.contains('/')) {
        if has_metadata {
            return without(pictures.len(), "none");
        }
        let (names, labels) = numbered(pictures.iter().map(|name| Some(class_of_flat(name))).collect());
        let is_unlabelled = names == [ONLY_CLASS];
        let source = if is_unlabelled { "none" } else { "of the files' names" };
        return Classes { names, labels, source: source.into(), is_unlabelled, ..Classes::default() };
    }
    let mut left_out = Vec::new();
    let mut class = |name: &&str| match name.split_once('/') {
        Some((class, _)) => Some(class.to_owned()),
        None => {
            left_out.push(LeftOut::new(*name, "lies beside the class folders, not in one"));
            None
        }
    };
    let (names, labels) = numbered(pictures.iter().map(&mut class).collect());
    let mut warnings = Vec::new();
    let empty: Vec<&str> =
        tree.folders.iter().filter(|folder| !names.contains(folder)).map(String::as_str).collect();
    if !empty.is_empty() {
        let what = if empty.len() == 1 { "the folder" } else { "the folders" };
        warnings.push(format!("{what} {} without pictures: no class of that name", listed(&empty)));
    }
    Classes {
        names,
        labels,
        left_out,
        source: "of the folders' names".into(),
        warnings,
        ..Classes::default()
    }
}

/// The class that a flat file's name tells: the stem before its last underscore (`maine_coon_12.png` is a `maine_coon`), and
/// without an underscore the stem less the digits at its end (`cat12.png` is a `cat`).
fn class_of_flat(name: &str) -> String {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let class = match stem.rsplit_once('_') {
        Some((class, _)) => class,
        None => stem.trim_end_matches(|c: char| c.is_ascii_digit()),
    };
    if class.is_empty() { ONLY_CLASS.to_string() } else { class.to_string() }
}

/// Refuses what is no labelling, and warns of what may be none.
fn doubts(tree: &Tree, pictures: &[&str], options: &DataOptions, classes: &mut Classes) -> Result<()> {
    let trusted = options.labelling == Labelling::Trusted;
    let mut warnings = Vec::new();
    let mut refuse = |what: String, hard: bool| -> Result<()> {
        if hard && !trusted {
            let way = "or take the set as one without labels (option `unlabelled`)";
            return Err(Error::format(&tree.path, format!("{what}, {way}")));
        }
        warnings.push(what);
        Ok(())
    };
    let counts = counts(classes.names.len(), classes.labels.iter().flatten());
    let (with_pictures, used) =
        (counts.iter().filter(|count| **count > 0).count(), counts.iter().sum::<usize>());
    if used > 1 && with_pictures == used {
        let what = format!(
            "has {used} pictures of {used} classes ({}), with labels {}: that is no labelling; put the pictures of each \
             class into a folder of its own, add a metadata.csv with file_name and label",
            listed(&classes.names.iter().map(String::as_str).collect::<Vec<_>>()),
            classes.source
        );
        refuse(what, !classes.is_told)?;
    }
    if classes.source == "of the folders' names" {
        let mut inside: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for name in pictures {
            let Some((class, rest)) = name.split_once('/') else { continue };
            let folders = inside.entry(class).or_default();
            if let Some((folder, _)) = rest.split_once('/') {
                folders.insert(folder);
            }
        }
        let first = inside.values().next().cloned().unwrap_or_default();
        let names: Vec<&str> = inside.keys().copied().collect();
        let given = tree.path.join(names.first().copied().unwrap_or_default());
        if names.len() > 1 && !first.is_empty() && inside.values().all(|folders| *folders == first) {
            let what = format!(
                "holds the folders {}, and each of them the same folders {}: it looks like what lies above the parts of a \
                 set; give one of them ({})",
                listed(&names),
                listed(&first.iter().copied().collect::<Vec<_>>()),
                given.display()
            );
            refuse(what, true)?;
        } else if names.iter().all(|name| PARTS.contains(&name.to_ascii_lowercase().as_str())) {
            let what = format!(
                "the classes are named {}: if these are the parts of a set, give one of them ({})",
                listed(&names),
                given.display()
            );
            refuse(what, false)?;
        } else if inside.values().any(|folders| !folders.is_empty()) {
            let deep = inside.iter().filter(|(_, folders)| !folders.is_empty()).map(|(class, _)| *class);
            let deep: Vec<&str> = deep.collect();
            refuse(format!("folders within {} are not looked upon as classes", listed(&deep)), false)?;
        }
    }
    warnings.extend(empty(&classes.names, &counts));
    classes.warnings.extend(warnings);
    Ok(())
}

/// Pictures of each of so many classes.
pub fn counts<'a>(classes: usize, labels: impl Iterator<Item = &'a u32>) -> Vec<usize> {
    let mut counts = vec![0; classes];
    labels.for_each(|&label| counts[label as usize] += 1);
    counts
}

/// A warning of classes that have no pictures, in a set whose labels are numbers or names of a list.
pub fn empty(names: &[String], counts: &[usize]) -> Option<String> {
    let empty: Vec<&str> = (0..names.len()).filter(|&i| counts[i] == 0).map(|i| names[i].as_str()).collect();
    let verb = if empty.len() == 1 { "has" } else { "have" };
    match empty[..] {
        [] => None,
        ["0"] => Some("no picture is of class 0: the labels count from 1, and should from 0".to_owned()),
        _ => {
            Some(format!("{} of {} classes {verb} no pictures: {}", empty.len(), names.len(), listed(&empty)))
        }
    }
}

/// The first of some names, and how many more there are.
pub fn listed(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_names_tell_the_class() {
        for (name, class) in [
            ("cat_001.png", "cat"),
            ("maine_coon_12.jpg", "maine_coon"),
            ("cat12.png", "cat"),
            ("cat.png", "cat"),
            ("0001.png", "all"),
            ("_1.png", "all"),
        ] {
            assert_eq!(class_of_flat(name), class, "{name}");
        }
    }
}
