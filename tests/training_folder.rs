//! A training's folder survives what people do to it: two processes, deleted files, damaged bytes, other options.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{assert_same_file, digits, gpu, tiny, train};
use freeguide::gpu::Gpu;
use freeguide::io::{Dtype, SafetensorsFile, TensorBytes, write_safetensors};
use freeguide::model::Checkpoint;
use freeguide::train::{
    Event, Found, Outcome, Start, StartingWeights, TrainOptions, Trainer, events, records,
};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn refused(gpu: &Gpu, options: &TrainOptions, dir: &Path, start: &Start) -> String {
    match Trainer::open_as(gpu, digits(), options, dir, start) {
        Ok(_) => panic!("not refused; accepted were {:?}", start.accept_changes),
        Err(error) => error.to_string(),
    }
}

/// Stops at the `calls`-th question whether to.
fn stop_at(mut calls: usize) -> impl FnMut() -> bool {
    move || {
        calls = calls.saturating_sub(1);
        calls == 0
    }
}

fn accept(names: &[&str]) -> Start {
    Start { accept_changes: names.iter().map(|name| (*name).to_owned()).collect(), ..Start::default() }
}

#[test]
fn a_folder_has_one_writer_and_nothing_is_trained_over() {
    let gpu = gpu();
    let [dir, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let options = TrainOptions { save_every: 8, ..tiny(16) };
    let trainer = train(&gpu, &options, dir.path());
    let message = refused(&gpu, &options, dir.path(), &Start::default());
    assert!(message.contains(&format!("process ({})", std::process::id())), "{message}");
    drop(trainer);
    let before = names(dir.path());
    assert!(!before.contains(&"train.lock".to_owned()) || !cfg!(unix), "{before:?}");
    drop(Trainer::open(&gpu, digits(), &options, dir.path()).unwrap());

    // The states deleted to save room: nothing is touched.
    let states: Vec<String> = before.iter().filter(|name| name.starts_with("state-")).cloned().collect();
    assert_eq!(states, ["state-000000000008.safetensors", "state-000000000016.safetensors"]);
    states.iter().for_each(|name| fs::remove_file(dir.path().join(name)).unwrap());
    let message = refused(&gpu, &options, dir.path(), &Start::default());
    assert!(message.contains("no state") && message.contains("restart"), "{message}");
    let left: Vec<String> = before.iter().filter(|name| !states.contains(name)).cloned().collect();
    assert_eq!(names(dir.path()), left);

    // What was asked for explicitly keeps the old files.
    let restart = Start { restart: true, ..Start::default() };
    let mut again = Trainer::open_as(&gpu, digits(), &options, dir.path(), &restart).unwrap();
    assert!(again.found().notes[0].contains("old-1"), "{:?}", again.found());
    assert_eq!(names(&dir.path().join("old-1")), left);
    assert_eq!(again.run(|| false, |_, _| Ok(())).unwrap(), Outcome::Finished);
    drop(again);
    train(&gpu, &options, other.path());
    for name in before {
        assert_same_file(&name, dir.path(), other.path());
    }
}

#[test]
fn any_byte_of_a_state_changed_is_refused_by_name() {
    let gpu = gpu();
    let dir = tempfile::tempdir().unwrap();
    let options = TrainOptions { save_every: 8, ..tiny(16) };
    train(&gpu, &options, dir.path());
    let path = dir.path().join("state-000000000016.safetensors");
    let whole = fs::read(&path).unwrap();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) };
    TestRunner::new(config)
        .run(&(0..whole.len(), 1..=255u8), |(at, change)| {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            fs::write(&path, bytes).unwrap();
            let message = refused(&gpu, &options, dir.path(), &Start::default());
            prop_assert!(message.contains("state-000000000016.safetensors"), "byte {}: {}", at, message);
            prop_assert!(message.contains("state-000000000008.safetensors"), "byte {}: {}", at, message);
            Ok(())
        })
        .unwrap();

    // The same state as an earlier version wrote it: read, with a word.
    fs::write(&path, &whole).unwrap();
    let file = SafetensorsFile::open(&path).unwrap();
    let tensors: Vec<_> = file.names().into_iter().map(|name| (file.to_f32(&name).unwrap(), name)).collect();
    let views: Vec<TensorBytes<'_>> = tensors
        .iter()
        .map(|((shape, values), name)| TensorBytes {
            name,
            dtype: Dtype::F32,
            shape,
            bytes: bytemuck::cast_slice(values),
        })
        .collect();
    write_safetensors(&path, &views, &BTreeMap::from([("images".into(), "16".into())])).unwrap();
    let trainer = Trainer::open(&gpu, digits(), &options, dir.path()).unwrap();
    assert_eq!(trainer.images(), 16);
    assert!(trainer.found().notes[0].contains("no checksums"), "{:?}", trainer.found());
}

