//! The newer container: a zip whose entries are stored as they are. `NAME/data.pkl`, `NAME/data/KEY` and a few notes.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use crate::error::{Error, Result};
use crate::io::pieces::Pieces;

use super::pickle::MOST_BYTES;

/// The pickle and where each storage's bytes lie.
pub(super) struct Archive {
    pub pickle: Vec<u8>,
    pub storages: BTreeMap<String, Range<u64>>,
}

/// Reads the directory and the pickle.
pub(super) fn open(file: &Pieces) -> Result<Archive> {
    let bad = |what: String| Error::format(file.path(), what);
    let reader = std::io::BufReader::new(file.reopen()?);
    let mut zip =
        ZipArchive::new(reader).map_err(|error| bad(format!("is a damaged or cut zip: {error}")))?;
    let names = zip.file_names().filter_map(|name| name.ok().map(String::from));
    let pickles: Vec<String> =
        names.filter(|name| name == "data.pkl" || name.ends_with("/data.pkl")).take(2).collect();
    let [pickle] = &pickles[..] else {
        return Err(bad("is a zip without exactly one data.pkl, so it is no PyTorch file".into()));
    };
    let folder = pickle.trim_end_matches("data.pkl").to_owned();
    let data = format!("{folder}data/");

    let mut archive = Archive { pickle: Vec::new(), storages: BTreeMap::new() };
    for index in 0..zip.len() {
        let entry =
            zip.by_index_raw(index).map_err(|error| bad(format!("has a damaged entry {index}: {error}")))?;
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        let key = name.strip_prefix(&data).filter(|key| !key.is_empty());
        let wanted = key.is_some() || name == *pickle || name == format!("{folder}byteorder");
        if !wanted {
            continue;
        }
        let length = entry.size();
        let start = entry.data_start().ok_or_else(|| bad(format!("does not say where `{name}` lies")))?;
        let end = start.checked_add(length).filter(|end| *end <= file.length());
        let Some(end) =
            end.filter(|_| entry.compression() == CompressionMethod::Stored && !entry.encrypted())
        else {
            return Err(bad(format!(
                "entry `{name}` of {length} bytes goes past the end of the file, or is compressed or encrypted, \
                 which PyTorch never does"
            )));
        };
        if let Some(key) = key {
            if archive.storages.insert(key.to_owned(), start..end).is_some() {
                return Err(bad(format!("has the entry `{name}` twice")));
            }
        } else if name == *pickle {
            if length > MOST_BYTES as u64 {
                return Err(bad(format!("has a pickle of {length} bytes; at most {MOST_BYTES} are read")));
            }
            archive.pickle = file.read(start..end)?;
        } else {
            let mut order = String::new();
            let _ = file.read(start..end.min(start + 16))?.as_slice().read_to_string(&mut order);
            if order != "little" {
                return Err(bad(format!("was written with {order:?} byte order; only \"little\" is read")));
            }
        }
    }
    Ok(archive)
}
