//! Pictures that are not square, from data to files.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{gpu, sampler_options, tiny};
use freeguide::data::{Crop, Dataset, Loader, LoaderOptions};
use freeguide::diffusion::Guidance;
use freeguide::model::Model;
use freeguide::sample::{Request, Sampler};
use freeguide::shape::{Extent, Shape};
use freeguide::train::{Outcome, TrainOptions, Trainer};

/// The digits stretched to twice their width.
const WIDE: Extent = Extent::Plane { height: 8, width: 16 };

fn wide(images: u64) -> TrainOptions {
    let mut options = TrainOptions { stretch: true, ..tiny(images) };
    options.unet.sample_size = WIDE;
    options.unet.attention_resolutions = vec![8];
    options
}

fn data(options: &TrainOptions) -> Arc<Dataset> {
    Arc::new(Dataset::open("digits", Some(options.unet.sample_size)).unwrap())
}

fn train(options: &TrainOptions, dir: &Path) -> Trainer {
    let mut trainer = Trainer::open(&gpu(), data(options), options, dir).unwrap();
    assert_eq!(trainer.run(|| false, |_, _| Ok(())).unwrap(), Outcome::Finished);
    trainer
}

/// The mean over pictures of the squared difference of neighbours, across and down: digits that are stretched to twice their
/// width change half as fast along it.
fn roughness(pixels: &[u8], height: usize, width: usize) -> [f64; 2] {
    let at = |image: &[u8], y: usize, x: usize| f64::from(image[y * width + x]);
    let (mut across, mut down) = (0.0, 0.0);
    for image in pixels.chunks(height * width) {
        for (y, x) in (0..height - 1).flat_map(|y| (0..width - 1).map(move |x| (y, x))) {
            across += (at(image, y, x + 1) - at(image, y, x)).powi(2);
            down += (at(image, y + 1, x) - at(image, y, x)).powi(2);
        }
    }
    let count = pixels.len() as f64;
    [across / count, down / count]
}

#[test]
fn stretched_digits_train_and_are_drawn() {
    let dir = tempfile::tempdir().unwrap();
    let options = wide(3_200);
    let trainer = train(&options, dir.path());
    let losses: Vec<f64> = trainer.records().iter().map(|record| f64::from(record.loss)).collect();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&losses[..20]), mean(&losses[losses.len() - 100..]));
    assert!(last < 0.5 * first, "the loss went from {first} to {last}");

    let text = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["unet"]["sample_size"], serde_json::json!([8, 16]));
    let gpu = gpu();
    let model = Model::load(&gpu, dir.path()).unwrap();
    assert_eq!(model.config.unet.shape(), Shape { channels: 1, extent: WIDE });

    let sampler = Sampler::of(&gpu, &model, sampler_options(20, 16)).unwrap();
    let requests: Vec<Request> = (0..20).map(|i| Request { class: Some(i % 10), seed: i.into() }).collect();
    let images = sampler.sample(&requests, Guidance::from_weight(1.0).unwrap(), || Ok(())).unwrap();
    assert!(images.iter().all(|image| image.shape() == Shape { channels: 1, extent: WIDE }));
    // What is drawn is as wide as what was learnt: rougher down than across, as the data is.
    let loading = LoaderOptions { image_size: WIDE, crop: Crop::Stretch, flip: false, seed: 0 };
    let data = Loader::new(data(&options), loading).batch(0, 200).unwrap();
    let drawn: Vec<u8> = images.iter().flat_map(|image| image.pixels.iter().copied()).collect();
    for (name, pixels) in [("data", &data.images), ("drawn", &drawn)] {
        let [across, down] = roughness(pixels, 8, 16);
        assert!(down > 1.5 * across, "{name}: {across} across, {down} down");
    }
}

/// Stopped after some images and begun again: the same bytes as at once.
#[test]
fn a_training_of_another_shape_goes_on_byte_for_byte() {
    let [whole, parts] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    train(&wide(160), whole.path());
    train(&wide(80), parts.path());
    train(&wide(160), parts.path());
    common::assert_same_file("model.safetensors", whole.path(), parts.path());
}

#[test]
#[cfg(feature = "cli")]
fn the_command_line_trains_and_draws_them() {
    use common::program::{TINY, run};
    let dir = tempfile::tempdir().unwrap();
    let text = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let out = text("wide");
    let train = ["train", "--data", "digits", "--out", &out, "--images", "32", "--crop", "none"];
    let told = run(&[&train[..], &["--image-size", "8x16", "--attention", "8"], TINY].concat()).expect(0);
    assert!(told.stderr.contains("sizes, height first: 8x8, brought to 8x16"), "{}", told.stderr);
    let npz = text("wide.npz");
    let draw = ["sample", "--model", &out, "--steps", "2", "--seeds", "0-1", "--class", "3"];
    run(&[&draw[..], &["--out", &npz]].concat()).expect(0);
    let mut arrays = freeguide::io::NpzArrays::open(Path::new(&npz)).unwrap();
    let mut seen = Vec::new();
    arrays
        .for_pictures(9, |bytes, size| {
            seen.push((bytes.len(), size));
            Ok(true)
        })
        .unwrap();
    assert_eq!(seen, [(2 * 128 * 3, (16, 8, 3))]);
    let folder = text("each/");
    run(&[&draw[..], &["--out", &folder]].concat()).expect(0);
    let set = Dataset::open(&folder, None).unwrap();
    assert_eq!((set.len(), set.image_size()), (2, WIDE));
    run(&[&draw[..], &["--out", &text("sheet.png")]].concat()).expect(0);
    let told = run(&["info", &out]).expect(0);
    assert!(told.stdout.contains("pictures: 8x16, 1 channels"), "{}", told.stdout);

    // What cannot be halved is refused with the numbers, before anything is written.
    let odd = text("odd");
    let train = ["train", "--data", "digits", "--out", &odd, "--images", "32", "--image-size", "8x9"];
    let told = run(&train).expect(1);
    assert!(told.stderr.contains("8x9 -> 4x4.5"), "{}", told.stderr);
}