#[test]
fn holes_are_told_and_old_states_pruned() {
    let gpu = gpu();
    let dir = tempfile::tempdir().unwrap();
    let options = TrainOptions { save_every: 8, ..tiny(40) };
    let mut trainer = Trainer::open(&gpu, digits(), &options, dir.path()).unwrap();
    trainer.run(stop_at(4), |_, _| Ok(())).unwrap();
    drop(trainer);

    // Two lines lost; a state, and half of one, that a killed process had no time to remove.
    let path = dir.path().join("train.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4);
    fs::write(&path, [lines[0], lines[3], ""].join("\n")).unwrap();
    fs::write(dir.path().join("state-000000000016.safetensors"), "old").unwrap();
    fs::write(dir.path().join("state-000000000040.safetensors.tmp"), "half").unwrap();
    let trainer = Trainer::open(&gpu, digits(), &options, dir.path()).unwrap();
    let warnings = &trainer.found().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("after 8 images up to 24"), "{warnings:?}");
    let left: Vec<String> = names(dir.path()).into_iter().filter(|name| name.starts_with("state-")).collect();
    assert_eq!(left, ["state-000000000024.safetensors", "state-000000000032.safetensors"]);
    drop(trainer);
    // It is told each time, and stands in the log once.
    let mut trainer = Trainer::open(&gpu, digits(), &options, dir.path()).unwrap();
    assert_eq!(trainer.found().warnings.len(), 1);

    // What cannot be removed is a warning, and the run goes on.
    fs::create_dir(dir.path().join("state-000000000000.safetensors")).unwrap();
    let mut warnings = Vec::new();
    let watch = |_: &Trainer, event: Event<'_>| {
        if let Event::Warning(what) = event {
            warnings.push(what.to_owned());
        }
        Ok(())
    };
    assert_eq!(trainer.run(|| false, watch).unwrap(), Outcome::Finished);
    assert!(warnings.len() == 1 && warnings[0].contains("state-000000000000"), "{warnings:?}");
    let told = events(dir.path()).unwrap();
    assert_eq!((told.len(), told[0].event.as_str()), (1, "hole"));
    assert_eq!((&told[0].details["from"], &told[0].details["to"]), (&8.into(), &24.into()));
    assert_eq!(records(dir.path()).unwrap().len(), 3);
}

#[test]
fn accepted_changes_stand_in_the_log_and_in_the_options() {
    let gpu = gpu();
    let [dir, free] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let options = tiny(24);
    for dir in [&dir, &free] {
        let mut trainer = Trainer::open(&gpu, digits(), &options, dir.path()).unwrap();
        trainer.run(stop_at(2), |_, _| Ok(())).unwrap();
    }
    // What does not decide the result changes without a word.
    let renamed = TrainOptions { save_every: 16, data: "moved".into(), images: 40, ..options.clone() };
    train(&gpu, &renamed, free.path());
    assert!(events(free.path()).unwrap().is_empty());

    let other = TrainOptions { learning_rate: 0.25, batch: 4, microbatch: 2, ..options.clone() };
    let message = refused(&gpu, &other, dir.path(), &accept(&["lr"]));
    assert!(message.contains("accept-change lr,batch,microbatch"), "{message}");
    let start = accept(&["lr", "batch", "microbatch"]);
    let mut trainer = Trainer::open_as(&gpu, digits(), &other, dir.path(), &start).unwrap();
    assert_eq!(trainer.found().notes.len(), 3, "{:?}", trainer.found());
    assert_eq!(trainer.run(|| false, |_, _| Ok(())).unwrap(), Outcome::Finished);
    drop(trainer);
    let told: Vec<_> = events(dir.path()).unwrap();
    let told: Vec<_> = told.iter().map(|e| (e.images, e.details["option"].as_str().unwrap())).collect();
    assert_eq!(told, [(16, "batch"), (16, "lr"), (16, "microbatch")]);
    let steps = records(dir.path()).unwrap();
    let images: Vec<u64> = steps.iter().map(|record| record.images).collect();
    assert_eq!(images, [8, 16, 20, 24]);
    assert!(steps[2].learning_rate > 10.0 * steps[1].learning_rate, "{steps:?}");

    // The same again goes on without being told, and finds no hole where the batch changed.
    let trainer = Trainer::open(&gpu, digits(), &other, dir.path()).unwrap();
    assert_eq!(trainer.found(), &Found::default());
    assert_eq!(trainer.options().changes.len(), 3);
}

