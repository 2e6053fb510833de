//! How the steps of a session are cut into calls, and the recording of a slice.

use web_time::Instant;

use crate::error::Result;
use crate::gpu::{Gpu, Plan};

use super::pace::{Costs, Intervals};
use super::program::Program;
use super::timer::{MOST_PASSES, Pass, Timers};

/// Milliseconds in a second.
const MS: f64 = 1e3;

/// How slices are cut.
pub(super) enum Pace {
    WholeSteps,
    Timed { timers: Timers, costs: Costs },
    Untimed { intervals: Intervals, last: Option<Instant> },
}

impl Pace {
    pub fn new(gpu: &Gpu, budget_ms: Option<f64>, program: &Program) -> Result<Pace> {
        let Some(budget) = budget_ms.map(|ms| ms / MS) else { return Ok(Pace::WholeSteps) };
        let timers = Timers::new(gpu)?;
        if !timers.exist() {
            return Ok(Pace::Untimed { intervals: Intervals::new(budget), last: None });
        }
        let plans = [Some(&program.single), program.all.as_ref()];
        Ok(Pace::Timed { timers, costs: Costs::new(budget, plans.into_iter().flatten()) })
    }

    /// Takes in what has been measured meanwhile.
    pub fn collect(&mut self) {
        if let Pace::Timed { timers, costs } = self {
            for (pass, seconds) in timers.collect() {
                costs.learn(pass, seconds);
            }
        }
    }

    /// Records the next slice of plan number `index` from dispatch `first` on, and says where it ends.
    pub fn encode(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        plan: &Plan,
        index: usize,
        first: usize,
    ) -> usize {
        match self {
            Pace::WholeSteps => {
                plan.encode(encoder, first..plan.len());
                plan.len()
            }
            Pace::Untimed { intervals, last } => {
                let now = Instant::now();
                let seconds = last.map_or(0.0, |last| now.duration_since(last).as_secs_f64());
                *last = Some(now);
                let end = (first + intervals.next(seconds)).min(plan.len());
                plan.encode(encoder, first..end);
                end
            }
            Pace::Timed { timers, costs } => {
                let end = costs.end(index, first);
                let known = costs.known(index, first, end);
                // Without a timer, what is not known yet is not done in bulk.
                let Some(timer) = timers.free() else {
                    let end = if known { end } else { first + 1 };
                    plan.encode(encoder, first..end);
                    return end;
                };
                let end = if known { end } else { end.min(first + MOST_PASSES) };
                let length = if known { end - first } else { 1 };
                for start in (first..end).step_by(length) {
                    let pass = Pass { plan: index, first: start, last: start + length };
                    plan.encode_timed(encoder, pass.first..pass.last, Some(timers.around(timer, pass)));
                }
                timers.finish(timer, encoder);
                end
            }
        }
    }
}
