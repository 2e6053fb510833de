//! Weights that change along the chain: w is a function of the step or of λ.

use std::fmt;
use std::sync::Arc;

use super::arguments::Arguments;
use super::guider::{Entry, Guider, Kind, Moment};
use crate::error::brief;
use crate::{Error, Result};

/// A caller's own weight of a step.
pub type WeightFunction = Arc<dyn Fn(&Moment) -> f64 + Send + Sync>;

/// How the weight goes from its first value to its last over u from 0 to 1.
#[derive(Clone)]
pub enum Curve {
    /// from + (to - from) u.
    Linear,
    /// from + (to - from) (1 - cos πu)/2.
    Cosine,
    /// from + (to - from) u^p.
    Power(f64),
    /// Straight between points (u, w), u rising; before the first and after the last it stays.
    Piecewise(Vec<(f64, f64)>),
    /// The caller's; `from` and `to` are not read.
    Function(WeightFunction),
}

impl fmt::Debug for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Curve::Linear => f.write_str("Linear"),
            Curve::Cosine => f.write_str("Cosine"),
            Curve::Power(power) => write!(f, "Power({power})"),
            Curve::Piecewise(points) => write!(f, "Piecewise({points:?})"),
            Curve::Function(_) => f.write_str("Function"),
        }
    }
}

/// A weight by the step.
#[derive(Clone, Debug)]
pub struct Dynamic {
    /// Its form.
    pub curve: Curve,
    /// w in the first step, at the noisy end.
    pub from: f64,
    /// w in the last step.
    pub to: f64,
    /// u is (λ - lo)/(hi - lo), clamped, for these (lo, hi); without them it is step/(T - 1).
    pub log_snr: Option<(f64, f64)>,
}

impl Dynamic {
    /// The caller's own function of the step.
    pub fn function(weight: impl Fn(&Moment) -> f64 + Send + Sync + 'static) -> Self {
        Dynamic { curve: Curve::Function(Arc::new(weight)), from: 0.0, to: 0.0, log_snr: None }
    }
}

impl Guider for Dynamic {
    fn text(&self) -> String {
        let over = self.log_snr.map_or_else(String::new, |(lo, hi)| format!(",lo={lo},hi={hi}"));
        let ends = format!("from={},to={}", self.from, self.to);
        match &self.curve {
            Curve::Linear => format!("linear({ends}{over})"),
            Curve::Cosine => format!("cosine({ends}{over})"),
            Curve::Power(power) => format!("power({ends},power={power}{over})"),
            Curve::Piecewise(points) => {
                let points: Vec<String> = points.iter().map(|(u, w)| format!("{u}:{w}")).collect();
                format!("piecewise({}{over})", points.join(" "))
            }
            Curve::Function(_) => "function".into(),
        }
    }

    fn kind(&self) -> Kind {
        Kind::Weight
    }

    fn weight(&self, at: &Moment, _weight: f64) -> f64 {
        let u =
            self.log_snr.map_or(at.progress(), |(lo, hi)| ((at.log_snr - lo) / (hi - lo)).clamp(0.0, 1.0));
        let along = |share: f64| self.from + (self.to - self.from) * share;
        match &self.curve {
            Curve::Linear => along(u),
            Curve::Cosine => along(0.5 * (1.0 - (std::f64::consts::PI * u).cos())),
            Curve::Power(power) => along(u.powf(*power)),
            Curve::Piecewise(points) => between(points, u),
            Curve::Function(weight) => weight(at),
        }
    }
}

/// The broken line through points of rising u.
fn between(points: &[(f64, f64)], u: f64) -> f64 {
    match points.iter().position(|point| point.0 > u) {
        Some(0) => points[0].1,
        Some(i) => {
            let ((u0, w0), (u1, w1)) = (points[i - 1], points[i]);
            w0 + (w1 - w0) * (u - u0) / (u1 - u0)
        }
        None => points.last().map_or(0.0, |point| point.1),
    }
}

fn over(arguments: &mut Arguments) -> Result<Option<(f64, f64)>> {
    match (arguments.named("lo")?, arguments.named("hi")?) {
        (None, None) => Ok(None),
        (Some(lo), Some(hi)) if lo < hi => Ok(Some((lo, hi))),
        _ => {
            Err(arguments
                .wrong("lo and hi come together and lo is below hi: the range of log-SNR to go over"))
        }
    }
}

fn make(curve: Curve, arguments: &mut Arguments) -> Result<Arc<dyn Guider>> {
    let (from, to) = (arguments.number("from")?, arguments.number("to")?);
    let log_snr = over(arguments)?;
    Ok(Arc::new(Dynamic { curve, from, to, log_snr }))
}

pub(super) const LINEAR: Entry = Entry {
    name: "linear",
    usage: "linear(from=0,to=2)",
    what: "the weight changes evenly over the steps, or with lo and hi over that range of log-SNR",
    make: |arguments| make(Curve::Linear, arguments),
};

pub(super) const COSINE: Entry = Entry {
    name: "cosine",
    usage: "cosine(from=0,to=2)",
    what: "the weight changes along half a cosine",
    make: |arguments| make(Curve::Cosine, arguments),
};

pub(super) const POWER: Entry = Entry {
    name: "power",
    usage: "power(from=0,to=2,power=3)",
    what: "the weight changes with a power of the part of the steps that is done",
    make: |arguments| {
        let power = arguments.named("power")?.unwrap_or(2.0);
        if power <= 0.0 {
            return Err(arguments.wrong("the power must be above 0"));
        }
        make(Curve::Power(power), arguments)
    },
};

pub(super) const PIECEWISE: Entry = Entry {
    name: "piecewise",
    usage: "piecewise(0:0 0.3:2 0.8:0)",
    what: "the weight goes straight between points u:w, u from 0 at the first step to 1 at the last",
    make: |arguments| {
        let text = arguments.text("points")?;
        let point = |text: &str| {
            let (u, w) = text.split_once(':')?;
            Some((u.trim().parse::<f64>().ok()?, w.trim().parse::<f64>().ok()?))
        };
        let points: Option<Vec<(f64, f64)>> = text.split_whitespace().map(point).collect();
        let rising = |points: &Vec<(f64, f64)>| {
            !points.is_empty()
                && points.windows(2).all(|pair| pair[0].0 < pair[1].0)
                && points.iter().all(|point| point.0.is_finite() && point.1.is_finite())
        };
        let Some(points) = points.filter(rising) else {
            return Err(arguments.wrong(&format!(
                "{text:?} is not points u:w with u rising, as in 0:0 0.3:2 0.8:0",
                text = brief(&text)
            )));
        };
        let log_snr = over(arguments)?;
        let dynamic: Result<_, Error> =
            Ok(Dynamic { curve: Curve::Piecewise(points), from: 0.0, to: 0.0, log_snr });
        Ok(Arc::new(dynamic?))
    },
};
