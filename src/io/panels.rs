//! Figures in the plane: panels of points over a density.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::canvas::{FINE, FONT, INK, colour, draw_on, fitted, shrink};
use super::write_png;
use crate::data::Image;
use crate::error::{Error, Result};

/// One panel of a figure in the plane.
#[derive(Clone, Debug, Default)]
pub struct Panel {
    /// Above the panel.
    pub title: String,
    /// (values, nx, ny): row by row of nx values, the first row at the lowest y; drawn from white for 0 to dark for
    /// the greatest.
    pub density: Option<(Vec<f32>, usize, usize)>,
    /// (x, y, class); those outside of the range are not drawn.
    pub points: Vec<(f32, f32, u32)>,
    /// (least x, greatest x, least y, greatest y).
    pub range: (f32, f32, f32, f32),
}

/// Draws `panels` in rows of `columns` and writes them as one PNG, 420 pixels to a panel.
///
/// # Errors
/// When there are no panels, a range is empty, a density's values do not fit its sizes, or the file cannot be
/// written.
pub fn panels(path: impl AsRef<Path>, panels: &[Panel], columns: usize) -> Result<()> {
    drawn(path, panels, columns, FINE)
}

/// The same with 210 pixels to a panel, for many of them.
///
/// # Errors
/// As [`panels`].
pub fn small_panels(path: impl AsRef<Path>, panels: &[Panel], columns: usize) -> Result<()> {
    drawn(path, panels, columns, 2 * FINE)
}

fn drawn(path: impl AsRef<Path>, panels: &[Panel], columns: usize, finer: usize) -> Result<()> {
    const SIDE: usize = 400 * FINE;
    const PAD: usize = 10 * FINE;
    const TITLE: usize = 34 * FINE;
    if panels.is_empty() || columns == 0 {
        return Err(Error::Config(format!("{} panels in {columns} columns cannot be drawn", panels.len())));
    }
    panels.iter().try_for_each(check)?;
    let columns = columns.min(panels.len());
    let rows = panels.len().div_ceil(columns);
    let (cell_width, cell_height) = (SIDE + 2 * PAD, SIDE + 2 * PAD + TITLE);
    let mut image = Image::filled(columns * cell_width, rows * cell_height, 3, 255);
    let corner = |i: usize| (i % columns * cell_width + PAD, i / columns * cell_height + PAD + TITLE);
    for (i, panel) in panels.iter().enumerate() {
        if let Some((values, nx, ny)) = &panel.density {
            heat(&mut image, corner(i), SIDE, values, (*nx, *ny));
        }
    }
    draw_on(&mut image, |area| {
        for (i, panel) in panels.iter().enumerate() {
            let (left, top) = (corner(i).0 as i32, corner(i).1 as i32);
            let size = 21.0 * FINE as f64;
            let style = TextStyle::from((FONT, size).into_font()).color(&INK);
            let style = style.pos(Pos::new(HPos::Center, VPos::Center));
            let at = (left + SIDE as i32 / 2, top - TITLE as i32 / 2);
            area.draw(&Text::new(fitted(&panel.title, size, SIDE), at, style))?;

            // Many points are drawn smaller and lighter, or they would hide each other.
            let (radius, strength) = match panel.points.len() {
                0..=500 => (3 * FINE as i32, 0.85),
                501..=2500 => (2 * FINE as i32, 0.65),
                _ => (FINE as i32 * 3 / 2, 0.45),
            };
            let (x0, x1, y0, y1) = panel.range;
            let place = |at: f32, from: f32, to: f32| (at - from) / (to - from);
            for &(x, y, class) in &panel.points {
                let (across, up) = (place(x, x0, x1), place(y, y0, y1));
                if (0.0..=1.0).contains(&across) && (0.0..=1.0).contains(&up) {
                    let at = (left + (across * SIDE as f32) as i32, top + ((1.0 - up) * SIDE as f32) as i32);
                    area.draw(&Circle::new(at, radius, colour(class as usize).mix(strength).filled()))?;
                }
            }
            let (right, bottom) = (left + SIDE as i32, top + SIDE as i32);
            let frame = RGBColor(150, 150, 150).stroke_width(FINE as u32);
            area.draw(&Rectangle::new([(left, top), (right, bottom)], frame))?;
        }
        Ok(())
    })?;
    write_png(path, &shrink(&image, finer), &[])
}

