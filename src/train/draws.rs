//! What is drawn for each training image: a function of the run's seed, the image's number and, by importance, earlier losses.

use crate::diffusion::{
    ConditionDropout, ContinuousSchedule, DiscreteSchedule, Dropped, FlowSchedule, Level, LossRow,
    SigmaSchedule,
};
use crate::error::Result;

use super::importance::Importance;
use super::objective::{Objective, TrainSchedule};

/// What was drawn for one training image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// α.
    pub alpha: f64,
    /// σ.
    pub sigma: f64,
    /// u in [0, 1), from which the others follow.
    pub u: f64,
    /// λ.
    pub log_snr: f64,
    /// What the network is told.
    pub time: f64,
    /// The factor of z in what it sees.
    pub input: f64,
    /// t of a discrete process.
    pub t: usize,
    /// Which quarter of the process it is in, from clean (0) to noisy (3).
    pub quarter: usize,
    /// The parts of the condition in whose place "nothing" is told.
    pub dropped: Dropped,
    /// The loss's numbers.
    pub row: LossRow,
}

/// The draws of a training run.
pub struct Draws {
    dropout: ConditionDropout,
    continuous: ContinuousSchedule,
    discrete: Option<DiscreteSchedule>,
    flow: Option<FlowSchedule>,
    objective: Objective,
    seed: u64,
}

impl Draws {
    /// The draws of the run `seed`.
    ///
    /// # Errors
    /// [`Error::Config`] for a schedule or a probability that makes no sense.
    pub fn new(
        objective: Objective,
        continuous: ContinuousSchedule,
        seed: u64,
        dropout: ConditionDropout,
    ) -> Result<Self> {
        dropout.check()?;
        let discrete = objective.betas().map(|betas| DiscreteSchedule::new(betas, objective.steps_total));
        let flow = (objective.schedule == TrainSchedule::Flow)
            .then(|| FlowSchedule::new(continuous.log_snr_min(), continuous.log_snr_max()));
        let (discrete, flow) = (discrete.transpose()?, flow.transpose()?);
        Ok(Draws { dropout, continuous, discrete, flow, objective, seed })
    }

