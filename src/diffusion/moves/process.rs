//! A trained process, and the moves of a sampler through it.

use super::spacing::log_snrs;
use super::{LevelSource, Move, SamplerKind, Spacing, Walks, Way};
use crate::diffusion::posterior::{StepCoefficients, ancestral_steps_through};
use crate::diffusion::prediction::{Prediction, Variance};
use crate::diffusion::respacing::Respacing;
use crate::diffusion::schedule::ContinuousSchedule;
use crate::diffusion::sigma::check_sigma_data;
use crate::{Error, Result};

/// Below so many steps a discrete process is sampled by DDIM when nothing else is asked for (IDDPM, figure 10).
const FEW_STEPS: usize = 50;

/// What a network was trained on: its noise levels, what it predicts, and which variance it has.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// The noise levels.
    pub levels: LevelSource,
    /// What the output is.
    pub prediction: Prediction,
    /// The variance of ancestral steps when nothing else is asked for.
    pub variance: Variance,
}

impl From<&ContinuousSchedule> for Process {
    fn from(schedule: &ContinuousSchedule) -> Self {
        let levels = LevelSource::Continuous(*schedule);
        Process { levels, prediction: Prediction::Eps, variance: Variance::Small }
    }
}

impl From<&Process> for Process {
    fn from(process: &Process) -> Self {
        process.clone()
    }
}

/// What is asked of a sampler; what is `None` is chosen for the process.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Method {
    /// Which sampler.
    pub kind: Option<SamplerKind>,
    /// η, for those that have one.
    pub eta: Option<f64>,
    /// The steps of a discrete process, instead of a number of them.
    pub respacing: Option<Respacing>,
    /// How the levels lie between the ends of the process; not beside `respacing`, which names them itself.
    pub spacing: Option<Spacing>,
    /// The variance of discrete ancestral steps.
    pub variance: Option<Variance>,
}

impl Process {
    /// Refuses a prediction that gives no picture on these levels: its formula counts on α + σ = 1, or on α² + σ² = 1.
    ///
    /// # Errors
    /// [`Error::Config`] naming both.
    pub fn check(&self) -> Result<()> {
        let flow = matches!(self.levels, LevelSource::Flow(_));
        let edm = matches!(self.levels, LevelSource::Sigma(_));
        match self.prediction {
            Prediction::Preconditioned { .. } if !edm => Err(Error::Config(
                "the prediction edm is preconditioned for EDM's noise levels: its schedule is edm".into(),
            )),
            Prediction::Preconditioned { .. } if self.variance.is_learned() => Err(Error::Config(
                "the prediction edm has no variances beside it; they are learnt of a discrete process".into(),
            )),
            Prediction::Preconditioned { sigma_data } => check_sigma_data(sigma_data),
            Prediction::PreviousX if edm => Err(Error::Config(
                "the prediction previous x is one of a discrete process; on the schedule edm it is edm, eps, x0 or v".into(),
            )),
            Prediction::Flow { .. } if !flow => Err(Error::Config(
                "the prediction flow is the velocity of a straight path: its schedule is flow".into(),
            )),
            prediction @ (Prediction::V | Prediction::PreviousX) if flow => Err(Error::Config(format!(
                "the prediction {prediction} counts on α² + σ² = 1, which the flow schedule has not; there it predicts flow, x0 \
                 or eps"
            ))),
            _ => Ok(()),
        }
    }

    /// The sampler that `method` names, or the process's own: ancestral, on a discrete process DDIM below 50 steps, on a straight
    /// path DDIM, over EDM's levels Heun's method.
    pub fn sampler(&self, method: &Method, steps: usize) -> SamplerKind {
        if let (LevelSource::Sigma(_), None) = (&self.levels, method.kind) {
            return SamplerKind::Heun;
        }
        let few = match (&self.levels, &method.respacing) {
            (LevelSource::Continuous(_) | LevelSource::Sigma(_), _) => false,
            // Its chain is not here: DDIM without noise is Euler's method on the path's own velocity.
            (LevelSource::Flow(_), _) => true,
            (_, Some(Respacing::Stride(_))) => true,
            (_, Some(Respacing::Sections(counts))) => counts.iter().sum::<usize>() < FEW_STEPS,
            (_, None) => steps < FEW_STEPS,
        };
        method.kind.unwrap_or(if few { SamplerKind::Ddim } else { SamplerKind::Ancestral })
    }

    /// The variance of ancestral steps under `method`.
    pub fn step_variance(&self, method: &Method) -> Variance {
        method.variance.unwrap_or(self.variance)
    }

    /// The spacing of the levels of a sampler under `method`.
    pub fn spacing(&self, method: &Method, steps: usize) -> Spacing {
        let kind = self.sampler(method, steps);
        let own = match self.levels {
            // Backwards both ends are needed.
            LevelSource::Flow(_) if kind != SamplerKind::DdimReverse => Spacing::Trailing,
            LevelSource::Sigma(_) => Spacing::Edm,
            _ => kind.default_spacing(),
        };
        method.spacing.unwrap_or(own)
    }

