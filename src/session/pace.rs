//! How many dispatches fit into a budget.
//!
//! With timestamps: every dispatch of a plan is timed alone once, in small slices, and from then on slices are packed by
//! those times; each slice's own time keeps a common factor up to date, for clocks that change and neighbours on the GPU.
//! What was never timed is judged by its kernel's slowest time a workgroup, and a kernel never seen by a part of the
//! budget.
//!
//! Without: by the host's calls. As long as they come as quickly as the quickest of late, slices grow by an eighth; when one
//! comes later than that by more than the budget, they halve.

use std::collections::HashMap;

use crate::gpu::Plan;

use super::timer::Pass;

/// What a dispatch of a kernel never seen before is taken for, as a part of the budget.
const UNSEEN: f64 = 0.25;
/// How far one slice's time moves the common factor.
const SMOOTHING: f64 = 0.2;
/// Calls after which the quickest one is forgotten.
const WINDOW: usize = 120;

struct Cost {
    kernel: usize,
    workgroups: f64,
    seconds: Option<f64>,
}

/// The times of all plans of a session.
pub(super) struct Costs {
    budget: f64,
    plans: Vec<Vec<Cost>>,
    /// The slowest time a workgroup of each kernel so far.
    rates: Vec<Option<f64>>,
    /// Measured over estimated.
    factor: f64,
}

impl Costs {
    /// For a budget of so many seconds.
    pub fn new<'a>(budget: f64, plans: impl Iterator<Item = &'a Plan>) -> Costs {
        let dispatches = plans.map(|plan| plan.labels().map(str::to_owned).zip(plan.workgroups()).collect());
        Self::of(budget, dispatches.collect())
    }

    fn of(budget: f64, plans: Vec<Vec<(String, u64)>>) -> Costs {
        let mut kernels: HashMap<String, usize> = HashMap::new();
        let mut cost = |(label, workgroups): (String, u64)| {
            let next = kernels.len();
            let kernel = *kernels.entry(label).or_insert(next);
            Cost { kernel, workgroups: workgroups.max(1) as f64, seconds: None }
        };
        let plans = plans.into_iter().map(|plan| plan.into_iter().map(&mut cost).collect()).collect();
        Costs { budget, plans, rates: vec![None; kernels.len()], factor: 1.0 }
    }

    fn estimate(&self, cost: &Cost) -> f64 {
        let by_rate = self.rates[cost.kernel].map(|rate| rate * cost.workgroups);
        cost.seconds.or(by_rate).unwrap_or(UNSEEN * self.budget)
    }

    /// Where a slice that starts at `first` ends: past `first`, within the budget else.
    pub fn end(&self, plan: usize, first: usize) -> usize {
        let costs = &self.plans[plan];
        let mut seconds = 0.0;
        for (at, cost) in costs.iter().enumerate().skip(first) {
            seconds += self.factor * self.estimate(cost);
            if seconds > self.budget && at > first {
                return at;
            }
        }
        costs.len()
    }

    /// Whether each dispatch of a slice has been timed.
    pub fn known(&self, plan: usize, first: usize, last: usize) -> bool {
        self.plans[plan][first..last].iter().all(|cost| cost.seconds.is_some())
    }

    /// Takes in the time of a pass.
    pub fn learn(&mut self, pass: Pass, seconds: f64) {
        // A timestamp of 0 says nothing; a tenth of a microsecond is less than any dispatch takes.
        let seconds = seconds.max(1e-7);
        if pass.last == pass.first + 1 {
            let cost = &mut self.plans[pass.plan][pass.first];
            cost.seconds = Some(seconds);
            let rate = &mut self.rates[cost.kernel];
            *rate = Some(rate.unwrap_or(0.0).max(seconds / cost.workgroups));
            return;
        }
        let estimated: f64 =
            self.plans[pass.plan][pass.first..pass.last].iter().map(|cost| self.estimate(cost)).sum();
        if estimated > 0.0 {
            let measured = (seconds / estimated).clamp(0.1, 10.0);
            self.factor += SMOOTHING * (measured - self.factor);
        }
    }
}

/// The pace of a host without timestamps.
pub(super) struct Intervals {
    budget: f64,
    dispatches: f64,
    recent: Vec<f64>,
}

impl Intervals {
    pub fn new(budget: f64) -> Intervals {
        Intervals { budget, dispatches: 1.0, recent: Vec::new() }
    }

