//! What can be measured of a drawn stroke: its thickness and its slant, of a grey picture whose ink is bright.
//!
//! With the ink I(x, y) in [0, 1], zero beyond the picture's edges:
//!
//! - thickness = 2 A/P in pixels, A = Σ I being the stroke's area and P = Σ √((I(x+1, y) - I(x, y))² + (I(x, y+1) - I(x, y))²)
//!   its perimeter, the total variation: a stroke of length l and thickness t has A = l t and P = 2 l.
//! - slant = -μ_xy/μ_yy, the central moments of the ink with y downwards: the tangent of the stroke's angle from the vertical,
//!   above 0 where it leans to the right. Shearing by it makes the digit upright (LeCun et al. 1998 deslant so; Morpho-MNIST,
//!   arXiv 1809.06979, measures its arctangent).

use super::image::Image;

/// (thickness, slant); a picture without ink has a thickness of 0, one without height a slant of 0.
pub fn measure(image: &Image) -> (f64, f64) {
    let (width, height) = (image.width as isize, image.height as isize);
    let ink = |x: isize, y: isize| {
        let inside = (0..width).contains(&x) && (0..height).contains(&y);
        if inside { f64::from(image.pixels[(y * width + x) as usize * image.channels]) / 255.0 } else { 0.0 }
    };
    let (mut area, mut perimeter) = (0.0, 0.0);
    let (mut sum_x, mut sum_y) = (0.0, 0.0);
    for y in -1..height {
        for x in -1..width {
            let here = ink(x, y);
            perimeter += (ink(x + 1, y) - here).hypot(ink(x, y + 1) - here);
            area += here;
            (sum_x, sum_y) = (sum_x + here * x as f64, sum_y + here * y as f64);
        }
    }
    if area == 0.0 {
        return (0.0, 0.0);
    }
    let (mean_x, mean_y) = (sum_x / area, sum_y / area);
    let (mut xy, mut yy) = (0.0, 0.0);
    for y in 0..height {
        for x in 0..width {
            let (dx, dy) = (x as f64 - mean_x, y as f64 - mean_y);
            xy += ink(x, y) * dx * dy;
            yy += ink(x, y) * dy * dy;
        }
    }
    (2.0 * area / perimeter, if yy > 0.0 { -xy / yy } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stroke of this thickness and slant in a picture of 64x96, its edges as sharp as pixels are.
    fn stroke(thickness: f64, slant: f64) -> Image {
        let pixel = |i: usize| {
            let (x, y) = ((i % 64) as f64, (i / 64) as f64);
            let centre = 32.0 - slant * (y - 48.0);
            let covered = (thickness / 2.0 + 0.5 - (x - centre).abs()).clamp(0.0, 1.0);
            if (8.0..88.0).contains(&y) { (255.0 * covered) as u8 } else { 0 }
        };
        Image::new(64, 96, 1, (0..64 * 96).map(pixel).collect()).unwrap()
    }

    #[test]
    fn strokes_are_as_thick_and_slanted_as_they_were_drawn() {
        for thickness in [2.0, 4.0, 7.0] {
            for slant in [-0.3, 0.0, 0.2] {
                let (found, leaning) = measure(&stroke(thickness, slant));
                // Across the stroke it is thinner than along a row. Its ends are perimeter, too, and the steps of a slanted edge
                // are longer than the edge.
                let across = thickness / (1.0f64 + slant * slant).sqrt();
                assert!((found / across - 0.93).abs() < 0.08, "{found}, drawn {across}");
                assert!((leaning - slant).abs() < 0.01, "{leaning}, drawn {slant}");
            }
        }
        assert_eq!(measure(&Image::filled(5, 7, 1, 0)), (0.0, 0.0));
    }
}
