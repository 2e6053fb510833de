//! How many dispatches fit into a budget.
//!
//! With timestamps: every dispatch of a plan is timed alone once, in small slices, and from then on slices are packed by
//! those times. A dispatch alone takes longer than one among others, the more so the smaller it is; so each slice's own
//! time corrects the times of the dispatches in it: by a part, so that they come to be means of what a busy GPU makes
//! uneven, and at once where a slice took half as long again as expected. A part of every correction goes to a factor
//! common to all dispatches, for clocks that change and neighbours on the GPU. What was never timed is judged by the same
//! kernel's dispatches of other sizes, and a kernel never seen by a part of the budget.
//!
//! Without: by the host's calls. As long as they come as quickly as the quickest of late, slices grow by an eighth; when one
//! comes later than that by more than the budget, they halve.

use std::collections::{BTreeMap, HashMap};

use crate::gpu::Plan;

use super::timer::Pass;

/// What a dispatch of a kernel never seen before is taken for, as a part of the budget.
const UNSEEN: f64 = 0.25;
/// What a guess from other sizes of a kernel is multiplied by.
const MARGIN: f64 = 2.0;
/// The part of a correction that is made at a time.
const SMOOTHING: f64 = 0.3;
/// A slice that took so many times what was expected is no unevenness: all of the correction is made.
const SLOWER: f64 = 1.5;
/// The part of a correction that every dispatch shares.
const COMMON: f64 = 0.25;
/// The most that one slice corrects: it may have met a hiccup.
const MOST: f64 = 2.0;
/// Calls after which the quickest one is forgotten.
const WINDOW: usize = 120;

struct Cost {
    kernel: usize,
    workgroups: u64,
    /// Before the common factor.
    seconds: Option<f64>,
}

