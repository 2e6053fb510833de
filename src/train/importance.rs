//! Importance sampling of times during a training: losses come late, and a resumed run must draw the same.
//!
//! Losses of a step are waited for while later steps run, so they are taken into the history only [`LAG`] steps later,
//! whether they have come by then or long before; what has come and is not taken in yet is saved with the history.

use std::collections::VecDeque;

use crate::diffusion::LossHistory;
use crate::diffusion::time_draws::HISTORY;
use crate::error::{Error, Result};

/// Steps whose losses may still be on their way while the next ones are submitted.
pub(super) const LAG: usize = 2;

/// A history of losses, and the losses that wait to enter it.
#[derive(Clone, Debug, PartialEq)]
pub struct Importance {
    history: LossHistory,
    /// (images seen before the step, [(t, loss)]).
    waiting: VecDeque<(u64, Vec<(usize, f64)>)>,
    steps_total: usize,
}

impl Importance {
    /// Before the first step.
    ///
    /// # Errors
    /// [`Error::Config`] for a process of no steps.
    pub fn new(steps_total: usize) -> Result<Self> {
        let history = LossHistory::new(steps_total, HISTORY)?;
        Ok(Importance { history, waiting: VecDeque::new(), steps_total })
    }

    /// Takes in what is old enough for the step that begins at `first_image`.
    pub fn begin_step(&mut self, first_image: u64, batch: usize) {
        let known = |first: u64| first + ((LAG + 1) * batch) as u64 <= first_image;
        while self.waiting.front().is_some_and(|(first, _)| known(*first)) {
            let (_, losses) = self.waiting.pop_front().expect("it has a front");
            self.history.update(losses);
        }
    }

    /// (t, weight) for u in [0, 1).
    pub fn draw(&mut self, u: f64) -> (usize, f64) {
        self.history.draw(u)
    }

    /// Told when the losses of a step have come, step by step.
    pub fn learn(&mut self, first_image: u64, losses: Vec<(usize, f64)>) {
        self.waiting.push_back((first_image, losses));
    }

    /// (history `[T, 11]`, what waits `[M, 4]`: first image low and high 24 bits, t, loss), all exact in f32.
    pub fn to_tensors(&self) -> [(Vec<usize>, Vec<f32>); 2] {
        let rows: Vec<f32> = self.history.to_rows().into_iter().map(|x| x as f32).collect();
        let mut waiting = Vec::new();
        for (first, losses) in &self.waiting {
            for (t, loss) in losses {
                let (low, high) = (first & 0xff_ffff, first >> 24);
                waiting.extend([low as f32, high as f32, *t as f32, *loss as f32]);
            }
        }
        [(vec![self.steps_total, HISTORY + 1], rows), (vec![waiting.len() / 4, 4], waiting)]
    }

    /// Takes back what [`Importance::to_tensors`] gave.
    ///
    /// # Errors
    /// [`Error::Config`] when it is not such.
    pub fn from_tensors(steps_total: usize, rows: &[f32], waiting: &[f32]) -> Result<Self> {
        let mut made = Self::new(steps_total)?;
        made.history.set_rows(&rows.iter().map(|&x| x.into()).collect::<Vec<f64>>())?;
        for entry in waiting.chunks(4) {
            let &[low, high, t, loss] = entry else {
                return Err(Error::Config("losses that wait come in rows of four".into()));
            };
            let first = (high as u64) << 24 | low as u64;
            match made.waiting.back_mut() {
                Some((before, losses)) if *before == first => losses.push((t as usize, loss.into())),
                _ => made.waiting.push_back((first, vec![(t as usize, loss.into())])),
            }
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Losses that come at once and losses that come late are taken in at the same step.
    #[test]
    fn the_time_of_arrival_does_not_matter() {
        let run = |late: bool, restart: Option<u64>| {
            let mut importance = Importance::new(4).unwrap();
            let mut on_the_way = VecDeque::new();
            let mut drawn = Vec::new();
            for step in 0..60u64 {
                let first = step * 2;
                importance.begin_step(first, 2);
                let steps: Vec<(usize, f64)> = (0..2)
                    .map(|i| {
                        let (t, weight) = importance.draw(((step * 2 + i) as f64 * 0.37).fract());
                        drawn.push((t, weight));
                        (t, f64::from((1 + t) as f32))
                    })
                    .collect();
                on_the_way.push_back((first, steps));
                while on_the_way.len() > if late { LAG } else { 0 } {
                    let (first, losses) = on_the_way.pop_front().unwrap();
                    importance.learn(first, losses);
                }
                if restart == Some(step) {
                    let [(shape, rows), (_, waiting)] = importance.to_tensors();
                    assert_eq!(shape, [4, 11]);
                    importance = Importance::from_tensors(4, &rows, &waiting).unwrap();
                }
            }
            drawn
        };
        let straight = run(true, None);
        assert_eq!(straight, run(false, None));
        assert_eq!(straight, run(false, Some(37)));
        assert!(straight.iter().any(|(_, weight)| *weight != 1.0), "it never became warm");
        assert!(Importance::from_tensors(4, &[0.0; 3], &[]).is_err());
        assert!(Importance::from_tensors(4, &[0.0; 44], &[1.0; 3]).is_err());
    }
}
