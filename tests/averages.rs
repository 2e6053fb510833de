//! A training of any length ends with averages that draw what was learnt, and every file says what it holds.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{assert_same_file, digits, gpu, requests, sampler_options, tiny, train};
use freeguide::data::{Dataset, Image};
use freeguide::diffusion::Guidance;
use freeguide::gpu::Gpu;
use freeguide::io::{SafetensorsFile, write_png};
use freeguide::model::{Model, ModelConfig, WeightsKind, load_values};
use freeguide::nn::UNet;
use freeguide::ops::EmaWarmup;
use freeguide::random::{Stream, fill_normal};
use freeguide::tensor::Precision;
use freeguide::train::{Outcome, Preset, TrainOptions, Trainer};

/// The colours of the easy set, by class.
const COLOURS: [(&str, [f64; 3]); 2] = [("blue", [30.0, 30.0, 220.0]), ("red", [220.0, 30.0, 30.0])];

/// A folder of 2 x 100 pictures of 8x8, each of one colour but for a little noise.
fn easy(dir: &Path) -> Arc<Dataset> {
    for (class, (name, colour)) in COLOURS.into_iter().enumerate() {
        let folder = dir.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for picture in 0..100 {
            let seed = class as u64 * 100 + picture;
            let noise = fill_normal(1, seed, Stream::TrainingNoise, 192);
            let pixel = |(i, noise): (usize, &f32)| (colour[i % 3] + 6.0 * f64::from(*noise)).round() as u8;
            let pixels = noise.iter().enumerate().map(pixel).collect();
            let image = Image { width: 8, height: 8, channels: 3, pixels };
            write_png(folder.join(format!("{picture:03}.png")), &image, &[]).unwrap();
        }
    }
    Arc::new(Dataset::open(dir.to_str().unwrap(), None).unwrap())
}

/// The mean deviation within a picture, in steps of 1/255: 6 in the data, 90 and more in noise that was sampled from.
fn spread(pictures: &[Image]) -> f64 {
    let mut spread = 0.0;
    for picture in pictures {
        for channel in 0..3 {
            let values = picture.pixels.iter().skip(channel).step_by(3).map(|&x| f64::from(x));
            let (sum, squares) = values.fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
            spread += (squares / 64.0 - (sum / 64.0) * (sum / 64.0)).max(0.0).sqrt();
        }
    }
    spread / (3 * pictures.len()) as f64
}

fn drawn(gpu: &Gpu, model: &Model) -> f64 {
    let requests = requests(2, 4);
    let sampler = common::sampler(gpu, model, sampler_options(requests.len(), 16));
    spread(&sampler.sample(&requests, Guidance::from_weight(0.0).unwrap(), || Ok(())).unwrap())
}

/// Eight passes over the easy set, 200 steps: averages at 0.999 and 0.9999 that do not warm up are noise then, measured at
/// 90 and more in any network that was tried.
#[test]
fn a_short_training_draws_plain_pictures_from_every_file_it_writes() {
    let (gpu, place) = (gpu(), tempfile::tempdir().unwrap());
    let dataset = easy(&place.path().join("easy"));
    let mut options = Preset::named("custom").unwrap().options(&dataset, 0);
    options.unet.model_channels = 8;
    options.unet.norm_num_groups = 4;
    options.unet.channel_mult = vec![1.0];
    options.unet.layers_per_block = 1;
    options.unet.attention_resolutions = Vec::new();
    options.unet.dropout = 0.0;
    let options = TrainOptions {
        batch: 8,
        microbatch: 8,
        images: 8 * dataset.len() as u64,
        learning_rate: 4e-3,
        warmup_images: 160,
        precision: Precision::F32,
        ..options
    };
    let dir = place.path().join("model");
    let mut trainer = Trainer::open(&gpu, dataset, &options, &dir).unwrap();
    assert_eq!(trainer.run(|| false, |_, _| Ok(())).unwrap(), Outcome::Finished);
    for kind in trainer.averages() {
        let WeightsKind::Average { initial_share: Some(share), .. } = kind else { panic!("{kind:?}") };
        assert!(share > 0.0 && share < 1e-10 && kind.warning().is_none(), "{kind:?}");
    }

    let text = std::fs::read_to_string(dir.join("config.json")).unwrap();
    let config: ModelConfig = serde_json::from_str(&text).unwrap();
    let unet = UNet::new(&config.unet).unwrap();
    let [raw, first, second] = ["model-raw", "model", "model-ema-0.9999"].map(|name| {
        let file = SafetensorsFile::open(dir.join(format!("{name}.safetensors"))).unwrap();
        let values = load_values(&file, unet.parameters(), "").unwrap();
        let model = Model::of_values(&gpu, config.clone(), &values, name.as_ref()).unwrap();
        drawn(&gpu, &model)
    });
    println!("deviation within a picture: raw {raw:.1}, averages {first:.1} and {second:.1}");
    for average in [first, second] {
        assert!(
            average < 70.0 && average < 1.3 * raw + 5.0,
            "{average:.1}, {raw:.1} of the last step's weights"
        );
    }
}

