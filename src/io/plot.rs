//! Plots of losses over steps.

use std::path::Path;

use plotters::prelude::*;

use super::axis::Axis;
use super::canvas::{FINE, FONT, INK, colour, draw_on, shrink};
use super::legend::{Entry, beside};
use super::write_png;
use crate::data::Image;
use crate::error::{Error, Result};

/// More points than this on a noisy line are not seen; they are thinned.
const MAX_POINTS: usize = 3000;
/// A noisy line with at least this many points gets a smoothed one over it.
const SMOOTH_FROM: usize = 100;

/// A named line: (x, y) points, x ascending.
pub type Series = (String, Vec<(f64, f64)>);

/// Draws `series` as lines, every point where it is, with axes, ticks and a legend beside them, and writes a PNG of 1200 by
/// 720 pixels. Points that are not finite, and with `log_y` not above 0, are left out.
///
/// # Errors
/// When no point is left, or the file cannot be written.
pub fn line_plot(
    path: impl AsRef<Path>,
    series: &[Series],
    x_label: &str,
    y_label: &str,
    log_y: bool,
) -> Result<()> {
    draw(path.as_ref(), series, x_label, y_label, log_y, false)
}

/// The same of what was measured with noise, as losses are: a line of many points is faint, with the mean over a window of
/// them, which the legend names, bold over it; the odd spike may leave the picture.
///
/// # Errors
/// As [`line_plot`].
pub fn loss_plot(
    path: impl AsRef<Path>,
    series: &[Series],
    x_label: &str,
    y_label: &str,
    log_y: bool,
) -> Result<()> {
    draw(path.as_ref(), series, x_label, y_label, log_y, true)
}

fn draw(
    path: &Path,
    series: &[Series],
    x_label: &str,
    y_label: &str,
    log_y: bool,
    noisy: bool,
) -> Result<()> {
    let drawable = |&(x, y): &(f64, f64)| x.is_finite() && y.is_finite() && (!log_y || y > 0.0);
    // The logarithm is taken here, so that one kind of axis serves both.
    let scaled = |(x, y): (f64, f64)| (x, if log_y { y.log10() } else { y });
    let lines: Vec<Line> = series
        .iter()
        .map(|(name, points)| Line::new(name, points.iter().copied().filter(drawable).collect(), noisy))
        .map(|line| line.scaled(scaled))
        .filter(|line| !line.raw.is_empty())
        .collect();
    let (x_range, y_range) = ranges(&lines, noisy)
        .ok_or_else(|| Error::Config(format!("{}: there is not one point to plot", path.display())))?;

    let mut image = Image::filled(1200 * FINE, 720 * FINE, 3, 255);
    let fine = FINE as i32;
    let faint = |i| colour(i).mix(0.28).stroke_width(FINE as u32);
    let bold = |i| colour(i).stroke_width(3 * FINE as u32);
    let entries: Vec<Entry> = lines
        .iter()
        .enumerate()
        .flat_map(|(i, line)| match &line.smooth {
            None => vec![Entry { name: line.name.to_owned(), style: bold(i) }],
            Some((window, _)) => vec![
                Entry { name: line.name.to_owned(), style: faint(i) },
                Entry { name: format!("mean of {window} points"), style: bold(i) },
            ],
        })
        .collect();
    draw_on(&mut image, |area| {
        let area = beside(area, &entries)?;
        let mut chart = ChartBuilder::on(&area)
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
            match &line.smooth {
                None => {
                    chart.draw_series(LineSeries::new(inside(&line.raw), bold(i)))?;
                }
                Some((_, smooth)) => {
                    chart.draw_series(LineSeries::new(inside(&line.raw), faint(i)))?;
                    chart.draw_series(LineSeries::new(inside(smooth), bold(i)))?;
                }
            }
            if line.raw.len() == 1 {
                chart.draw_series([Circle::new(inside(&line.raw)[0], 4 * fine, colour(i).filled())])?;
            }
        }
        Ok(())
    })?;
    write_png(path, &shrink(&image, FINE), &[])
}

