//! Damaged and hostile files of every format: an error or a valid result, never a panic, and soon.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use freeguide::data::{Dataset, Image};
use freeguide::io::{
    Dtype, NpzWriter, SafetensorsFile, TensorBytes, read_npz_images, read_png_text, write_png,
    write_safetensors,
};

/// Reads `path` in its own way, and asks for all that is in it.
type Reader = fn(&Path) -> Result<(), String>;

fn dataset(path: &Path) -> Result<(), String> {
    let set = Dataset::open(path.to_str().unwrap(), Some(8)).map_err(|error| error.to_string())?;
    assert!(
        !set.labels().is_empty() && set.labels().iter().all(|&label| (label as usize) < set.num_classes())
    );
    for i in 0..set.len() {
        let image = set.decode(i).map_err(|error| error.to_string())?;
        assert_eq!(image.pixels.len(), image.width * image.height * set.channels);
    }
    Ok(())
}

fn safetensors(path: &Path) -> Result<(), String> {
    let file = SafetensorsFile::open(path).map_err(|error| error.to_string())?;
    for name in file.names() {
        file.tensor(&name).map_err(|error| error.to_string())?;
        let _ = file.to_f32(&name);
    }
    Ok(())
}

fn png_text(path: &Path) -> Result<(), String> {
    read_png_text(path).map(drop).map_err(|error| error.to_string())
}

fn npz(path: &Path) -> Result<(), String> {
    let read = read_npz_images(path).map_err(|error| error.to_string())?;
    assert_eq!(read.images.len(), read.count * read.width * read.height * read.channels);
    Ok(())
}

/// Checks the whole file, then every cut at its ends and at steps between, then every kind of change of a byte.
fn torment(name: &str, whole: &[u8], read: Reader) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    let check = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).unwrap();
        let start = Instant::now();
        let result = read(&path);
        assert!(start.elapsed() < Duration::from_secs(1), "{name}, {what}: took {:?}", start.elapsed());
        if let Err(message) = &result {
            assert!(!message.is_empty() && message.contains(name), "{name}, {what}: {message}");
        }
        result
    };
    check(whole, "whole").unwrap();
    let step = (whole.len() / 100).max(1);
    let ends = |i: usize| i < 80 || i + 80 > whole.len() || i.is_multiple_of(step);
    for cut in (0..whole.len()).filter(|&i| ends(i)) {
        let _ = check(&whole[..cut], &format!("cut at {cut}"));
    }
    for at in (0..whole.len()).filter(|&i| ends(i)) {
        for change in [0x01, 0x80, 0xff] {
            let mut bytes = whole.to_vec();
            bytes[at] ^= change;
            let _ = check(&bytes, &format!("byte {at} xor {change}"));
        }
    }
    assert!(check(&whole[..whole.len() / 2], "half").is_err());
    assert!(check(b"", "empty").is_err());
    let mut noise = 0x9e37_79b9_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        noise ^= noise << 13;
        noise ^= noise >> 17;
        noise ^= noise << 5;
        noise as u8
    })
    .take(999)
    .collect();
    assert!(check(&noise, "noise").is_err());
}

