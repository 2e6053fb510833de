//! Whether two configurations of one network say the same, and how they differ.

use serde::Serialize;
use serde_json::Value;

/// What stands for a value that is missing or null.
const NOT_GIVEN: &str = "not given";

/// A field that two configurations say otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// Its name, with those it lies in, as `unet.sample_size`.
    pub field: String,
    values: [String; 2],
}

impl Difference {
    /// Whether the second of the two says it at all.
    pub fn is_said(&self) -> bool {
        self.values[1] != NOT_GIVEN
    }
}

/// The fields in which `a` and `b` differ, but those of `ignored` and what lies in them.
pub(super) fn differences<T: Serialize>(a: &T, b: &T, ignored: &[&str]) -> Vec<Difference> {
    let [a, b] = [a, b].map(|config| serde_json::to_value(config).expect("a configuration is plain values"));
    let mut found = Vec::new();
    compare("", &a, &b, ignored, &mut found);
    found
}

fn compare(field: &str, a: &Value, b: &Value, ignored: &[&str], found: &mut Vec<Difference>) {
    if ignored.contains(&field) || a == b {
        return;
    }
    if let (Value::Object(left), Value::Object(right)) = (a, b) {
        let mut keys: Vec<&String> = left.keys().chain(right.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let name = if field.is_empty() { key.clone() } else { format!("{field}.{key}") };
            let value = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
            compare(&name, &value(left), &value(right), ignored, found);
        }
        return;
    }
    found.push(Difference { field: field.to_owned(), values: [short(a), short(b)] });
}

/// The difference in words, `here` and `there` being what the two are called; the first in full, the others by name.
pub(super) fn told(differences: &[Difference], here: &str, there: &str) -> Option<String> {
    let [first, others @ ..] = differences else { return None };
    let [a, b] = &first.values;
    let mut text = format!("`{}` is {a} in {here}, but {b} in {there}", first.field);
    if !others.is_empty() {
        let names: Vec<String> = others.iter().map(|other| format!("`{}`", other.field)).collect();
        text += &format!("; {} differ too", names.join(", "));
    }
    Some(text)
}

/// A value in a line: a list of a thousand names is told by its beginning.
fn short(value: &Value) -> String {
    const MOST: usize = 60;
    let text = if value.is_null() { NOT_GIVEN.to_owned() } else { value.to_string() };
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_are_named_with_both_values() {
        let a = json!({"a": 1, "b": {"c": [1, 2], "d": "x"}, "seen": 3});
        let b = json!({"a": 1, "b": {"c": [1, 3], "d": "x", "e": true}, "seen": 4});
        let found = differences(&a, &b, &["seen"]);
        assert_eq!(
            told(&found, "one", "two").unwrap(),
            "`b.c` is [1,2] in one, but [1,3] in two; `b.e` differ too"
        );
        assert_eq!(differences(&a, &a, &[]), []);
        assert_eq!(differences(&a, &b, &["seen", "b"]), []);
        assert_eq!(told(&[], "one", "two"), None);
        let long = vec!["name"; 1000];
        let text = told(&differences(&json!({"n": long}), &json!({}), &[]), "one", "two").unwrap();
        assert!(text.len() < 150 && text.contains("not given in two"), "{text}");
    }
}
