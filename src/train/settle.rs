//! A folder is resumed only under the options that it was begun with.

use std::path::Path;

use crate::error::{Error, Result};
use crate::io::write_atomic;

use super::options::TrainOptions;

impl TrainOptions {
    /// Writes `train.json` into `dir`, or compares with the one that is there.
    ///
    /// # Errors
    /// [`Error::Config`] naming every option that differs. More images than before are no difference: the run goes on. Nor
    /// is how averages warm up, where an older version did not write it.
    pub fn settle(&self, dir: &Path) -> Result<()> {
        let path = dir.join("train.json");
        let mine = serde_json::to_value(self).map_err(|e| Error::format(&path, e.to_string()))?;
        if path.exists() {
            let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
            let begun: serde_json::Value =
                serde_json::from_str(&text).map_err(|e| Error::format(&path, e.to_string()))?;
            let mut theirs = begun.clone();
            if self.knows_data(theirs["data_fingerprint"].as_str().unwrap_or_default()) {
                theirs["data_fingerprint"] = mine["data_fingerprint"].clone();
            }
            let mut differences = Vec::new();
            compare("", &theirs, &mine, &mut differences);
            let more = |line: &String| {
                let old = theirs["images"].as_u64().unwrap_or(0);
                line.starts_with("images:") && self.images > old
            };
            // An older version's averages did not warm up; from here on they do as they are told to.
            let unsaid = |line: &String| line.starts_with("ema_warmup: there null,");
            differences.retain(|line| !more(line) && !unsaid(line));
            if !differences.is_empty() {
                return Err(Error::Config(format!(
                    "{} was begun with other options; resume with the same ones or choose another --out:\n  {}",
                    dir.display(),
                    differences.join("\n  ")
                )));
            }
            if begun == mine {
                return Ok(());
            }
        }
        let text = serde_json::to_string_pretty(&mine).map_err(|e| Error::format(&path, e.to_string()))?;
        write_atomic(&path, |writer| {
            writer.write_all(text.as_bytes()).and_then(|()| writer.write_all(b"\n")).map_err(Error::io(&path))
        })
    }
}

impl TrainOptions {
    /// Whether the data is what a training was begun on, by its fingerprint or by that of an earlier version.
    fn knows_data(&self, fingerprint: &str) -> bool {
        self.data_fingerprint == fingerprint || self.earlier_data_fingerprint.as_deref() == Some(fingerprint)
    }
}

/// Lists `path: there X, now Y` for each leaf that differs.
fn compare(path: &str, theirs: &serde_json::Value, mine: &serde_json::Value, into: &mut Vec<String>) {
    if let (Some(a), Some(b)) = (theirs.as_object(), mine.as_object()) {
        let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let missing = serde_json::Value::Null;
            compare(&inner, a.get(key).unwrap_or(&missing), b.get(key).unwrap_or(&missing), into);
        }
    } else if theirs != mine {
        into.push(format!("{path}: there {theirs}, now {mine}"));
    }
}
