//! What is promised of data sets in folders and zips.

use std::io::{Cursor, Write};
use std::path::PathBuf;

use ::image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use zip::write::{SimpleFileOptions, ZipWriter};

use super::*;
use crate::shape::Extent;

mod contents;
mod files;
mod labels;

fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn rgb(width: u32, height: u32, red: u8) -> Vec<u8> {
    encoded(RgbImage::from_pixel(width, height, Rgb([red, 99, 199])), ImageFormat::Png)
}

fn grey(value: u8) -> Vec<u8> {
    encoded(GrayImage::from_pixel(5, 5, Luma([value])), ImageFormat::Png)
}

/// A picture whose header is whole and whose data is not.
fn cut(format: ImageFormat) -> Vec<u8> {
    let mut bytes =
        encoded(RgbImage::from_fn(5, 5, |x, y| Rgb([x as u8 * 50, y as u8 * 50, (x * y) as u8])), format);
    bytes.truncate(bytes.len() - if format == ImageFormat::Jpeg { 9 } else { 30 });
    bytes
}

/// Files by name, as a folder and as a zip.
struct Place {
    dir: tempfile::TempDir,
    files: Vec<(String, Vec<u8>)>,
}

impl Place {
    fn new(files: &[(&str, &[u8])]) -> Place {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("set")).unwrap();
        for (name, bytes) in files {
            let path = dir.path().join("set").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        Place { dir, files: files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn folder(&self, options: &DataOptions) -> Result<Dataset> {
        Dataset::open_with(self.path("set").to_str().unwrap(), options)
    }

    fn zip(&self, around: &str, options: &DataOptions) -> Result<Dataset> {
        let path = self.path("set.zip");
        let mut writer = ZipWriter::new(std::fs::File::create(&path).unwrap());
        for (i, (name, bytes)) in self.files.iter().enumerate() {
            let method = [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated][i % 2];
            writer
                .start_file(
                    format!("{around}{name}"),
                    SimpleFileOptions::default().compression_method(method),
                )
                .unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap();
        Dataset::open_with(path.to_str().unwrap(), options)
    }

    /// The set of these files in every way, each time the same.
    fn everywhere(&self, options: &DataOptions) -> Dataset {
        let folder = self.folder(options).unwrap();
        for zip in [self.zip("", options).unwrap(), self.zip("around/", options).unwrap()] {
            assert_eq!((zip.labels(), &zip.class_names), (folder.labels(), &folder.class_names));
            assert_eq!(zip.fingerprint(), folder.fingerprint());
        }
        folder
    }
}

fn side(image_size: usize) -> DataOptions {
    DataOptions { image_size: Some(Extent::square(image_size)), ..DataOptions::default() }
}

fn refusal(opened: Result<Dataset>) -> String {
    opened.err().expect("a set that is refused").to_string()
}

fn left_out(set: &Dataset) -> Vec<&str> {
    set.left_out().iter().map(|file| file.name.as_str()).collect()
}

/// A PNG with all its checksums right, whose compressed data is none: only decoding finds out.
pub fn hollow() -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (name, data) in
        [(b"IHDR", &b"\0\0\0\x05\0\0\0\x05\x08\0\0\0\0"[..]), (b"IDAT", b"nothing"), (b"IEND", b"")]
    {
        let mut crc = flate2::Crc::new();
        crc.update(&[&name[..], data].concat());
        png.extend((data.len() as u32).to_be_bytes());
        png.extend([&name[..], data, &crc.sum().to_be_bytes()].concat());
    }
    png
}
