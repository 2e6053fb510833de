//! Guiders in the moves of any sampler, and what has no meaning in some of them.

use super::Guiders;
use crate::diffusion::{Move, SamplerKind, StepCoefficients};
use crate::{Error, Result};

/// The steps that guiders see of a sampler's moves: one for each evaluation, of Heun's method two for most steps.
pub fn steps_of(moves: &[Move]) -> Vec<StepCoefficients> {
    let one = |(index, step): (usize, &Move)| StepCoefficients {
        log_snr: step.level.log_snr(),
        alpha: step.level.alpha,
        sigma: step.level.sigma,
        inverse_alpha: step.level.alpha.recip(),
        mean_z: step.mean_z,
        mean_x: step.mean_x,
        noise_sd: step.noise_sd,
        time_embedding: step.level.time,
        is_last: index + 1 == moves.len(),
    };
    moves.iter().enumerate().map(one).collect()
}

impl Guiders {
    /// The moves as the guiders change them; the factors of eps_∅ are those of [`steps`](Self::steps).
    pub fn moves(&self, moves: &[Move]) -> Vec<Move> {
        let (changed, _) = self.steps(&steps_of(moves));
        let one = |(old, new): (&Move, StepCoefficients)| Move {
            mean_z: new.mean_z,
            mean_x: new.mean_x,
            noise_sd: new.noise_sd,
            ..*old
        };
        moves.iter().zip(changed).map(one).collect()
    }

    /// Whether these guiders mean something in the moves of a sampler.
    ///
    /// # Errors
    /// [`Error::Config`] saying what does not, and why.
    pub fn check_sampler(&self, kind: SamplerKind, moves: &[Move]) -> Result<()> {
        let refuse = |text: String, why: &str| {
            Err(Error::Config(format!("{text} has no meaning in the sampler {kind}: {why}")))
        };
        let steps = steps_of(moves);
        let adds_noise = moves.iter().any(|step| step.noise_sd > 0.0);
        let (Some(first), Some(at)) = (steps.first(), super::moments(&steps).first().copied()) else {
            return Ok(());
        };
        for guider in &self.chain {
            let (changed, _) = Guiders { chain: vec![guider.clone()] }.steps(&steps);
            let mean = |step: &StepCoefficients| (step.mean_z, step.mean_x);
            let changes_mean = changed.iter().zip(&steps).any(|(new, old)| mean(new) != mean(old));
            if kind.is_multistep() && changes_mean {
                return refuse(
                    guider.text(),
                    "its steps are made of two evaluations together, and this changes one step's own mean",
                );
            }
            let mut probe = StepCoefficients { noise_sd: 1.0, ..*first };
            guider.step(&at, &mut probe);
            if !adds_noise && !changes_mean && probe.noise_sd != 1.0 {
                return refuse(guider.text(), "it adds no noise that this could change");
            }
        }
        Ok(())
    }
}