/// A line as it is drawn.
struct Line<'a> {
    name: &'a str,
    raw: Vec<(f64, f64)>,
    /// The points that a mean is of, and the means.
    smooth: Option<(usize, Vec<(f64, f64)>)>,
}

impl<'a> Line<'a> {
    fn new(name: &'a str, points: Vec<(f64, f64)>, noisy: bool) -> Self {
        if !noisy {
            return Line { name, raw: points, smooth: None };
        }
        let smooth =
            (points.len() >= SMOOTH_FROM).then(|| (2 * reach(points.len()) + 1, thinned(&smoothed(&points))));
        Line { name, raw: thinned(&points), smooth }
    }

    /// Means are of what was measured, not of its logarithms.
    fn scaled(self, scale: impl Fn((f64, f64)) -> (f64, f64)) -> Self {
        let all = |points: Vec<(f64, f64)>| points.into_iter().map(&scale).collect();
        Line { name: self.name, raw: all(self.raw), smooth: self.smooth.map(|(of, means)| (of, all(means))) }
    }
}

/// How many points on either side of one are in its mean.
fn reach(points: usize) -> usize {
    (points / 50).max(3)
}

/// The mean over a window around each point. At the start, where losses fall fast, the window narrows to stay
/// even; at the end it is cut off, as a narrow one would let the noise through.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = reach(points.len());
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

/// The axes' ranges: all of x and of y, where lines are noisy all but the odd spike. None without points.
fn ranges(lines: &[Line], noisy: bool) -> Option<(std::ops::Range<f64>, std::ops::Range<f64>)> {
    let all = || lines.iter().flat_map(|line| &line.raw);
    let mut ys: Vec<f64> = all().map(|point| point.1).collect();
    ys.sort_by(f64::total_cmp);
    let spare = if noisy && ys.len() >= 200 { ys.len() / 200 } else { 0 };
    let smooth =
        || lines.iter().filter_map(|line| line.smooth.as_ref()).flat_map(|(_, means)| means).map(|p| p.1);
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

    /// The middle row of a plot has what was drawn at the middle of its axis, and a legend covers none of it.
    #[test]
    fn exact_lines_are_drawn_as_they_are_and_noisy_ones_say_that_they_are_smoothed() {
        let points: Vec<_> = (0..400).map(|i| (f64::from(i), if i == 7 { 1.0 } else { 0.0 })).collect();
        let exact = Line::new("ratio", points.clone(), false);
        assert!(exact.smooth.is_none() && exact.raw == points);
        let (_, range) = ranges(&[exact], false).unwrap();
        assert!(range.contains(&1.0), "the one point that differs is no spike to leave out: {range:?}");
        let noisy = Line::new("loss", points.clone(), true);
        let (window, means) = noisy.smooth.as_ref().unwrap();
        assert_eq!((*window, noisy.raw.len(), means.len()), (17, 400, 400));
        assert!(means.iter().all(|mean| mean.1 < 0.2));

        // A step up to the right edge: what reaches the upper right corner stays to be seen.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plot.png");
        let high = ("high".to_string(), (0..50).map(|i| (f64::from(i), 1.0)).collect::<Vec<_>>());
        let low = ("low".to_string(), vec![(0.0, 0.0), (49.0, 0.0)]);
        line_plot(&path, &[high, low], "t", "value", false).unwrap();
        let image = ::image::open(&path).unwrap().to_rgb8();
        let blue = |x: u32, y: u32| {
            let [r, _, b] = image.get_pixel(x, y).0;
            b > 120 && r < 100
        };
        // Columns in which the first line is seen, in one piece from the left axis to where the legend's sample begins.
        let seen: Vec<u32> = (0..1200).filter(|&x| (20..100).any(|y| blue(x, y))).collect();
        let data: Vec<u32> =
            seen.windows(2).take_while(|pair| pair[1] == pair[0] + 1).map(|pair| pair[1]).collect();
        assert!(data.len() > 800, "{} columns in one piece of {} seen", data.len(), seen.len());
        assert!(seen.len() > data.len() + 15, "the legend shows the line, too");
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