#[test]
fn a_training_begins_with_a_models_weights() {
    let gpu = gpu();
    let [first, second, third] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    train(&gpu, &tiny(64), first.path());
    let from = |dir: &Path| {
        let weights = StartingWeights::of(Checkpoint::open(dir, None).unwrap()).unwrap();
        Start { init_from: Some(weights), ..Start::default() }
    };
    // Steps that change nothing: what is written is what it began with.
    let still = TrainOptions { learning_rate: 1e-30, seed: 9, ..tiny(8) };
    let mut trainer = Trainer::open_as(&gpu, digits(), &still, second.path(), &from(first.path())).unwrap();
    assert_eq!(trainer.run(|| false, |_, _| Ok(())).unwrap(), Outcome::Finished);
    let fingerprint = trainer.options().init_from.clone().expect("where the weights came from");
    drop(trainer);
    let [a, b] =
        [&first, &second].map(|dir| SafetensorsFile::open(dir.path().join("model.safetensors")).unwrap());
    for name in a.names() {
        let ((_, a), (_, b)) = (a.to_f32(&name).unwrap(), b.to_f32(&name).unwrap());
        let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 1e-6, "{name} differs by {worst}");
    }
    for name in ["train.json", "config.json"] {
        let text = fs::read_to_string(second.path().join(name)).unwrap();
        assert!(text.contains(&format!("\"init_from\": \"{fingerprint}\"")), "{name}: {text}");
    }

    // It goes on by the same command and without the model, but not with another model.
    drop(Trainer::open_as(&gpu, digits(), &still, second.path(), &from(first.path())).unwrap());
    drop(Trainer::open(&gpu, digits(), &still, second.path()).unwrap());
    train(&gpu, &TrainOptions { seed: 3, ..tiny(8) }, third.path());
    let message = refused(&gpu, &still, second.path(), &from(third.path()));
    assert!(message.contains("init_from: there") && message.contains("cannot change"), "{message}");

    // Other shapes, and the same shapes that mean something else.
    let mut wider = tiny(8);
    wider.unet.model_channels = 16;
    let empty = tempfile::tempdir().unwrap();
    let message = refused(&gpu, &wider, &empty.path().join("a"), &from(first.path()));
    assert!(
        message.contains("in the model") && message.contains("and ") && message.contains('['),
        "{message}"
    );
    let mut grouped = tiny(8);
    grouped.unet.norm_num_groups = 2;
    let message = refused(&gpu, &grouped, &empty.path().join("a"), &from(first.path()));
    assert!(message.contains("groups of the group norms: 4 in the model, 2"), "{message}");
}

#[test]
fn a_stop_between_microbatches_leaves_no_trace() {
    let gpu = gpu();
    let options = TrainOptions { microbatch: 2, ..tiny(24) };
    let straight = tempfile::tempdir().unwrap();
    train(&gpu, &options, straight.path());
    let same = |dir: &Path| {
        for name in ["train.json", "train.jsonl", "model.safetensors", "state-000000000024.safetensors"] {
            assert_same_file(name, straight.path(), dir);
        }
    };
    // Four questions a step: three between its microbatches, one after it.
    for (calls, images) in [(2, 0), (7, 8), (8, 16)] {
        let dir = tempfile::tempdir().unwrap();
        let mut trainer = Trainer::open(&gpu, digits(), &options, dir.path()).unwrap();
        assert_eq!(trainer.run(stop_at(calls), |_, _| Ok(())).unwrap(), Outcome::Stopped);
        assert_eq!(trainer.images(), images, "stopped at question {calls}");
        assert_eq!(dir.path().join(format!("state-{images:012}.safetensors")).exists(), images > 0);
        // Gone on with by another process, and by this one.
        let copy = tempfile::tempdir().unwrap();
        for name in names(dir.path()).iter().filter(|name| !name.ends_with(".lock")) {
            fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
        }
        train(&gpu, &options, copy.path());
        same(copy.path());
        assert_eq!(trainer.run(|| false, |_, _| Ok(())).unwrap(), Outcome::Finished);
        same(dir.path());
    }
}

#[cfg(all(feature = "cli", unix))]
mod program {
    use std::path::Path;
    use std::process::{Child, Stdio};
    use std::time::{Duration, Instant};

    use rand::{RngExt, SeedableRng};

    use super::common::assert_same_file;
    use super::common::program::{TINY, freeguide, run};
    use super::names;

    fn arguments<'a>(dir: &'a Path, images: &'a str) -> Vec<&'a str> {
        let fixed = ["train", "--data", "digits", "--images", images, "--save-every", "16"];
        let mut arguments = [&fixed[..], TINY].concat();
        arguments.extend(["--channel-mult", "1,1", "--attention", "none", "--out", dir.to_str().unwrap()]);
        arguments
    }

