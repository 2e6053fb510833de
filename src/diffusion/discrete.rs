//! The constants of a discrete process (DDPM, arXiv 2006.11239, section 2), whole or respaced, in f64.
//!
//! ᾱ_t = Π (1 - β_s); q(z_t given x) = N(√ᾱ_t x, (1 - ᾱ_t) I). The posterior q(z_{t-1} given z_t, x) has the mean
//! c1 x + c2 z_t and the variance β̃_t. `alpha` and `sigma` are √ᾱ and √(1 - ᾱ), as in continuous time.

use super::betas::BetaSchedule;
use super::respacing::Respacing;
use super::schedule::alpha_of_log_snr;
use crate::{Error, Result};

/// A discrete process: the kept steps, and what is told to the network at each.
#[derive(Debug, Clone, PartialEq)]
pub struct DiscreteSchedule {
    steps_total: usize,
    /// What the network is told: whole numbers, but between two of them where levels were asked for that lie there.
    timesteps: Vec<f64>,
    betas: Vec<f64>,
    alphas_cumprod: Vec<f64>,
}

impl DiscreteSchedule {
    /// All T steps of a schedule.
    ///
    /// # Errors
    /// As [`BetaSchedule::betas`].
    pub fn new(schedule: BetaSchedule, steps_total: usize) -> Result<Self> {
        Self::from_betas(schedule.betas(steps_total)?)
    }

    /// The process of given β.
    ///
    /// # Errors
    /// [`Error::Config`] when there is none, or one is not in (0, 1).
    pub fn from_betas(betas: Vec<f64>) -> Result<Self> {
        if betas.is_empty() {
            return Err(Error::Config("a discrete schedule needs at least one step".into()));
        }
        if let Some(t) = betas.iter().position(|beta| !(*beta > 0.0 && *beta < 1.0)) {
            return Err(Error::Config(format!("β is {} at t = {t}: it must lie between 0 and 1", betas[t])));
        }
        let product = |bar: &mut f64, beta: &f64| {
            *bar *= 1.0 - beta;
            Some(*bar)
        };
        let alphas_cumprod = betas.iter().scan(1.0, product).collect();
        Ok(DiscreteSchedule {
            steps_total: betas.len(),
            timesteps: (0..betas.len()).map(|t| t as f64).collect(),
            betas,
            alphas_cumprod,
        })
    }

    /// The process through the kept steps alone: β rebuilt from the kept ᾱ; the network still sees the original t.
    ///
    /// # Errors
    /// As [`Respacing::kept`].
    pub fn respaced(&self, respacing: &Respacing) -> Result<Self> {
        self.at(&respacing.kept(self.len())?)
    }

    /// The process through the steps `kept`, rising indices into this one's.
    ///
    /// # Errors
    /// [`Error::Config`] when they do not rise, or one is not there.
    pub fn at(&self, kept: &[usize]) -> Result<Self> {
        let rises = kept.windows(2).all(|pair| pair[0] < pair[1]);
        if kept.is_empty() || !rises || kept[kept.len() - 1] >= self.len() {
            return Err(Error::Config(format!("kept steps must rise within 0 .. {}", self.len())));
        }
        let bars = kept.iter().map(|&t| self.alphas_cumprod[t]);
        self.through(bars, kept.iter().map(|&t| self.timesteps[t]).collect())
    }

    /// The process through `times`, rising and between 0 and T - 1; between two whole ones λ is interpolated.
    ///
    /// # Errors
    /// [`Error::Config`] when they do not rise, or one is not there.
    pub fn at_times(&self, times: &[f64]) -> Result<Self> {
        let last = (self.len() - 1) as f64;
        let rises = times.windows(2).all(|pair| pair[0] < pair[1]);
        if times.is_empty() || !rises || !times.iter().all(|time| (0.0..=last).contains(time)) {
            return Err(Error::Config(format!("times of a process must rise within 0 to {last}")));
        }
        let bar = |time: &f64| alpha_of_log_snr(self.log_snr_at(*time)).powi(2);
        let told = |time: &f64| {
            let (below, part) = (time.floor() as usize, time.fract());
            let above = self.timesteps[(below + 1).min(self.len() - 1)];
            self.timesteps[below] + (above - self.timesteps[below]) * part
        };
        self.through(times.iter().map(bar), times.iter().map(told).collect())
    }

    /// The process of the cumulative products `bars`, whose steps are called `timesteps`.
    fn through(&self, bars: impl Iterator<Item = f64>, timesteps: Vec<f64>) -> Result<Self> {
        let mut before = 1.0;
        let beta = |bar: f64| 1.0 - bar / std::mem::replace(&mut before, bar);
        let whole = Self::from_betas(bars.map(beta).collect())?;
        Ok(DiscreteSchedule { steps_total: self.steps_total, timesteps, ..whole })
    }

    /// How many steps there are.
    #[allow(clippy::len_without_is_empty, reason = "a process has at least one step")]
    pub fn len(&self) -> usize {
        self.betas.len()
    }

    /// T of the process this one was made from.
    pub fn steps_total(&self) -> usize {
        self.steps_total
    }

