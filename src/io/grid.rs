//! Contact sheets: rows of images with names above and beside them.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::canvas::{FONT, INK, draw_on, fitted, text_size};
use crate::data::Image;
use crate::error::{Error, Result};
use crate::sizes;

/// A sheet larger than this on one side is more than image viewers open.
pub const MAX_SIDE: usize = 1 << 16;

/// Lays out `rows` of images on white, each enlarged `scale` times without smoothing and `gap` pixels apart, with
/// labels beside the rows and above the columns; labels may be fewer than rows and columns, or none. Comes out as
/// RGB.
///
/// # Errors
/// When there are no images, or the sheet would be larger than 65536 pixels on a side.
pub fn grid(
    rows: &[Vec<Image>],
    gap: usize,
    scale: usize,
    row_labels: &[String],
    column_labels: &[String],
) -> Result<Image> {
    let scale = scale.max(1);
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let side =
        |of: fn(&Image) -> usize| rows.iter().flatten().map(of).max().unwrap_or(0).saturating_mul(scale);
    let (cell_width, cell_height) = (side(|image| image.width), side(|image| image.height));
    if cell_width == 0 || cell_height == 0 {
        return Err(Error::shape("grid", "there are no images to lay out"));
    }

    // As large as suits the cells, and smaller if that lets every column's label be whole.
    let mut letters = (cell_height as f64 / 5.0).clamp(15.0, 28.0);
    let too_wide =
        |letters: f64| column_labels.iter().any(|label| text_size(label, letters).0 + 2 > cell_width);
    while letters > 12.0 && too_wide(letters) {
        letters -= 1.0;
    }
    let line = text_size("Ág", letters).1 + 6;
    let beside = row_labels.iter().map(|label| text_size(label, letters).0 + 12).max().unwrap_or(0);
    let above = if column_labels.is_empty() { 0 } else { line };
    let extent =
        |cells: usize, cell: usize| cells.saturating_mul(cell.saturating_add(gap)).saturating_add(gap);
    let width = extent(columns, cell_width).saturating_add(beside);
    let height = extent(rows.len(), cell_height.max(if row_labels.is_empty() { 0 } else { line })) + above;
    if width > MAX_SIDE || height > MAX_SIDE {
        let what =
            format!("a sheet of {width}x{height} pixels is too large; take fewer images or a smaller scale");
        return Err(Error::shape("grid", what));
    }
    let bytes = sizes::bytes("a sheet of pictures", &[width, height, 3], 1)?;
    sizes::check_host(
        &format!("a sheet of {width}x{height} pixels"),
        bytes,
        "take fewer images or a smaller scale",
    )?;
    // Rows lower than a line of text are set apart, so that labels do not overlap.
    let row_height = cell_height.max(if row_labels.is_empty() { 0 } else { line });

    let mut sheet = Image::filled(width, height, 3, 255);
    let left = |column: usize| beside + gap + column * (cell_width + gap);
    let top = |row: usize| above + gap + row * (row_height + gap);
    for (y, row) in rows.iter().enumerate() {
        for (x, image) in row.iter().enumerate() {
            let inset = |cell: usize, side: usize| (cell - side * scale) / 2;
            let at = (left(x) + inset(cell_width, image.width), top(y) + inset(row_height, image.height));
            paste(&mut sheet, image, scale, at);
        }
    }
    draw_on(&mut sheet, |area| {
        let style = |horizontal| {
            TextStyle::from((FONT, letters).into_font()).color(&INK).pos(Pos::new(horizontal, VPos::Center))
        };
        for (y, label) in row_labels.iter().take(rows.len()).enumerate() {
            let at = (beside as i32 - 4, (top(y) + row_height / 2) as i32);
            area.draw(&Text::new(label.as_str(), at, style(HPos::Right)))?;
        }
        for (x, label) in column_labels.iter().take(columns).enumerate() {
            let at = ((left(x) + cell_width / 2) as i32, (above / 2 + gap / 2) as i32);
            area.draw(&Text::new(fitted(label, letters, cell_width), at, style(HPos::Center)))?;
        }
        Ok(())
    })?;
    Ok(sheet)
}

/// Puts `image`, enlarged, into `sheet` with its upper left corner at `at`.
fn paste(sheet: &mut Image, image: &Image, scale: usize, at: (usize, usize)) {
    for y in 0..image.height * scale {
        for x in 0..image.width * scale {
            let from = (y / scale * image.width + x / scale) * image.channels;
            let to = ((at.1 + y) * sheet.width + at.0 + x) * 3;
            let pixel = match image.channels {
                1 => [image.pixels[from]; 3],
                _ => [image.pixels[from], image.pixels[from + 1], image.pixels[from + 2]],
            };
            sheet.pixels[to..to + 3].copy_from_slice(&pixel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_enlarges() {
        let (grey, colour) = (Image::filled(2, 1, 1, 7), Image::new(1, 1, 3, vec![1, 2, 3]).unwrap());
        let sheet = grid(&[vec![grey.clone()], vec![grey, colour]], 1, 2, &[], &[]).unwrap();
        assert_eq!((sheet.width, sheet.height, sheet.channels), (1 + 2 * 5, 1 + 2 * 3, 3));
        let at = |x: usize, y: usize| &sheet.pixels[(y * sheet.width + x) * 3..][..3];
        assert_eq!(
            (at(0, 0), at(1, 1), at(4, 2), at(5, 1)),
            (&[255; 3][..], &[7; 3][..], &[7; 3][..], &[255; 3][..])
        );
        assert_eq!(
            (at(6, 4), at(7, 4), at(8, 5), at(6, 1)),
            (&[255; 3][..], &[1, 2, 3][..], &[1, 2, 3][..], &[255; 3][..])
        );
    }

    #[test]
    fn labels_take_room_and_are_drawn() {
        let rows = vec![vec![Image::filled(9, 9, 1, 255); 3]; 2];
        let label = |text: &str| text.to_string();
        let sheet =
            grid(&rows, 3, 1, &[label("cat"), label("a dog")], &[label("very long name"), label("w=2")])
                .unwrap();
        let plain = grid(&rows, 3, 1, &[], &[]).unwrap();
        assert!(sheet.width > plain.width + 30 && sheet.height > plain.height + 10);
        assert!(plain.pixels.iter().all(|&value| value == 255));
        assert!(sheet.pixels.iter().any(|&value| value < 100));
    }

    #[test]
    fn too_little_and_too_much() {
        assert!(grid(&[], 1, 1, &[], &[]).is_err());
        assert!(grid(&[vec![], vec![]], 1, 1, &[], &[]).is_err());
        assert!(grid(&[vec![Image::filled(3, 3, 3, 0)]], 1, 1 << 40, &[], &[]).is_err());
    }
}
