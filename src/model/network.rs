//! Which network of a file that holds one or several: a training's file has the weights and an average of them.

use crate::error::{Error, Result, brief};
use crate::io::TensorSource;

/// The first tensor of every network of guided-diffusion.
const FIRST: &str = "time_embed.0.weight";

/// What of a training's file has the names of a network and is none: the optimiser's moments.
const MOMENTS: [&str; 2] = ["first_moment/", "second_moment/"];

/// One network of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Network {
    /// What stands before the names of its tensors, as `ema/` or `state_dict/module.`.
    pub prefix: String,
    /// What it is called, where there are several.
    pub name: Option<String>,
    /// Why this one, for `info`.
    pub why: String,
    /// What is to be told of the choice: it was nobody's.
    pub note: Option<String>,
}

/// The network that is `wanted` by name, or the only one, or the only average among several; `None` for a file that has
/// none.
///
/// # Errors
/// [`Error::Format`] with the names of all, where none is called so or it cannot be told which is meant.
pub(super) fn choose(source: &dyn TensorSource, wanted: Option<&str>) -> Result<Option<Network>> {
    let names = source.names();
    let prefixes: Vec<&str> = names
        .iter()
        .filter_map(|name| name.strip_suffix(FIRST))
        .filter(|prefix| !MOMENTS.contains(prefix))
        .collect();
    let listed = || prefixes.iter().map(|prefix| called(prefix)).collect::<Vec<_>>().join(", ");
    let found = match wanted {
        Some(wanted) => {
            let exact: Vec<&str> = prefixes.iter().copied().filter(|p| called(p) == wanted).collect();
            let parts: Vec<&str> =
                prefixes.iter().copied().filter(|p| words(p).any(|w| w == wanted)).collect();
            match (&exact[..], &parts[..]) {
                ([one], _) | ([], [one]) => Some(*one),
                _ if prefixes.is_empty() => return Ok(None),
                _ => {
                    let what = format!(
                        "holds no network that is called {wanted:?} alone; there are {}",
                        listed(),
                        wanted = brief(wanted)
                    );
                    return Err(Error::format(source.path(), what));
                }
            }
        }
        None => None,
    };
    let one = |prefix: &str, why: String, note| {
        let name = (prefixes.len() > 1).then(|| called(prefix));
        Ok(Some(Network { prefix: prefix.to_owned(), name, why, note }))
    };
    if let Some(prefix) = found {
        let why = match prefixes.len() {
            1 => format!("{}, the only one in the file", called(prefix)),
            _ => format!("{}, as asked, of {}", called(prefix), listed()),
        };
        return one(prefix, why, None);
    }
    let averages: Vec<&str> = prefixes.iter().copied().filter(|prefix| is_average(prefix)).collect();
    match (&prefixes[..], &averages[..]) {
        ([], _) => Ok(None),
        ([""], _) => one("", "the only one in the file".into(), None),
        ([prefix], _) => one(prefix, format!("the only one in the file, under `{prefix}`"), None),
        (_, [average]) => {
            let (name, all) = (called(average), listed());
            let path = source.path().display();
            let note = format!(
                "of the networks {all} in the file, {name} is read, an average of weights; --network NAME or \
                 {path}#NAME takes another"
            );
            one(average, format!("{name}, an average of weights, of {all}"), Some(note))
        }
        _ => {
            let path = source.path().display();
            let what =
                format!("holds several networks: {}; choose one by --network NAME or {path}#NAME", listed());
            Err(Error::format(source.path(), what))
        }
    }
}

/// The name of the network under a prefix.
fn called(prefix: &str) -> String {
    match prefix.trim_end_matches(['/', '.']) {
        "" => "top".into(),
        name => name.into(),
    }
}

/// The parts of a prefix between slashes and dots.
fn words(prefix: &str) -> impl Iterator<Item = &str> {
    prefix.split(['/', '.']).filter(|word| !word.is_empty())
}

/// Whether a name says that its weights are averaged, as `ema`, `model_ema` or `ema-0.9999/`.
fn is_average(prefix: &str) -> bool {
    prefix
        .split(['/', '.', '_', '-'])
        .any(|word| ["ema", "average", "averaged", "avg", "swa"].contains(&word.to_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::io::{Dtype, SafetensorsFile, TensorBytes, write_safetensors_to};

    fn file(prefixes: &[&str]) -> SafetensorsFile {
        let names: Vec<String> = prefixes.iter().map(|prefix| format!("{prefix}{FIRST}")).collect();
        let tensors: Vec<TensorBytes<'_>> = names
            .iter()
            .map(|name| TensorBytes { name, dtype: Dtype::F32, shape: &[1], bytes: &[0; 4] })
            .collect();
        let mut bytes = Vec::new();
        write_safetensors_to(&mut bytes, "x".as_ref(), &tensors, &BTreeMap::new()).unwrap();
        SafetensorsFile::from_bytes("x.pt", bytes).unwrap()
    }

    /// The prefix that is chosen and whether it is told, or the error.
    fn chosen(prefixes: &[&str], wanted: Option<&str>) -> Result<Option<(String, bool)>, String> {
        let network = choose(&file(prefixes), wanted).map_err(|error| error.to_string())?;
        Ok(network.map(|network| (network.prefix, network.note.is_some())))
    }

    #[test]
    fn the_only_one_the_only_average_or_the_one_that_is_named() {
        let of = |prefix: &str, told| Ok(Some((prefix.to_owned(), told)));
        assert_eq!(chosen(&[], None), Ok(None));
        assert_eq!(chosen(&[""], None), of("", false));
        assert_eq!(chosen(&["state_dict/module."], None), of("state_dict/module.", false));
        assert_eq!(chosen(&["model/", "ema/"], None), of("ema/", true));
        assert_eq!(chosen(&["model/", "model_ema/module."], None), of("model_ema/module.", true));
        assert_eq!(chosen(&["model/", "ema/"], Some("model")), of("model/", false));
        assert_eq!(chosen(&["model/", "ema/module."], Some("ema")), of("ema/module.", false));
        assert_eq!(chosen(&["", "ema/"], Some("top")), of("", false));
        // A name that is another's part as well is the one that it is the whole of.
        assert_eq!(chosen(&["ema/", "old.ema/"], Some("ema")), of("ema/", false));
        // A state of this program: parameters, moments, averages.
        let state = ["param/", "first_moment/", "second_moment/", "ema-0.9999/"];
        assert_eq!(chosen(&state, None), of("ema-0.9999/", true));
        assert_eq!(chosen(&state, Some("param")), of("param/", false));
    }

    #[test]
    fn what_cannot_be_told_is_asked() {
        for (prefixes, wanted) in [
            (&["model/", "teacher/"][..], None),
            (&["ema-0.999/", "ema-0.9999/", "param/"], None),
            (&["model/", "ema/"], Some("average")),
            (&["a.ema/", "b.ema/"], Some("ema")),
        ] {
            let message = chosen(prefixes, wanted).unwrap_err();
            for prefix in prefixes {
                assert!(message.contains(prefix.trim_end_matches('/')), "{message}");
            }
        }
    }
}