    /// What the network is told at step `t`: the original number, whole but where [`DiscreteSchedule::at_times`] chose others.
    pub fn timestep(&self, t: usize) -> f64 {
        self.timesteps[t]
    }

    /// β_t.
    pub fn beta(&self, t: usize) -> f64 {
        self.betas[t]
    }

    /// β of every step.
    pub fn betas(&self) -> &[f64] {
        &self.betas
    }

    /// ᾱ_t.
    pub fn alpha_cumprod(&self, t: usize) -> f64 {
        self.alphas_cumprod[t]
    }

    /// ᾱ_{t-1}; 1 before the first step.
    pub fn alpha_cumprod_before(&self, t: usize) -> f64 {
        if t == 0 { 1.0 } else { self.alphas_cumprod[t - 1] }
    }

    /// ᾱ_{t+1}; 0 after the last step.
    pub fn alpha_cumprod_after(&self, t: usize) -> f64 {
        self.alphas_cumprod.get(t + 1).copied().unwrap_or(0.0)
    }

    /// √ᾱ_t.
    pub fn alpha(&self, t: usize) -> f64 {
        self.alphas_cumprod[t].sqrt()
    }

    /// √(1 - ᾱ_t).
    pub fn sigma(&self, t: usize) -> f64 {
        (1.0 - self.alphas_cumprod[t]).sqrt()
    }

    /// λ_t = log(ᾱ_t/(1 - ᾱ_t)).
    pub fn log_snr(&self, t: usize) -> f64 {
        (self.alphas_cumprod[t] / (1.0 - self.alphas_cumprod[t])).ln()
    }

    /// β̃_t, the posterior's variance; 0 at t = 0.
    pub fn posterior_variance(&self, t: usize) -> f64 {
        self.betas[t] * (1.0 - self.alpha_cumprod_before(t)) / (1.0 - self.alphas_cumprod[t])
    }

    /// log β̃_t, with the value of t = 1 at t = 0, where β̃ is zero (at t = 0 of a single step, log β).
    pub fn posterior_log_variance(&self, t: usize) -> f64 {
        if self.len() == 1 { self.betas[0].ln() } else { self.posterior_variance(t.max(1)).ln() }
    }

    /// The log of the large variance: log β_t, with log β̃_1 at t = 0.
    pub fn large_log_variance(&self, t: usize) -> f64 {
        if t == 0 { self.posterior_log_variance(0) } else { self.betas[t].ln() }
    }

    /// (c1, c2): the factors of x and of z_t in the posterior's mean.
    pub fn posterior_mean_factors(&self, t: usize) -> (f64, f64) {
        let (before, beta) = (self.alpha_cumprod_before(t), self.betas[t]);
        let rest = 1.0 - self.alphas_cumprod[t];
        (beta * before.sqrt() / rest, (1.0 - before) * (1.0 - beta).sqrt() / rest)
    }

    /// λ at a time between 0 and T - 1: that of a whole one, and on the straight line between two (k-diffusion's rule).
    pub fn log_snr_at(&self, time: f64) -> f64 {
        let below = (time.max(0.0) as usize).min(self.len() - 1);
        let (this, next) = (self.log_snr(below), self.log_snr((below + 1).min(self.len() - 1)));
        this + (next - this) * (time - below as f64).clamp(0.0, 1.0)
    }

