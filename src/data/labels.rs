//! Files that say what pictures show: `dataset.json` of EDM and StyleGAN, `metadata.csv` and `metadata.jsonl` of Hugging
//! Face's imagefolder, and `classes.json` with the names of numbered labels.
//!
//! `dataset.json` is `{"labels": [["00000/img00000000.png", 3], ...]}` (also as an object, or with labels one-hot), or
//! `{"labels": null}` for a set without labels. `metadata.*` has a column `file_name`, relative to its own folder, a column
//! of labels, and perhaps `text`.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::parts::DataOptions;
use super::tree::{Entry, LABELS, Tree};
use crate::error::{Error, Result, brief};

/// The names of numbered classes.
pub const CLASSES: &str = "classes.json";
/// The column of labels where no other is asked for, and that of captions.
const LABEL: &str = "label";
const TEXT: &str = "text";
/// More classes than any set has: a label beyond is a damaged file, not a reason to make so many names.
pub const MAX_CLASSES: u64 = 1 << 20;

/// What stands in the place of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Label {
    Number(u32),
    Name(String),
}

/// What is said of a picture.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub label: Option<Label>,
    pub caption: Option<String>,
    /// What stands in the columns that were asked for.
    pub columns: Vec<Option<String>>,
}

/// What the labels files of a set say.
pub struct Labels {
    /// The file, or the files.
    pub source: String,
    pub rows: HashMap<String, Row>,
    /// Whether there are labels, and not only captions.
    pub is_labelled: bool,
    /// The columns that are not labels, where there are none.
    pub other_columns: Vec<String>,
}

/// True for a file that is read here, not a picture that was left out.
pub fn is_labels_file(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    name == LABELS[0] || name == CLASSES || LABELS[1..].contains(&file)
}

/// Reads the labels files of a tree; `None` where there are none.
///
/// # Errors
/// When one is damaged, when two contradict one another, and when there is no column of the name that was asked for.
pub fn read(tree: &Tree, options: &DataOptions) -> Result<Option<Labels>> {
    let bad = |what: String| Error::format(&tree.path, what);
    let metadata: Vec<&Entry> = tree
        .entries
        .iter()
        .filter(|entry| LABELS[1..].contains(&entry.name.rsplit('/').next().unwrap_or_default()))
        .collect();
    if let Some(dataset) = tree.find(LABELS[0]) {
        if let Some(other) = metadata.first() {
            let name = &other.name;
            return Err(bad(format!("has labels in dataset.json and in {name}; keep the one that is meant")));
        }
        if let Some(label) = options.label.as_deref().or_else(|| options.columns().next()) {
            return Err(bad(format!(
                "has its labels in dataset.json, which has no column `{label}`",
                label = brief(label)
            )));
        }
        return dataset_json(tree, dataset).map(Some);
    }
    if metadata.is_empty() {
        return match options.label.as_deref().or_else(|| options.columns().next()) {
            Some(label) => Err(bad(format!(
                "has no metadata.csv or metadata.jsonl with a column `{label}`",
                label = brief(label)
            ))),
            None => Ok(None),
        };
    }
    let folder =
        |entry: &Entry| entry.name.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    let folders: Vec<String> = metadata.iter().map(|entry| folder(entry)).collect();
    if let Some(twice) = folders.windows(2).find(|pair| pair[0] == pair[1]) {
        let place = if twice[0].is_empty() { "its root" } else { &twice[0] };
        return Err(bad(format!(
            "has metadata.csv and metadata.jsonl in {place}; keep the one that is meant"
        )));
    }
    if folders.len() > 1 && !folders.iter().any(String::is_empty) {
        return Err(bad(format!(
            "has labels in {}: these look like the parts of a set; give one of them as the data",
            folders.join(" and in ")
        )));
    }
    let mut labels = Labels {
        source: metadata.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>().join(", "),
        rows: HashMap::new(),
        is_labelled: false,
        other_columns: Vec::new(),
    };
    for (entry, folder) in metadata.into_iter().zip(folders) {
        let table = table(tree, entry)?;
        add(&mut labels, &table, &folder, options).map_err(|what| bad(format!("{}: {what}", entry.name)))?;
    }
    Ok(Some(labels))
}

