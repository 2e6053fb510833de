//! A whole text-to-image pipeline, text to picture, against what diffusers makes of the same noise in float64; and what is told
//! and refused on the way. `fixtures/scripts/text_to_image.py` made the pipeline and its pictures.

#![cfg(feature = "cli")]

use std::path::Path;
use std::process::{Command, Output};

use freeguide::io::{NpzArrays, SafetensorsFile, TensorSource, read_npy, read_png_text, write_npy};

const PIPELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/text_to_image");
const PROMPT: [&str; 4] = ["--prompt", "a red fox in the snow", "--negative", "blurry"];

fn sample(folder: &Path, arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_freeguide");
    let mut all = vec!["sample", "--model", PIPELINE];
    // What is said later goes before what was said first.
    for (at, argument) in arguments.iter().enumerate() {
        let again = |name: &str| name.starts_with("--") && arguments[at + 1..].contains(&name);
        if !(again(argument) || at > 0 && again(arguments[at - 1]) && !argument.starts_with("--")) {
            all.push(argument);
        }
    }
    if !all.contains(&"--out") {
        all.extend(["--out", "out.npz"]);
    }
    Command::new(program).current_dir(folder).args(all).output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A golden tensor `[N, C, H, W]` as `[N, H, W, C]`.
fn golden(name: &str) -> (Vec<usize>, Vec<f32>) {
    let file = SafetensorsFile::open(format!("{PIPELINE}/expected.safetensors")).unwrap();
    let (shape, values) = file.values(name).unwrap();
    let [n, c, h, w] = shape[..] else { panic!("{name} is {shape:?}") };
    let at = |i: usize, y: usize, x: usize, k: usize| values[((i * c + k) * h + y) * w + x];
    let places = (0..n * h * w).map(|place| (place / (h * w), place / w % h, place % w));
    let turned = places.flat_map(|(i, y, x)| (0..c).map(move |k| (i, y, x, k)));
    (vec![n, h, w, c], turned.map(|(i, y, x, k)| at(i, y, x, k)).collect())
}

fn drawn(folder: &Path) -> (Vec<usize>, Vec<f32>) {
    let array = NpzArrays::open(folder.join("out.npz")).unwrap().f32("arr_0").unwrap().unwrap();
    (array.shape, array.values)
}

#[test]
fn pictures_of_the_same_noise_are_diffusers_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let (shape, noise) = golden("noise");
    write_npy(&folder.path().join("noise.npy"), &shape, &noise).unwrap();
    // The levels of the reference's own settings: `leading` is the folder's.
    for (sampler, spacing, allowed) in
        [("ddim", None, 1.0), ("dpmpp-2m", Some("uniform"), 1.0), ("euler", Some("uniform"), 0.5)]
    {
        let mut arguments = vec!["--sampler", sampler, "--steps", "20", "--guidance-scale", "5", "--float"];
        arguments.extend(["--noise", "noise.npy", "--seeds", "0", "--force"]);
        arguments.extend(PROMPT);
        spacing.iter().for_each(|spacing| arguments.extend(["--spacing", spacing]));
        let output = sample(folder.path(), &arguments);
        assert!(output.status.success(), "{}", told(&output));
        let (shape, picture) = drawn(folder.path());
        let (expected_shape, expected) = golden(&format!("{sampler}.picture"));
        assert_eq!(shape, expected_shape);
        let error = picture.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error < allowed / 255.0, "{sampler}: off by {} of 255", error * 255.0);
    }
}

#[test]
fn noise_goes_out_and_comes_in_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let few = ["--steps", "2", "--seeds", "3,4", "--float", "--size", "16x24"];
    let run = |more: &[&str]| {
        let output = sample(path, &[&PROMPT[..], &few, more].concat());
        assert!(output.status.success(), "{}", told(&output));
        drawn(path)
    };
    let (shape, first) = run(&["--save-noise", "noise.npy"]);
    assert_eq!(shape, [2, 16, 24, 3]);
    assert_eq!(read_npy(&path.join("noise.npy")).unwrap().0, [2, 8, 12, 4]);
    assert_eq!(run(&["--noise", "noise.npy", "--force"]).1, first);
    // A picture is its own, whatever stands beside it.
    let alone = run(&["--seeds", "4", "--force"]).1;
    assert_eq!(alone, first[first.len() / 2..]);
    let output =
        sample(path, &[&PROMPT[..], &few, &["--noise", "noise.npy", "--size", "16", "--force"]].concat());
    assert!(
        told(&output).contains("holds noise of [2, 8, 12, 4]; these pictures begin with [2, 8, 8, 4]"),
        "{}",
        told(&output)
    );
}

#[test]
fn files_tell_the_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [&PROMPT[..], &["--steps", "2", "--seeds", "7", "--out", "fox.png"]].concat();
    let output = sample(folder.path(), &arguments);
    assert!(output.status.success(), "{}", told(&output));
    let notes = read_png_text(folder.path().join("fox.png")).unwrap();
    let said = |key: &str| notes.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    let text = said("parameters").unwrap();
    assert!(text.starts_with(
        "a red fox in the snow\nNegative prompt: blurry\nSteps: 2, Sampler: ddim, CFG scale: 7.5, Seed: 7"
    ));
    assert!(text.contains("Size: 32x32"), "{text}");
    assert_eq!(said("prompt").as_deref(), Some("a red fox in the snow"));
}

#[test]
fn a_scale_below_one_is_the_prompt_alone() {
    let folder = tempfile::tempdir().unwrap();
    let run = |scale: &str| {
        let few = ["--steps", "2", "--seeds", "3", "--float", "--force", "--guidance-scale", scale];
        let output = sample(folder.path(), &[&PROMPT[..], &few].concat());
        assert!(output.status.success(), "{}", told(&output));
        (drawn(folder.path()).1, told(&output))
    };
    let (zero, note) = run("0");
    assert!(note.contains("the prompt alone"), "{note}");
    assert_eq!(zero, run("1").0);
    assert_ne!(zero, run("7.5").0);
}

#[test]
fn what_cannot_be_drawn_is_refused_and_what_is_cut_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str]| {
        let output = sample(folder.path(), arguments);
        assert!(!output.status.success());
        told(&output)
    };
    assert!(refused(&["--steps", "2"]).contains("--prompt"));
    assert!(
        refused(&["--prompt", "x", "--upsampler", "y"])
            .contains("--prompt does not go together with --upsampler")
    );
    assert!(refused(&["--prompt", "x", "--size", "33"]).contains("multiples of 2"));
    assert!(refused(&["--prompt", "x", "--clip-skip", "9"]).contains("layer"));
    assert!(refused(&["--prompt", "x", "--vae", "nowhere"]).contains("nowhere"));
    assert!(refused(&["--prompt", "x", "--float", "--out", "x.png"]).contains(".npz"));
    // What is there is refused before anything is drawn, and of several pictures before the first.
    let pictures = ["--prompt", "x", "--steps", "1", "--seeds", "1,2", "--out", "pictures/"];
    std::fs::create_dir(folder.path().join("pictures")).unwrap();
    std::fs::write(folder.path().join("pictures/prompt000-seed000002.png"), "mine").unwrap();
    assert!(refused(&pictures).contains("prompt000-seed000002.png"));
    assert!(!folder.path().join("pictures/prompt000-seed000001.png").exists());
    let long = "fox ".repeat(100);
    let output = sample(folder.path(), &["--prompt", &long, "--steps", "1", "--seeds", "1"]);
    assert!(output.status.success(), "{}", told(&output));
    assert!(told(&output).contains("is left out"), "{}", told(&output));
}