fn check(panel: &Panel) -> Result<()> {
    let (title, (x0, x1, y0, y1)) = (&panel.title, panel.range);
    if !(x0 < x1 && y0 < y1 && [x0, x1, y0, y1].iter().all(|bound| bound.is_finite())) {
        return Err(Error::Config(format!("panel `{title}`: {:?} is no range to draw", panel.range)));
    }
    if let Some((values, nx, ny)) = &panel.density
        && (values.is_empty() || nx.checked_mul(*ny) != Some(values.len()))
    {
        let what = format!("panel `{title}`: {} values do not make a density of {nx}x{ny}", values.len());
        return Err(Error::shape("panels", what));
    }
    Ok(())
}

/// Fills a square with a density, values between its grid's centres blended.
fn heat(image: &mut Image, corner: (usize, usize), side: usize, values: &[f32], (nx, ny): (usize, usize)) {
    let greatest = values.iter().copied().filter(|value| value.is_finite()).fold(f32::MIN_POSITIVE, f32::max);
    let value = |x: usize, y: usize| {
        let value = values[y.min(ny - 1) * nx + x.min(nx - 1)];
        if value.is_finite() { value.max(0.0) / greatest } else { 0.0 }
    };
    // A pixel's place on the grid: the cell before it, and how far it is towards the next.
    let place = |pixel: usize, cells: usize| {
        let at = ((pixel as f32 + 0.5) / side as f32 * cells as f32 - 0.5).clamp(0.0, cells as f32 - 1.0);
        (at as usize, at.fract())
    };
    for row in 0..side {
        let (y, down) = place(side - 1 - row, ny);
        for column in 0..side {
            let (x, along) = place(column, nx);
            let near = value(x, y) * (1.0 - along) + value(x + 1, y) * along;
            let far = value(x, y + 1) * (1.0 - along) + value(x + 1, y + 1) * along;
            let at = ((corner.1 + row) * image.width + corner.0 + column) * 3;
            image.pixels[at..at + 3].copy_from_slice(&shade(near * (1.0 - down) + far * down));
        }
    }
}

/// White to slate: without hue enough to be taken for a class. The root lifts faint tails into sight.
fn shade(value: f32) -> [u8; 3] {
    let value = value.clamp(0.0, 1.0).sqrt();
    [(255.0, 96.0), (255.0, 106.0), (255.0, 126.0)]
        .map(|(light, dark)| (light + (dark - light) * value) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_check_what_they_get() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("toy.png");
        let density = Some((vec![0.0, 1.0, f32::NAN, 0.5, 0.2, 0.1], 3, 2));
        let points = vec![(0.0, 0.5, 0), (f32::NAN, 0.0, 1), (9.0, 9.0, 12)];
        let good = Panel { title: "σ = 0.5".into(), density, points, range: (-1.0, 1.0, -1.0, 2.0) };
        panels(&path, &[good.clone(), good.clone(), good.clone()], 2).unwrap();
        let image = ::image::open(&path).unwrap();
        assert_eq!((image.width(), image.height()), (840, 908));
        let empty = Panel { range: (1.0, 1.0, 0.0, 1.0), ..good.clone() };
        let misfit = Panel { density: Some((vec![0.0; 5], 3, 2)), ..good.clone() };
        assert!(panels(&path, &[empty], 1).is_err());
        assert!(panels(&path, &[misfit], 1).unwrap_err().to_string().contains("3x2"));
        assert!(panels(&path, &[], 1).is_err() && panels(&path, &[good], 0).is_err());
    }
}
