//! Nothing of the user's is deleted or overwritten, and what cannot be written is found out before the work.

use super::*;

/// Every command that writes, asked to write at `out` (no name in it has an extension yet) from things that are not there.
fn writers(out: &str) -> Vec<(&'static str, Vec<String>)> {
    let line = |text: &str| text.split(' ').map(|word| word.replace("OUT", out)).collect();
    [
        ("quickstart", "quickstart --device nowhere --out OUT"),
        ("train", "train --data nowhere --out OUT"),
        ("train-classifier", "train-classifier --data nowhere --out OUT"),
        ("distill", "distill --teacher nowhere --out OUT"),
        ("sample", "sample --model nowhere --out OUT.png"),
        ("sample", "sample --model nowhere --out OUT.npz"),
        ("sample", "sample --model nowhere --out OUT"),
        ("sample", "sample --model nowhere --from nowhere --out OUT.png"),
        ("sample", "sample --model nowhere --from nowhere --sampler ddim-reverse --out OUT.npz"),
        ("sweep", "sweep --model nowhere --out OUT"),
        ("sweep", "sweep --model nowhere --metrics fid --reference nowhere --out OUT"),
        ("eval", "eval --model nowhere --reference nowhere --work OUT"),
        ("eval", "eval --samples nowhere --reference nowhere --work OUT"),
        ("stats", "stats nowhere --out OUT.npz"),
        ("nll", "nll --model nowhere --data nowhere --out OUT.json"),
        ("plot", "plot --data nowhere --out OUT"),
        ("convert", "convert nowhere OUT"),
        ("convert", "convert nowhere OUT.safetensors"),
        ("convert", "convert nowhere OUT --format diffusers"),
        ("toy", "toy --device nowhere --out OUT.png"),
    ]
    .into_iter()
    .map(|(command, text)| (command, line(text)))
    .collect()
}

