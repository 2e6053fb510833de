//! A model keeps making the same pictures, whatever kind of checkpoint it is written as.

#![cfg(feature = "cli")]

mod common;

use std::fs;

use common::program::{TINY, run};

#[test]
fn converted_models_make_the_same_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let own = place("own");
    let train = ["train", "--data", "digits", "--images", "16", "--out", &own];
    run(&[&train[..], TINY].concat()).expect(0);
    let picture = |model: &str, out: &str| {
        let out = place(out);
        let sample =
            ["sample", "--model", model, "--class", "7", "--seeds", "3", "--steps", "2", "--out", &out];
        run(&sample).expect(0);
        let image = image::open(&out).unwrap();
        (image.width(), image.into_bytes())
    };
    let first = picture(&own, "own.png");

    let (file, folder, back) = (place("gd.safetensors"), place("diffusers"), place("back"));
    run(&["convert", &own, &file]).expect(0);
    assert_eq!(picture(&file, "gd.png"), first);
    run(&["convert", &file, &folder, "--format", "diffusers"]).expect(0);
    assert_eq!(picture(&folder, "diffusers.png"), first);
    run(&["convert", &folder, &back, "--qkv-order", "legacy"]).expect(0);
    assert_eq!(picture(&back, "legacy.png"), first);
    run(&["convert", &back, &back, "--qkv-order", "new", "--force"]).expect(0);
    let weights = |folder: &str| fs::read(format!("{folder}/model.safetensors")).unwrap();
    assert_eq!(weights(&back), weights(&own));

    // What is there is left alone, and what makes no sense is told.
    assert!(run(&["convert", &own, &file]).expect(1).stderr.contains("--force"));
    assert!(run(&["convert", &own, &place("x"), "--format", "onnx"]).expect(1).stderr.contains("`onnx`"));
    let file = run(&["convert", &own, &place("x.safetensors"), "--format", "diffusers"]).expect(1).stderr;
    assert!(file.contains("to a folder"), "{file}");
    let info = run(&["info", &folder]).expect(0).stdout;
    assert!(info.contains("diffusers folder") && info.contains("trained on digits for 16 images"), "{info}");
}