    /// The time whose λ is `log_snr`, between 0 and T - 1: the inverse of [`DiscreteSchedule::log_snr_at`].
    pub fn time_of_log_snr(&self, log_snr: f64) -> f64 {
        // λ falls with t; NaN goes to the noisy end.
        let (mut below, mut above) = (0, self.len());
        while below < above {
            let middle = (below + above) / 2;
            if self.log_snr(middle) > log_snr { below = middle + 1 } else { above = middle }
        }
        match below {
            0 => 0.0,
            t if t == self.len() => (t - 1) as f64,
            t => {
                let (before, this) = (self.log_snr(t - 1), self.log_snr(t));
                // One step back, and on by the part of the way to this one.
                (t - 1) as f64 + (before - log_snr) / (before - this)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Golden;

    #[track_caller]
    fn check(name: &str, want: &[f64], got: impl Fn(usize) -> f64) {
        for (t, want) in want.iter().enumerate() {
            let (got, allowed) = (got(t), 1e-12 * want.abs());
            assert!((got - want).abs() <= allowed, "{name}[{t}] is {got:e}, expected {want:e}");
        }
    }

    #[test]
    fn schedules_agree_with_the_reference() {
        let golden = Golden::open("schedules");
        for schedule in [BetaSchedule::Linear, BetaSchedule::Cosine] {
            let s = DiscreteSchedule::new(schedule, 1000).unwrap();
            let check = |name: &str, got: &dyn Fn(usize) -> f64| {
                let name = format!("{schedule}.{name}");
                if let Some(want) = golden.try_f64s(&name) {
                    assert_eq!(want.len(), 1000);
                    check(&name, &want, got);
                } else {
                    assert!(name.starts_with("linear.alphas_cumprod_"), "{name} is missing");
                }
            };
            check("betas", &|t| s.beta(t));
            check("alphas_cumprod", &|t| s.alpha_cumprod(t));
            check("alphas_cumprod_prev", &|t| s.alpha_cumprod_before(t));
            check("alphas_cumprod_next", &|t| s.alpha_cumprod_after(t));
            check("sqrt_alphas_cumprod", &|t| s.alpha(t));
            check("sqrt_one_minus_alphas_cumprod", &|t| s.sigma(t));
            check("log_one_minus_alphas_cumprod", &|t| (1.0 - s.alpha_cumprod(t)).ln());
            check("sqrt_recip_alphas_cumprod", &|t| (1.0 / s.alpha_cumprod(t)).sqrt());
            check("sqrt_recipm1_alphas_cumprod", &|t| (1.0 / s.alpha_cumprod(t) - 1.0).sqrt());
            check("posterior_variance", &|t| s.posterior_variance(t));
            check("posterior_log_variance_clipped", &|t| s.posterior_log_variance(t));
            check("posterior_mean_coef1", &|t| s.posterior_mean_factors(t).0);
            check("posterior_mean_coef2", &|t| s.posterior_mean_factors(t).1);
            let long = DiscreteSchedule::new(schedule, 4000).unwrap();
            let name = format!("{schedule}_4000.betas");
            self::check(&name, &golden.f64s(&name), |i| long.beta(97 * i));
        }
    }

    #[test]
    fn respaced_processes_agree_with_the_reference() {
        let golden = Golden::open("schedules");
        let whole = DiscreteSchedule::new(BetaSchedule::Cosine, 1000).unwrap();
        for spec in ["25", "ddim25", "250"] {
            let s = whole.respaced(&spec.parse().unwrap()).unwrap();
            let check = |name: &str, got: &dyn Fn(usize) -> f64| {
                let name = format!("spaced.cosine.{spec}.{name}");
                let want = golden.f64s(&name);
                assert_eq!(want.len(), s.len());
                check(&name, &want, got);
            };
            check("timestep_map", &|t| s.timestep(t));
            check("betas", &|t| s.beta(t));
            check("alphas_cumprod", &|t| s.alpha_cumprod(t));
            check("posterior_log_variance_clipped", &|t| s.posterior_log_variance(t));
            check("posterior_mean_coef1", &|t| s.posterior_mean_factors(t).0);
            check("posterior_mean_coef2", &|t| s.posterior_mean_factors(t).1);
        }
    }

    #[test]
    fn log_snrs_are_found_again() {
        let s = DiscreteSchedule::new(BetaSchedule::Linear, 1000).unwrap();
        assert!((0..1000).all(|t| (s.time_of_log_snr(s.log_snr(t)) - t as f64).abs() < 1e-9));
        assert_eq!((s.time_of_log_snr(100.0), s.time_of_log_snr(-100.0)), (0.0, 999.0));
        let between = 0.6 * s.log_snr(500) + 0.4 * s.log_snr(501);
        assert!((s.time_of_log_snr(between) - 500.4).abs() < 1e-9);
        for time in [0.0, 0.25, 17.5, 998.75, 999.0] {
            assert!((s.time_of_log_snr(s.log_snr_at(time)) - time).abs() < 1e-8, "{time}");
        }
    }

    #[test]
    fn times_between_steps_are_on_the_line_between_them() {
        let s = DiscreteSchedule::new(BetaSchedule::Linear, 100).unwrap();
        let some = s.at_times(&[0.0, 3.25, 99.0]).unwrap();
        assert_eq!((some.timestep(0), some.timestep(1), some.timestep(2)), (0.0, 3.25, 99.0));
        let line = 0.75 * s.log_snr(3) + 0.25 * s.log_snr(4);
        assert!((some.log_snr(1) - line).abs() < 1e-9 && (some.log_snr(2) - s.log_snr(99)).abs() < 1e-9);
        // What is told of a respaced process is interpolated too.
        let twice = s.at(&[10, 20, 40]).unwrap().at_times(&[0.5, 2.0]).unwrap();
        assert_eq!((twice.timestep(0), twice.timestep(1)), (15.0, 40.0));
        for times in [&[][..], &[1.0, 1.0], &[-0.1], &[99.1], &[f64::NAN]] {
            assert!(s.at_times(times).is_err(), "{times:?}");
        }
    }

    #[test]
    fn misfits_are_errors() {
        let s = DiscreteSchedule::new(BetaSchedule::Cosine, 10).unwrap();
        for kept in [&[][..], &[3, 3], &[4, 2], &[1, 10]] {
            assert!(s.at(kept).is_err(), "{kept:?}");
        }
        for betas in [vec![], vec![0.5, 0.0], vec![1.0], vec![f64::NAN]] {
            assert!(DiscreteSchedule::from_betas(betas).is_err());
        }
        // Respacing what was respaced keeps the original timesteps.
        let twice = s.at(&[1, 4, 7, 9]).unwrap().at(&[0, 2]).unwrap();
        assert_eq!((twice.timestep(0), twice.timestep(1), twice.steps_total()), (1.0, 7.0, 10));
        assert!((twice.alpha_cumprod(1) - s.alpha_cumprod(7)).abs() < 1e-15);
    }
}
