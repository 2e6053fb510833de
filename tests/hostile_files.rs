//! Damaged and hostile files of every format: an error or a valid result, never a panic, and soon.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use freeguide::data::{Dataset, Image};
use freeguide::io::{
    Dtype, NpzWriter, PtFile, SafetensorsFile, TensorBytes, TensorSource, read_npz_images, read_png_text,
    write_png, write_safetensors,
};
use freeguide::model::{Checkpoint, Flags, Format, ModelConfig, convert, load_values, write_model};
use freeguide::nn::UNet;
use freeguide::shape::Extent;

/// Reads `path` in its own way, and asks for all that is in it.
type Reader = fn(&Path) -> Result<(), String>;

fn dataset(path: &Path) -> Result<(), String> {
    let set =
        Dataset::open(path.to_str().unwrap(), Some(Extent::square(8))).map_err(|error| error.to_string())?;
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

fn pt(path: &Path) -> Result<(), String> {
    let file = PtFile::open(path).map_err(|error| error.to_string())?;
    for name in file.names() {
        // What was opened without an error can be read.
        let (dtype, shape) = file.about(&name).unwrap();
        assert_eq!(file.bytes(&name).unwrap().len() * 8, shape.iter().product::<usize>() * dtype.bitsize());
    }
    Ok(())
}

/// A folder with this `config.json` and the weights beside it.
fn checkpoint(path: &Path) -> Result<(), String> {
    Checkpoint::open(path.parent().unwrap(), None).map(drop).map_err(|error| {
        // Either the configuration's own fault, or that of the weights that no longer fit it.
        error.to_string().replace("model.safetensors", "config.json")
    })
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
    let mut writer = NpzWriter::create(&path, 3, Extent::Plane { height: 7, width: 5 }).unwrap();
    writer.push(&[3; 3 * 5 * 7], 1, &[0, 1, 2]).unwrap();
    writer.finish().unwrap();
    torment("x.npz", &std::fs::read(&path).unwrap(), npz);
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

#[test]
fn pytorch_files() {
    torment("x.pt", &fixture("pt_edge_legacy.pt"), pt);
    torment("x.pt", &fixture("pt_opt_zip.pt"), pt);
}

#[test]
fn pytorch_zips_of_every_type() {
    torment("x.pt", &fixture("pt_edge_zip.pt"), pt);
}

#[test]
fn flags() {
    let text =
        br#"{"image_size": 64, "num_heads": 4, "noise_schedule": "cosine", "class_names": ["a", "b"]}"#;
    fn read(path: &Path) -> Result<(), String> {
        Flags::read(path).map(drop).map_err(|error| error.to_string())
    }
    torment("flags.json", text, read);
}

/// A network of a few parameters, as `config.json` holds it.
const CONFIG: &str = r#"{"_class_name": "FreeguideUNet", "unet": {"sample_size": 4, "in_channels": 1, "out_channels": 1,
    "model_channels": 4, "channel_mult": [1.0], "layers_per_block": 1, "attention_resolutions": [],
    "attention_head_dim": 4, "num_attention_heads": null, "qkv_order": "new", "norm_num_groups": 2, "dropout": 0.0,
    "resample": "resnet", "resnet_time_scale_shift": "scale_shift", "residual_scaling": false, "num_classes": 2,
    "null_class": "learned"}, "scheduler": {"beta_schedule": "continuous", "prediction_type": "epsilon",
    "log_snr_min": -20.0, "log_snr_max": 20.0}, "sampling": {"steps": 8, "variance_exponent": 0.3, "clip": "static"},
    "class_names": ["a", "b"], "data": "x", "unconditional_probability": 0.1, "images_seen": 7, "ema_rate": null}"#;

/// The network's parameters and their values, all different.
fn small() -> (ModelConfig, UNet, Vec<Vec<f32>>) {
    let config: ModelConfig = serde_json::from_str(CONFIG).unwrap();
    let unet = UNet::new(&config.unet).unwrap();
    let values = unet.parameters().initial_values(1);
    (config, unet, values)
}

#[test]
fn configurations() {
    fn read(path: &Path) -> Result<(), String> {
        let (_, unet, values) = small();
        let weights = path.with_file_name("model.safetensors");
        if !weights.exists() {
            write_model(&weights, None, unet.parameters(), &values).unwrap();
        }
        checkpoint(path)
    }
    torment("config.json", CONFIG.as_bytes(), read);
    // Networks beyond all measure.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    for (from, to) in [
        ("\"model_channels\": 4", "\"model_channels\": 18446744073709551615"),
        ("\"model_channels\": 4", "\"model_channels\": 16384"),
        ("[1.0]", "[1e300]"),
        ("[1.0]", "[-1.0]"),
        ("[1.0]", "[]"),
        ("\"sample_size\": 4", "\"sample_size\": 18446744073709551615"),
        ("\"layers_per_block\": 1", "\"layers_per_block\": 1000000000"),
        ("\"num_classes\": 2", "\"num_classes\": 18446744073709551615"),
        ("\"out_channels\": 1", "\"out_channels\": 18446744073709551615"),
        ("\"in_channels\": 1", "\"in_channels\": 0"),
        ("\"norm_num_groups\": 2", "\"norm_num_groups\": 0"),
        ("\"attention_head_dim\": 4", "\"attention_head_dim\": 0"),
    ] {
        let text = CONFIG.replace(from, to);
        assert_ne!(text, CONFIG);
        std::fs::write(&path, text).unwrap();
        let start = Instant::now();
        assert!(read(&path).is_err(), "{to}");
        assert!(start.elapsed() < Duration::from_secs(1), "{to} took {:?}", start.elapsed());
    }
}