/// Names from classes.json; `None` where there is none.
pub fn class_names(tree: &Tree, needed: usize) -> Result<Option<Vec<String>>> {
    let Some(entry) = tree.find(CLASSES) else { return Ok(None) };
    let bad = |what: String| Error::format(&tree.path, what);
    let names: Vec<String> = serde_json::from_slice(&bytes(tree, entry)?)
        .map_err(|error| bad(format!("classes.json is not an array of names: {error}")))?;
    if names.len() < needed {
        let (have, most) = (names.len(), needed - 1);
        return Err(bad(format!("classes.json names {have} classes, but there are labels up to {most}")));
    }
    Ok(Some(names))
}

fn bytes(tree: &Tree, entry: &Entry) -> Result<Vec<u8>> {
    tree.read(entry).map_err(|error| Error::format(&tree.path, format!("{}: {error}", entry.name)))
}

fn dataset_json(tree: &Tree, entry: &Entry) -> Result<Labels> {
    let bad = |what: String| Error::format(&tree.path, format!("dataset.json {what}"));
    let parsed: Value =
        serde_json::from_slice(&bytes(tree, entry)?).map_err(|error| bad(format!("is damaged: {error}")))?;
    let expected = "but it should be {\"labels\": [[\"file name\", label], …]}";
    let Some(labels) = parsed.get("labels") else {
        return Err(bad(format!("has no `labels`, {expected}; rename it if it is another program's")));
    };
    let mut rows = HashMap::new();
    let mut add = |name: &str, value: &Value| -> Result<()> {
        let label = label(value).map_err(|what| {
            bad(format!("labels {name} with {}, but {what}", brief(&value.to_string()), name = brief(name)))
        })?;
        rows.insert(tidy("", name), Row { label, ..Row::default() });
        Ok(())
    };
    match labels {
        Value::Null => {}
        Value::Array(pairs) => {
            for pair in pairs {
                match pair.as_array().map(Vec::as_slice) {
                    Some([Value::String(name), value]) => add(name, value)?,
                    _ => {
                        return Err(bad(format!(
                            "has {} among its labels, {expected}",
                            brief(&pair.to_string())
                        )));
                    }
                }
            }
        }
        Value::Object(pairs) => pairs.iter().try_for_each(|(name, value)| add(name, value))?,
        other => return Err(bad(format!("has labels that are {}, {expected}", brief(&other.to_string())))),
    }
    let is_labelled = !labels.is_null();
    Ok(Labels { source: "dataset.json".into(), rows, is_labelled, other_columns: Vec::new() })
}

/// The label that a value stands for; `None` for nothing.
fn label(value: &Value) -> Result<Option<Label>, String> {
    let whole = || format!("a label is a name, or a whole number from 0 and below {MAX_CLASSES}");
    let number = |number: f64| match number {
        // Exact: the bound is far below 2^53.
        number if number >= 0.0 && number < MAX_CLASSES as f64 && number.fract() == 0.0 => {
            Ok(Some(Label::Number(number as u32)))
        }
        _ => Err(whole()),
    };
    match value {
        Value::Null => Ok(None),
        Value::Number(found) => number(found.as_f64().unwrap_or(-1.0)),
        Value::String(text) if text.trim().is_empty() => Ok(None),
        Value::String(text) => Ok(Some(Label::Name(text.trim().to_owned()))),
        Value::Array(values) => {
            let set: Vec<usize> = values
                .iter()
                .enumerate()
                .filter(|(_, value)| value.as_f64() != Some(0.0))
                .map(|(i, _)| i)
                .collect();
            match set[..] {
                [one] if values[one].as_f64() == Some(1.0) => number(one as f64),
                _ => Err(format!("{}; of a list of numbers, one is 1 and all others are 0", whole())),
            }
        }
        _ => Err(whole()),
    }
}

/// A table as rows of (column, value).
fn table(tree: &Tree, entry: &Entry) -> Result<Vec<serde_json::Map<String, Value>>> {
    let bad = |what: String| Error::format(&tree.path, format!("{}: {what}", entry.name));
    let bytes = bytes(tree, entry)?;
    let mut rows = Vec::new();
    if entry.name.ends_with(".csv") {
        let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
        let mut reader = csv::Reader::from_reader(text);
        let columns = reader.headers().map_err(|error| bad(error.to_string()))?.clone();
        for record in reader.records() {
            let record = record.map_err(|error| bad(error.to_string()))?;
            let value = |text: &str| Value::String(text.to_owned());
            rows.push(columns.iter().map(str::to_owned).zip(record.iter().map(value)).collect());
        }
    } else {
        let text = str::from_utf8(&bytes).map_err(|error| bad(error.to_string()))?;
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            rows.push(serde_json::from_str(line).map_err(|error| bad(format!("line {}: {error}", at + 1)))?);
        }
    }
    Ok(rows)
}

