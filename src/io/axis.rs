//! Axes with round numbers, the same for straight and for logarithmic scales.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// A range of numbers, or of their logarithms, with its ticks. (Plotters' own logarithmic scale puts its ticks where
/// they are not round.)
pub struct Axis {
    range: Range<f64>,
    ticks: Vec<f64>,
    logarithmic: bool,
}

impl Axis {
    pub fn linear(range: Range<f64>) -> Axis {
        Axis { ticks: linear_ticks(&range), range, logarithmic: false }
    }

    /// `range` is of logarithms to base ten.
    pub fn logarithmic(range: Range<f64>) -> Axis {
        Axis { ticks: log_ticks(&range), range, logarithmic: true }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        from + (f64::from(to - from) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        number(if self.logarithmic { 10f64.powf(*value) } else { *value })
    }
}

/// Between five and ten round numbers in a range.
fn linear_ticks(range: &Range<f64>) -> Vec<f64> {
    let rough = (range.end - range.start) / 10.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|round| round * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    let first = (range.start / step).ceil();
    (0..=10)
        .map(|i| (first + f64::from(i)) * step)
        .filter(|tick| (range.start..=range.end).contains(tick))
        .collect()
}

/// Powers of ten in a range of logarithms, with numbers between them where there are few.
fn log_ticks(range: &Range<f64>) -> Vec<f64> {
    let decades = range.end - range.start;
    if decades < 0.4 {
        let values = linear_ticks(&(10f64.powf(range.start)..10f64.powf(range.end)));
        return values.into_iter().filter(|value| *value > 0.0).map(f64::log10).collect();
    }
    let between: &[f64] = match decades {
        _ if decades <= 1.2 => &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
        _ if decades <= 4.0 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let powers =
        (range.start.floor() as i32..=range.end.ceil() as i32).step_by((decades / 12.0).ceil() as usize);
    let ticks = powers.flat_map(|power| between.iter().map(move |value| f64::from(power) + value.log10()));
    ticks.filter(|tick| range.contains(tick)).collect()
}

/// A tick's number, short: 12k, 0.003, 1e-7.
pub fn number(value: f64) -> String {
    let size = value.abs();
    let trim = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    };
    match size {
        // What is left of 0 after adding up tick distances.
        _ if size < 1e-12 => "0".into(),
        _ if !(1e-4..1e9).contains(&size) => format!("{value:.1e}"),
        _ if size >= 1e6 => trim(format!("{:.3}", value / 1e6)) + "M",
        _ if size >= 1e4 => trim(format!("{:.2}", value / 1e3)) + "k",
        _ if size >= 10.0 => trim(format!("{value:.2}")),
        _ if size >= 0.1 => trim(format!("{value:.3}")),
        _ => trim(format!("{value:.5}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_short() {
        let cases =
            [(0.0, "0"), (1e-17, "0"), (12_000.0, "12k"), (2.5e6, "2.5M"), (0.003, "0.003"), (100.0, "100")];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
        assert_eq!(
            (number(-0.25), number(3e-7), number(4e10)),
            ("-0.25".into(), "3.0e-7".into(), "4.0e10".into())
        );
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(linear_ticks(&(0.3..8.2)), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        assert_eq!(
            linear_ticks(&(-70.0..430.0)),
            [-50.0, 0.0, 50.0, 100.0, 150.0, 200.0, 250.0, 300.0, 350.0, 400.0]
        );
        assert_eq!(log_ticks(&(-1.05..1.2)).len(), 7);
        assert_eq!(log_ticks(&(-9.5..9.5)).len(), 9);
        assert!(log_ticks(&(0.01..0.02)).len() >= 3);
    }
}
