//! The toy's chain under a chain of guiders, in f64: what each of them does to points whose scores are known.
//!
//! What stands for a condition's embedding is the mean of its class, and for a weaker network the same mixture seen
//! blurred, with the standard deviation [`WEAK_DEVIATION`].

use super::chain::{ToyPoint, noise};
use super::density::{CLASSES, MixtureAt, Point, class_mean};
use crate::diffusion::guiders::{Against, Beside, Evaluated, Guiders, Memory, moments};
use crate::diffusion::posterior::ancestral_steps;
use crate::diffusion::schedule::ContinuousSchedule;
use crate::diffusion::{Clip, Guidance};
use crate::error::brief;
use crate::random::Stream;
use crate::{Error, Result};

/// The standard deviation of a class as the weaker network of autoguidance sees it.
pub const WEAK_DEVIATION: f64 = 0.8;

/// The class that guiders name on the toy: 0, 1 or 2.
///
/// # Errors
/// [`Error::Config`] for any other text.
pub fn toy_class(text: &str) -> Result<usize> {
    let class = text.parse().ok().filter(|class| *class < CLASSES);
    class.ok_or_else(|| {
        Error::Config(format!("the toy has the classes 0, 1 and 2, no {text:?}", text = brief(text)))
    })
}

/// The classes that guiders evaluate beside a point's own, but for what stands for no class.
///
/// # Errors
/// As [`toy_class`]; [`Error::Config`] for parts of a condition, which has one part here.
pub fn toy_classes_beside(guiders: &Guiders) -> Result<Vec<usize>> {
    if matches!(guiders.against(), Against::Only(_)) {
        return Err(Error::Config("the toy's condition has no parts to be named: it is a class".into()));
    }
    let class = |(beside, _): &(Beside, f64)| match beside {
        Beside::Class(class) => toy_class(class),
        Beside::Only(parts) => toy_class(&parts.join(" ")),
    };
    guiders.more_conditions().iter().map(class).collect()
}