    /// All that is drawn for an image; `importance` where the objective samples times by it.
    pub fn draw(&self, image_index: u64, importance: Option<&mut Importance>) -> Draw {
        let Objective { prediction, t_sampler, .. } = self.objective;
        let dropped = self.dropout.of(self.seed, image_index);
        let u = t_sampler.u(self.seed, image_index);
        if let Some(schedule) = &self.discrete {
            let (t, weight) = match importance {
                Some(importance) => importance.draw(u),
                None => ((u * schedule.len() as f64) as usize, 1.0),
            };
            return Draw {
                alpha: schedule.alpha(t),
                sigma: schedule.sigma(t),
                u,
                log_snr: schedule.log_snr(t),
                time: schedule.timestep(t),
                input: 1.0,
                t,
                quarter: 4 * t / schedule.len(),
                dropped,
                row: LossRow::discrete(schedule, t, prediction, self.objective.variance(), weight),
            };
        }
        let level = match (&self.flow, self.objective.schedule) {
            (Some(path), _) => Some(Level::flow(path.time(u))),
            (None, TrainSchedule::Edm) => Some(Level::edm(SigmaSchedule::trained_log_snr(u))),
            _ => None,
        };
        if let Some(level) = level {
            return Draw {
                alpha: level.alpha,
                sigma: level.sigma,
                u,
                log_snr: level.log_snr(),
                time: level.time,
                input: prediction.input_factor(level.alpha, level.sigma),
                t: 0,
                quarter: (4.0 * u) as usize,
                dropped,
                row: LossRow::continuous(level.alpha, level.sigma, prediction, 1.0),
            };
        }
        let (alpha, sigma) = (self.continuous.alpha(u), self.continuous.sigma(u));
        Draw {
            alpha,
            sigma,
            u,
            log_snr: self.continuous.log_snr(u),
            time: self.continuous.time_embedding(u),
            input: 1.0,
            t: 0,
            quarter: (4.0 * u) as usize,
            dropped,
            row: LossRow::continuous(alpha, sigma, prediction, 1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::{Prediction, TimeSampler, TrainDraws};

    /// The default's draws are those of the module of continuous time, bit for bit.
    #[test]
    fn the_default_draws_are_unchanged() {
        let schedule = ContinuousSchedule::default();
        let draws = Draws::new(Objective::default(), schedule, 5, ConditionDropout::together(0.3)).unwrap();
        let before = TrainDraws::new(schedule, 5, 0.3).unwrap();
        for image in 0..1000 {
            let (new, old) = (draws.draw(image, None), before.sample(image));
            assert_eq!((new.alpha, new.sigma, new.log_snr), (old.alpha, old.sigma, old.log_snr));
            assert_eq!((new.time, new.dropped.class), (old.time_embedding, old.drop_label));
        }
    }

    #[test]
    fn times_of_a_straight_path_are_told_and_its_target_is_the_velocity() {
        let flow = Objective {
            schedule: TrainSchedule::Flow,
            prediction: Prediction::FLOW,
            t_sampler: TimeSampler::LogitNormal,
            ..Objective::default()
        };
        flow.check().unwrap();
        let draws =
            Draws::new(flow, ContinuousSchedule::default(), 1, ConditionDropout::together(0.1)).unwrap();
        let mut quarters = [0u32; 4];
        for image in 0..4000 {
            let draw = draws.draw(image, None);
            assert!((draw.alpha + draw.sigma - 1.0).abs() < 1e-15);
            assert!((draw.time - 1000.0 * draw.sigma).abs() < 1e-9);
            assert_eq!((draw.row.target_x, draw.row.target_z, draw.row.target_eps), (-1.0, 0.0, 1.0));
            quarters[draw.quarter] += 1;
        }
        // A standard normal number lies within ±log 3 with probability 0.728; the standard deviation is 28.
        assert!((quarters[1] + quarters[2]).abs_diff(2912) < 140, "{quarters:?}");
        let process = flow.process(-20.0, 20.0).unwrap();
        assert_eq!(process.prediction, Prediction::FLOW);
        let error = |objective: Objective| objective.check().unwrap_err().to_string();
        assert!(error(Objective { schedule: TrainSchedule::Continuous, ..flow }).contains("logit-normal"));
        let uniform = Objective { t_sampler: TimeSampler::Uniform, ..flow };
        assert!(error(Objective { schedule: TrainSchedule::Cosine, ..uniform }).contains("--schedule flow"));
        assert!(error(Objective { prediction: Prediction::V, ..flow }).contains("α² + σ² = 1"));
    }

    #[test]
    fn edms_levels_are_log_normal_and_its_target_has_unit_variance() {
        let edm =
            Objective { schedule: TrainSchedule::Edm, prediction: Prediction::EDM, ..Objective::default() };
        edm.check().unwrap();
        let draws =
            Draws::new(edm, ContinuousSchedule::default(), 1, ConditionDropout::together(0.1)).unwrap();
        let (mut first, mut second) = (0.0, 0.0);
        let images = 4000;
        for image in 0..images {
            let draw = draws.draw(image, None);
            let log_s = (draw.sigma / draw.alpha).ln();
            assert!(
                (draw.time - log_s / 4.0).abs() < 1e-9 && (draw.alpha.hypot(draw.sigma) - 1.0).abs() < 1e-12
            );
            (first, second) = (first + log_s, second + log_s.powi(2));
            // Of data of variance σ_data² the input and the target have variance 1, with the weight 1 (EDM, appendix B.6).
            let input = draw.input * (0.5 * draw.alpha).hypot(draw.sigma);
            let target = (0.5 * f64::from(draw.row.target_x)).hypot(f64::from(draw.row.target_eps));
            assert!((input - 1.0).abs() < 1e-12 && (target - 1.0).abs() < 1e-6, "{input} {target}");
            assert_eq!((draw.row.weight, draw.row.target_z), (1.0, 0.0));
        }
        let mean = first / images as f64;
        let deviation = (second / images as f64 - mean.powi(2)).sqrt();
        // Standard errors 0.019 and 0.013; five of them.
        assert!((mean + 1.2).abs() < 0.095 && (deviation - 1.2).abs() < 0.067, "{mean} {deviation}");
        let (noisy, clean) = edm.default_log_snrs();
        assert_eq!(edm.process(noisy, clean).unwrap().prediction, Prediction::EDM);
        let error = |objective: Objective| objective.check().unwrap_err().to_string();
        for schedule in [TrainSchedule::Continuous, TrainSchedule::Flow, TrainSchedule::Cosine] {
            assert!(error(Objective { schedule, ..edm }).contains("its schedule is edm"), "{schedule:?}");
        }
        let narrow = Prediction::Preconditioned { sigma_data: -1.0 };
        assert!(error(Objective { prediction: narrow, ..edm }).contains("σ_data is -1"));
        assert!(error(Objective { t_sampler: TimeSampler::LogitNormal, ..edm }).contains("logit-normal"));
        assert!(error(Objective { prediction: Prediction::FLOW, ..edm }).contains("--schedule flow"));
        assert!(error(Objective { learn_sigma: true, ..edm }).contains("discrete process"));
    }

    #[test]
    fn discrete_times_are_uniform_integers() {
        let objective =
            Objective { schedule: TrainSchedule::Linear, steps_total: 40, ..Objective::default() };
        let draws =
            Draws::new(objective, ContinuousSchedule::default(), 1, ConditionDropout::together(0.1)).unwrap();
        let mut counts = [0u32; 40];
        for image in 0..40_000 {
            let draw = draws.draw(image, None);
            assert_eq!(draw.time, draw.t as f64);
            assert!((draw.alpha.hypot(draw.sigma) - 1.0).abs() < 1e-14 && draw.row.weight == 1.0);
            counts[draw.t] += 1;
        }
        // Binomial(40000, 1/40): a standard deviation of 31; five of them.
        assert!(counts.iter().all(|count| count.abs_diff(1000) < 156), "{counts:?}");
    }
}
