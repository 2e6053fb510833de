//! What is said of pictures beside their class: columns of numbers or of names, and the vector that a network is told of them.
//!
//! A column of numbers is two of the vector's: (x - mean)/deviation, and 1. A column of names has one for each name, which is
//! 1. What is not known of a picture, or not asked for, is zeros, so that it differs from every value.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, brief};

/// Names of one column: a vector is for few.
const MOST_NAMES: usize = 1024;

/// A column of what is said of pictures, and how a network is told it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attribute {
    /// The column's name.
    pub name: String,
    /// What stands in it.
    pub values: AttributeValues,
}

/// What stands in a column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttributeValues {
    /// Numbers.
    Numbers {
        /// Their mean over the pictures of which it is known.
        mean: f64,
        /// Their standard deviation.
        deviation: f64,
        /// The least.
        least: f64,
        /// The most.
        most: f64,
    },
    /// Names, in this order.
    Names(Vec<String>),
}

/// What is said of each picture of a set in one column, as it was read.
#[derive(Clone)]
pub(super) struct Column {
    pub name: String,
    pub cells: Vec<Option<String>>,
}

impl Column {
    /// The column that numbers are in.
    pub fn of_numbers(name: &str, numbers: impl Iterator<Item = f64>) -> Self {
        Column { name: name.into(), cells: numbers.map(|number| Some(number.to_string())).collect() }
    }

    /// What it is: numbers where all that is there are numbers, else names; `names` gives their order where it is known.
    ///
    /// # Errors
    /// Why it is neither, in words that go after its name.
    pub fn attribute(&self, names: Option<&[String]>) -> Result<Attribute, String> {
        let known: Vec<&str> = self.cells.iter().flatten().map(String::as_str).collect();
        if known.is_empty() {
            return Err("says nothing of any picture".into());
        }
        let numbers: Option<Vec<f64>> = known.iter().map(|text| number(text)).collect();
        let values = match (names, numbers) {
            (Some(names), _) => AttributeValues::Names(names.to_vec()),
            (None, Some(numbers)) => {
                let count = numbers.len() as f64;
                let mean = numbers.iter().sum::<f64>() / count;
                let variance = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
                // A column of one number says nothing, and divides nothing.
                let deviation = if variance > 0.0 { variance.sqrt() } else { 1.0 };
                let least = numbers.iter().copied().fold(f64::INFINITY, f64::min);
                let most = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                if ![mean, deviation, least, most].iter().all(|x| (*x as f32).is_finite()) {
                    return Err(format!("has numbers from {least} to {most}, which are beyond f32"));
                }
                AttributeValues::Numbers { mean, deviation, least, most }
            }
            (None, None) => {
                let names: BTreeSet<&str> = known.into_iter().collect();
                AttributeValues::Names(names.into_iter().map(str::to_owned).collect())
            }
        };
        match &values {
            AttributeValues::Names(names) if names.len() > MOST_NAMES => {
                Err(format!("has {} different names; at most {MOST_NAMES} are told as a vector", names.len()))
            }
            _ => Ok(Attribute { name: self.name.clone(), values }),
        }
    }
}

/// A finite number.
fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// `thickness (numbers from 0.9 to 3.1)`, `colour (blue, red)`.
impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.values {
            AttributeValues::Numbers { least, most, .. } => {
                write!(f, "{} (numbers from {least:.4} to {most:.4})", brief(&self.name))
            }
            AttributeValues::Names(names) => {
                let shown: Vec<_> = names.iter().take(12).map(|name| brief(name).to_string()).collect();
                let more = if names.len() > shown.len() { ", …" } else { "" };
                write!(f, "{} ({}{more})", brief(&self.name), shown.join(", "))
            }
        }
    }
}

impl Attribute {
    /// Numbers of the vector that it takes.
    pub fn width(&self) -> usize {
        match &self.values {
            AttributeValues::Numbers { .. } => 2,
            AttributeValues::Names(names) => names.len(),
        }
    }