#[test]
fn configurations_of_diffusers() {
    fn read(path: &Path) -> Result<(), String> {
        let weights = path.with_file_name("diffusion_pytorch_model.safetensors");
        if !weights.exists() {
            let (config, unet, values) = small();
            let own = tempfile::tempdir().unwrap();
            write_model(&own.path().join("model.safetensors"), Some(&config), unet.parameters(), &values)
                .unwrap();
            let checkpoint = Checkpoint::open(own.path(), None).unwrap();
            let out = own.path().join("out");
            convert(&checkpoint, &out, Format::Diffusers, None).unwrap();
            std::fs::copy(out.join("unet/diffusion_pytorch_model.safetensors"), &weights).unwrap();
            let scheduler = r#"{"_class_name": "DDPMScheduler"}"#;
            std::fs::write(path.with_file_name("scheduler_config.json"), scheduler).unwrap();
        }
        Checkpoint::open(&weights, None).map(drop).map_err(|error| {
            // A file that says nothing of diffusers leaves the weights alone, which then say nothing of themselves.
            error.to_string().replace("diffusion_pytorch_model.safetensors", "config.json")
        })
    }
    let text = br#"{"_class_name": "UNet2DModel", "sample_size": 4, "in_channels": 1, "out_channels": 1,
        "down_block_types": ["ResnetDownsampleBlock2D"], "up_block_types": ["ResnetUpsampleBlock2D"],
        "block_out_channels": [4], "layers_per_block": 1, "downsample_type": "resnet", "upsample_type": "resnet",
        "attention_head_dim": 4, "norm_num_groups": 2, "resnet_time_scale_shift": "scale_shift",
        "num_class_embeds": 3}"#;
    torment("config.json", text, read);
}

#[test]
fn weights_that_do_not_fit_their_network() {
    let dir = tempfile::tempdir().unwrap();
    let (config, unet, values) = small();
    let parameters = unet.parameters();
    let path = dir.path().join("model.safetensors");
    write_model(&path, Some(&config), parameters, &values).unwrap();
    let open = || -> Result<(), String> {
        let checkpoint = Checkpoint::open(dir.path(), None).map_err(|error| error.to_string())?;
        load_values(checkpoint.source.as_ref(), parameters, "").map(drop).map_err(|error| error.to_string())
    };
    open().unwrap();

    // NaN and infinity, with their place.
    for bad in [f32::NAN, f32::NEG_INFINITY] {
        let mut changed = values.clone();
        changed[3][1] = bad;
        write_model(&path, None, parameters, &changed).unwrap();
        let message = open().unwrap_err();
        assert!(message.contains(&parameters.specs()[3].name) && message.contains("element 1"), "{message}");
    }

    // A tensor missing, one too many, one of another shape, one of integers.
    type Tensors = Vec<(String, Vec<usize>, Vec<u8>)>;
    let tensors: Tensors = freeguide::model::model_tensors(parameters, &values, "");
    let write = |change: &dyn Fn(&mut Tensors), dtype: Dtype| {
        let mut changed = tensors.clone();
        change(&mut changed);
        let views: Vec<TensorBytes> = changed
            .iter()
            .enumerate()
            .map(|(i, (name, shape, bytes))| {
                let dtype = if i == 0 { dtype } else { Dtype::F32 };
                TensorBytes { name, dtype, shape, bytes }
            })
            .collect();
        write_safetensors(&path, &views, &BTreeMap::new()).unwrap();
        open().unwrap_err()
    };
    let first = tensors[0].0.clone();
    assert!(write(&|t| drop(t.remove(0)), Dtype::F32).contains(&format!("`{first}` is missing")));
    let extra = write(&|t| t.push(("left.over".into(), vec![1], vec![0; 4])), Dtype::F32);
    assert!(extra.contains("`left.over` is not a part"), "{extra}");
    let flat = write(&|t| t[0].1 = vec![t[0].1.iter().product()], Dtype::F32);
    assert!(flat.contains(&format!("`{first}` is [")), "{flat}");
    assert!(write(&|_| (), Dtype::I32).contains("I32"));
}

#[test]
fn safetensors_that_name_a_tensor_twice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("twice.safetensors");
    let one = r#""w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    let header = format!("{{{one},{one}}}");
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 8]].concat();
    std::fs::write(&path, bytes).unwrap();
    let message = safetensors(&path).unwrap_err();
    assert!(message.contains("twice.safetensors") && message.contains("`w` comes twice"), "{message}");
}
