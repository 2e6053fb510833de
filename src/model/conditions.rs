//! What a network can be told of a picture's class: one check for every sampler, session, measure and command.
//!
//! A network draws well from a row of its class embedding that a training reached, and from no other: a class past the last,
//! a null class that is not there or that no training showed, a class without a picture are refused here, with the ways on.

use std::ops::Range;

use crate::data::vector_pieces;
use crate::diffusion::{Evaluations, Guidance};
use crate::error::{Error, Result, brief};
use crate::nn::{NullClass, Takes};

use super::architecture::Kind;
use super::class_names::class_called;
use super::condition::Condition;
use super::config::ModelConfig;
use super::kept::{Kept, KeptVector};
use super::sequence::Sequence;

/// The row that stands for "no condition".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Null {
    /// There is one, as far as anyone says.
    Trained,
    /// There is none.
    Absent,
    /// No training left labels out.
    Untrained,
}

/// The names of the parts of a condition.
const CLASS: &str = "class";
const VECTOR: &str = "vector";

/// The rows of a class embedding that may be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions {
    classes: usize,
    /// Numbers of a token; 0 of a network without.
    tokens: usize,
    /// Numbers of the vector; 0 of a network without.
    vector: usize,
    /// Parts of the vector by name, and which of its numbers they are.
    pieces: Vec<(String, Range<usize>)>,
    null: Null,
    /// Whether a training left parts out one by one, where that is known.
    in_parts: Option<bool>,
    /// Labels whose rows no training reached, rising.
    untrained: Vec<u32>,
    names: Vec<String>,
    /// Of a distilled network, which is told w and evaluates its class alone.
    told_weight: bool,
}

impl Conditions {
    /// Those of a model, by its architecture and what is recorded of its training.
    pub fn of(config: &ModelConfig) -> Conditions {
        let mut all = Conditions::of_network(&config.unet.takes());
        if all.null == Null::Trained && !config.was_trained(None) {
            all.null = Null::Untrained;
        }
        all.untrained = (0..all.classes as u32).filter(|label| !config.was_trained(Some(*label))).collect();
        all.names.clone_from(&config.class_names);
        all.pieces = vector_pieces(&config.attributes);
        // What no file tells of counts as trained.
        if all.vector > 0 && config.images_seen > 0 {
            let in_parts = config.part_dropout > 0.0;
            all.in_parts = Some(in_parts);
            if config.unconditional_probability == 0.0 && !in_parts {
                all.null = Null::Untrained;
            }
        }
        all
    }

    /// Those of a network of which only the architecture is known: every row that is there counts as trained.
    pub fn of_network(takes: &Takes) -> Conditions {
        let null = match takes.class {
            Some(class) if class.null == NullClass::Absent => Null::Absent,
            _ => Null::Trained,
        };
        let (classes, vector) = (takes.classes(), takes.vector_width());
        let tokens = takes.tokens.map_or(0, |tokens| tokens.width);
        let told_weight = takes.guidance.is_some();
        let names = (0..classes).map(|class| class.to_string()).collect();
        let pieces = Vec::new();
        let (untrained, in_parts) = (Vec::new(), None);
        Conditions { classes, tokens, vector, pieces, null, in_parts, untrained, names, told_weight }
    }

    /// How many classes there are; 0 of a network without.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// How many numbers a token has; 0 of a network that takes none.
    pub fn token_width(&self) -> usize {
        self.tokens
    }

    /// How many numbers the vector has; 0 of a network without.
    pub fn vector_width(&self) -> usize {
        self.vector
    }

    /// The same with names for parts of the vector, each a range of its numbers, as guiders may name them.
    ///
    /// # Errors
    /// [`Error::Config`] for a name that is taken, and a range beyond the vector.
    pub fn with_pieces(self, pieces: Vec<(String, Range<usize>)>) -> Result<Conditions> {
        for (i, (name, range)) in pieces.iter().enumerate() {
            if range.end > self.vector || range.is_empty() {
                let width = self.vector;
                return Err(Error::Config(format!("{name:?} is {range:?} of a vector of {width} numbers")));
            }
            let own = name == VECTOR || (name == CLASS && self.classes > 0);
            if own || pieces[..i].iter().any(|(other, _)| other == name) {
                return Err(Error::Config(format!("two parts of the condition are called {name:?}")));
            }
        }
        Ok(Conditions { pieces, ..self })
    }

