//! What options come to where they go together.

use crate::diffusion::guiders::{Against, moments};
use crate::diffusion::{Evaluations, Guidance, Method, Process};
use crate::error::{Error, Result};
use crate::model::{Condition, Conditions, KeptVector, Sequence};
use crate::nn::Takes;
use crate::ops;
use crate::shape::Shape;

use super::checks::{
    check_from_classes, check_guiders, check_network, check_pair, check_rows, check_session, check_size,
    check_small, check_together, check_walk,
};
use super::guide::Guide;
use super::networks::Networks;
use super::options::{Request, SamplerOptions, Uncond};
use super::other::{Other, derived};
use super::step::Combine;
use super::walk::Walk;

/// Options that go together, and what follows from them.
pub(crate) struct Settled {
    pub options: SamplerOptions,
    /// What comes out.
    pub shape: Shape,
    pub conditions: Conditions,
    pub walk: Walk,
    /// Conditions that become one, the first of an evaluation.
    pub mixed: usize,
    /// What is evaluated beside each picture's own condition: "nothing", or what guiders name.
    pub others: Vec<Other>,
    /// p(c) where the unconditional half comes from the classes.
    pub prior: Option<Vec<f64>>,
    /// The weights that a distilled network was trained for.
    pub distilled: Option<[f64; 2]>,
    has_classes: bool,
    /// Whether a second, unconditional network is told tokens.
    unconditional_takes_tokens: bool,
    null_label: u32,
    /// Whether something else than the null class is the unconditional half.
    elsewhere: bool,
    by_gradient: bool,
    /// The classes that a guide by a gradient knows, where it is for classes.
    guided_classes: Option<usize>,
}

/// What a host writes for a batch of pictures.
pub(crate) struct Written {
    /// `[K·N]`: rows of the class table.
    pub rows: Vec<u32>,
    /// `[2N, L, D]`: the pictures' tokens, then those that stand for "nothing".
    pub tokens: Vec<f32>,
    /// `[V·N, D]`: the pictures' vectors, then what stays of each in parts.
    pub vectors: Vec<f32>,
    /// w as the step's kernel reads it, where nothing on the device says it.
    pub weight: f32,
    /// w as distilled networks are told it.
    pub told: f32,
    /// `[T, 8]`: the guiders' table.
    pub guiders: Vec<f32>,
    /// Of guiders, which steps need all evaluations.
    pub needs_all: Vec<bool>,
}

impl Settled {
    /// # Errors
    /// [`Error::Config`] for what does not go together.
    pub fn new(networks: &Networks<'_>, process: &Process, options: SamplerOptions) -> Result<Settled> {
        let about = networks.network.about();
        let takes = &about.takes;
        networks.all().try_for_each(|(name, network, weights)| check_network(name, network, weights))?;
        check_together(networks, &options)?;
        let own = options.guiders.is_empty() && options.uncond == Uncond::Null;
        // A distilled network is told w, and its one evaluation is guided.
        let guided = own && options.guided && takes.guidance.is_none();
        let options = SamplerOptions { guided, ..options };
        let small = networks.low_res.map(|(buffer, extent)| (buffer.bytes(), extent));
        check_small(takes, small, options.batch, guided || !own)?;
        let shape = check_size(networks, options.size)?;
        crate::sizes::check_batch(options.batch, shape)?;
        // Options of another model say nothing of this network.
        let known = options.conditions.as_ref();
        let known = known.filter(|c| (c.classes(), c.token_width(), c.vector_width()) == takes.widths());
        let conditions = known.cloned().unwrap_or_else(|| Conditions::of_network(takes));
        let (mut others, mut prior) = (Vec::new(), None);
        match (&options.uncond, networks.unconditional) {
            (Uncond::FromClasses { prior: given }, _) => {
                prior = Some(check_from_classes(&conditions, given.as_deref(), process, &options)?);
            }
            _ if !options.guiders.is_empty() => {
                others = check_guiders(&conditions, networks, &options.guiders)?;
            }
            (_, Some((other, _))) => {
                check_pair(about, other.about())?;
                Conditions::of_network(&other.about().takes).check_null("the unconditional half")?;
            }
            _ if guided => {
                if takes.class.is_none() && takes.vector.is_none() && takes.tokens.is_none() {
                    conditions.check_guidance("guidance")?;
                }
                conditions.check_null("guidance")?;
                others = vec![Other::nothing(takes)];
            }
            _ => {}
        }
        let walk = Walk::new(process, &options, networks.guide.is_some())?;
        let kind = process.sampler(&options.method, options.steps);
        networks.all().try_for_each(|(name, network, _)| check_walk(name, network.about(), &walk, kind))?;
        Ok(Settled {
            shape,
            conditions,
            walk,
            mixed: 1,
            others,
            prior,
            distilled: takes.guidance,
            has_classes: takes.class.is_some(),
            unconditional_takes_tokens: networks
                .unconditional
                .is_some_and(|(other, _)| other.about().takes.tokens.is_some()),
            null_label: takes.null_row(),
            elsewhere: networks.unconditional.is_some() || options.guiders.against() != Against::Null,
            by_gradient: networks.guide.is_some(),
            guided_classes: networks.guide.and_then(Guide::classes),
            options,
        })
    }

