//! Curves in the plane whose points are named: quality against variety as a parameter goes.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::{Axis, number};
use super::canvas::{FINE, FONT, INK, colour, draw_on, shrink};
use super::legend::{Entry, beside};
use super::write_png;
use crate::data::Image;
use crate::error::{Error, Result};

/// Points of a curve that get their parameter written beside them, about.
const NAMED: usize = 9;

/// A curve: its name and its points (x, y, parameter) in the order in which they are joined.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// In the legend.
    pub name: String,
    /// (x, y, parameter).
    pub points: Vec<(f64, f64, f64)>,
}

/// Draws `curves` with a mark at each point, the parameter (called `parameter`) beside some, and a legend at the right, and writes a
/// PNG of 1000 by 720 pixels. Points that are not finite are left out.
///
/// # Errors
/// When no point is left, or the file cannot be written.
pub fn curve_plot(
    path: impl AsRef<Path>,
    curves: &[Curve],
    x_label: &str,
    y_label: &str,
    parameter: &str,
) -> Result<()> {
    let path = path.as_ref();
    let finite = |&(x, y, _): &(f64, f64, f64)| x.is_finite() && y.is_finite();
    let lines: Vec<Curve> = curves
        .iter()
        .map(|curve| Curve {
            name: curve.name.clone(),
            points: curve.points.iter().copied().filter(finite).collect(),
        })
        .filter(|curve| !curve.points.is_empty())
        .collect();
    if lines.is_empty() {
        return Err(Error::Config(format!("{}: there is not one point to plot", path.display())));
    }
    let range = |of: fn(&(f64, f64, f64)) -> f64| {
        let values = || lines.iter().flat_map(|line| &line.points).map(of);
        let (low, high) =
            (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        let room = if high > low { 0.06 * (high - low) } else { 0.5 * low.abs().max(1e-6) };
        low - room..high + room
    };
    let (x_range, y_range) = (range(|point| point.0), range(|point| point.1));
    let mut image = Image::filled(1000 * FINE, 720 * FINE, 3, 255);
    let fine = FINE as i32;
    let bold = |i| colour(i).stroke_width(2 * FINE as u32);
    let entries: Vec<Entry> =
        lines.iter().enumerate().map(|(i, line)| Entry { name: line.name.clone(), style: bold(i) }).collect();
    draw_on(&mut image, |area| {
        let area = beside(area, &entries)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(18 * fine)
            .margin_right(30 * fine)
            .x_label_area_size(58 * fine)
            .y_label_area_size(88 * fine)
            .build_cartesian_2d(Axis::linear(x_range), Axis::linear(y_range))?;
        let text = |size: i32| TextStyle::from((FONT, size * fine).into_font()).color(&INK);
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(226, 226, 226).stroke_width(FINE as u32))
            .axis_style(RGBColor(120, 120, 120).stroke_width(FINE as u32))
            .x_desc(x_label)
            .y_desc(y_label)
            .set_all_tick_mark_size(6 * fine)
            .label_style(text(18))
            .axis_desc_style(text(21))
            .draw()?;
        for (i, line) in lines.iter().enumerate() {
            let ink = colour(i);
            let joined = line.points.iter().map(|&(x, y, _)| (x, y));
            chart.draw_series(LineSeries::new(joined.clone(), bold(i)))?;
            chart.draw_series(joined.map(|at| Circle::new(at, 4 * fine, ink.filled())))?;
            let every = line.points.len().div_ceil(NAMED).max(1);
            let style = text(16).pos(Pos::new(HPos::Left, VPos::Bottom));
            chart.draw_series(line.points.iter().step_by(every).map(|&(x, y, value)| {
                let name = format!("{parameter} = {}", number(value));
                EmptyElement::at((x, y)) + Text::new(name, (6 * fine, -4 * fine), style.clone())
            }))?;
        }
        Ok(())
    })?;
    write_png(path, &shrink(&image, FINE), &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_drawn_and_none_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("curve.png");
        let points: Vec<_> =
            (0..41).map(|i| (f64::from(i).sqrt(), f64::from(i - 5).abs(), f64::from(i) / 10.0)).collect();
        let bent = Curve { name: "T = 128".into(), points };
        let one = Curve { name: "one".into(), points: vec![(1.0, f64::NAN, 0.0), (2.0, 3.0, 0.5)] };
        curve_plot(&path, &[bent, one.clone()], "IS", "FID", "w").unwrap();
        let image = ::image::open(&path).unwrap();
        assert_eq!((image.width(), image.height()), (1000, 720));
        curve_plot(&path, &[one], "IS", "FID", "w").unwrap();
        assert!(curve_plot(&path, &[Curve::default()], "x", "y", "w").is_err());
    }
}