    /// How many dispatches to record in a call that comes `seconds` after the one before.
    pub fn next(&mut self, seconds: f64) -> usize {
        if self.recent.len() == WINDOW {
            self.recent.remove(0);
        }
        self.recent.push(seconds);
        let quickest = self.recent.iter().copied().fold(f64::INFINITY, f64::min);
        self.dispatches = match seconds - quickest > self.budget {
            true => (self.dispatches / 2.0).max(1.0),
            false => self.dispatches + (self.dispatches / 8.0).max(1.0),
        };
        self.dispatches as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a plan of dispatches that take `true_seconds` through `Costs`; the longest slice of each round.
    fn rounds(true_seconds: &[f64], labels: &[&str], budget: f64, rounds: usize) -> Vec<f64> {
        let plan = labels.iter().map(|label| ((*label).to_owned(), 10)).collect();
        let mut costs = Costs::of(budget, vec![plan]);
        let mut longest = Vec::new();
        for _ in 0..rounds {
            let (mut first, mut most) = (0, 0f64);
            while first < true_seconds.len() {
                let last = costs.end(0, first);
                assert!(last > first);
                let spent: f64 = true_seconds[first..last].iter().sum();
                if costs.known(0, first, last) {
                    costs.learn(Pass { plan: 0, first, last }, spent);
                } else {
                    for (at, &seconds) in true_seconds.iter().enumerate().take(last).skip(first) {
                        costs.learn(Pass { plan: 0, first: at, last: at + 1 }, seconds);
                    }
                }
                most = most.max(spent);
                first = last;
            }
            longest.push(most);
        }
        longest
    }

    #[test]
    fn slices_keep_to_the_budget_once_all_is_known() {
        let seconds: Vec<f64> = (0..200).map(|i| if i % 7 == 0 { 3e-3 } else { 1e-4 }).collect();
        let labels: Vec<&str> = (0..200).map(|i| if i % 7 == 0 { "heavy" } else { "light" }).collect();
        let longest = rounds(&seconds, &labels, 8e-3, 4);
        assert!(longest[1..].iter().all(|&seconds| seconds <= 8e-3 * 1.001), "{longest:?}");
        // They use it, too.
        assert!(longest[1..].iter().all(|&seconds| seconds >= 4e-3), "{longest:?}");
        // In the first round too, from the second dispatch of each kernel on.
        assert!(longest[0] <= 9.5e-3, "{longest:?}");
    }

    #[test]
    fn a_dispatch_longer_than_the_budget_goes_alone() {
        let costs = {
            let mut costs = Costs::of(1e-3, vec![vec![("a".into(), 1), ("a".into(), 1), ("b".into(), 1)]]);
            for at in 0..3 {
                costs.learn(Pass { plan: 0, first: at, last: at + 1 }, 5e-3);
            }
            costs
        };
        assert_eq!([0, 1, 2].map(|first| costs.end(0, first)), [1, 2, 3]);
    }

    #[test]
    fn slower_clocks_shorten_slices() {
        let plan: Vec<(String, u64)> = (0..100).map(|_| ("a".to_owned(), 1)).collect();
        let mut costs = Costs::of(8e-3, vec![plan]);
        for at in 0..100 {
            costs.learn(Pass { plan: 0, first: at, last: at + 1 }, 1e-3);
        }
        assert_eq!(costs.end(0, 0), 8);
        for _ in 0..40 {
            let last = costs.end(0, 0);
            costs.learn(Pass { plan: 0, first: 0, last }, 2e-3 * last as f64);
        }
        assert_eq!(costs.end(0, 0), 4);
    }

    #[test]
    fn intervals_shrink_slices_of_late_calls() {
        let mut intervals = Intervals::new(8e-3);
        // A host at 60 Hz, whose GPU takes half a millisecond a dispatch.
        let (mut worst, mut dispatches) = (0f64, 1);
        for call in 0..2000 {
            let frame = (16.7e-3f64).max(dispatches as f64 * 0.5e-3);
            if call > 200 {
                worst = worst.max(frame);
            }
            dispatches = intervals.next(frame);
            assert!(dispatches >= 1);
        }
        assert!(worst < (16.7e-3 + 8e-3) * 1.2, "{worst}");
        assert!(intervals.dispatches > 8.0);
    }
}
