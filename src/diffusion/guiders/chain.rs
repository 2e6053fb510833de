//! A chain of guiders: which may stand together, and what they say together.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::guider::{Against, Annealing, Beside, Guider, Kind, Moment, Work};
use super::parse;
use crate::diffusion::StepCoefficients;
use crate::{Error, Result};

/// Guiders that work together; none is plain classifier-free guidance.
#[derive(Clone, Debug, Default)]
pub struct Guiders {
    pub(super) chain: Vec<Arc<dyn Guider>>,
}

impl Guiders {
    /// A chain.
    ///
    /// # Errors
    /// [`Error::Config`] naming two that do not go together, and why.
    pub fn new(chain: Vec<Arc<dyn Guider>>) -> Result<Guiders> {
        for (i, first) in chain.iter().enumerate() {
            for second in &chain[i + 1..] {
                let same = (first.kind() == second.kind()).then(|| why_not_twice(first.kind()).to_owned());
                let conflict = first.conflict(&**second).or_else(|| second.conflict(&**first)).or(same);
                if let Some(why) = conflict {
                    let (first, second) = (first.text(), second.text());
                    return Err(Error::Config(format!("{first} and {second} do not go together: {why}")));
                }
            }
        }
        Ok(Guiders { chain })
    }

    /// Condition annealing, if there is one.
    pub fn annealing(&self) -> Option<Annealing> {
        self.iter().find_map(|guider| match guider.work() {
            Work::Anneal(annealing) => Some(annealing),
            _ => None,
        })
    }

    /// The guiders in order.
    pub fn iter(&self) -> impl Iterator<Item = &dyn Guider> {
        self.chain.iter().map(|guider| &**guider)
    }

    /// Whether this is plain guidance.
    pub fn is_empty(&self) -> bool {
        self.chain.is_empty()
    }

    /// The weight of each step, `weight` being the sampler's. Schedules come first, then the interval.
    pub fn weights(&self, weight: f64, moments: &[Moment]) -> Vec<f64> {
        let of = |at: &Moment| {
            [Kind::Weight, Kind::Step, Kind::Window].iter().fold(weight, |weight, kind| {
                let those = self.iter().filter(|guider| guider.kind() == *kind);
                those.fold(weight, |weight, guider| guider.weight(at, weight))
            })
        };
        moments.iter().map(of).collect()
    }

    /// Refuses a weight of the sampler's where a rule sets its own in every step, so that it would be ignored.
    ///
    /// # Errors
    /// [`Error::Config`] naming the rule.
    pub fn check_weight_is_read(&self) -> Result<()> {
        let steps = [0.0, 0.5, 1.0].map(|part| Moment { step: 0, steps: 3, log_snr: 40.0 * part - 20.0 });
        let steps: Vec<Moment> = steps.iter().enumerate().map(|(step, at)| Moment { step, ..*at }).collect();
        let sets_its_own = |guider: &&dyn Guider| {
            matches!(guider.kind(), Kind::Weight | Kind::Step)
                && steps.iter().all(|at| guider.weight(at, 0.25) == guider.weight(at, 3.5))
        };
        match self.iter().find(sets_its_own) {
            None => Ok(()),
            Some(guider) => Err(Error::Config(format!(
                "{} sets the weight of every step itself, so that w (`w`, `guidance-scale`) would be ignored: leave one out",
                guider.text()
            ))),
        }
    }

    /// Whether a step of this weight needs more than the conditional evaluation.
    pub fn needs_all(&self, weight: f64) -> bool {
        let always = |guider: &dyn Guider| {
            matches!(guider.work(), Work::Expression(_) | Work::Renoise)
                || !guider.more_conditions().is_empty()
        };
        weight != 0.0 || self.iter().any(always)
    }

    /// Evaluations of the network in a step of this weight.
    pub fn evaluations(&self, weight: f64) -> usize {
        if self.needs_all(weight) { 2 + self.more_conditions().len() } else { 1 }
    }

    /// What takes the place of ∅.
    pub fn against(&self) -> Against {
        self.iter().map(Guider::against).find(|against| *against != Against::Null).unwrap_or(Against::Null)
    }

    /// Further conditions and their strengths.
    pub fn more_conditions(&self) -> &[(Beside, f64)] {
        self.iter().map(Guider::more_conditions).find(|more| !more.is_empty()).unwrap_or(&[])
    }

    /// What the combined eps is multiplied by.
    pub fn eps_factor(&self) -> f64 {
        self.iter().map(Guider::eps_factor).product()
    }

    /// Whether x̂ is noised with eps_∅ (CFG++).
    pub fn renoises(&self) -> bool {
        self.iter().any(|guider| guider.work() == Work::Renoise)
    }

    /// What the device has to do beside the plain combination.
    pub fn work(&self) -> Vec<Work> {
        self.iter().map(Guider::work).filter(|work| *work != Work::None).collect()
    }

    /// The steps as the guiders change them.
    ///
    /// Where x̂ is noised again, mean_z (α x̂ + σ eps_∅) + mean_x x̂ is (mean_z α + mean_x) x̂ + (mean_z σ) eps_∅: the step then
    /// has no z in its mean, and the second list has the factor of eps_∅ that is to be added, 0 elsewhere.
    pub fn steps(&self, steps: &[StepCoefficients]) -> (Vec<StepCoefficients>, Vec<f64>) {
        let mut changed = steps.to_vec();
        let mut of_eps = vec![0.0; steps.len()];
        for ((at, step), of_eps) in moments(steps).iter().zip(&mut changed).zip(&mut of_eps) {
            self.iter().for_each(|guider| guider.step(at, step));
            if self.renoises() && !step.is_last {
                *of_eps = step.mean_z * step.sigma;
                step.mean_x += step.mean_z * step.alpha;
                step.mean_z = 0.0;
            }
        }
        (changed, of_eps)
    }
}

/// Where each of these steps stands.
pub fn moments(steps: &[StepCoefficients]) -> Vec<Moment> {
    let moment =
        |(step, row): (usize, &StepCoefficients)| Moment { step, steps: steps.len(), log_snr: row.log_snr };
    steps.iter().enumerate().map(moment).collect()
}

fn why_not_twice(kind: Kind) -> &'static str {
    match kind {
        Kind::Weight => "each sets the weight of a step",
        Kind::Window => "each says in which steps there is guidance; give one interval",
        Kind::Combination => "each combines the evaluations in its own way",
        Kind::Conditions => "each says what stands in the place of the unconditional evaluation",
        Kind::Correction => "each changes what was combined",
        Kind::Step => "each changes the step itself",
        Kind::Embedding => "each puts noise on the condition",
    }
}

impl FromStr for Guiders {
    type Err = Error;

    /// `interval(lo=-2,hi=6)+rescale(0.7)`.
    fn from_str(text: &str) -> Result<Guiders> {
        Guiders::new(parse::chain(text)?)
    }
}

impl fmt::Display for Guiders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.iter().map(Guider::text).collect();
        f.write_str(&texts.join("+"))
    }
}