    /// What stays of a condition of which only these parts are kept: `class`, `vector`, or parts of the vector by their names.
    ///
    /// # Errors
    /// [`Error::Config`] for a part that there is not, listing those there are; as [`Conditions::check_null`] where the class is
    /// left out.
    pub fn only(&self, parts: &[String]) -> Result<Kept> {
        let mut kept = Kept { class: false, vector: KeptVector::Nothing };
        for part in parts {
            let piece = self.pieces.iter().find(|(name, _)| name == part);
            match (piece, part.as_str()) {
                (_, CLASS) if self.classes > 0 => kept.class = true,
                (_, VECTOR) if self.vector > 0 => kept.vector = KeptVector::Whole,
                (Some((_, range)), _) => kept.vector.add(range.clone()),
                (None, _) => {
                    let own = [(CLASS, self.classes), (VECTOR, self.vector)];
                    let own = own.iter().filter(|(_, count)| *count > 0).map(|(name, _)| *name);
                    let named: Vec<&str> =
                        own.chain(self.pieces.iter().map(|(name, _)| name.as_str())).collect();
                    return Err(Error::Config(format!(
                        "the condition has no part {part:?}; it has {}",
                        named.join(", "),
                        part = brief(part)
                    )));
                }
            }
        }
        let whole = (kept.class || self.classes == 0, kept.vector == KeptVector::Whole || self.vector == 0);
        let nothing = !kept.class && kept.vector == KeptVector::Nothing;
        if whole != (true, true) && !nothing {
            self.check_in_parts(&format!("a condition of {} alone", parts.join(" and ")))?;
        }
        if !kept.class && (self.classes > 0 || kept.vector == KeptVector::Nothing) {
            self.check_null("a condition without its class")?;
        }
        Ok(kept)
    }

    /// The label of a class that is called so; see [`ModelConfig::class`].
    ///
    /// # Errors
    /// As there.
    pub fn class(&self, wanted: &str) -> Result<u32> {
        class_called(&self.names, wanted)
    }

    /// Whether the network can guide itself: it was taught a class or a vector, and to do without.
    pub fn can_guide(&self) -> bool {
        (self.classes > self.untrained.len() || self.vector > 0 || self.tokens > 0)
            && self.null == Null::Trained
    }

    /// Refuses a class that is not there or was never trained; for `None`, a null class of that kind.
    ///
    /// # Errors
    /// [`Error::Config`] with the reason and the ways on.
    pub fn check_class(&self, class: Option<u32>) -> Result<()> {
        match class {
            None => self.check_null("a picture without a class"),
            Some(class) => {
                self.check_label(class)?;
                self.check_trained(class)
            }
        }
    }

    /// Refuses what needs the null class, as `what` does, where it cannot be asked for. A network without classes needs none.
    ///
    /// # Errors
    /// [`Error::Config`] with the reason and the ways on.
    pub fn check_null(&self, what: &str) -> Result<()> {
        let (why, last) = match self.null {
            Null::Trained => return Ok(()),
            Null::Absent => (
                "the network has none",
                "; or `null-class last`, where the last of K + 1 rows is the null class, as in DiT's checkpoints",
            ),
            Null::Untrained => ("its row was never trained, because no label was left out", ""),
        };
        Err(Error::Config(format!(
            "{what} needs the null class, and {why}. Ways on: a class and `w` 0 (`guidance-scale` 1); `uncond-model`, a second \
             model that draws without classes; `uncond from-classes`; a training with label dropout (`p-uncond` 0.1){last}"
        )))
    }

