//! Reading a chain: `NAME(ARGUMENTS)+NAME…`.

use std::sync::Arc;

use super::GUIDERS;
use super::arguments::Arguments;
use super::guider::Guider;
use crate::error::brief;
use crate::{Error, Result};

/// The guiders that a text names.
pub(super) fn chain(text: &str) -> Result<Vec<Arc<dyn Guider>>> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    split_chain(text).into_iter().map(|one| guider(text, one.trim())).collect()
}

fn guider(chain: &str, text: &str) -> Result<Arc<dyn Guider>> {
    let (name, inside) = match text.split_once('(') {
        Some((name, rest)) => {
            let Some(inside) = rest.strip_suffix(')') else {
                return Err(Error::Config(format!(
                    "guider {text:?}: the bracket is not closed",
                    text = brief(text)
                )));
            };
            (name.trim(), inside)
        }
        None => (text, ""),
    };
    let Some(entry) = GUIDERS.iter().find(|entry| entry.name == name) else {
        let known: Vec<&str> = GUIDERS.iter().map(|entry| entry.name).collect();
        return Err(Error::Config(format!(
            "there is no guider {name:?} (in {chain:?}); there are {}, joined by + as in interval(lo=-2,hi=6)+rescale(0.7)",
            known.join(", "),
            name = brief(name),
            chain = brief(chain)
        )));
    };
    let mut arguments = Arguments::new(name, entry.usage, inside);
    let made = (entry.make)(&mut arguments)?;
    match arguments.parts.first() {
        None => Ok(made),
        Some((key, value)) if key.is_empty() => {
            Err(arguments.wrong(&format!("{value:?} is one argument too many", value = brief(value))))
        }
        Some((key, _)) => Err(arguments.wrong(&format!("it has no argument {key:?}", key = brief(key)))),
    }
}

/// The parts between `+` that stand outside of brackets, but the two of `cfg++` belong to the name.
fn split_chain(text: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = Vec::new();
    let (mut depth, mut from) = (0i32, 0);
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b'+' if depth == 0 => {
                if text[from..at].trim() == "cfg" && bytes.get(at + 1) == Some(&b'+') {
                    at += 1;
                } else {
                    parts.push(&text[from..at]);
                    from = at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    parts.push(&text[from..]);
    parts
}
