//! A training that was stopped, interrupted or killed and then resumed leaves the files of one that never was.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{assert_same_file, digits, gpu, tiny, train};
use freeguide::Error;
use freeguide::data::Dataset;
use freeguide::gpu::Gpu;
use freeguide::io::generations;
use freeguide::tensor::Precision;
use freeguide::train::{Outcome, Preset, TrainOptions, Trainer};

/// What a finished training of `images` images leaves behind, all of it reproducible.
fn files(images: u64) -> [String; 7] {
    let state = format!("state-{images:012}.safetensors");
    let weights = ["model.safetensors", "model-raw.safetensors"];
    let [a, b, c, d] = ["train.json", "train.jsonl", "config.json", "loss.png"].map(str::to_owned);
    let [e, f] = weights.map(str::to_owned);
    [a, b, c, d, e, f, state]
}

fn assert_same_training(images: u64, straight: &Path, resumed: &Path) {
    for name in files(images) {
        assert_same_file(&name, straight, resumed);
    }
    let mut names: Vec<_> = std::fs::read_dir(resumed).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.retain(|name| name.to_string_lossy().ends_with(".tmp"));
    assert!(names.is_empty(), "left behind: {names:?}");
}

/// Trains for some steps in a trainer of its own.
fn train_some(gpu: &Gpu, options: &TrainOptions, dir: &Path, steps: usize) -> Outcome {
    let mut trainer = Trainer::open(gpu, digits(), options, dir).unwrap();
    let mut left = steps;
    let stop = || {
        left -= 1;
        left == 0
    };
    trainer.run(stop, |_, _| Ok(())).unwrap()
}

#[test]
fn stopping_half_way_changes_no_byte() {
    let gpu = gpu();
    let (straight, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Two averages, dropout and flips: everything that could depend on how far a training is.
    let mut options = TrainOptions { flip: true, ema_rates: vec![0.9, 0.99], save_every: 40, ..tiny(96) };
    options.unet.dropout = 0.1;
    train(&gpu, &options, straight.path());

    assert_eq!(train_some(&gpu, &options, stopped.path(), 6), Outcome::Stopped);
    assert!(stopped.path().join("model.safetensors").exists(), "a stopped training can be sampled");
    // A second stop at a step that no state is due at.
    assert_eq!(train_some(&gpu, &options, stopped.path(), 1), Outcome::Stopped);
    train(&gpu, &options, stopped.path());
    assert_same_training(96, straight.path(), stopped.path());
    assert_same_file("model-ema-0.99.safetensors", straight.path(), stopped.path());

    // More images go on from the end, as if they had been asked for at first.
    let (longer, all) = (TrainOptions { images: 112, ..options.clone() }, tempfile::tempdir().unwrap());
    train(&gpu, &longer, all.path());
    train(&gpu, &longer, stopped.path());
    assert_same_training(112, all.path(), stopped.path());
}

/// A PNG with all its checksums right, whose compressed data is none: only decoding finds out.
fn hollow() -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (name, data) in
        [(b"IHDR", &b"\0\0\0\x08\0\0\0\x08\x08\0\0\0\0"[..]), (b"IDAT", b"nothing"), (b"IEND", b"")]
    {
        let mut crc = flate2::Crc::new();
        crc.update(&[&name[..], data].concat());
        png.extend((data.len() as u32).to_be_bytes());
        png.extend([&name[..], data, &crc.sum().to_be_bytes()].concat());
    }
    png
}

#[test]
fn damaged_pictures_are_in_the_log_once_and_change_no_byte() {
    let gpu = gpu();
    let [data, straight, stopped] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    for i in 0..20 {
        let class = data.path().join(["a", "b"][i % 2]);
        std::fs::create_dir_all(&class).unwrap();
        let picture = digits().decode(i).unwrap();
        freeguide::io::write_png(class.join(format!("{i}.png")), &picture, &[]).unwrap();
    }
    std::fs::write(data.path().join("a/bad.png"), hollow()).unwrap();
    let dataset = || Arc::new(Dataset::open(data.path().to_str().unwrap(), None).unwrap());
    let named = Preset::named("digits").unwrap().options(&dataset(), 0);
    let mut options = tiny(64);
    options.data = named.data;
    options.data_fingerprint = named.data_fingerprint;
    options.class_names = named.class_names;
    options.unet.num_classes = named.unet.num_classes;
    let run = |dir: &Path, mut steps: usize| {
        let mut trainer = Trainer::open(&gpu, dataset(), &options, dir).unwrap();
        let stop = || {
            steps = steps.saturating_sub(1);
            steps == 0
        };
        trainer.run(stop, |_, _| Ok(())).unwrap()
    };
    assert_eq!(run(straight.path(), usize::MAX), Outcome::Finished);
    for steps in [1, 2, 3] {
        assert_eq!(run(stopped.path(), steps), Outcome::Stopped);
    }
    assert_eq!(run(stopped.path(), usize::MAX), Outcome::Finished);
    assert_same_training(64, straight.path(), stopped.path());
    let log = std::fs::read_to_string(straight.path().join("train.jsonl")).unwrap();
    assert_eq!(log.matches("left_out").count(), 1, "{log}");
    assert!(log.contains("a/bad.png"), "{log}");
}