/// The times of all plans of a session.
pub(super) struct Costs {
    budget: f64,
    plans: Vec<Vec<Cost>>,
    /// Seconds of each kernel's dispatches, timed alone, by their workgroups.
    alone: Vec<BTreeMap<u64, f64>>,
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
            Cost { kernel, workgroups: workgroups.max(1), seconds: None }
        };
        let plans = plans.into_iter().map(|plan| plan.into_iter().map(&mut cost).collect()).collect();
        Costs { budget, plans, alone: vec![BTreeMap::new(); kernels.len()], factor: 1.0 }
    }

    fn estimate(&self, cost: &Cost) -> f64 {
        match cost.seconds {
            Some(seconds) => self.factor * seconds,
            None => self.guess(cost).unwrap_or(UNSEEN * self.budget),
        }
    }

    /// A dispatch takes no longer than a larger one of its kernel, and no longer than a smaller one many times.
    fn guess(&self, cost: &Cost) -> Option<f64> {
        let alone = &self.alone[cost.kernel];
        if let Some(seconds) = alone.get(&cost.workgroups) {
            return Some(*seconds);
        }
        let larger = alone.range(cost.workgroups..).next().map(|(_, seconds)| *seconds);
        let smaller = alone.range(..cost.workgroups).next_back();
        let smaller = smaller.map(|(groups, seconds)| seconds * cost.workgroups as f64 / *groups as f64);
        larger.into_iter().chain(smaller).reduce(f64::min).map(|seconds| MARGIN * seconds)
    }

    /// Where a slice that starts at `first` ends: past `first`, within the budget else.
    pub fn end(&self, plan: usize, first: usize) -> usize {
        let costs = &self.plans[plan];
        let mut seconds = 0.0;
        for (at, cost) in costs.iter().enumerate().skip(first) {
            seconds += self.estimate(cost);
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

    /// Takes in the time of a pass: of one dispatch, or of several that are known.
    pub fn learn(&mut self, pass: Pass, seconds: f64) {
        // A timestamp of 0 says nothing; a tenth of a microsecond is less than any dispatch takes.
        let seconds = seconds.max(1e-7);
        let costs = &mut self.plans[pass.plan][pass.first..pass.last];
        if let [cost @ Cost { seconds: None, .. }] = costs {
            cost.seconds = Some(seconds / self.factor);
            let alone = self.alone[cost.kernel].entry(cost.workgroups).or_default();
            *alone = alone.max(seconds);
            return;
        }
        let estimated: f64 = self.factor * costs.iter().filter_map(|cost| cost.seconds).sum::<f64>();
        if estimated > 0.0 {
            let wrong = (seconds / estimated).clamp(1.0 / MOST, MOST);
            let corrected = wrong.powf(if wrong > SLOWER { 1.0 } else { SMOOTHING });
            self.factor *= corrected.powf(COMMON);
            let own = corrected.powf(1.0 - COMMON);
            costs.iter_mut().filter_map(|cost| cost.seconds.as_mut()).for_each(|seconds| *seconds *= own);
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
    use super::super::timer::MOST_PASSES;
    use super::*;

    const BUDGET: f64 = 8e-3;

    /// What a device takes for a plan's dispatches: each its own time, and `pass` more for every pass.
    struct Device {
        seconds: Vec<f64>,
        pass: f64,
    }

    impl Device {
        /// A step under `costs`, calls cut as a session cuts them and each `slower` times as long: the calls' times.
        fn step(&self, costs: &mut Costs, mut slower: impl FnMut() -> f64) -> Vec<f64> {
            let (mut first, mut calls) = (0, Vec::new());
            while first < self.seconds.len() {
                let end = costs.end(0, first);
                assert!(end > first);
                let known = costs.known(0, first, end);
                let end = if known { end } else { end.min(first + MOST_PASSES) };
                let length = if known { end - first } else { 1 };
                let (times, mut spent) = (slower(), 0.0);
                for start in (first..end).step_by(length) {
                    let pass = Pass { plan: 0, first: start, last: start + length };
                    let busy: f64 = self.seconds[pass.first..pass.last].iter().sum();
                    let seconds = times * (busy + self.pass);
                    costs.learn(pass, seconds);
                    spent += seconds;
                }
                calls.push(spent);
                first = end;
            }
            calls
        }
    }

    fn longest(calls: &[f64]) -> f64 {
        calls.iter().copied().fold(0.0, f64::max)
    }

    /// Something like a large UNet in f16, whose step takes `step` seconds: levels whose dispatches become smaller towards
    /// the middle, a convolution after every eleven short kernels, and passes that cost more than most dispatches.
    fn unet(step: f64) -> (Costs, Device) {
        let (mut plan, mut seconds) = (Vec::new(), Vec::new());
        for (at, level) in [0, 1, 2, 3, 3, 2, 1, 0].into_iter().enumerate() {
            for (block, kernel) in (0..4).flat_map(|block| (0..24).map(move |kernel| (block, kernel))) {
                let convolution = kernel % 12 == 0;
                // On the way up the first block has twice the channels.
                let channels = if at > 3 && block == 0 { 2 } else { 1 };
                let groups =
                    ((if convolution { 256 } else { 512 }) >> (2 * level) << (channels - 1)).max(1u64);
                plan.push((format!("kernel {kernel}"), groups));
                seconds.push(match convolution {
                    true => 18e-6 + groups as f64 * 0.1e-6,
                    false => 4e-6 + groups as f64 * 5e-9,
                });
            }
        }
        let all: f64 = seconds.iter().sum();
        seconds.iter_mut().for_each(|x| *x *= step / all);
        (Costs::of(BUDGET, vec![plan]), Device { seconds, pass: 12e-6 })
    }

    #[test]
    fn slices_grow_to_the_budget_and_stay_below_it() {
        for (step, few) in [(0.4 * BUDGET, 1), (0.9 * BUDGET, 1), (5.2 * BUDGET, 6), (30.5 * BUDGET, 32)] {
            let (mut costs, device) = unet(step);
            // Every dispatch is timed once, alone, in little more calls than 64 a call make, or than the budget has room for.
            let first = device.step(&mut costs, || 1.0);
            assert!(first.len() <= 18 + 2 * few, "{} calls for the first step of {step} s", first.len());
            assert!(longest(&first) <= 1.1 * BUDGET, "{first:?}");
            for number in 1..30 {
                let calls = device.step(&mut costs, || 1.0);
                // Slices that grow come a little above it, once.
                let most = if number < 8 { 1.05 } else { 1.005 };
                assert!(longest(&calls) <= most * BUDGET, "step {number} of {step} s: {calls:?}");
                if number >= 8 {
                    assert!(calls.len() <= few, "step {number} of {step} s: {calls:?}");
                }
            }
        }
    }

    #[test]
    fn uneven_times_keep_near_the_budget() {
        let mut at = 0u32;
        let mut uneven = move || {
            at += 1;
            // Up to a twentieth more, and every fortieth call half as long again.
            1.0 + f64::from(at * 7919 % 1000) / 20_000.0 + if at.is_multiple_of(40) { 0.5 } else { 0.0 }
        };
        for (step, most) in [(0.9 * BUDGET, 1.3), (5.2 * BUDGET, 6.9)] {
            let (mut costs, device) = unet(step);
            (0..10).for_each(|_| drop(device.step(&mut costs, &mut uneven)));
            let steps = 200;
            let mut calls: Vec<f64> = (0..steps).flat_map(|_| device.step(&mut costs, &mut uneven)).collect();
            assert!(calls.len() as f64 <= most * f64::from(steps), "{} calls for {steps} steps", calls.len());
            calls.sort_by(f64::total_cmp);
            assert!(calls[calls.len() * 95 / 100] <= 1.06 * BUDGET, "{}", calls[calls.len() * 95 / 100]);
        }
    }

    /// Clocks that waver by two fifths: a step that fits on the average is not cut for the worst case.
    #[test]
    fn wavering_clocks_do_not_cut_steps_that_fit() {
        let mut at = 0u32;
        let mut wavering = move || {
            at += 1;
            1.0 + 0.25 * f64::from(at * 7919 % 1000) / 1000.0 + 0.15 * f64::from(at % 50) / 50.0
        };
        let (mut costs, device) = unet(0.76 * BUDGET);
        (0..10).for_each(|_| drop(device.step(&mut costs, &mut wavering)));
        let steps = 200;
        let calls: Vec<f64> = (0..steps).flat_map(|_| device.step(&mut costs, &mut wavering)).collect();
        assert!(calls.len() <= steps + steps / 10, "{} calls for {steps} steps", calls.len());
        assert!(longest(&calls) <= 1.08 * BUDGET, "{}", longest(&calls));
    }

    #[test]
    fn a_slower_device_overshoots_for_few_calls() {
        let (mut costs, device) = unet(30.5 * BUDGET);
        (0..10).for_each(|_| drop(device.step(&mut costs, || 1.0)));
        let calls = device.step(&mut costs, || 1.8);
        let over = calls.iter().filter(|seconds| **seconds > 1.3 * BUDGET).count();
        assert!(over <= 4, "{over} calls: {calls:?}");
        assert!(longest(&device.step(&mut costs, || 1.8)) <= 1.3 * BUDGET);
        (0..3).for_each(|_| drop(device.step(&mut costs, || 1.8)));
        assert!(longest(&device.step(&mut costs, || 1.8)) <= 1.05 * BUDGET);
        // And when it is itself again, slices grow back.
        (0..8).for_each(|_| drop(device.step(&mut costs, || 1.0)));
        assert!(device.step(&mut costs, || 1.0).len() <= 32);
    }

    #[test]
    fn what_was_not_timed_is_judged_by_its_kernel() {
        let plan = [("a", 1), ("a", 8), ("a", 4), ("a", 8), ("a", 64), ("b", 8)];
        let plan = plan.map(|(kernel, groups)| (kernel.to_owned(), groups));
        let mut costs = Costs::of(BUDGET, vec![plan.into()]);
        let guess = |costs: &Costs, at: usize| costs.estimate(&costs.plans[0][at]) / 1e-3;
        assert_eq!(guess(&costs, 0), 2.0, "a quarter of the budget");
        costs.learn(Pass { plan: 0, first: 0, last: 1 }, 1e-3);
        costs.learn(Pass { plan: 0, first: 1, last: 2 }, 3e-3);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(guess(&costs, 2), 2.0 * 3.0), "no more than eight workgroups, with a margin");
        assert!(near(guess(&costs, 3), 3.0), "the same size");
        assert!(near(guess(&costs, 4), 2.0 * 8.0 * 3.0), "eight times eight workgroups");
        assert!(near(guess(&costs, 5), 2.0), "another kernel");
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
        for _ in 0..2 {
            let last = costs.end(0, 0);
            costs.learn(Pass { plan: 0, first: 0, last }, 1.99e-3 * last as f64);
        }
        assert_eq!(costs.end(0, 0), 4);
        // The others, which were not seen since, follow in part.
        assert_eq!(costs.end(0, 50), 56);
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
