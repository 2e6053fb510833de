//! A picture to draw on with plotters, with a font that is always there.
//!
//! Plotters' bitmap lines are not smoothed, so plots are drawn larger and shrunk.

use std::sync::OnceLock;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;

use crate::data::Image;
use crate::error::{Error, Result};

/// The name under which the font is registered.
pub const FONT: &str = "freeguide-sans";

/// Plots are drawn this many times larger and shrunk, for smooth lines.
pub const FINE: usize = 3;

/// The colour of text.
pub const INK: RGBColor = RGBColor(30, 30, 30);

/// What drawing may say: plotters' errors are of many types.
pub type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Registers the font, once.
pub fn register() {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        // A font that is compiled in and known to parse; if it did not, drawing text would say so.
        let _ = register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT);
    });
}

/// Draws over `image`, which must have three channels.
pub fn draw_on(
    image: &mut Image,
    draw: impl FnOnce(&DrawingArea<BitMapBackend, Shift>) -> Drawn,
) -> Result<()> {
    register();
    let (Ok(width), Ok(height)) = (u32::try_from(image.width), u32::try_from(image.height)) else {
        return Err(Error::shape("draw", format!("{}x{} pixels are too many", image.width, image.height)));
    };
    let area = BitMapBackend::with_buffer(&mut image.pixels, (width, height)).into_drawing_area();
    let drawn = draw(&area).and_then(|()| Ok(area.present()?));
    drawn.map_err(|error| Error::Config(format!("drawing a plot failed: {error}")))
}

/// The width and height in pixels of `text` in letters of `size`.
pub fn text_size(text: &str, size: f64) -> (usize, usize) {
    register();
    let (width, height) = (FONT, size).into_font().box_size(text).unwrap_or_default();
    (width as usize, height as usize)
}

/// `text`, or as much of its start as fits into `width` with an ellipsis.
pub fn fitted(text: &str, size: f64, width: usize) -> String {
    if text_size(text, size).0 <= width {
        return text.to_string();
    }
    let letters: Vec<char> = text.chars().collect();
    let shortened = |kept: usize| letters[..kept].iter().collect::<String>().trim_end().to_string() + "…";
    (0..letters.len()).rev().map(shortened).find(|text| text_size(text, size).0 <= width).unwrap_or_default()
}

/// The mean of each `by` by `by` block.
pub fn shrink(image: &Image, by: usize) -> Image {
    let (width, height, channels) = (image.width / by, image.height / by, image.channels);
    let mut out = Image::filled(width, height, channels, 0);
    for y in 0..height {
        for x in 0..width {
            for channel in 0..channels {
                let mut sum = 0;
                for row in y * by..(y + 1) * by {
                    for column in x * by..(x + 1) * by {
                        sum += usize::from(image.pixels[(row * image.width + column) * channels + channel]);
                    }
                }
                out.pixels[(y * width + x) * channels + channel] = ((sum + by * by / 2) / (by * by)) as u8;
            }
        }
    }
    out
}

/// Colours for classes and series, told apart by most eyes; after ten they come round again.
pub fn colour(index: usize) -> RGBColor {
    const COLOURS: [(u8, u8, u8); 10] = [
        (31, 119, 180),
        (230, 97, 1),
        (44, 150, 60),
        (200, 40, 50),
        (130, 90, 180),
        (125, 85, 70),
        (215, 100, 180),
        (110, 110, 110),
        (165, 160, 20),
        (10, 165, 185),
    ];
    let (r, g, b) = COLOURS[index % COLOURS.len()];
    RGBColor(r, g, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_measured_and_cut() {
        let (width, height) = text_size("golden retriever", 14.0);
        assert!(width > 60 && (8..30).contains(&height), "{width} x {height}");
        assert_eq!(fitted("cat", 14.0, 1000), "cat");
        let short = fitted("golden retriever", 14.0, width / 2);
        assert!(short.ends_with('…') && text_size(&short, 14.0).0 <= width / 2, "{short}");
        assert_eq!(fitted("cat", 14.0, 0), "");
    }

    #[test]
    fn shrinking_takes_means() {
        let image = Image::new(5, 2, 1, vec![0, 4, 10, 10, 99, 8, 4, 10, 11, 99]).unwrap();
        assert_eq!(shrink(&image, 2).pixels, [4, 10]);
    }
}
