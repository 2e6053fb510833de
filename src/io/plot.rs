//! Plots of losses over steps.

use std::path::Path;

use plotters::prelude::*;

use super::axis::Axis;
use super::canvas::{FINE, FONT, INK, colour, draw_on, shrink};
use super::write_png;
use crate::data::Image;
use crate::error::{Error, Result};

/// More points than this on a line are not seen; they are thinned.
const MAX_POINTS: usize = 3000;
/// A line with at least this many points is noisy enough for a smoothed one over it.
const SMOOTH_FROM: usize = 100;

/// A named line: (x, y) points, x ascending.
pub type Series = (String, Vec<(f64, f64)>);

/// Draws `series` as lines, noisy ones faint with a smoothed line over them, with axes, ticks and a legend, and
/// writes a PNG of 1200 by 720 pixels. Points that are not finite, and with `log_y` not above 0, are left out.
///
/// # Errors
/// When no point is left, or the file cannot be written.
pub fn loss_plot(
    path: impl AsRef<Path>,
    series: &[Series],
    x_label: &str,
    y_label: &str,
    log_y: bool,
) -> Result<()> {
    let path = path.as_ref();
    let drawable = |&(x, y): &(f64, f64)| x.is_finite() && y.is_finite() && (!log_y || y > 0.0);
    // The logarithm is taken here, so that one kind of axis serves both.
    let scaled = |(x, y): (f64, f64)| (x, if log_y { y.log10() } else { y });
    let lines: Vec<Line> = series
        .iter()
        .map(|(name, points)| Line::new(name, points.iter().copied().filter(drawable).map(scaled).collect()))
        .filter(|line| !line.raw.is_empty())
        .collect();
    let (x_range, y_range) = ranges(&lines)
        .ok_or_else(|| Error::Config(format!("{}: there is not one point to plot", path.display())))?;

    let mut image = Image::filled(1200 * FINE, 720 * FINE, 3, 255);
    let fine = FINE as i32;
    draw_on(&mut image, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(18 * fine)
            .margin_right(30 * fine)
            .x_label_area_size(58 * fine)
            .y_label_area_size(88 * fine)
            .build_cartesian_2d(
                Axis::linear(x_range.clone()),
                if log_y { Axis::logarithmic(y_range.clone()) } else { Axis::linear(y_range.clone()) },
            )?;
        let text = |size: i32| TextStyle::from((FONT, size * fine).into_font()).color(&INK);
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(226, 226, 226).stroke_width(FINE as u32))
            .axis_style(RGBColor(120, 120, 120).stroke_width(FINE as u32))
            .x_desc(x_label)
            .y_desc(if log_y { format!("{y_label} (logarithmic)") } else { y_label.to_string() })
            .set_all_tick_mark_size(6 * fine)
            .label_style(text(18))
            .axis_desc_style(text(21))
            .draw()?;
        let inside = |points: &[(f64, f64)]| -> Vec<(f64, f64)> {
            points.iter().map(|&(x, y)| (x, y.clamp(y_range.start, y_range.end))).collect()
        };
        for (i, line) in lines.iter().enumerate() {
            let ink = colour(i);
            let bold = ink.stroke_width(3 * FINE as u32);
            let drawn = match &line.smooth {
                None => chart.draw_series(LineSeries::new(inside(&line.raw), bold))?,
                Some(smooth) => {
                    let faint = ink.mix(0.28).stroke_width(FINE as u32);
                    chart.draw_series(LineSeries::new(inside(&line.raw), faint))?;
                    chart.draw_series(LineSeries::new(inside(smooth), bold))?
                }
            };
            let sample = move |(x, y)| PathElement::new([(x, y), (x + 26 * fine, y)], bold);
            drawn.label(line.name).legend(sample);
            if line.raw.len() == 1 {
                chart.draw_series([Circle::new(inside(&line.raw)[0], 4 * fine, ink.filled())])?;
            }
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .margin(12 * fine)
            .legend_area_size(34 * fine)
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .label_font(text(19))
            .draw()?;
        Ok(())
    })?;
    write_png(path, &shrink(&image, FINE), &[])
}