/// Adds what a table that lies in `folder` says.
fn add(
    labels: &mut Labels,
    table: &[serde_json::Map<String, Value>],
    folder: &str,
    options: &DataOptions,
) -> Result<(), String> {
    let column = options.label.as_deref();
    let columns: BTreeSet<&str> = table.iter().flat_map(|row| row.keys().map(String::as_str)).collect();
    let listed = |columns: &BTreeSet<&str>| columns.iter().copied().collect::<Vec<_>>().join(", ");
    if !table.is_empty() && !columns.contains("file_name") {
        return Err(format!("has no column `file_name`, but {}", listed(&columns)));
    }
    let mut asked = column.into_iter().chain(options.columns());
    if let Some(column) = asked.find(|column| !columns.contains(column)) {
        return Err(format!("has no column `{column}`, but {}", listed(&columns), column = brief(column)));
    }
    let column = column.unwrap_or(LABEL);
    if columns.contains(column) {
        labels.is_labelled = true;
    } else {
        let others = columns.iter().filter(|name| !["file_name", TEXT].contains(*name));
        labels.other_columns.extend(others.map(|name| (*name).to_owned()));
    }
    // Text that is whole numbers throughout is numbers, as a CSV has no others.
    let number = |text: &str| text.trim().parse::<f64>().is_ok_and(|number| number.fract() == 0.0);
    let texts =
        || table.iter().filter_map(|row| row.get(column)?.as_str()).filter(|text| !text.trim().is_empty());
    let all_numbers = texts().all(number);
    for row in table {
        let Some(Value::String(name)) = row.get("file_name") else {
            return Err("has a row without a `file_name`".into());
        };
        let value = match row.get(column) {
            Some(Value::String(text)) if all_numbers && !text.trim().is_empty() => {
                text.trim().parse::<f64>().map_or(Value::Null, Value::from)
            }
            value => value.cloned().unwrap_or(Value::Null),
        };
        let label = label(&value).map_err(|what| {
            format!("labels {name} with {}, but {what}", brief(&value.to_string()), name = brief(name))
        })?;
        let caption = row.get(TEXT).and_then(Value::as_str).map(str::to_owned);
        let columns = options.columns().map(|column| cell(name, column, row.get(column)));
        let columns = columns.collect::<Result<_, _>>()?;
        if labels.rows.insert(tidy(folder, name), Row { label, caption, columns }).is_some() {
            return Err(format!("{name} is labelled twice", name = brief(name)));
        }
    }
    Ok(())
}

/// What a column says of a picture, as text; nothing for what is empty.
fn cell(name: &str, column: &str, value: Option<&Value>) -> Result<Option<String>, String> {
    let text = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.trim().to_owned(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(is)) => u8::from(*is).to_string(),
        Some(other) => {
            return Err(format!(
                "says {} of {} in `{column}`, which is neither a number nor a name",
                brief(&other.to_string()),
                brief(name)
            ));
        }
    };
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// A file's name below the root, as trees have it.
fn tidy(folder: &str, name: &str) -> String {
    let name = name.replace('\\', "/");
    format!("{folder}{}", name.trim_start_matches("./"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_in_all_their_forms() {
        for (value, expected) in [
            (json!(3), Some(Label::Number(3))),
            (json!(3.0), Some(Label::Number(3))),
            (json!([0, 0.0, 1.0]), Some(Label::Number(2))),
            (json!("cat "), Some(Label::Name("cat".into()))),
            (json!(null), None),
            (json!(""), None),
        ] {
            assert_eq!(label(&value).unwrap(), expected, "{value}");
        }
        for value in [
            json!(-1),
            json!(0.5),
            json!(4_000_000_000u32),
            json!([0, 0]),
            json!([1, 1]),
            json!([0.5, 0.5]),
            json!({}),
        ] {
            assert!(label(&value).unwrap_err().contains("whole number"), "{value}");
        }
    }
}