/// What the configuration and the notes of each file say, and that a resumed training says the same.
#[test]
fn every_file_says_what_it_holds() {
    let gpu = gpu();
    let [straight, stopped] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let options = TrainOptions { ema_rates: vec![0.5, 0.9999], ..tiny(80) };
    train(&gpu, &options, straight.path());
    let mut left = 4;
    let stop = || {
        left -= 1;
        left == 0
    };
    let mut trainer = Trainer::open(&gpu, digits(), &options, stopped.path()).unwrap();
    assert_eq!(trainer.run(stop, |_, _| Ok(())).unwrap(), Outcome::Stopped);
    drop(trainer);
    train(&gpu, &options, stopped.path());
    for name in ["config.json", "model.safetensors", "model-ema-0.9999.safetensors", "model-raw.safetensors"]
    {
        assert_same_file(name, straight.path(), stopped.path());
    }

    let kind = |name: &str| {
        let file = SafetensorsFile::open(straight.path().join(name)).unwrap();
        WeightsKind::of_notes(file.metadata()).unwrap_or_else(|| panic!("{name} says nothing"))
    };
    for (name, rate) in [("model.safetensors", 0.5), ("model-ema-0.9999.safetensors", 0.9999)] {
        let WeightsKind::Average { rate: noted, initial_share: Some(share) } = kind(name) else {
            panic!("{name}")
        };
        let want = EmaWarmup::Ramp.initial_share(rate, 10);
        assert!(noted == rate && (share / want - 1.0).abs() < 1e-12, "{name}: {noted} {share}, not {want}");
    }
    assert_eq!(kind("model-raw.safetensors"), WeightsKind::Raw);
    let json = |name: &str| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(straight.path().join(name)).unwrap()).unwrap()
    };
    let (config, options) = (json("config.json"), json("train.json"));
    assert!(config["ema_rate"] == 0.5 && config["ema_warmup"] == "ramp", "{config}");
    assert_eq!(options["ema_warmup"], "ramp");
    assert_eq!(config["trained_rows"], serde_json::json!({ "null": true, "classes": true }));
}

/// A folder of a version whose averages did not warm up goes on: from there on they do, unless told otherwise.
#[test]
fn a_training_of_an_older_version_goes_on() {
    let (gpu, dir) = (gpu(), tempfile::tempdir().unwrap());
    let steady = TrainOptions { ema_warmup: EmaWarmup::None, ema_rates: vec![0.99], ..tiny(80) };
    let trainer = train(&gpu, &steady, dir.path());
    let share = |trainer: &Trainer| match trainer.averages()[0] {
        WeightsKind::Average { initial_share: Some(share), .. } => share,
        kind => panic!("{kind:?}"),
    };
    assert!((share(&trainer) / 0.99f64.powi(10) - 1.0).abs() < 1e-12);
    assert!(trainer.averages()[0].warning().is_some());
    drop(trainer);
    // The choice once made is a part of the training.
    let ramp = TrainOptions { ema_warmup: EmaWarmup::Ramp, images: 160, ..steady.clone() };
    let refused = Trainer::open(&gpu, digits(), &ramp, dir.path()).err().unwrap().to_string();
    assert!(refused.contains("ema-warmup: there \"none\", now \"ramp\""), "{refused}");

    // An older version has written no choice.
    let path = dir.path().join("train.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("  \"ema_warmup\": \"none\",\n", "")).unwrap();
    let trainer = train(&gpu, &ramp, dir.path());
    let want = 0.99f64.powi(10) * (10..20).map(|t| (1.0 + t as f64) / (10.0 + t as f64)).product::<f64>();
    assert!((share(&trainer) / want - 1.0).abs() < 1e-12, "{} is not {want}", share(&trainer));
    assert!(std::fs::read_to_string(&path).unwrap().contains("\"ema_warmup\": \"ramp\""));
}