/// A line as it is drawn.
struct Line<'a> {
    name: &'a str,
    raw: Vec<(f64, f64)>,
    smooth: Option<Vec<(f64, f64)>>,
}

impl<'a> Line<'a> {
    fn new(name: &'a str, points: Vec<(f64, f64)>) -> Self {
        let smooth = (points.len() >= SMOOTH_FROM).then(|| thinned(&smoothed(&points)));
        Line { name, raw: thinned(&points), smooth }
    }
}

/// The mean over a window around each point. At the start, where losses fall fast, the window narrows to stay
/// even; at the end it is cut off, as a narrow one would let the noise through.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = (points.len() / 50).max(3);
    let mut sums = vec![0.0];
    sums.extend(points.iter().scan(0.0, |sum, &(_, y)| {
        *sum += y;
        Some(*sum)
    }));
    let mean = |(i, &(x, _)): (usize, &(f64, f64))| {
        let (from, to) = (i - reach.min(i), (i + reach.min(i) + 1).min(points.len()));
        (x, (sums[to] - sums[from]) / (to - from) as f64)
    };
    points.iter().enumerate().map(mean).collect()
}

/// Every so many points, and the last.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let step = points.len().div_ceil(MAX_POINTS).max(1);
    let mut kept: Vec<_> = points.iter().copied().step_by(step).collect();
    if step > 1 {
        kept.extend(points.last());
    }
    kept
}

/// The axes' ranges: all of x, and of y all but the odd spike. None without points.
fn ranges(lines: &[Line]) -> Option<(std::ops::Range<f64>, std::ops::Range<f64>)> {
    let all = || lines.iter().flat_map(|line| &line.raw);
    let mut ys: Vec<f64> = all().map(|point| point.1).collect();
    ys.sort_by(f64::total_cmp);
    let spare = if ys.len() >= 200 { ys.len() / 200 } else { 0 };
    let smooth = || lines.iter().filter_map(|line| line.smooth.as_ref()).flatten().map(|point| point.1);
    let low = smooth().fold(*ys.get(spare)?, f64::min);
    let high = smooth().fold(ys[ys.len() - 1 - spare], f64::max);
    let left = all().map(|point| point.0).fold(f64::INFINITY, f64::min);
    let right = all().map(|point| point.0).fold(f64::NEG_INFINITY, f64::max);
    let room = |low: f64, high: f64, share: f64| {
        // A flat line, or one point, gets an axis that does not begin and end in the same place.
        let room = if high > low { (high - low) * share } else { low.abs().max(1e-6) * 0.5 };
        low - room..high + room
    };
    Some((if right > left { left..right } else { room(left, right, 0.0) }, room(low, high, 0.05)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_lines_straight() {
        let line: Vec<_> = (0..101).map(|i| (f64::from(i), 2.0 * f64::from(i))).collect();
        for (smooth, raw) in smoothed(&line).iter().zip(&line).take(98) {
            assert!((smooth.1 - raw.1).abs() < 1e-9);
        }
        let flat = vec![(0.0, 3.5); 7];
        assert_eq!(smoothed(&flat), flat);
        let many: Vec<_> = (0..30_001).map(|i| (f64::from(i), 0.0)).collect();
        let few = thinned(&many);
        assert!(few.len() <= MAX_POINTS + 1 && few.last() == many.last());
    }

    #[test]
    fn odd_series_are_drawn_and_none_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loss.png");
        let flat = ("flat".to_string(), vec![(0.0, 1.0), (1.0, 1.0), (2.0, f64::NAN)]);
        let one = ("one".to_string(), vec![(7.0, -3.0)]);
        loss_plot(&path, &[flat, one.clone()], "step", "loss", false).unwrap();
        let image = ::image::open(&path).unwrap();
        assert_eq!((image.width(), image.height()), (1200, 720));
        loss_plot(&path, std::slice::from_ref(&one), "step", "loss", false).unwrap();
        assert!(loss_plot(&path, &[one], "step", "loss", true).unwrap_err().to_string().contains("loss.png"));
        assert!(loss_plot(&path, &[], "step", "loss", false).is_err());
    }
}