/// `samples` points under `guiders`, otherwise as [`simulate`](super::simulate).
///
/// # Errors
/// As [`simulate`](super::simulate) and [`Guiders::guided_step`]; [`Error::Config`] for a class that the toy has not.
pub fn simulate_guided(
    guiders: &Guiders,
    guidance_weight: f64,
    steps: usize,
    variance_exponent: f64,
    samples: usize,
    seed: u64,
) -> Result<Vec<ToyPoint>> {
    let weight = Guidance::from_weight(guidance_weight)?.weight();
    let steps = ancestral_steps(&ContinuousSchedule::default(), steps, variance_exponent)?;
    let moments = moments(&steps);
    let weights = guiders.weights(weight, &moments);
    let negative = match guiders.against() {
        Against::Class(class) => Some(toy_class(&class)?),
        _ => None,
    };
    let weak = matches!(guiders.against(), Against::WeakModel(_));
    let more = toy_classes_beside(guiders)?;

    let chain = |i: usize| -> Result<ToyPoint> {
        let (class, seed) = (i % CLASSES, seed.wrapping_add(i as u64));
        let (mut z, mut memory) = (noise(seed, 0, Stream::InitialNoise), Memory::default());
        for (step, (at, weight)) in steps.iter().zip(moments.iter().zip(&weights)) {
            let mixture = MixtureAt::log_snr(step.log_snr);
            // A condition's embedding is its mean, which annealing may change.
            let seen = |class: usize| -> Point {
                let Some(annealing) = guiders.annealing() else { return class_mean(class) };
                let changed = annealing.apply(
                    at,
                    &class_mean(class),
                    &noise(seed, at.step as u64, Stream::ConditionNoise),
                );
                [changed[0], changed[1]]
            };
            let conditional = mixture.eps_towards(z, seen(class));
            let against = match negative {
                Some(class) => mixture.eps_conditional(z, class),
                None if weak => MixtureAt::blurred(step.log_snr, WEAK_DEVIATION).eps_conditional(z, class),
                None => mixture.eps_marginal(z),
            };
            let further: Vec<Point> = more.iter().map(|class| mixture.eps_towards(z, seen(*class))).collect();
            let further: Vec<&[f64]> = further.iter().map(|eps| &eps[..]).collect();
            let eps = Evaluated { z: &z, conditional: &conditional, against: &against, more: &further, step };
            let fresh = noise(seed, at.step as u64, Stream::StepNoise);
            let next = guiders.guided_step(at, *weight, &eps, Clip::None, &fresh, &mut memory)?.0;
            z = [next[0], next[1]];
        }
        Ok(ToyPoint { class, position: z })
    };
    (0..samples).map(chain).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{sampled_mean_along, simulate};
    use super::*;

    fn run(text: &str, w: f64) -> Vec<ToyPoint> {
        simulate_guided(&text.parse().unwrap(), w, 32, 0.3, 600, 7).unwrap()
    }

    /// (the mean along the class's direction, the mean distance from the class's mean), over all classes.
    fn told(points: &[ToyPoint]) -> (f64, f64) {
        let of = |class| points.iter().filter(move |p| p.class == class).map(|p| p.position);
        let mean = (0..CLASSES).map(|class| sampled_mean_along(class, of(class))).sum::<f64>() / 3.0;
        let spread = |class: usize| {
            let all: Vec<Point> = of(class).collect();
            let centre = [0, 1].map(|axis| all.iter().map(|p| p[axis]).sum::<f64>() / all.len() as f64);
            all.iter().map(|p| (p[0] - centre[0]).hypot(p[1] - centre[1])).sum::<f64>() / all.len() as f64
        };
        (mean, (0..CLASSES).map(spread).sum::<f64>() / 3.0)
    }

    #[test]
    fn without_guiders_it_is_the_plain_chain() {
        for text in ["", "constant", "interval(lo=-20,hi=20)", "annealing(t1=1,t2=2)", "also(1:0)"] {
            let want = simulate(1.0, 32, 0.3, 600, 7).unwrap();
            let apart = run(text, 1.0).iter().zip(&want).fold(0.0f64, |most, (a, b)| {
                most.max((a.position[0] - b.position[0]).hypot(a.position[1] - b.position[1]))
            });
            assert!(apart < 1e-9, "{text} is plain guidance but for {apart:e}");
        }
        assert!(simulate_guided(&"negative(3)".parse().unwrap(), 1.0, 8, 0.3, 3, 0).is_err());
    }

    /// What each guider is for, seen in mean and spread; the points share their noise, so that small differences tell.
    #[test]
    fn each_does_to_the_points_what_it_is_for() {
        let (plain_mean, plain_spread) = told(&run("", 3.0));
        let (data_mean, data_spread) = told(&run("", 0.0));
        assert!(plain_mean > 1.3 && plain_spread < 0.9 * data_spread, "{plain_mean} {plain_spread}");
        assert!((data_mean - 1.0).abs() < 0.08);
        // Less guidance in all: means between the data's and the plain guided one's.
        for text in
            ["linear(0,3)", "cosine(0,3)", "power(0,3)", "piecewise(0:0 0.5:3 1:0)", "interval(lo=-1,hi=2)"]
        {
            let (mean, _) = told(&run(text, 3.0));
            assert!(data_mean + 0.03 < mean && mean < plain_mean - 0.01, "{text}: {mean}");
        }
        // A shorter step, or one whose length is held.
        for text in ["apg(eta=0,beta=0)", "apg(eta=1,beta=0,r=0.3)", "apg(eta=1,beta=-0.7)"] {
            let (mean, _) = told(&run(text, 3.0));
            assert!(mean < plain_mean - 0.01, "{text}: {mean}");
        }
        // CFG++ guides at strengths below 1, and moves with its strength.
        let plus = |text| told(&run(text, 0.0)).0;
        assert!(plus("cfg++(0.2)") + 0.1 < plus("cfg++(0.9)"));
        // Away from class 0 and from a blurred self: the spread shrinks.
        for text in ["autoguidance(weak)", "low-noise(0.7)"] {
            let (_, spread) = told(&run(text, 1.0));
            assert!(spread < 0.97 * data_spread, "{text}: {spread}, of the data {data_spread}");
        }
        // The other two classes go away from class 0; with a second class, all go towards it.
        let along_0 = |points: &[ToyPoint], class| {
            let of = points.iter().filter(|p| p.class == class).map(|p| p.position);
            sampled_mean_along(0, of)
        };
        assert!(along_0(&run("negative(0)", 1.0), 1) < along_0(&run("", 0.0), 1) - 0.2);
        assert!(along_0(&run("also(0:1)", 0.0), 1) > along_0(&run("", 0.0), 1) + 0.2);
        // Noise on the condition gives back variety at the same strength.
        let annealed = told(&run("annealing(t1=0.1,t2=0.9,s=1,psi=0)", 3.0)).1;
        assert!(annealed > 1.01 * plain_spread, "{annealed}, without {plain_spread}");
        assert!(told(&run("zero-star(k=1)", 3.0)).0 < plain_mean);
        // The deviation of two numbers is no measure of anything; rescaling runs, and that is all.
        assert!(run("rescale(0.7)", 1.0).iter().all(|p| p.position.iter().all(|x| x.is_finite())));
    }
}