    /// The same for a session: one picture at a time from noise, and in place of its class a mix of up to `mixed`; there is room
    /// for `most_rows` rows. Its sampler is settled here, whatever number of steps a request asks for.
    ///
    /// # Errors
    /// As [`Settled::new`]; [`Error::Config`] for what a session cannot be asked for.
    pub fn of_session(
        networks: &Networks<'_>,
        process: &Process,
        options: SamplerOptions,
        mixed: usize,
        most_rows: usize,
    ) -> Result<Settled> {
        let kind = process.sampler(&options.method, options.steps);
        check_session(networks, kind, &options)?;
        let method = Method { kind: Some(kind), ..options.method };
        let settled = Settled::new(networks, process, SamplerOptions { batch: 1, method, ..options })?;
        check_rows(mixed, &settled.others, most_rows)?;
        Ok(Settled { mixed, ..settled })
    }

    /// `[2N, L, D]`: the bank of tokens of a network that takes some.
    pub fn token_bank(&self, takes: &Takes) -> Option<[usize; 3]> {
        takes.tokens.map(|tokens| [2 * self.options.batch, self.options.tokens, tokens.width])
    }

    /// The row of "no class".
    pub fn null_label(&self) -> u32 {
        self.null_label
    }

    /// What becomes of the evaluations.
    pub fn combine(&self) -> Combine<'_> {
        match &self.prior {
            Some(_) => Combine::Posterior,
            None if self.options.guiders.is_empty() => Combine::InStep,
            None => Combine::Guiders(&self.options.guiders),
        }
    }

    /// Refuses what the network, or what guides it, was not taught, and guidance that this was not recorded for; else what a
    /// host writes for `all`, of which `requests` are read.
    ///
    /// # Errors
    /// [`Error::Config`] with the reason.
    pub fn written(&self, requests: &[Request], all: &[Request], guidance: Guidance) -> Result<Written> {
        self.check_conditions(requests.iter().map(|request| &request.condition), guidance)?;
        let plain = matches!(self.combine(), Combine::InStep);
        let unconditional = plain && guidance.evaluations() == Evaluations::Unconditional;
        let row = |request: &Request| match request.condition.class {
            Some(class) if !unconditional => class,
            _ => self.null_label,
        };
        let class = |other: &Other, request: &Request| other.class.unwrap_or_else(|| row(request));
        let others =
            self.others.iter().flat_map(|other| all.iter().map(move |request| class(other, request)));
        let rows = match &self.prior {
            None => all.iter().map(row).chain(others).collect(),
            // Class by class.
            Some(prior) => {
                (0..prior.len() as u32).flat_map(|class| std::iter::repeat_n(class, all.len())).collect()
            }
        };
        let (needs_all, guiders) = self.of_guiders(&self.walk, guidance)?;
        let (weight, told) = (self.weight(guidance)?, self.told(guidance)?);
        let given = all.iter().map(|request| request.condition.vector.as_deref());
        let vectors = self.vectors(given, unconditional);
        let tokens = self.tokens(all, unconditional)?;
        Ok(Written { rows, tokens, vectors, weight, told, guiders, needs_all })
    }

    /// The bank of these pictures' tokens, `[2N, L, D]`; empty of a network that takes none.
    fn tokens(&self, all: &[Request], unconditional: bool) -> Result<Vec<f32>> {
        let given = all.iter().map(|request| (request.condition.tokens.as_ref(), request.negative.as_ref()));
        let pairs = given.map(|(own, nothing)| self.told_tokens(own, nothing, unconditional));
        let pairs: Vec<[Option<&Sequence>; 2]> = pairs.collect::<Result<_>>()?;
        let halves = [0, 1].into_iter().flat_map(|half| pairs.iter().map(move |pair| pair[half]));
        let unread = vec![0.0; self.options.tokens * self.conditions.token_width()];
        Ok(halves.flat_map(|one| one.map_or(&*unread, Sequence::values)).copied().collect())
    }

    /// What stands for a picture's own tokens and for "nothing", where anything does.
    ///
    /// # Errors
    /// [`Error::Config`] for tokens of a network that takes none, of another width or number, and where what stands for "nothing" is
    /// needed and did not come.
    pub fn told_tokens<'a>(
        &self,
        own: Option<&'a Sequence>,
        nothing: Option<&'a Sequence>,
        unconditional: bool,
    ) -> Result<[Option<&'a Sequence>; 2]> {
        let width = self.conditions.token_width();
        for sequence in [own, nothing].into_iter().flatten() {
            self.conditions.check_tokens(Some(sequence))?;
            if sequence.tokens() != self.options.tokens {
                return Err(Error::Config(format!(
                    "a sequence of {} tokens; this was recorded for {} (`tokens`)",
                    sequence.tokens(),
                    self.options.tokens
                )));
            }
        }
        let beside = self.others.iter().any(|other| !other.tokens) || self.unconditional_takes_tokens;
        let lacks = unconditional || own.is_none() || beside;
        if width > 0 && lacks && nothing.is_none() {
            return Err(Error::Config(
                "the network takes tokens, and those that stand for \"nothing\" are needed: give as `negative` what the text \
                 encoder makes of the empty text, or of a negative prompt"
                    .into(),
            ));
        }
        Ok([if unconditional { nothing } else { own.or(nothing) }, nothing])
    }

    /// The bank of these vectors, `[V·N, D]`: zeros where there is none, or nothing is to be told.
    pub fn vectors<'a>(
        &self,
        given: impl Iterator<Item = Option<&'a [f32]>> + Clone,
        unconditional: bool,
    ) -> Vec<f32> {
        let nothing = vec![0.0; self.conditions.vector_width()];
        let one = |kept: &KeptVector, given: Option<&[f32]>| {
            kept.of(given.filter(|_| !unconditional).unwrap_or(&nothing))
        };
        let derived = derived(&self.others);
        derived.iter().flat_map(|kept| given.clone().flat_map(|given| one(kept, given))).collect()
    }

    /// Refuses conditions that the network, or what guides it, was not taught, under this guidance.
    ///
    /// # Errors
    /// [`Error::Config`] with the reason.
    pub fn check_conditions<'a>(
        &self,
        conditions: impl Iterator<Item = &'a Condition> + Clone,
        guidance: Guidance,
    ) -> Result<()> {
        let mut classes = conditions.clone().map(|condition| condition.class);
        if let Some(known) = self.guided_classes
            && let Some(class) = classes.by_ref().flatten().find(|class| *class as usize >= known)
        {
            return Err(Error::Config(format!(
                "there is no class {class}; the classifier knows 0 to {}",
                known - 1
            )));
        }
        match self.combine() {
            // The classes of a network without any are those of what guides it.
            _ if !self.has_classes && self.by_gradient => Ok(()),
            // The unconditional half is that of all classes: no null class is asked for.
            Combine::Posterior => {
                let named = conditions.filter(|condition| condition.class.is_some());
                self.conditions.check_all(named, Evaluations::Conditional, true)
            }
            Combine::Guiders(_) => self.conditions.check_all(conditions, Evaluations::Both, self.elsewhere),
            Combine::InStep => self.conditions.check_all(conditions, guidance.evaluations(), self.elsewhere),
        }
    }

    /// Which moves of a walk need all evaluations of guiders, and their table.
    ///
    /// # Errors
    /// [`Error::Config`] when a schedule gives a weight that is no number.
    pub fn of_guiders(&self, walk: &Walk, guidance: Guidance) -> Result<(Vec<bool>, Vec<f32>)> {
        let Combine::Guiders(guiders) = self.combine() else { return Ok((Vec::new(), Vec::new())) };
        let (weight, steps) = (guidance.weight(), &walk.steps);
        let weights = guiders.weights(weight, &moments(steps));
        if let Some(step) = weights.iter().position(|weight| !(*weight as f32).is_finite()) {
            let what = format!("the guiders give step {step} the weight {}", weights[step]);
            return Err(Error::Config(what));
        }
        let needs_all = weights.iter().map(|weight| guiders.needs_all(*weight)).collect();
        Ok((needs_all, ops::guider_table(guiders, weight, steps)))
    }

    /// w as the step's kernel reads it: guiders put their own there.
    fn weight(&self, guidance: Guidance) -> Result<f32> {
        let w = guidance.weight();
        match self.combine() {
            Combine::Guiders(_) => Ok(0.0),
            Combine::Posterior => Ok(w as f32),
            Combine::InStep => {
                let both = guidance.evaluations() == Evaluations::Both;
                if self.distilled.is_none() && both && !self.options.guided {
                    return Err(Error::Config(format!(
                        "w = {w} needs a guided sampler; this one evaluates once a step"
                    )));
                }
                Ok(w as f32)
            }
        }
    }

    /// w as distilled networks are told it.
    ///
    /// # Errors
    /// [`Error::Config`] for one that the network was not trained for.
    pub fn told(&self, guidance: Guidance) -> Result<f32> {
        let w = guidance.weight();
        match self.distilled {
            None => Ok(0.0),
            // Without a class the guided picture is the unconditional one, whatever w.
            Some([low, _]) if guidance.evaluations() == Evaluations::Unconditional => Ok(low as f32),
            Some([low, high]) if !(low..=high).contains(&w) => Err(Error::Config(format!(
                "w = {w}: this distilled network was trained for w from {low} to {high}"
            ))),
            Some(_) => Ok(w as f32),
        }
    }
}
