//! The program as a person meets it: help, messages, exit codes, and the files it leaves or refuses to leave.
//!
//! `FREEGUIDE_UPDATE_SNAPSHOTS=1` writes the help texts anew.

#![cfg(feature = "cli")]

#[path = "../common/mod.rs"]
mod common;
mod data;
mod disk;
mod files;
mod long;
mod measures;
mod models;
mod notes;
mod numbers;
mod terminal;
mod variations;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use common::program::{Finished, TINY, freeguide, run};
use freeguide::data::{Dataset, Image};
use freeguide::io::{read_npz_images, read_png_text, write_png};
use freeguide::train::StepRecord;

/// A folder of this test, and paths in it as text.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

/// A model that was trained for two steps.
fn model(place: &Place) -> String {
    let out = place.text("model");
    let fixed = ["train", "--data", "digits", "--images", "16", "--out", &out];
    run(&[&fixed[..], TINY].concat()).expect(0);
    out
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .map(|entries| entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

// --- arguments --------------------------------------------------------------------------------------------------

#[test]
fn help_is_what_it_was() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots");
    let update = std::env::var_os("FREEGUIDE_UPDATE_SNAPSHOTS").is_some();
    for command in [
        "",
        "quickstart",
        "train",
        "sample",
        "sweep",
        "eval",
        "stats",
        "info",
        "convert",
        "toy",
        "demo",
        "devices",
        "nll",
        "train-classifier",
        "distill",
        "plot",
    ] {
        let arguments: Vec<&str> = [command, "--help"].into_iter().filter(|a| !a.is_empty()).collect();
        // Lines are broken at 100 columns whatever the terminal.
        let output = freeguide().args(arguments).env("COLUMNS", "100").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{command} --help");
        let text = String::from_utf8(output.stdout)
            .unwrap()
            .replace("\r\n", "\n")
            .replace("freeguide.exe", "freeguide");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        let path =
            folder.join(format!("help-{}.txt", if command.is_empty() { "freeguide" } else { command }));
        if update {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let known = fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
        assert_eq!(text, known, "{} differs; FREEGUIDE_UPDATE_SNAPSHOTS=1 writes it anew", path.display());
    }
}

#[test]
fn wrong_arguments_exit_with_2_and_wrong_values_with_1() {
    for arguments in [
        &[][..],
        &["paint"],
        &["train"],
        &["train", "--data", "digits", "--out", "x", "--batch", "many"],
        &["train", "--data", "digits", "--out", "x", "--images", "1", "--epochs", "1"],
        &["train", "--data", "digits", "--out", "x", "--crop"],
        &["train", "--data", "digits", "--out", "x", "--images", "18446744073709551615"],
        &["sample", "--model", "x", "--seeds", "5-1"],
        &["sweep", "--model", "x", "--w", "0:1"],
        &["sample", "--model", "x", "--w", "1", "--guidance-scale", "2"],
        &["sample", "--model", "x", "--w", "strong"],
        &["info"],
        &["devices", "--xml"],
    ] {
        let finished = run(arguments).expect(2);
        let stderr = finished.stderr;
        assert!(stderr.contains("Usage: freeguide") || stderr.contains("try '--help'"), "{stderr}");
    }
    let place = Place::new();
    let out = place.text("out");
    for (arguments, parts) in [
        (
            &["train", "--data", "digits", "--out", &out, "--crop", "left"][..],
            &["--crop", "left", "center"][..],
        ),
        (&["train", "--data", "digits", "--out", &out, "--preset", "big"], &["big", "digits, custom"]),
        (&["train", "--data", "nowhere", "--out", &out], &["nowhere", "digits", "IDX"]),
        (
            &["train", "--data", "digits", "--out", &out, "--norm-groups", "5"],
            &["32 channels", "5 norm groups", "--norm-groups 4", "--channels 30"],
        ),
        (&["train", "--data", "digits", "--out", &out, "--microbatch", "5"], &["32", "5"]),
        (&["train", "--data", "digits", "--out", &out, "--device", "no such card"], &["no such card", "0: "]),
        (
            &["train", "--data", "digits", "--out", &out, "--batch", "1048576", "--microbatch", "1048576"],
            &["would take", "smaller batch"],
        ),
        (&["sample", "--model", &out], &["out", "no such file or folder"]),
        (&["sample", "--model", &out, "--out", "x.tiff"], &[".tiff", ".png"]),
        (&["info", &out], &["no such file"]),
        #[cfg(not(feature = "demo"))]
        (&["demo"], &["built without its window", "cargo run --release --features demo -- demo"]),
    ] {
        let finished = run(arguments).expect(1);
        assert!(finished.stderr.contains("error: "), "{}", finished.stderr);
        contains(&finished.stderr, parts);
    }
    assert!(names(&place.path("")).is_empty(), "refusals leave nothing: {:?}", names(&place.path("")));
}

#[test]
fn devices_are_told_to_people_and_to_programs() {
    let text = run(&["devices"]).expect(0).stdout;
    contains(&text, &["0: ", "kernels: ", "largest buffer"]);
    let json = run(&["devices", "--json"]).expect(0).stdout;
    let list: serde_json::Value = serde_json::from_str(&json).unwrap();
    let first = &list[0];
    assert!(text.contains(first["name"].as_str().unwrap()));
    assert_eq!(first["index"], 0);
    assert!(["naive", "cpu", "tiled"].contains(&first["kernels"].as_str().unwrap()));
    assert!(first["f16"].is_boolean() && first["features"].is_array());
    assert!(first["limits"]["max_storage_buffer_binding_size"].as_u64().unwrap() >= 1 << 27);
}

// --- training ---------------------------------------------------------------------------------------------------

/// Two classes of 8x8 pictures, (name, label, picture).
fn pictures() -> Vec<(String, u32, Image)> {
    let digits = Dataset::open("digits", None).unwrap();
    let wanted = (0..digits.len()).filter(|&i| digits.label(i) < 2).take(12);
    wanted.map(|i| (format!("{i:03}.png"), digits.label(i), digits.decode(i).unwrap())).collect()
}

fn write_folder(folder: &Path) {
    for (name, label, picture) in pictures() {
        write_png(folder.join(["nought", "one"][label as usize]).join(name), &picture, &[]).unwrap();
    }
}

fn train_two_steps(data: &str, out: &str, more: &[&str]) -> Finished {
    let fixed = ["train", "--data", data, "--out", out, "--images", "16", "--attention", "none"];
    run(&[&fixed[..], TINY, &["--channel-mult", "1,1"], more].concat())
}

fn records(folder: &Path) -> Vec<StepRecord> {
    let text = fs::read_to_string(folder.join("train.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn folders_zips_and_idx_files_are_trained_on() {
    let place = Place::new();
    write_folder(&place.path("folder"));

    let mut zip = zip::ZipWriter::new(fs::File::create(place.path("set.zip")).unwrap());
    let plain = zip::write::SimpleFileOptions::default();
    let mut labels = Vec::new();
    for (name, label, _) in pictures() {
        zip.start_file(format!("00000/{name}"), plain).unwrap();
        let file = place.path("folder").join(["nought", "one"][label as usize]).join(&name);
        zip.write_all(&fs::read(file).unwrap()).unwrap();
        labels.push(serde_json::json!([format!("00000/{name}"), label]));
    }
    zip.start_file("dataset.json", plain).unwrap();
    zip.write_all(serde_json::json!({ "labels": labels }).to_string().as_bytes()).unwrap();
    zip.finish().unwrap();

    let (mut images, mut classes) = (vec![0, 0, 8, 3], vec![0, 0, 8, 1]);
    for size in [12u32, 8, 8] {
        images.extend(size.to_be_bytes());
    }
    classes.extend(12u32.to_be_bytes());
    for (_, label, picture) in pictures() {
        images.extend(&picture.pixels);
        classes.push(label as u8);
    }
    fs::write(place.path("set-images-idx3-ubyte"), images).unwrap();
    fs::write(place.path("set-labels-idx1-ubyte"), classes).unwrap();

    for (data, classes) in [("folder", "nought, one"), ("set.zip", "0, 1"), ("set-images-idx3-ubyte", "0, 1")]
    {
        let out = place.text(&format!("from {data}"));
        let finished = train_two_steps(&place.text(data), &out, &[]).expect(0);
        contains(&finished.stderr, &["12 grey pictures, 2 classes", "device: ", data]);
        contains(&finished.stdout, &["wrote ", "model.safetensors"]);
        assert_eq!(records(Path::new(&out)).len(), 2);
        contains(&run(&["info", &out]).expect(0).stdout, &[classes, "8x8"]);
    }
}

#[test]
fn bad_files_are_named_beside_the_number_of_good_ones() {
    let place = Place::new();
    write_folder(&place.path("folder"));
    fs::write(place.path("folder/one/broken.png"), b"not a picture").unwrap();
    fs::write(place.path("folder/astray.png"), b"").unwrap();
    let finished = train_two_steps(&place.text("folder"), &place.text("out"), &["--dry-run"]).expect(0);
    let parts = ["2 files were left out", "12 are good", "one/broken.png: ", "astray.png: "];
    contains(&finished.stderr, &parts);

    fs::create_dir(place.path("bad")).unwrap();
    fs::write(place.path("bad/a.png"), b"not a picture").unwrap();
    let finished = train_two_steps(&place.text("bad"), &place.text("out"), &[]).expect(1);
    contains(&finished.stderr, &["not one of its 1 files", "a.png"]);
}

#[test]
fn a_dry_run_tells_what_it_would_take_and_writes_nothing() {
    let place = Place::new();
    let out = place.text("out");
    let finished = run(&["train", "--data", "digits", "--out", &out, "--dry-run"]).expect(0);
    contains(
        &finished.stdout,
        &["parameters: 354209 in ", "memory: ", "GiB", "work: ", "TFLOP a step of 32 images"],
    );
    let options = &finished.stdout[..finished.stdout.find("\n}").unwrap() + 2];
    let options: freeguide::train::TrainOptions = serde_json::from_str(options).unwrap();
    assert_eq!((options.batch, options.images), (32, 24_000));
    let work = finished.stdout.split("work: ").nth(1).unwrap().split(' ').next().unwrap();
    assert!(work.parse::<f64>().unwrap() > 0.0, "{work} TFLOP a step");
    assert!(!Path::new(&out).exists());
}

#[test]
fn sizes_must_halve_and_28_does() {
    let place = Place::new();
    let three = |size: &str, out: &str| {
        let out = place.text(out);
        let fixed = ["train", "--data", "digits", "--out", &out, "--images", "16", "--attention", "none"];
        run(&[&fixed[..], TINY, &["--channel-mult", "1,1,1", "--image-size", size]].concat())
    };
    let refused = three("30", "thirty").expect(1);
    contains(&refused.stderr, &["30 -> 15 -> 7.5", "multiple of 4", "--channel-mult"]);
    assert!(!place.path("thirty").exists());
    three("28", "twenty-eight").expect(0);
    let records = records(&place.path("twenty-eight"));
    assert_eq!(records.iter().map(|record| record.images).collect::<Vec<_>>(), [8, 16]);
    assert!(records.iter().all(|record| record.loss.is_finite() && record.loss > 0.0));
    let sample = ["sample", "--steps", "2", "--seeds", "0", "--class", "3", "--model"];
    let (model, picture) = (place.text("twenty-eight"), place.text("drawn/three.png"));
    run(&[&sample[..], &[&model, "--out", &picture]].concat()).expect(0);
    let side = Dataset::open(&place.text("drawn"), None).unwrap().native_size();
    assert_eq!(side, (28, 28));
}

// --- sampling ---------------------------------------------------------------------------------------------------

#[test]
fn samples_become_grids_folders_and_arrays() {
    let place = Place::new();
    let model = model(&place);
    let sample = |out: &str, more: &[&str]| {
        let out = place.text(out);
        run(&[&["sample", "--model", &model, "--steps", "3", "--out", &out], more].concat())
    };

    // A grid, with all it takes to make it again.
    contains(&sample("grid.png", &["--w", "-0.5", "--seeds", "0-2"]).expect(0).stdout, &["30 pictures"]);
    let text = read_png_text(place.path("grid.png")).unwrap();
    for (key, value) in [
        ("model", "model"),
        ("guidance_weight", "-0.5"),
        ("guidance_scale", "0.5"),
        ("steps", "3"),
        ("v", "0.3"),
        ("clip", "static"),
        ("seeds", "0-2"),
        ("class", "all"),
    ] {
        assert!(text.contains(&(key.into(), value.into())), "{key} = {value} in {text:?}");
    }

    // What may depend on the batch says so.
    sample("fast.png", &["--class", "1", "--seeds", "0-2", "--batch", "2", "--fast"]).expect(0);
    let fast = read_png_text(place.path("fast.png")).unwrap();
    assert!(fast.contains(&("fast".into(), "in batches of 2".into())), "{fast:?}");
    assert!(!text.iter().any(|(key, _)| key == "fast"));

    // What is there stays, unless told otherwise.
    let before = fs::read(place.path("grid.png")).unwrap();
    contains(&sample("grid.png", &[]).expect(1).stderr, &["grid.png", "--force"]);
    assert_eq!(fs::read(place.path("grid.png")).unwrap(), before);
    sample("grid.png", &["--w=-0.5", "--seeds", "0-2", "--force", "--batch", "7"]).expect(0);
    assert_eq!(fs::read(place.path("grid.png")).unwrap(), before, "in other batches, written as --w=-0.5");

    // Arrays: class by class, grey three times, labels.
    sample("all.npz", &["--seeds", "4,9", "--guidance-scale", "0.5"]).expect(0);
    let npz = read_npz_images(place.path("all.npz")).unwrap();
    assert_eq!((npz.count, npz.width, npz.height, npz.channels), (20, 8, 8, 3));
    let labels: Vec<i64> = (0..10).flat_map(|class| [class; 2]).collect();
    assert_eq!(npz.labels.as_deref(), Some(&labels[..]));
    assert!(npz.images.chunks(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]));

    // A folder: one file each, the same pictures.
    sample("folder", &["--seeds", "4,9", "--class", "7", "--w", "-0.5"]).expect(0);
    assert_eq!(names(&place.path("folder")), ["7-seed000004.png", "7-seed000009.png"]);
    let set = Dataset::open(&place.text("folder"), None).unwrap();
    let grey = |i: usize| npz.images[i * 192..(i + 1) * 192].iter().step_by(3).copied().collect::<Vec<u8>>();
    assert_eq!(set.decode(0).unwrap().pixels, grey(14));
    assert_eq!(set.decode(1).unwrap().pixels, grey(15));
    let text = read_png_text(place.path("folder/7-seed000009.png")).unwrap();
    assert!(text.contains(&("seed".into(), "9".into())) && text.contains(&("class".into(), "7".into())));
    contains(
        &sample("folder", &["--seeds", "9", "--class", "7"]).expect(1).stderr,
        &["seed000009", "--force"],
    );

    // No class: the same as w = -1 of any.
    sample("none.npz", &["--class", "none", "--seeds", "0"]).expect(0);
    sample("one.npz", &["--class", "1", "--seeds", "0", "--w", "-1"]).expect(0);
    let [none, one] = ["none.npz", "one.npz"].map(|name| read_npz_images(place.path(name)).unwrap());
    assert_eq!(none.images, one.images);
    contains(&sample("x.png", &["--class", "eleven"]).expect(1).stderr, &["eleven", "10 classes"]);
    let none = run(&["sample", "--model", &model, "--steps", "0", "--out", &place.text("x.png")]);
    contains(&none.expect(2).stderr, &["error: ", "--steps", "from 1 to"]);
    assert!(!place.path("x.png").exists());
}

#[test]
fn guiders_are_named_in_the_picture_or_refused_with_the_reason() {
    let place = Place::new();
    let (model, out) = (model(&place), place.text("guided.png"));
    let sample = |guider: &str| {
        run(&[
            "sample", "--model", &model, "--class", "3", "--seeds", "1", "--steps", "3", "--w", "2",
            "--guider", guider,
        ]
        .iter()
        .copied()
        .chain(["--out", &out])
        .collect::<Vec<_>>())
    };
    sample("interval(lo=-2,hi=6) + rescale(0.7)").expect(0);
    let text = read_png_text(&out).unwrap();
    assert!(text.contains(&("guider".into(), "interval(lo=-2,hi=6)+rescale(0.7)".into())), "{text:?}");
    fs::remove_file(&out).unwrap();
    for (guider, parts) in [
        ("rescal(0.7)", &["rescal", "rescale, cfg++"][..]),
        ("apg()+rescale(0.5)", &["do not go together"]),
        ("negative(cat)", &["cat", "there are 10 classes"]),
        ("expression(eps_c + q)", &["eps_c + q", "`q`"]),
        ("autoguidance(nowhere)", &["nowhere", "no such file or folder"]),
    ] {
        contains(&sample(guider).expect(1).stderr, parts);
        assert!(!Path::new(&out).exists(), "{guider}");
    }
}

#[test]
fn a_network_that_saw_no_label_is_asked_for_no_class() {
    let place = Place::new();
    let (model, classifier) = (place.text("model"), place.text("classifier"));
    let fixed = ["train", "--data", "digits", "--images", "8", "--p-uncond", "1", "--out", &model];
    run(&[&fixed[..], TINY].concat()).expect(0);
    let small = ["--channels", "8", "--channel-mult", "1", "--attention", "none", "--batch", "8"];
    let fixed = ["train-classifier", "--data", "digits", "--images", "8", "--out", &classifier];
    run(&[&fixed[..], &small].concat()).expect(0);
    let sample = |out: &str, more: &[&str]| {
        let out = place.text(out);
        let fixed = ["sample", "--model", &model, "--seeds", "1", "--steps", "2", "--out", &out];
        run(&[&fixed[..], more].concat())
    };
    contains(
        &sample("class.png", &["--class", "3"]).expect(1).stderr,
        &["trained without labels", "`p-uncond`", "`classifier`"],
    );
    sample("none.png", &["--class", "none"]).expect(0);
    // Guided by a classifier the network itself is told no class, without a word of it.
    let guided = ["--class", "3", "--classifier", &classifier, "--classifier-scale", "1000"];
    sample("guided.png", &guided).expect(0);
    sample("told.png", &[&guided[..], &["--w", "-1"]].concat()).expect(0);
    let pixels = |name: &str| image::open(place.path(name)).unwrap().into_bytes();
    assert_eq!(pixels("guided.png"), pixels("told.png"));
    assert_ne!(pixels("guided.png"), pixels("none.png"));
}

#[test]
fn info_tells_of_models_and_of_trainings() {
    let place = Place::new();
    let model = model(&place);
    let folder = run(&["info", &model]).expect(0).stdout;
    contains(
        &folder,
        &["parameters", "trained on digits for 16 images", "8x8, 1 channels", "guidance possible"],
    );
    contains(&folder, &["train.json", "16 of 16 images seen", "learning rate: 0.002"]);
    // Two steps: 9!·2!/11! of the initial weights are left.
    contains(&folder, &["average at rate 0.99, 1.82 % of it the initial weights", "warning: 1.8 % of"]);
    contains(&folder, &["ema warmup: \"ramp\""]);
    assert!(place.path("model/model-raw.safetensors").exists());
    let file = run(&["info", &place.text("model/model.safetensors")]).expect(0).stdout;
    contains(&file, &["parameters", "trained on digits"]);
    assert!(!file.contains("train.json"), "{file}");
    // A training that has not finished.
    fs::remove_file(place.path("model/model.safetensors")).unwrap();
    let text = run(&["info", &model]).expect(0).stdout;
    contains(&text, &["16 of 16 images seen"]);
    fs::create_dir(place.path("empty")).unwrap();
    contains(&run(&["info", &place.text("empty")]).expect(1).stderr, &["neither a model", "train.json"]);
    // Damaged files are named.
    fs::write(place.path("model/train.json"), "{").unwrap();
    contains(&run(&["info", &model]).expect(1).stderr, &["train.json"]);
}
