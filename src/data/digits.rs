//! The set that needs no download: 1797 handwritten digits of 8x8 grey pixels, inside the program.
//!
//! The file's values are the original counts of 0..=16 already spread over 0..=255.

use std::path::Path;

use super::attributes::Column;
use super::parts::{DataOptions, Labelling, Parts};
use super::{idx, strokes};
use crate::error::{Error, Result};

const IMAGES: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/digits-8x8-images-idx3-ubyte.gz"));
const LABELS: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/digits-8x8-labels-idx1-ubyte.gz"));

/// What is measured of the pictures; see [`strokes`].
const MEASURED: [&str; 2] = ["thickness", "slant"];

pub fn accepts(spec: &str) -> bool {
    spec == "digits"
}

pub fn open(spec: &str, options: &DataOptions) -> Result<Parts> {
    if options.label.is_some() {
        return Err(Error::format(spec, "the digits have no columns to take labels of"));
    }
    let labels = (options.labelling != Labelling::None).then_some((Path::new("digits (labels)"), LABELS));
    let mut parts = idx::from_bytes(spec, (Path::new("digits (images)"), IMAGES), labels)?;
    options.check_columns(Path::new(spec), &MEASURED)?;
    if options.columns().next().is_some() {
        let images = (0..parts.labels.len()).map(|index| parts.source.decode(index));
        let mut measured = Vec::with_capacity(parts.labels.len());
        for image in images {
            measured.push(strokes::measure(&image?.map_err(|what| Error::format(spec, what))?));
        }
        let numbers = |name: &str| match name {
            "thickness" => Column::of_numbers(name, measured.iter().map(|(thickness, _)| *thickness)),
            _ => Column::of_numbers(name, measured.iter().map(|(_, slant)| *slant)),
        };
        parts.columns = options.columns().map(numbers).collect();
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use crate::data::Dataset;
    use crate::shape::Extent;

    #[test]
    fn digits_are_whole() {
        let set = Dataset::open("digits", None).unwrap();
        assert_eq!((set.len(), set.num_classes(), set.channels), (1797, 10, 1));
        assert_eq!((set.native_size(), set.image_size()), ((8, 8), Extent::square(8)));
        assert_eq!(set.class_names[7], "7");
        assert_eq!(set.labels()[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let mut darkest = 255;
        let mut brightest = 0;
        for i in 0..set.len() {
            let image = set.decode(i).unwrap();
            darkest = darkest.min(*image.pixels.iter().min().unwrap());
            brightest = brightest.max(*image.pixels.iter().max().unwrap());
        }
        assert_eq!((darkest, brightest), (0, 255));
        assert!(set.left_out().is_empty());
        assert!(set.decode(1797).unwrap_err().to_string().contains("1797"));
    }
}
