//! Names that anybody may have given, as parts of file names: distinct ones stay distinct on every file system.

use std::collections::HashMap;

/// The longest such part in bytes; a file name has 255, and more comes before and after.
const LONGEST: usize = 100;

/// A part of a file name for each of `names`, no two alike even where case does not count: letters, digits and `-` are kept,
/// anything else becomes `_`. A name that differs from another only in what was changed, was cut, or has letters beyond
/// ASCII (which file systems may take for others) gets `@` and its place in the list. `taken` are parts in use elsewhere.
///
/// The part of a name depends on the whole list, not on what is made of it.
pub fn distinct_file_names(names: &[String], taken: &[&str]) -> Vec<String> {
    let parts: Vec<(String, bool)> = names.iter().map(|name| plain(name)).collect();
    let mut uses: HashMap<String, usize> = HashMap::new();
    for part in parts.iter().map(|(part, _)| part.as_str()).chain(taken.iter().copied()) {
        *uses.entry(part.to_ascii_lowercase()).or_default() += 1;
    }
    // No plain part has an `@`, so what is numbered meets neither a plain part nor another number's.
    let part = |(place, (part, whole)): (usize, (String, bool))| match whole
        && uses[&part.to_ascii_lowercase()] == 1
    {
        true => part,
        false => format!("{part}@{place}"),
    };
    parts.into_iter().enumerate().map(part).collect()
}

/// The part that a name alone would have, and whether nothing can be mistaken in it.
fn plain(name: &str) -> (String, bool) {
    let mut part: String = name
        .chars()
        .map(|letter| if letter.is_alphanumeric() || letter == '-' { letter } else { '_' })
        .collect();
    // What begins with a dash is taken for an option.
    if part.starts_with('-') {
        part.replace_range(..1, "_");
    }
    let whole = part.len() <= LONGEST && part.is_ascii() && !part.is_empty();
    let mut end = part.len().min(LONGEST);
    while !part.is_char_boundary(end) {
        end -= 1;
    }
    part.truncate(end);
    (part, whole)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn of(names: &[&str]) -> Vec<String> {
        distinct_file_names(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), &["none"])
    }

    #[test]
    fn simple_names_stay_and_others_are_told_apart() {
        assert_eq!(
            of(&["7", "tabby", "golden retriever", "t-shirt"]),
            ["7", "tabby", "golden_retriever", "t-shirt"]
        );
        assert_eq!(of(&["c++", "c--", "c##", "c"]), ["c__@0", "c--", "c__@2", "c"]);
        assert_eq!(of(&["a b", "a_b", "a/b", "A B"]), ["a_b@0", "a_b@1", "a_b@2", "A_B@3"]);
        assert_eq!(of(&["crane", "crane", "crane@0"]), ["crane@0", "crane@1", "crane_0"]);
        assert_eq!(of(&["none", "", "..", "-rf", "猫"]), ["none@0", "@1", "__", "_rf", "猫@4"]);
    }

    /// Names that meet: a few letters in many forms, what file systems reserve, and anything at all.
    fn hostile() -> impl Strategy<Value = String> {
        prop_oneof![
            "[aAbB_ /.@0-1-]{0,4}",
            r"[\u{212a}kKſsß\u{e5}\u{212b}a\u{30a}]{0,3}",
            prop::sample::select(vec![
                "none",
                "NONE",
                "con",
                "NUL",
                "..",
                ".",
                "/",
                "a/../b",
                "~",
                "C:\\x",
                "\u{1b}[2J"
            ])
            .prop_map(str::to_owned),
            "a{90,300}",
            any::<String>(),
        ]
    }

    proptest! {
        #[test]
        fn distinct_requests_have_distinct_safe_names(names in prop::collection::vec(hostile(), 0..40)) {
            let parts = distinct_file_names(&names, &["none"]);
            prop_assert_eq!(parts.len(), names.len());
            let mut seen = HashSet::from(["none".to_owned()]);
            for (name, part) in names.iter().zip(&parts) {
                // Without what other file systems fold: letters beyond ASCII count for nothing.
                let folded: String = part.chars().filter(char::is_ascii).collect();
                prop_assert!(seen.insert(folded.to_lowercase()), "{:?} as {:?} is there already", name, part);
                prop_assert!(part.len() <= LONGEST + 12);
                prop_assert!(!part.starts_with(['-', '.']) && !part.is_empty());
                prop_assert!(part.chars().all(|c| c.is_alphanumeric() || "-_@".contains(c)), "{}", part);
            }
        }
    }
}
