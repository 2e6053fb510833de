//! Pictures that are not square, from data to files.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{gpu, sampler_options, tiny};
use freeguide::data::{Crop, Dataset, Loader, LoaderOptions};
use freeguide::diffusion::Guidance;
use freeguide::model::Model;
use freeguide::sample::{Guide, GuideInput, Networks, Request, Sampler, SamplerOptions};
use freeguide::shape::{Extent, Shape};
use freeguide::tensor::{Context, Tensor};
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
    let requests: Vec<Request> = (0..20).map(|i| Request::new(Some(i % 10), i.into())).collect();
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

/// A folder with that file alone.
#[cfg(feature = "cli")]
fn folder_of(dir: &tempfile::TempDir, file: &str) -> String {
    let folder = dir.path().join("alone");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(file, folder.join("one.png")).unwrap();
    folder.to_str().unwrap().to_owned()
}

/// Any extent that the halvings divide; its own is what nothing is said for.
#[test]
fn a_network_draws_other_sizes_than_it_was_trained_at() {
    let dir = tempfile::tempdir().unwrap();
    let gpu = gpu();
    common::train(&gpu, &tiny(160), dir.path());
    let model = Model::load(&gpu, dir.path()).unwrap();
    let requests = [Request::new(Some(3), 5), Request::new(None, 6)];
    let sampler =
        |size: Option<Extent>| Sampler::of(&gpu, &model, SamplerOptions { size, ..sampler_options(2, 4) });
    let drawn = |size: Option<Extent>| {
        let sampler = sampler(size).unwrap();
        let images = sampler.sample(&requests, Guidance::from_weight(1.0).unwrap(), || Ok(())).unwrap();
        assert!(images.iter().all(|image| image.shape() == sampler.shape()));
        (sampler.shape().extent, images)
    };
    let (own, plain) = drawn(None);
    assert_eq!(own, Extent::square(8));
    assert_eq!(drawn(Some(own)).1, plain);
    for (height, width) in [(8, 16), (12, 10), (2, 24)] {
        let wanted = Extent::Plane { height, width };
        let (size, images) = drawn(Some(wanted));
        assert!(size == wanted && images[0].pixels.iter().any(|x| *x != images[0].pixels[0]));
    }
    let refused = |size| sampler(Some(size)).err().unwrap().to_string();
    let message = refused(Extent::Plane { height: 96, width: 63 });
    for part in ["`size`: 96x63", "multiples of 2", "96x62 or 96x64"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    assert!(refused(Extent::Line(64)).contains("network of planes"));

    // What guides by places of its own takes no other size.
    struct Placed(Extent);
    impl Guide for Placed {
        fn value(&self, _: &mut Context, _: &GuideInput<'_>) -> freeguide::Result<Tensor> {
            unreachable!("it is refused before anything is recorded")
        }

        fn extent(&self) -> Option<Extent> {
            Some(self.0)
        }
    }
    let (weights, placed) = (model.weights(), Placed(own));
    let networks = Networks { guide: Some(&placed), ..Networks::of(&model.unet, &weights) };
    let options = SamplerOptions { size: Some(Extent::square(16)), guided: false, ..sampler_options(2, 4) };
    let process = model.config.process().unwrap();
    let message = Sampler::with(&gpu, networks, process, options).err().unwrap().to_string();
    for part in ["`size` 16x16", "`classifier`", "takes 8x8 alone"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
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

    // Another size than it was trained at: in the file's shape and in its text.
    let tall = text("tall.png");
    let draw = ["sample", "--model", &out, "--steps", "2", "--seeds", "0", "--class", "3"];
    run(&[&draw[..], &["--size", "24x12", "--out", &tall]].concat()).expect(0);
    let notes = freeguide::io::read_png_text(Path::new(&tall)).unwrap();
    assert!(notes.iter().any(|(key, value)| key == "size" && value == "24x12"), "{notes:?}");
    let set = Dataset::open(&folder_of(&dir, &tall), None).unwrap();
    assert_eq!(set.image_size(), Extent::Plane { height: 24, width: 12 });
    let told = run(&[&draw[..], &["--size", "9x16", "--out", &text("no.png")]].concat()).expect(1);
    assert!(told.stderr.contains("9x16") && told.stderr.contains("8x16 or 10x16"), "{}", told.stderr);
    assert!(!dir.path().join("no.png").exists());

    // What cannot be halved is refused with the numbers, before anything is written.
    let odd = text("odd");
    let train = ["train", "--data", "digits", "--out", &odd, "--images", "32", "--image-size", "8x9"];
    let told = run(&train).expect(1);
    assert!(told.stderr.contains("8x9 -> 4x4.5"), "{}", told.stderr);
}