    fn start(arguments: &[&str]) -> Child {
        freeguide().args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn ended(child: Child) -> (Option<i32>, String) {
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Two processes of one folder, the second at any moment after the first, the first killed at any moment: never both
    /// write, and nothing is lost.
    #[test]
    fn of_two_processes_one_is_refused_and_nothing_is_lost() {
        let root = tempfile::tempdir().unwrap();
        let straight = root.path().join("straight");
        let began = Instant::now();
        run(&arguments(&straight, "160")).expect(0);
        let took = began.elapsed();
        let mut rng = rand::rngs::StdRng::seed_from_u64(5);
        let mut refusals = 0;
        for trial in 0..3 {
            let dir = root.path().join(format!("trial-{trial}"));
            let mut first = start(&arguments(&dir, "160"));
            std::thread::sleep(took.mul_f64(rng.random_range(0.0..0.5)));
            let second = start(&arguments(&dir, "160"));
            let holders = [first.id(), second.id()];
            std::thread::sleep(took.mul_f64(rng.random_range(0.2..0.8)));
            // One of them is killed; the other ends as it will.
            first.kill().unwrap();
            let ends = [ended(first), ended(second)];
            for (at, (code, said)) in ends.iter().enumerate() {
                let by_other = format!("process {}", holders[1 - at]);
                let refused = said.contains("is being written by");
                assert!(!refused || (*code == Some(1) && said.contains(&by_other)), "{said}");
                assert!(refused || code.is_none() || *code == Some(0), "{code:?}: {said}");
                refusals += usize::from(refused);
            }
            run(&arguments(&dir, "160")).expect(0);
            assert_eq!(names(&dir), names(&straight));
            for name in names(&straight) {
                assert_same_file(&name, &straight, &dir);
            }
        }
        println!("{refusals} of 3 were refused");

        // While the first is certainly at work, the second is certainly refused.
        let dir = root.path().join("busy");
        let mut first = start(&arguments(&dir, "100000000"));
        let began = Instant::now();
        while !dir.join("model.safetensors").exists() {
            assert!(first.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(120));
            std::thread::sleep(Duration::from_millis(5));
        }
        let second = run(&arguments(&dir, "100000000")).expect(1);
        assert!(second.stderr.contains(&format!("process {};", first.id())), "{}", second.stderr);
        first.kill().unwrap();
        first.wait().unwrap();
        // What a killed process leaves blocks nobody: the refusal is about something else now.
        let other = run(&arguments(&dir, "16")).expect(1);
        assert!(other.stderr.contains("accept-change images"), "{}", other.stderr);
    }
}

#[test]
fn rows_that_a_model_had_trained_count_as_trained_in_what_begins_with_it() {
    let gpu = gpu();
    let [first, second, third] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    train(&gpu, &tiny(8), first.path());
    let from = |dir: &Path| {
        let weights = StartingWeights::of(Checkpoint::open(dir, None).unwrap()).unwrap();
        Start { init_from: Some(weights), ..Start::default() }
    };
    let rows = |dir: &Path| {
        let config = Checkpoint::open(dir, None).unwrap().config;
        config.trained_rows.expect("a training tells its rows")
    };
    assert!(rows(first.path()).has(None) && rows(first.path()).has(Some(3)));
    // Of its own it trains no null row.
    let labelled = TrainOptions { unconditional_probability: 0.0, ..tiny(8) };
    let run = |dir: &Path, options: &TrainOptions, start: &Start| {
        let mut trainer = Trainer::open_as(&gpu, digits(), options, dir, start).unwrap();
        trainer.run(|| false, |_, _| Ok(())).unwrap();
    };
    run(second.path(), &labelled, &from(first.path()));
    assert!(rows(second.path()).has(None) && rows(second.path()).has(Some(3)));
    // Gone on without naming the model.
    run(second.path(), &TrainOptions { images: 16, ..labelled.clone() }, &Start::default());
    assert!(rows(second.path()).has(None), "the folder remembers");
    let alone = tempfile::tempdir().unwrap();
    run(alone.path(), &labelled, &Start::default());
    assert!(!rows(alone.path()).has(None));

    // Rows of classes that are called otherwise are those of other things; the null row is not.
    let mut renamed = TrainOptions { unconditional_probability: 1.0, ..tiny(8) };
    renamed.class_names = (0..10).map(|class| format!("name {class}")).collect();
    let path = first.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config["class_names"][3] = "another".into();
    fs::write(&path, config.to_string()).unwrap();
    run(third.path(), &renamed, &from(first.path()));
    assert!(rows(third.path()).has(None) && !rows(third.path()).has(Some(3)));
}