    /// Whether the exponent v of the reverse variance means anything: to ancestral steps in continuous time alone.
    pub fn has_variance_exponent(&self, method: &Method, steps: usize) -> bool {
        matches!(self.levels, LevelSource::Continuous(_) | LevelSource::Sigma(_))
            && self.sampler(method, steps) == SamplerKind::Ancestral
    }

    /// The steps of CFG's Algorithm 2, where that is what `method` asks for: ancestral steps in continuous time.
    ///
    /// # Errors
    /// As [`Process::moves`].
    pub fn chain(
        &self,
        method: &Method,
        steps: usize,
        variance_exponent: f64,
    ) -> Result<Option<Vec<StepCoefficients>>> {
        match &self.levels {
            LevelSource::Continuous(schedule) if self.has_variance_exponent(method, steps) => {
                let grid = log_snrs(schedule, self.spacing(method, steps), steps)?;
                ancestral_steps_through(&grid, variance_exponent).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The moves of a sampler in `steps` steps, and the variance that the step kernel has to put in.
    ///
    /// # Errors
    /// [`Error::Config`] for no steps, more steps than there are, and options that the sampler or the process has not.
    pub fn moves(
        &self,
        method: &Method,
        steps: usize,
        variance_exponent: f64,
    ) -> Result<(Vec<Move>, Variance)> {
        if method.respacing.is_none() {
            crate::sizes::check_steps(steps)?;
        }
        let kind = self.sampler(method, steps);
        let refuse = |what: String| Err(Error::Config(what));
        if method.eta.is_some() && kind.default_eta().is_none() {
            return refuse(format!("--eta means nothing to the sampler {kind}"));
        }
        if method.variance.is_some() && (kind != SamplerKind::Ancestral || self.is_continuous()) {
            return refuse(format!(
                "--variance is for ancestral steps of a discrete process, not for {kind} here"
            ));
        }
        let (fixed, halves) = (kind.entry().walks != Walks::Steps, kind.entry().walks == Walks::Halves);
        if method.respacing.is_some() && (self.is_continuous() || fixed) {
            return refuse(format!(
                "--respacing chooses steps of a discrete process; {kind} here takes --steps"
            ));
        }
        if method.spacing.is_some() && (method.respacing.is_some() || halves) {
            return refuse(match halves {
                true => "--spacing: the steps of a halved student are where it was taught".into(),
                false => "--respacing names the steps itself; --spacing spreads --steps of them".into(),
            });
        }
        if method.variance.is_some_and(Variance::is_learned) && !self.variance.is_learned() {
            return refuse("this network has learnt no variances; use --variance small or large".into());
        }
        let moves = (kind.entry().moves)(&Way {
            source: &self.levels,
            respacing: method.respacing.as_ref(),
            spacing: self.spacing(method, steps),
            steps,
            eta: method.eta.or(kind.default_eta()).unwrap_or(0.0),
            variance: self.step_variance(method),
            variance_exponent,
        })?;
        // Moves that have room for a learned variance are those of a discrete chain.
        let of_chain = moves.iter().any(|step| step.log_variances.is_some());
        Ok((moves, if of_chain { self.step_variance(method) } else { Variance::Small }))
    }

    /// Whether it is one of continuous time, a straight path and EDM's levels among them.
    pub fn is_continuous(&self) -> bool {
        !matches!(self.levels, LevelSource::Discrete(..))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, SAMPLERS};
    use super::*;
    use crate::diffusion::{BetaSchedule, DiscreteSchedule, FlowSchedule};

    fn discrete() -> Process {
        let schedule = DiscreteSchedule::new(BetaSchedule::Cosine, 1000).unwrap();
        let levels = LevelSource::Discrete(schedule, 1.0);
        Process { levels, prediction: Prediction::Eps, variance: Variance::LearnedRange }
    }

    #[test]
    fn few_steps_are_taken_by_ddim() {
        let process = discrete();
        let none = Method::default();
        assert_eq!(process.sampler(&none, 49), SamplerKind::Ddim);
        assert_eq!(process.sampler(&none, 50), SamplerKind::Ancestral);
        let respaced = |text: &str| Method { respacing: Some(text.parse().unwrap()), ..Method::default() };
        assert_eq!(process.sampler(&respaced("ddim250"), 1000), SamplerKind::Ddim);
        assert_eq!(process.sampler(&respaced("20,29"), 1000), SamplerKind::Ddim);
        assert_eq!(process.sampler(&respaced("20,30"), 10), SamplerKind::Ancestral);
        let continuous = Process::from(&ContinuousSchedule::default());
        assert_eq!(continuous.sampler(&none, 3), SamplerKind::Ancestral);
        assert_eq!(process.moves(&respaced("90,60,60,20,20"), 1, 0.0).unwrap().0.len(), 250);
        assert_eq!(process.moves(&none, 250, 0.0).unwrap().1, Variance::LearnedRange);
    }

    #[test]
    fn every_sampler_walks_every_process() {
        for process in [discrete(), Process::from(&ContinuousSchedule::default())] {
            for Entry { kind, name, .. } in SAMPLERS {
                let method = Method { kind: Some(*kind), ..Method::default() };
                let (moves, _) = process.moves(&method, 20, 0.3).unwrap();
                let expected = match kind {
                    // The first step, from the process's end to EDM's first level, is Euler's.
                    SamplerKind::Heun => 38,
                    SamplerKind::DdimReverse => 19,
                    _ => 20,
                };
                assert_eq!(moves.len(), expected, "{name}");
                assert_eq!(name.parse::<SamplerKind>().unwrap().to_string(), *name);
                for step in &moves {
                    assert!(step.mean_z.is_finite() && step.mean_x.is_finite() && step.noise_sd.is_finite());
                    assert!(
                        step.mean_previous.is_finite() && step.mean_gradient.is_finite(),
                        "{name} {step:?}"
                    );
                }
            }
        }
        assert!("euler2".parse::<SamplerKind>().is_err());
    }

    #[test]
    fn on_a_straight_path_ddim_is_euler_and_what_counts_on_the_circle_is_refused() {
        let levels = LevelSource::Flow(FlowSchedule::new(-20.0, 20.0).unwrap());
        let process = Process { levels, prediction: Prediction::FLOW, variance: Variance::Small };
        assert_eq!(process.sampler(&Method::default(), 100), SamplerKind::Ddim);
        let (moves, _) = process.moves(&Method::default(), 5, 0.0).unwrap();
        for (i, step) in moves.iter().enumerate() {
            // z' = z + (t' - t)·out, with x̂ = z - t·out put in.
            let (t, next) = (step.level.sigma, moves.get(i + 1).map_or(0.0, |step| step.level.sigma));
            assert!((t - (1.0 - 0.2 * i as f64)).abs() < 1e-4, "{step:?}");
            let (of_z, of_out) = process.prediction.x_factors(step.level.alpha, t, (1.0, 0.0));
            assert!((step.mean_z + step.mean_x * of_z - 1.0).abs() < 1e-12, "{step:?}");
            assert!((step.mean_x * of_out - (next - t)).abs() < 1e-12, "{step:?}");
        }
        for (kind, eta) in [
            (SamplerKind::Ancestral, None),
            (SamplerKind::EulerAncestral, None),
            (SamplerKind::Ddim, Some(0.5)),
        ] {
            let method = Method { kind: Some(kind), eta, ..Method::default() };
            let error = process.moves(&method, 5, 0.0).unwrap_err().to_string();
            assert!(error.contains("flow") && error.contains("α² + σ² = 1"), "{kind}: {error}");
        }
        for kind in
            [SamplerKind::Heun, SamplerKind::Dpmpp2m, SamplerKind::Dpmpp2mSde, SamplerKind::DdimReverse]
        {
            let method = Method { kind: Some(kind), ..Method::default() };
            let (moves, _) = process.moves(&method, 8, 0.0).unwrap();
            // Signal and noise arrive where the next level has them: a picture that is known stays itself.
            for pair in moves.windows(2).filter(|pair| pair[0].mean_previous == 0.0) {
                let (from, to) = (pair[0].level, pair[1].level);
                let signal = pair[0].mean_z * from.alpha + pair[0].mean_x;
                let noise = (pair[0].mean_z * from.sigma).hypot(pair[0].noise_sd);
                assert!(
                    (signal - to.alpha).abs() < 1e-9 && (noise - to.sigma).abs() < 1e-9,
                    "{kind}: {pair:?}"
                );
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let (discrete, continuous) = (discrete(), Process::from(&ContinuousSchedule::default()));
        let error = |process: &Process, method: Method, steps| {
            process.moves(&method, steps, 0.3).unwrap_err().to_string()
        };
        let none = Method::default();
        let of = |kind| Method { kind: Some(kind), ..Method::default() };
        assert!(error(&discrete, Method { eta: Some(0.5), ..of(SamplerKind::Heun) }, 20).contains("--eta"));
        assert!(error(&discrete, Method { eta: Some(1.5), ..of(SamplerKind::Ddim) }, 20).contains("1.5"));
        let variance = Some(Variance::Small);
        assert!(error(&discrete, Method { variance, ..of(SamplerKind::Ddim) }, 20).contains("--variance"));
        assert!(error(&continuous, Method { variance, ..none.clone() }, 20).contains("--variance"));
        let respacing = Some("20".parse().unwrap());
        assert!(error(&continuous, Method { respacing, ..none.clone() }, 20).contains("--respacing"));
        assert!(error(&discrete, none.clone(), 2000).contains("2000"));
        for steps in [0, 5000] {
            assert!(discrete.moves(&of(SamplerKind::Dpmpp2m), steps, 0.3).is_err());
        }
        let fixed = Process { variance: Variance::Large, ..discrete };
        let learned = Method { variance: Some(Variance::LearnedRange), ..of(SamplerKind::Ancestral) };
        assert!(error(&fixed, learned, 100).contains("learnt no variances"));
        for kind in [SamplerKind::Ddim, SamplerKind::Euler, SamplerKind::Ancestral] {
            assert!(continuous.moves(&of(kind), 0, 0.3).is_err());
        }
    }
}