    /// Puts what is said of a picture into its numbers of the vector, [`width`](Self::width) zeros.
    ///
    /// # Errors
    /// [`Error::Config`] for what is no number, or a name that there is not.
    pub fn put(&self, text: &str, into: &mut [f32]) -> Result<()> {
        match &self.values {
            AttributeValues::Numbers { mean, deviation, least, most } => {
                let Some(x) = number(text) else {
                    return Err(Error::Config(format!(
                        "{} is a number (from {least} to {most} in training), not {:?}",
                        self.name,
                        brief(text)
                    )));
                };
                (into[0], into[1]) = (((x - mean) / deviation) as f32, 1.0);
            }
            AttributeValues::Names(names) => {
                let Some(at) = names.iter().position(|name| name == text) else {
                    let names: Vec<_> = names.iter().take(24).map(|name| brief(name).to_string()).collect();
                    return Err(Error::Config(format!(
                        "{} is one of {}, not {:?}",
                        self.name,
                        names.join(", "),
                        brief(text)
                    )));
                };
                into[at] = 1.0;
            }
        }
        Ok(())
    }
}

/// Numbers of the vector of all of them.
pub fn vector_width(attributes: &[Attribute]) -> usize {
    attributes.iter().map(Attribute::width).sum()
}

/// Which numbers of the vector each is, by name.
pub fn vector_pieces(attributes: &[Attribute]) -> Vec<(String, Range<usize>)> {
    let mut at = 0;
    let piece = |attribute: &Attribute| {
        let first = at;
        at += attribute.width();
        (attribute.name.clone(), first..at)
    };
    attributes.iter().map(piece).collect()
}

/// The vector of `NAME=VALUE,…`; what is not named is not told.
///
/// # Errors
/// [`Error::Config`] for what is not of this form, a name that there is not, and as [`Attribute::put`].
pub fn vector_of(attributes: &[Attribute], text: &str) -> Result<Vec<f32>> {
    let mut vector = vec![0.0; vector_width(attributes)];
    let pieces = vector_pieces(attributes);
    let mut given = BTreeSet::new();
    for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        let Some((name, value)) = one.split_once('=') else {
            return Err(Error::Config(format!("attributes: {:?} is not NAME=VALUE", brief(one))));
        };
        let (name, value) = (name.trim(), value.trim());
        let Some(at) = attributes.iter().position(|attribute| attribute.name == name) else {
            let names: Vec<&str> = attributes.iter().map(|attribute| attribute.name.as_str()).collect();
            return Err(Error::Config(match names.is_empty() {
                true => "attributes: the model takes none".into(),
                false => format!("attributes: there is no {:?}; there are {}", brief(name), names.join(", ")),
            }));
        };
        if !given.insert(at) {
            return Err(Error::Config(format!("attributes: {name} is given twice")));
        }
        attributes[at].put(value, &mut vector[pieces[at].1.clone()])?;
    }
    Ok(vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, cells: &[&str]) -> Column {
        let cell = |text: &&str| Some((*text).to_owned()).filter(|text| !text.is_empty());
        Column { name: name.into(), cells: cells.iter().map(cell).collect() }
    }

    #[test]
    fn numbers_and_names_become_a_vector() {
        let size = column("size", &["1", "", "3.0"]).attribute(None).unwrap();
        let numbers = AttributeValues::Numbers { mean: 2.0, deviation: 1.0, least: 1.0, most: 3.0 };
        assert_eq!(size.values, numbers);
        let colour = column("colour", &["red", "blue", "red"]).attribute(None).unwrap();
        assert_eq!(colour.values, AttributeValues::Names(vec!["blue".into(), "red".into()]));
        let all = [size, colour];
        assert_eq!(vector_of(&all, "colour=red, size=2.5").unwrap(), [0.5, 1.0, 0.0, 1.0]);
        // What is not said differs from the mean.
        assert_eq!(vector_of(&all, "size=2").unwrap(), [0.0, 1.0, 0.0, 0.0]);
        assert_eq!(vector_of(&all, "").unwrap(), [0.0; 4]);
        assert_eq!(vector_pieces(&all), [("size".to_owned(), 0..2), ("colour".to_owned(), 2..4)]);
        for (text, part) in [
            ("size", "NAME=VALUE"),
            ("weight=1", "there are size, colour"),
            ("size=big", "from 1 to 3 in training"),
            ("size=inf", "is a number"),
            ("colour=green", "one of blue, red"),
            ("size=1,size=2", "twice"),
        ] {
            let error = vector_of(&all, text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(vector_of(&[], "size=1").unwrap_err().to_string().contains("takes none"));
        assert!(column("x", &["", ""]).attribute(None).unwrap_err().contains("nothing"));
        assert!(column("x", &["1e300"]).attribute(None).unwrap_err().contains("f32"));
    }
}
