//! What a class is called in a picture's notes, on a sheet and in the name of a file.

use crate::io::distinct_file_names;
use crate::model::ModelConfig;
use crate::sample::Request;

/// A class as a person knows it.
pub(super) fn class_name(config: &ModelConfig, class: Option<u32>) -> String {
    match class {
        Some(class) => config.class_names.get(class as usize).cloned().unwrap_or_else(|| class.to_string()),
        None => NO_CLASS.into(),
    }
}

/// A class as `--class` understands it: by its name, or by its number where others are called so too.
pub(super) fn class_text(config: &ModelConfig, class: Option<u32>) -> String {
    let name = class_name(config, class);
    match class {
        Some(class) if name == NO_CLASS || config.class(&name).ok() != Some(class) => class.to_string(),
        _ => name,
    }
}

/// What `--class` calls no condition.
pub(super) const NO_CLASS: &str = "none";

/// The classes in the names of files: two classes never share one, whatever they are called.
pub(super) struct ClassNames(Vec<String>);

impl ClassNames {
    pub(super) fn of(config: &ModelConfig) -> Self {
        let count = config.unet.num_classes.unwrap_or(0).max(config.class_names.len()) as u32;
        ClassNames::named(&(0..count).map(|class| class_name(config, Some(class))).collect::<Vec<_>>())
    }

    fn named(names: &[String]) -> Self {
        ClassNames(distinct_file_names(names, &[NO_CLASS]))
    }

    /// The file of a picture.
    pub(super) fn file(&self, request: &Request) -> String {
        let class = request.condition.class.and_then(|class| self.0.get(class as usize));
        format!("{}-seed{:06}.png", class.map_or(NO_CLASS, String::as_str), request.seed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Which file a picture goes into tells which picture was asked for, whatever the classes are called.
        #[test]
        fn distinct_requests_have_distinct_files(
            names in prop::collection::vec("[a-cA-C /_.@-]{0,3}|none|[0-9]|x-seed00000[01]|\\PC{0,6}", 1..12),
            asked in prop::collection::vec((prop::option::of(0..12u32), prop_oneof![0..12u64, any::<u64>()]), 0..60),
        ) {
            let classes = ClassNames::named(&names);
            let mut seen = HashMap::new();
            for (class, seed) in asked {
                let request = Request::new(class.map(|class| class % names.len() as u32), seed);
                let file = classes.file(&request);
                prop_assert!(!file.contains(['/', '\\', '\0']) && file.len() < 200, "{}", file);
                let before = seen.insert(file.to_lowercase(), request.clone());
                prop_assert!(before.is_none_or(|before| before == request), "{} is of two requests", file);
            }
        }
    }
}