    /// Refuses pictures under these conditions and this guidance; `elsewhere` as in [`Conditions::check`].
    ///
    /// # Errors
    /// As there; [`Error::Config`] for a vector that the network does not take, of another width or with a number that is none.
    pub fn check_all<'a>(
        &self,
        conditions: impl IntoIterator<Item = &'a Condition>,
        evaluations: Evaluations,
        elsewhere: bool,
    ) -> Result<()> {
        let mut classes = Vec::new();
        for Condition { class, tokens, vector } in conditions {
            self.check_tokens(tokens.as_ref())?;
            let given = self.check_vector(vector.as_deref())?;
            if evaluations != Evaluations::Unconditional {
                self.check_given(*class, vector.as_deref().filter(|_| given))?;
            }
            // A vector alone is a condition, too: its class is "nothing" under it.
            if class.is_some() || !given || evaluations == Evaluations::Unconditional {
                classes.push(*class);
            } else if self.classes > 0 {
                self.check_null("a vector without a class")?;
            }
        }
        self.check(classes, evaluations, elsewhere)
    }

    /// Refuses a condition of some of its parts where the network was always told all of them, or none.
    fn check_given(&self, class: Option<u32>, vector: Option<&[f32]>) -> Result<()> {
        let Some(vector) = vector else {
            let lacks = class.is_some() && self.vector > 0;
            return if lacks { self.check_in_parts("a class without a vector") } else { Ok(()) };
        };
        if class.is_none() && self.classes > 0 {
            return self.check_in_parts("a vector without a class");
        }
        let unsaid = |piece: &Range<usize>| vector[piece.clone()].iter().all(|x| *x == 0.0);
        match self.pieces.iter().find(|(_, piece)| unsaid(piece)) {
            Some((name, _)) => self.check_in_parts(&format!("a condition without {name}")),
            None => Ok(()),
        }
    }

    fn check_in_parts(&self, what: &str) -> Result<()> {
        if self.in_parts != Some(false) {
            return Ok(());
        }
        Err(Error::Config(format!(
            "{what} needs a training that left each part of the condition out by itself (`part-dropout` 0.1), and this model's did \
             not: give all parts, or none"
        )))
    }

    /// Refuses tokens that do not fit.
    ///
    /// # Errors
    /// [`Error::Config`] with both widths.
    pub fn check_tokens(&self, tokens: Option<&Sequence>) -> Result<()> {
        match (tokens.map(Sequence::width), self.tokens) {
            (Some(width), own) if width != own => Err(Error::Config(match own {
                0 => format!("tokens of {width} numbers of a model that takes none"),
                own => format!(
                    "tokens of {width} numbers; the model takes {own}: they are another text encoder's"
                ),
            })),
            _ => Ok(()),
        }
    }

    /// Refuses a vector that does not fit; else whether it says anything.
    fn check_vector(&self, vector: Option<&[f32]>) -> Result<bool> {
        let Some(vector) = vector else { return Ok(false) };
        if vector.len() != self.vector {
            return Err(Error::Config(match self.vector {
                0 => format!("a vector of {} numbers of a model that takes none", vector.len()),
                width => format!("a vector of {} numbers; the model takes {width}", vector.len()),
            }));
        }
        if let Some(at) = vector.iter().position(|x| !x.is_finite()) {
            return Err(Error::Config(format!("the vector's number {at} is {}", vector[at])));
        }
        Ok(vector.iter().any(|x| *x != 0.0))
    }

    /// Refuses pictures of these classes under this guidance. `elsewhere` says that the unconditional half comes from
    /// something else than the null class: a second model, another class.
    ///
    /// # Errors
    /// As [`Conditions::check_class`].
    pub fn check(
        &self,
        classes: impl IntoIterator<Item = Option<u32>>,
        evaluations: Evaluations,
        elsewhere: bool,
    ) -> Result<()> {
        let evaluations = match evaluations {
            Evaluations::Both if self.told_weight => Evaluations::Conditional,
            evaluations => evaluations,
        };
        for class in classes {
            // What is not evaluated need not have been trained, but it must be there.
            match (class, evaluations) {
                (Some(class), Evaluations::Unconditional) => self.check_label(class)?,
                (class, _) => self.check_class(class)?,
            }
        }
        match evaluations {
            Evaluations::Both if !elsewhere => self.check_null("guidance"),
            Evaluations::Unconditional => self.check_null("a picture without a class"),
            _ => Ok(()),
        }
    }

    /// Refuses a network that cannot guide itself, for `what`.
    ///
    /// # Errors
    /// As [`Conditions::check_class`]; when there are no classes.
    pub fn check_guidance(&self, what: &str) -> Result<()> {
        if self.classes == 0 && self.vector == 0 && self.tokens == 0 {
            return Err(Error::Config(format!("{what} needs classes, and the network has none")));
        }
        self.check_every_class()?;
        self.check_null(what)
    }

    /// Refuses a network with a class that was never trained.
    ///
    /// # Errors
    /// As [`Conditions::check_class`].
    pub fn check_every_class(&self) -> Result<()> {
        self.untrained.first().map_or(Ok(()), |class| self.check_trained(*class))
    }

    /// The guidance of a model when none is asked for, and a sentence where it is not w = 1 for want of a null class.
    pub fn default_guidance(&self) -> Result<(Guidance, Option<String>)> {
        let without = match self.null {
            _ if self.told_weight => return Ok((Guidance::from_weight(1.0)?, None)),
            Null::Trained => return Ok((Guidance::from_weight(1.0)?, None)),
            Null::Absent => "no null class; `null-class last` says that the last row is it",
            Null::Untrained => "a null class that was never trained",
        };
        Ok((Guidance::from_weight(0.0)?, Some(format!("w = 0, without guidance: the model has {without}"))))
    }

    /// What guidance is possible, in words.
    pub fn guidance(&self) -> String {
        let ways = "by a classifier, a second model (`uncond-model`) or `uncond from-classes`";
        match self.null {
            _ if self.classes == 0 && self.tokens > 0 => "possible: by a prompt".into(),
            _ if self.classes == 0 && self.vector == 0 => "by a classifier: there are no classes".into(),
            _ if self.untrained.len() == self.classes && self.vector == 0 => {
                "by a classifier: no class was ever trained".into()
            }
            _ if self.told_weight => "possible: the network is told w".into(),
            Null::Trained if self.untrained.is_empty() => "possible".into(),
            Null::Trained => {
                let names: Vec<String> =
                    self.untrained.iter().take(12).map(|label| self.name(*label)).collect();
                let more = if self.untrained.len() > 12 { ", …" } else { "" };
                format!("possible, but not of classes never trained: {}{more}", names.join(", "))
            }
            Null::Absent => format!("{ways}: there is no null class"),
            Null::Untrained => format!("{ways}: the null class was never trained"),
        }
    }

    fn name(&self, label: u32) -> String {
        match self.names.get(label as usize) {
            Some(name) if *name != label.to_string() => format!("{label} ({name})"),
            _ => label.to_string(),
        }
    }

    fn check_label(&self, class: u32) -> Result<()> {
        match self.classes {
            0 => Err(Error::Config(format!("class {class} of a model without classes"))),
            classes if class as usize >= classes => Err(Error::Config(format!(
                "there is no class {class}; the model has {classes}, 0 to {}. For none ask for no class",
                classes - 1
            ))),
            _ => Ok(()),
        }
    }

    fn check_trained(&self, class: u32) -> Result<()> {
        if self.untrained.binary_search(&class).is_err() {
            return Ok(());
        }
        if self.untrained.len() == self.classes {
            return Err(Error::Config(format!(
                "class {} was never trained: the model was trained without labels, each being left out. Ways on: no class \
                 (`class none`, `w` -1); a `classifier` for classes; a training with fewer labels left out (`p-uncond` 0.1)",
                self.name(class)
            )));
        }
        Err(Error::Config(format!(
            "class {} was never trained: there was no picture of it. Ways on: another class, or a training with pictures of it",
            self.name(class)
        )))
    }
}

impl ModelConfig {
    /// Whether the model can guide itself: it was taught a class, and to do without.
    pub fn can_guide(&self) -> bool {
        Conditions::of(self).can_guide()
    }

    /// Takes the last of K + 1 rows of the class embedding as the null class, as DiT's checkpoints have it: no tensor changes,
    /// there is a class fewer.
    ///
    /// # Errors
    /// [`Error::Config`] for a network that has a null class already, or no two rows.
    pub fn take_last_row_as_null(&mut self) -> Result<()> {
        match (self.unet.num_classes, self.unet.null_class) {
            (Some(rows @ 2..), NullClass::Absent) if self.kind() == Kind::UNet => {
                self.unet.num_classes = Some(rows - 1);
                self.unet.null_class = NullClass::Learned;
                self.class_names.truncate(rows - 1);
                Ok(())
            }
            (Some(_), NullClass::Learned | NullClass::Zero) => {
                Err(Error::Config("`null-class last`: the model has a null class already".into()))
            }
            (rows, _) => Err(Error::Config(format!(
                "`null-class last` is for a diffusion model of two rows of classes or more, and this one has {}",
                rows.unwrap_or(0)
            ))),
        }
    }
}

#[cfg(test)]
mod tests;
