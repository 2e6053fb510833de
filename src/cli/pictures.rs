//! Contact sheets of samples, and their parameters as text chunks.

use std::path::Path;

use crate::data::Image;
use crate::error::{Error, Result};
use crate::io::grid::MAX_SIDE;
use crate::io::{grid, write_png};
use crate::shape::Extent;

/// How many pixels a picture's longer side takes on a contact sheet, at least.
const SIDE: usize = 48;

/// A whole-number magnification that makes small pictures readable.
pub fn magnification(size: Extent) -> usize {
    SIDE.div_ceil(size.longer().max(1)).max(1)
}

/// A sheet of cells, one row a class; a cell holds one picture or several side by side.
pub fn sheet(rows: &[Vec<Vec<Image>>], row_labels: &[String], column_labels: &[String]) -> Result<Image> {
    let cells: Vec<Vec<Image>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| strip(cell)).collect::<Result<Vec<Image>>>())
        .collect::<Result<_>>()?;
    let size = rows.iter().flatten().flatten().next().map_or(Extent::square(1), |image| image.shape().extent);
    let scale = magnification(size);
    grid(&cells, 2 * scale.min(4), scale, row_labels, column_labels)
}

/// Refuses a sheet of `rows` by `columns` cells of `pictures` of `size` pixels that would be too large, before any of them is
/// drawn.
pub fn check_sheet(rows: usize, columns: usize, pictures: usize, size: Extent) -> Result<()> {
    let scale = magnification(size);
    let side = |cells: usize, pixels: usize| cells.saturating_mul(pixels.saturating_mul(scale));
    let (width, height) =
        (side(columns, pictures.saturating_mul(size.width() + 1)), side(rows, size.height()));
    if width.max(height) > MAX_SIDE {
        return Err(Error::Config(format!(
            "a sheet of about {width}x{height} pixels is more than viewers open ({MAX_SIDE} along a side); ask for fewer pictures"
        )));
    }
    Ok(())
}

/// Pictures of one size side by side, one pixel apart.
fn strip(images: &[Image]) -> Result<Image> {
    let Some(first) = images.first() else { return Err(Error::Config("an empty cell".into())) };
    let (width, height, channels) = (first.width, first.height, first.channels);
    let whole = images.len() * (width + 1) - 1;
    let mut pixels = vec![255; whole * height * channels];
    for (i, image) in images.iter().enumerate() {
        for y in 0..height {
            let to = (y * whole + i * (width + 1)) * channels;
            let from = y * width * channels;
            pixels[to..to + width * channels].copy_from_slice(&image.pixels[from..from + width * channels]);
        }
    }
    Image::new(whole, height, channels, pixels)
}

/// Writes a picture with its parameters.
pub fn save(path: &Path, image: &Image, parameters: &[(String, String)]) -> Result<()> {
    write_png(path, image, parameters)
}
