//! The legend of a plot: beside the data, where it covers nothing.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::canvas::{Drawn, FINE, FONT, INK, fitted, text_size};

/// The size of letters, and of a line of them, on the enlarged picture.
const LETTERS: usize = 19 * FINE;
const LINE: usize = 30 * FINE;
/// The sample of a line, and the room around it.
const SAMPLE: usize = 26 * FINE;
const GAP: usize = 10 * FINE;

/// A line of a plot: its name, and how it is drawn.
pub struct Entry {
    pub name: String,
    pub style: ShapeStyle,
}

/// Cuts off the right of `area` as much as the names need, at most a third of it, and draws the legend there. Returns what
/// is left for the data.
pub fn beside<'a>(
    area: &DrawingArea<BitMapBackend<'a>, Shift>,
    entries: &[Entry],
) -> Result<DrawingArea<BitMapBackend<'a>, Shift>, Box<dyn std::error::Error>> {
    let (width, height) = (area.dim_in_pixel().0 as usize, area.dim_in_pixel().1 as usize);
    let around = SAMPLE + 3 * GAP;
    let widest = entries.iter().map(|entry| text_size(&entry.name, LETTERS as f64).0).max().unwrap_or(0);
    let taken = (widest + around).min(width / 3);
    let (data, legend) = area.split_horizontally((width - taken) as i32);
    // What there is no room for is counted.
    let most = (height / LINE).saturating_sub(2).max(1);
    let shown = if entries.len() > most { most - 1 } else { entries.len() };
    let place = |line: usize| (GAP + LINE * (line + 1)) as i32;
    let text = TextStyle::from((FONT, LETTERS as i32).into_font())
        .color(&INK)
        .pos(Pos::new(HPos::Left, VPos::Center));
    let write = |line: usize, name: &str| -> Drawn {
        let name = fitted(name, LETTERS as f64, taken - around);
        let drawn = legend.draw(&Text::new(name, ((SAMPLE + GAP) as i32, place(line)), text.clone()));
        Ok(drawn.map_err(|error| error.to_string())?)
    };
    for (line, entry) in entries[..shown].iter().enumerate() {
        let sample = PathElement::new([(0, place(line)), (SAMPLE as i32, place(line))], entry.style);
        legend.draw(&sample).map_err(|error| error.to_string())?;
        write(line, &entry.name)?;
    }
    if shown < entries.len() {
        write(shown, &format!("and {} more", entries.len() - shown))?;
    }
    Ok(data)
}