#[test]
fn microbatches_resume_and_only_round_differently() {
    let gpu = gpu();
    let [whole, straight, stopped] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let options = tiny(96);
    let whole = train(&gpu, &options, whole.path());
    let halves = TrainOptions { microbatch: 4, ..options.clone() };
    let trainer = train(&gpu, &halves, straight.path());
    assert_eq!(train_some(&gpu, &halves, stopped.path(), 5), Outcome::Stopped);
    train(&gpu, &halves, stopped.path());
    assert_same_training(96, straight.path(), stopped.path());

    assert_eq!(trainer.records().len(), 12);
    // The first microbatch's gradient is that of a batch that is no larger.
    let small = tempfile::tempdir().unwrap();
    let alone = train(&gpu, &TrainOptions { batch: 4, microbatch: 4, images: 4, ..options }, small.path());
    let (micro, norm) = (trainer.records()[0].micro_norm.unwrap(), alone.records()[0].grad_norm);
    assert!((micro - norm).abs() <= 1e-4 * norm, "{micro} and {norm}");
    assert!(alone.records()[0].micro_norm.is_none());
    for (step, (a, b)) in whole.records().iter().zip(trainer.records()).enumerate() {
        // Before the first update only the order of sums differs; Adam then magnifies that.
        let allowed = if step == 0 { 1e-5 } else { 2e-3 };
        assert!((a.loss - b.loss).abs() <= allowed * a.loss, "step {step}: {a:?} and {b:?}");
        assert!(
            (a.grad_norm - b.grad_norm).abs() <= 10.0 * allowed * a.grad_norm,
            "step {step}: {a:?}, {b:?}"
        );
    }
}

#[test]
fn damaged_and_foreign_states_are_refused_by_name() {
    let gpu = gpu();
    let [dir, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let options = TrainOptions { save_every: 8, ..tiny(24) };
    train_some(&gpu, &options, dir.path(), 2);
    let open = |options: &TrainOptions, dir: &Path| Trainer::open(&gpu, digits(), options, dir);

    // Cut short: named, with the generation before it, from which it goes on once the damaged file is gone.
    let newest = dir.path().join("state-000000000016.safetensors");
    let whole = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &whole[..whole.len() - 1000]).unwrap();
    let message = open(&options, dir.path()).err().expect("a damaged state").to_string();
    assert!(message.contains("state-000000000016.safetensors"), "{message}");
    assert!(message.contains("state-000000000008.safetensors") && message.contains("8 images"), "{message}");
    std::fs::remove_file(&newest).unwrap();
    let mut trainer = open(&options, dir.path()).unwrap();
    assert_eq!((trainer.images(), trainer.records().len()), (8, 1));
    assert_eq!(trainer.run(|| false, |_, _| Ok(())).unwrap(), Outcome::Finished);
    drop(trainer);

    // Of another network: the tensor and both of its shapes.
    let mut wider = options.clone();
    wider.unet.model_channels = 16;
    train_some(&gpu, &wider, other.path(), 1);
    let (_, state) = generations(other.path(), "state").unwrap().remove(0);
    for (_, old) in generations(dir.path(), "state").unwrap() {
        std::fs::remove_file(old).unwrap();
    }
    std::fs::copy(&state, dir.path().join("state-000000000008.safetensors")).unwrap();
    let error = open(&options, dir.path()).err().expect("a state of another network");
    let Error::Tensor { tensor, what, .. } = &error else { panic!("{error}") };
    assert!(tensor.starts_with("param/"), "{error}");
    assert_eq!(what.matches('[').count(), 2, "both shapes in {error}");

    // And the options themselves.
    let message = open(&wider, dir.path()).err().expect("other options").to_string();
    assert!(message.contains("unet.model_channels: there 8, now 16"), "{message}");
}