fn run_line(line: &[String]) -> Finished {
    run(&line.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn what_cannot_be_written_is_said_before_any_work() {
    let place = Place::new();
    fs::write(place.path("file"), "mine").unwrap();
    let writers = writers(&place.text("file/below/out"));
    for (_, line) in &writers {
        let finished = run_line(line).expect(1);
        // The output, and not the model or the data that are not there either.
        contains(&finished.stderr, &["error: ", "file/below"]);
        assert!(!finished.stderr.contains("nowhere"), "{line:?}: {}", finished.stderr);
        assert_eq!(names(&place.path("")), ["file"], "{line:?}");
    }
    // A proof that succeeds leaves nothing either.
    for (_, line) in self::writers(&place.text("new/below/out")) {
        contains(&run_line(&line).expect(1).stderr, &["error: ", "nowhere"]);
        assert_eq!(names(&place.path("")), ["file"], "{line:?}");
    }
    // A command that is not here has nothing to write.
    let help = run(&["--help"]).expect(0).stdout;
    let commands = help.lines().filter_map(|line| line.strip_prefix("  "));
    let commands = commands.filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    let commands: Vec<&str> = commands.filter_map(|line| line.split(' ').next()).collect();
    assert!(commands.contains(&"sample"), "{help}");
    for command in commands {
        let known = writers.iter().any(|(writer, _)| *writer == command);
        let reads = ["info", "devices", "demo", "help"].contains(&command);
        assert!(known || reads, "{command} writes, and is not tried here");
    }
}

#[test]
fn files_that_are_there_stay_unless_force_is_said() {
    let place = Place::new();
    fs::create_dir_all(place.path("out/unet")).unwrap();
    let freeguide = ["out/config.json", "out/model.safetensors"];
    let diffusers = ["out/model_index.json", "out/unet/config.json"];
    let sweep = ["out/sweep.csv", "out/sweep.png"];
    let measured = ["out/sweep.csv", "out/sweep.png", "out/sweep.md", "out/sweep-curve.png", "out/sweep.txt"];
    let plot = ["out/posterior-ratio.png", "out/alpha-bar.png", "out/noised-strips.png"];
    for (line, files) in [
        ("quickstart --device nowhere --out OUT", &["out/samples.png", "out/loss.png"][..]),
        ("train --data nowhere --out OUT", &["out/loss.png"]),
        ("distill --teacher nowhere --out OUT", &["out/loss.png"]),
        ("train-classifier --data nowhere --out OUT", &["out/accuracy.png"]),
        ("sample --model nowhere --out OUT.png", &["out.png"]),
        ("sample --model nowhere --from nowhere --sampler ddim-reverse --out OUT.npz", &["out.npz"]),
        ("sweep --model nowhere --out OUT", &sweep),
        ("sweep --model nowhere --metrics fid --reference nowhere --out OUT", &measured),
        ("stats nowhere --out OUT.npz", &["out.npz"]),
        ("nll --model nowhere --data nowhere --out OUT.json", &["out.json", "out.png"]),
        ("plot --data nowhere --out OUT", &plot),
        ("convert nowhere OUT", &freeguide),
        ("convert nowhere OUT.safetensors", &["out.safetensors"]),
        ("convert nowhere OUT --format diffusers", &diffusers),
        ("toy --device nowhere --out OUT.png", &["out.png"]),
    ] {
        for file in files {
            fs::write(place.path(file), "mine").unwrap();
            let line: Vec<String> =
                line.split(' ').map(|word| word.replace("OUT", &place.text("out"))).collect();
            contains(&run_line(&line).expect(1).stderr, &["error: ", file, "exists already"]);
            assert_eq!(fs::read_to_string(place.path(file)).unwrap(), "mine", "{file}");
            fs::remove_file(place.path(file)).unwrap();
        }
    }
}

#[test]
fn work_folders_of_somebody_elses_are_refused_whole() {
    let place = Place::new();
    write_folder(&place.path("pictures"));
    for name in ["photos.parts", "w/pictures", "swept/sweep.work", "model/eval"] {
        fs::create_dir_all(place.path(name)).unwrap();
        fs::write(place.path(name).join("part-00000.safetensors"), "mine").unwrap();
    }
    let before = (names(&place.path("")), names(&place.path("pictures")));
    for line in [
        &["eval", "--samples", "pictures", "--reference", "nowhere", "--work", "."][..],
        &["eval", "--samples", "pictures", "--reference", "nowhere", "--work", "pictures"],
        &["eval", "--model", "model", "--reference", "nowhere"],
        &["eval", "--model", "model", "--reference", "nowhere", "--work", "w"],
        &["stats", "pictures", "--out", "photos.npz"],
        &["sweep", "--model", "model", "--metrics", "fid", "--reference", "nowhere", "--out", "swept"],
    ] {
        let output = freeguide().args(line).current_dir(place.path("")).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line:?}: {stderr}");
        contains(&stderr, &["is not empty and is no work folder", "another folder"]);
        assert_eq!((names(&place.path("")), names(&place.path("pictures"))), before, "{line:?}");
        for name in ["photos.parts", "w/pictures", "swept/sweep.work", "model/eval"] {
            assert_eq!(names(&place.path(name)), ["part-00000.safetensors"], "{line:?}");
        }
    }
}

/// A model whose classes have other names.
fn renamed(place: &Place, names: &[&str]) -> String {
    let model = model(place);
    let path = place.path("model/config.json");
    let mut config: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for (class, name) in names.iter().enumerate() {
        config["class_names"][class] = (*name).into();
    }
    fs::write(&path, config.to_string()).unwrap();
    model
}

#[test]
fn every_picture_has_a_file_of_its_own_whatever_the_classes_are_called() {
    let place = Place::new();
    let long = "x".repeat(400);
    let model =
        renamed(&place, &["a b", "a_b", "A/b", "..", "", "crane", "crane", "none", &long, "猫\u{1b}[2J"]);
    let sample = |more: &[&str]| {
        let out = place.text("out");
        let fixed = ["sample", "--model", &model, "--steps", "1", "--out", &out, "--force"];
        run(&[&fixed[..], more].concat()).expect(0)
    };
    let told = sample(&["--seeds", "0,3,0"]).stdout;
    contains(&told, &["(20 pictures)"]);
    assert_eq!(names(&place.path("out")).len(), 20, "{:?}", names(&place.path("out")));
    assert_eq!(names(&place.path("")), ["model", "out"]);
    // One class alone has the name that it has among all.
    let before = names(&place.path("out"));
    sample(&["--seeds", "0", "--class", "1"]);
    assert_eq!(names(&place.path("out")), before);
    sample(&["--seeds", "0", "--class", "none"]);
    assert_eq!(names(&place.path("out")).len(), 21);
    contains(&before.join(" "), &["a_b@0-seed000000.png", "crane@5-seed000000.png", "none@7-seed000003.png"]);
}

#[cfg(unix)]
#[test]
fn names_do_not_steer_the_terminal() {
    let place = Place::new();
    let model = renamed(&place, &["\u{1b}[31mred", "two\nlines"]);
    write_folder(&place.path("set"));
    fs::write(place.path("set/one/\u{1b}]0;x\u{7}\nb.png"), "no picture").unwrap();
    let (set, out) = (place.text("set"), place.text("out"));
    let steering = "\u{1b}[2J\u{202e}nowhere";
    for (line, code) in [
        (&["info", &model, "--classes"][..], 0),
        (&["info", steering], 1),
        (&["train", "--data", &set, "--out", &out, "--dry-run"], 0),
        (&["train", "--data", steering, "--out", &out], 1),
        (&["sample", "--model", &model, "--class", steering], 1),
        (&["sample", steering], 2),
    ] {
        let finished = run(line).expect(code);
        let all = finished.stdout + &finished.stderr;
        assert!(!all.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{line:?}: {all:?}");
        assert!(all.contains("\\u001b") || all.contains("\\u{1b}"), "{line:?}: {all:?}");
        assert!(!all.contains("two\nlines") && !all.contains("\nb.png"), "{all}");
    }
}
