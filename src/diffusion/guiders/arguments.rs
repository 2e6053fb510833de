//! The arguments of a guider: by name (`lo=-2`) or in the guider's order.

use crate::error::brief;
use crate::{Error, Result};

/// The arguments of one guider, taken out by the guider as it is made; what it leaves is an error.
#[derive(Debug)]
pub struct Arguments {
    name: String,
    usage: &'static str,
    /// All that stood between the brackets.
    inside: String,
    /// (name, value), the name empty where there was none.
    pub(super) parts: Vec<(String, String)>,
}

impl Arguments {
    pub(super) fn new(name: &str, usage: &'static str, inside: &str) -> Self {
        let parts = split(inside, ',').into_iter().map(str::trim).filter(|part| !part.is_empty());
        let part = |part: &str| match part.split_once('=') {
            Some((key, value)) if key.trim().chars().all(|c| c.is_alphanumeric() || c == '_') => {
                (key.trim().to_owned(), value.trim().to_owned())
            }
            _ => (String::new(), part.to_owned()),
        };
        Arguments {
            name: name.to_owned(),
            usage,
            inside: inside.to_owned(),
            parts: parts.map(part).collect(),
        }
    }

    /// An error about these arguments.
    pub fn wrong(&self, why: &str) -> Error {
        Error::Config(format!(
            "guider {}({}): {why}; it is written {}",
            self.name,
            brief(&self.inside),
            self.usage
        ))
    }

    /// The value of a name; else, if `by_place`, the first without a name.
    fn take(&mut self, key: &str, by_place: bool) -> Option<String> {
        let named = self.parts.iter().position(|(name, _)| name == key);
        let found = named.or_else(|| self.parts.iter().position(|(name, _)| by_place && name.is_empty()))?;
        Some(self.parts.remove(found).1)
    }

    fn parsed(&self, key: &str, text: Option<String>) -> Result<Option<f64>> {
        let Some(text) = text else { return Ok(None) };
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Some(value)),
            _ => Err(self.wrong(&format!("{key} is {text:?}, which is not a number", text = brief(&text)))),
        }
    }

    /// A number that may be missing, given only by name.
    pub fn named(&mut self, key: &str) -> Result<Option<f64>> {
        let text = self.take(key, false);
        self.parsed(key, text)
    }

    /// A number that may be missing, by name or by place.
    pub fn optional(&mut self, key: &str) -> Result<Option<f64>> {
        let text = self.take(key, true);
        self.parsed(key, text)
    }

    /// A number, by name or by place.
    pub fn number(&mut self, key: &str) -> Result<f64> {
        self.optional(key)?.ok_or_else(|| self.wrong(&format!("{key} is missing")))
    }

    /// A word, by name or by place.
    pub fn text(&mut self, key: &str) -> Result<String> {
        self.take(key, true).ok_or_else(|| self.wrong(&format!("{key} is missing")))
    }

    /// All between the brackets as it is.
    pub fn whole(&mut self) -> Result<String> {
        self.parts.clear();
        let text = self.inside.trim();
        if text.is_empty() { Err(self.wrong("it is empty")) } else { Ok(text.to_owned()) }
    }
}

/// The parts between separators that stand outside of brackets.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0i32, 0, Vec::new());
    for (at, c) in text.char_indices() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        if c == separator && depth == 0 {
            parts.push(&text[from..at]);
            from = at + c.len_utf8();
        }
    }
    parts.push(&text[from..]);
    parts
}