#[cfg(all(feature = "cli", unix))]
mod program {
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, ExitStatus, Stdio};
    use std::time::{Duration, Instant};

    use freeguide::io::generations;
    use rand::{RngExt, SeedableRng};

    use super::common::program::{TINY, freeguide, run};
    use super::{assert_same_training, files};

    const IMAGES: u64 = 480;

    /// `freeguide train` into `dir`, a state after every second step.
    fn arguments(dir: &Path) -> Vec<&str> {
        let fixed = ["train", "--data", "digits", "--images", "480", "--save-every", "16"];
        let mut arguments = [&fixed[..], TINY].concat();
        arguments.extend(["--out", dir.to_str().unwrap()]);
        arguments
    }

    fn start(dir: &Path) -> Child {
        freeguide().args(arguments(dir)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn newest(dir: &Path) -> u64 {
        generations(dir, "state").unwrap().first().map_or(0, |(images, _)| *images)
    }

    /// Waits until there is a state past `images`, or the program has ended.
    fn wait_for_progress(child: &mut Child, dir: &Path, images: u64) -> Option<ExitStatus> {
        let start = Instant::now();
        while newest(dir) <= images {
            if let Some(status) = child.try_wait().unwrap() {
                return Some(status);
            }
            assert!(start.elapsed() < Duration::from_secs(120), "no state past {images} images");
            std::thread::sleep(Duration::from_millis(2));
        }
        None
    }

    #[test]
    fn interrupts_and_kills_change_no_byte() {
        let root = tempfile::tempdir().unwrap();
        let [straight, interrupted, killed]: [PathBuf; 3] =
            ["straight", "interrupted", "killed"].map(|name| root.path().join(name));
        run(&arguments(&straight)).expect(0);

        // Ctrl-C after the first state.
        let mut child = start(&interrupted);
        assert_eq!(wait_for_progress(&mut child, &interrupted, 0), None, "it ended before its first state");
        let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(child.wait().unwrap().code(), Some(130));
        assert!((16..IMAGES).contains(&newest(&interrupted)));
        assert!(interrupted.join("model.safetensors").exists(), "a stopped training can be sampled");
        run(&arguments(&interrupted)).expect(0);
        assert_same_training(IMAGES, &straight, &interrupted);

        // Killed again and again: in mid-step, in mid-write, in mid-start.
        let mut rng = rand::rngs::StdRng::seed_from_u64(7);
        for kill in 0..3 {
            let before = newest(&killed);
            let mut child = start(&killed);
            let ended = match kill {
                1 => None,
                _ => wait_for_progress(&mut child, &killed, before),
            };
            assert_eq!(ended, None, "it ended before it was killed {kill} times");
            std::thread::sleep(Duration::from_micros(rng.random_range(0..20_000)));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(newest(&killed) < IMAGES, "all was done before the last kill");
        run(&arguments(&killed)).expect(0);
        assert_same_training(IMAGES, &straight, &killed);

        // Once more after the end: nothing to do, and nothing changes.
        let again = run(&arguments(&killed)).expect(0);
        assert!(again.stderr.contains("nothing is left to train"), "{}", again.stderr);
        assert_same_training(IMAGES, &straight, &killed);

        // Other options are refused by name.
        let mut other = arguments(&killed);
        other.extend(["--lr", "0.5", "--dropout", "0.2"]);
        let refused = run(&other).expect(1);
        for part in
            ["lr: there 0.002, now 0.5", "dropout: there 0.0, now 0.2", "accept-change lr,dropout", "(out)"]
        {
            assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
        }
        assert_same_training(IMAGES, &straight, &killed);
        assert_eq!(files(IMAGES).len() + 1, std::fs::read_dir(&killed).unwrap().count(), "and nothing else");
    }
}

#[test]
fn f16_resumes_byte_for_byte_and_follows_f32() {
    let gpu = gpu();
    if !gpu.capabilities().f16 {
        let dir = tempfile::tempdir().unwrap();
        let options = TrainOptions { precision: Precision::F16, ..tiny(96) };
        let Err(error) = Trainer::open(&gpu, digits(), &options, dir.path()) else {
            panic!("f16 without f16")
        };
        assert!(error.to_string().contains("--precision f32"), "{error}");
        return;
    }
    let [wide, straight, stopped] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let options = TrainOptions { precision: Precision::F16, ..tiny(96) };
    let narrow = train(&gpu, &options, straight.path());
    assert_eq!(train_some(&gpu, &options, stopped.path(), 5), Outcome::Stopped);
    // What was begun in f16 goes on in f16 where nothing is asked for.
    train(&gpu, &TrainOptions { precision: Precision::Auto, ..options.clone() }, stopped.path());
    assert_same_training(96, straight.path(), stopped.path());

    let wide = train(&gpu, &TrainOptions { precision: Precision::F32, ..options }, wide.path());
    for (step, (a, b)) in wide.records().iter().zip(narrow.records()).enumerate() {
        assert!(!b.skipped, "step {step} overflowed");
        assert_ne!((a.loss, a.grad_norm), (b.loss, b.grad_norm), "step {step} was not in f16");
        assert!(
            (a.loss / b.loss - 1.0).abs() < 0.01,
            "step {step}: loss {} in f32, {} in f16",
            a.loss,
            b.loss
        );
    }
}