fn idx(dims: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|dim| bytes.extend(dim.to_be_bytes()));
    bytes.extend(data);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn encoded(format: image::ImageFormat) -> Vec<u8> {
    let picture =
        image::RgbImage::from_fn(9, 7, |x, y| image::Rgb([x as u8 * 20, y as u8 * 30, (x * y) as u8]));
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (i, (name, bytes)) in files.iter().enumerate() {
        let method = [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated][i % 2];
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        writer.start_file(*name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn idx_files() {
    let data: Vec<u8> = (0..3 * 5 * 7).collect();
    torment("x-images-idx3-ubyte", &idx(&[3, 5, 7], &data), dataset);
    torment("x-images-idx3-ubyte.gz", &gzip(&idx(&[3, 5, 7], &data)), dataset);
    torment("x-images-idx4-ubyte", &idx(&[1, 5, 7, 3], &data), dataset);
}

#[test]
fn idx_labels() {
    fn labels(path: &Path) -> Result<(), String> {
        let images = path.with_file_name("x-images-idx3-ubyte");
        std::fs::write(&images, idx(&[3, 1, 1], &[1, 2, 3])).unwrap();
        dataset(&images)
    }
    torment("x-labels-idx1-ubyte", &idx(&[3], &[4, 0, 2]), labels);
    torment("x-labels-idx1-ubyte.gz", &gzip(&idx(&[3], &[4, 0, 2])), labels);
}

#[test]
fn edm_zips() {
    let (a, b) = (encoded(image::ImageFormat::Png), encoded(image::ImageFormat::Png));
    let json = br#"{"labels": [["00000/a.png", 1], ["00000/b.png", 0]]}"#;
    let files: [(&str, &[u8]); 4] = [
        ("00000/a.png", &a),
        ("00000/b.png", &b),
        ("dataset.json", json),
        ("classes.json", br#"["x", "y"]"#),
    ];
    torment("set.zip", &zipped(&files), dataset);
}

#[test]
fn zips_that_hold_hostile_json() {
    let png = encoded(image::ImageFormat::Png);
    let deep = "[".repeat(100_000);
    for json in ["", "null", "[]", "{}", "{\"labels\": 3}", "{\"labels\": [[\"a.png\"]]}", deep.as_str()] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set.zip");
        std::fs::write(&path, zipped(&[("a.png", &png), ("dataset.json", json.as_bytes())])).unwrap();
        if let Err(message) = dataset(&path) {
            assert!(message.contains("dataset.json"), "{message}");
        }
    }
}

#[test]
fn folders_of_images() {
    fn folder(path: &Path) -> Result<(), String> {
        dataset(path.parent().unwrap()).map_err(|message| {
            // Either the folder's own message, which names the file, or the file's.
            assert!(message.contains(path.file_name().unwrap().to_str().unwrap()), "{message}");
            message
        })
    }
    torment("cat_1.png", &encoded(image::ImageFormat::Png), folder);
    torment("cat_1.jpg", &encoded(image::ImageFormat::Jpeg), folder);
    torment("cat_1.gif", &encoded(image::ImageFormat::Gif), folder);
    torment("cat_1.bmp", &encoded(image::ImageFormat::Bmp), folder);
    torment("cat_1.webp", &encoded(image::ImageFormat::WebP), folder);
}

#[test]
fn safetensors_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    let tensors = [
        TensorBytes { name: "w", dtype: Dtype::F32, shape: &[3, 5], bytes: &[7; 60] },
        TensorBytes { name: "h", dtype: Dtype::F16, shape: &[7], bytes: &[9; 14] },
    ];
    let metadata: BTreeMap<String, String> = [("config".to_string(), "{}".to_string())].into();
    write_safetensors(&path, &tensors, &metadata).unwrap();
    torment("x.safetensors", &std::fs::read(&path).unwrap(), safetensors);
}

#[test]
fn safetensors_headers_that_lie() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lie.safetensors");
    let huge = usize::MAX;
    for header in [
        format!(r#"{{"w":{{"dtype":"F32","shape":[{huge},{huge}],"data_offsets":[0,8]}}}}"#),
        format!(r#"{{"w":{{"dtype":"F32","shape":[2],"data_offsets":[{},{huge}]}}}}"#, huge - 8),
        r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#.to_string(),
        r#"{"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#.to_string(),
        r#"{"w":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}"#.to_string(),
        "[".repeat(50_000),
    ] {
        for claimed in [header.len() as u64, 99_999_999, 1 << 40, u64::MAX] {
            let bytes = [&claimed.to_le_bytes(), header.as_bytes(), &[0; 8]].concat();
            std::fs::write(&path, bytes).unwrap();
            assert!(safetensors(&path).unwrap_err().contains("lie.safetensors"));
        }
    }
}

#[test]
fn png_notes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.png");
    let text = [("seed".to_string(), "7".to_string()), ("note".to_string(), "σ".to_string())];
    write_png(&path, &Image::filled(13, 11, 3, 99), &text).unwrap();
    torment("x.png", &std::fs::read(&path).unwrap(), png_text);
}

#[test]
fn npz_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npz");
    let mut writer = NpzWriter::create(&path, 3, 5, 7).unwrap();
    writer.push(&[3; 3 * 5 * 7], 1, &[0, 1, 2]).unwrap();
    writer.finish().unwrap();
    torment("x.npz", &std::fs::read(&path).unwrap(), npz);
}
