//! Measures of pictures and sweeps of guidance weights.

use freeguide::io::{NpzValues, write_npz_arrays};

use super::*;

#[test]
fn pictures_are_measured_against_statistics_and_models_against_data() {
    let place = Place::new();
    let (stats, model) = (place.text("stats.npz"), model(&place));
    // A small set, so that its classifier is soon trained.
    write_folder(&place.path("set"));
    let set = place.text("set");
    let refused = run(&["stats", &set, "--out", &stats]).expect(1);
    contains(&refused.stderr, &["two classes and 20 pictures", "--features FILE"]);
    for (name, label, picture) in pictures() {
        write_png(
            place.path("set").join(["nought", "one"][label as usize]).join(format!("b{name}")),
            &picture,
            &[],
        )
        .unwrap();
    }
    run(&["stats", &set, "--out", &stats]).expect(0);
    assert!(place.path("stats.classifier.safetensors").exists() && !place.path("stats.parts").exists());

    // The data against its own statistics.
    let json = run(&["eval", "--samples", &set, "--reference", &stats, "--json"]).expect(0).stdout;
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(
        report["warnings"][0].as_str().unwrap().contains("24") && report["notes"][0].is_string(),
        "{json}"
    );
    assert!(report["inception_score_deviation"].is_null() && report["kid_deviation"].is_null(), "{json}");
    assert_eq!((report["pictures"].as_u64(), report["precision"].as_f64()), (Some(24), Some(1.0)));
    assert!(report["fid"].as_f64().unwrap() < 1e-6 && report["agreement"].as_f64().unwrap() > 0.9, "{json}");
    assert_eq!(names(&place.path("set.eval")), [".freeguide-work", "reports.jsonl"]);

    let one = run(&["eval", "--model", &model, "--reference", &stats, "--count", "1"]);
    contains(&one.expect(2).stderr, &["--count", "from 2 to"]);

    // A model that knows nothing, drawn and measured.
    let text = run(&["eval", "--model", &model, "--reference", &stats, "--count", "12", "--steps", "2"])
        .expect(0)
        .stdout;
    contains(&text, &["12 pictures, features: classifier of set", "FID", "precision", "recall of class 1"]);
    contains(&text, &["warning: FID: the pictures are 12", "128 features is singular", "(of one split)"]);
    contains(&text, &["note: FID of 12 pictures is larger", "KID"]);

    for (arguments, parts) in [
        (&["eval", "--samples", "nowhere.npz", "--reference", &stats][..], &["nowhere.npz"][..]),
        (&["eval", "--samples", &set, "--reference", "nowhere.npz"], &["nowhere.npz"]),
        (&["stats", &set, "--out", &stats], &["exists already; --force"]),
        (&["stats", &set, "--out", "stats.csv"], &["statistics are a .npz"]),
    ] {
        contains(&run(arguments).expect(1).stderr, parts);
    }
}

#[test]
fn a_sweep_writes_a_grid_and_a_table() {
    let place = Place::new();
    let model = model(&place);
    let sweep = |more: &[&str]| {
        let fixed = ["sweep", "--model", &model, "--w", "-1:1:1", "--steps", "2", "--count", "1"];
        run(&[&fixed[..], more].concat())
    };
    contains(&sweep(&[]).expect(0).stdout, &["sweep.png", "sweep.csv"]);
    let table = fs::read_to_string(place.path("model/sweep.csv")).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows[0][..4], ["w", "guidance_scale", "steps", "pictures"]);
    assert_eq!(rows[1..].iter().map(|row| row[0]).collect::<Vec<_>>(), ["-1", "0", "1"]);
    for row in &rows[1..] {
        assert_eq!((row.len(), row[2], row[3]), (rows[0].len(), "2", "10"));
    }
    assert!(fs::metadata(place.path("model/sweep.png")).unwrap().len() > 1000);
    contains(&sweep(&[]).expect(1).stderr, &["sweep.png", "--force"]);
    sweep(&["--force"]).expect(0);
    sweep(&["--out", &place.text("elsewhere")]).expect(0);
    assert_eq!(names(&place.path("elsewhere")), ["sweep.csv", "sweep.png"]);
}

#[test]
fn a_measured_sweep_goes_on_and_draws_its_curve() {
    let place = Place::new();
    let (model, out) = (model(&place), place.text("swept"));
    write_folder(&place.path("set"));
    for (name, label, picture) in pictures() {
        let folder = place.path("set").join(["nought", "one"][label as usize]);
        write_png(folder.join(format!("b{name}")), &picture, &[]).unwrap();
    }
    let set = place.text("set");
    let sweep = |w: &str| {
        let fixed =
            ["sweep", "--model", &model, "--w", w, "--metrics", "fid,is,precision", "--reference", &set];
        run(&[&fixed[..], &["--steps", "2,3", "--count", "20", "--out", &out]].concat())
    };
    let told = sweep("0,1").expect(0).stdout;
    contains(&told, &["| w | FID (T = 2) | FID (T = 3) | IS (T = 2) | IS (T = 3) |", "| 0 |", "| 1 |"]);
    let first = fs::read_to_string(place.path("swept/sweep.csv")).unwrap();
    assert_eq!(first.lines().count(), 5, "{first}");
    for name in ["sweep.png", "sweep-curve.png", "sweep.md"] {
        assert!(place.path("swept").join(name).exists(), "{name}");
    }
    // A further weight: what is there is kept as it is.
    let told = sweep("0:2:1").expect(0).stderr;
    assert!(!told.contains("w = 1\n") && told.matches("w = 2\n").count() == 2, "{told}");
    let second = fs::read_to_string(place.path("swept/sweep.csv")).unwrap();
    assert!(second.starts_with(&first) && second.lines().count() == 7, "{second}");
    // Drawn again from its numbers alone, with those of another.
    let other = second.replace("\nmodel,", "\nanother,");
    fs::write(place.path("other.csv"), other).unwrap();
    let both = format!("{},{}", place.text("swept/sweep.csv"), place.text("other.csv"));
    let drawn = run(&["plot", "--sweeps", &both, "--out", &place.text("drawn")]).expect(0).stdout;
    contains(&drawn, &["FID (model, T = 2)", "FID (another, T = 3)", "sweeps.png"]);
    assert_eq!(drawn.matches("\n| 2 |").count(), 1, "{drawn}");
    fs::write(place.path("other.csv"), "w,fid\n").unwrap();
    let bad = ["plot", "--sweeps", &both, "--out", &place.text("drawn"), "--force"];
    contains(&run(&bad).expect(1).stderr, &["other.csv", "does not begin"]);
    // Other settings do not mix with them.
    let other =
        ["sweep", "--model", &model, "--metrics", "fid", "--reference", &set, "--count", "9", "--out", &out];
    contains(&run(&other).expect(1).stderr, &["was measured otherwise", "20 pictures", "9 pictures"]);
    let other =
        [&other[..7], &["--count", "20", "--sampler", "ddim", "--batch", "3", "--out", &out]].concat();
    contains(&run(&other).expect(1).stderr, &["was measured otherwise", "sampler ddim"]);
    let none = ["sweep", "--model", &model, "--metrics", "fid", "--out", &out];
    contains(&run(&none).expect(1).stderr, &["--reference"]);
    contains(&run(&["sweep", "--model", &model, "--metrics", "fad"]).expect(1).stderr, &["fad", "sfid"]);
    contains(&run(&["sweep", "--model", &model, "--steps", "2,3"]).expect(1).stderr, &["add --metrics"]);
    let alone = run(&["sweep", "--model", &model, "--reference", "digits"]);
    contains(&alone.expect(1).stderr, &["--reference", "add --metrics"]);
}

#[test]
fn a_refused_measurement_leaves_nothing() {
    let place = Place::new();
    write_folder(&place.path("set"));
    fs::create_dir(place.path("empty")).unwrap();
    fs::create_dir(place.path("damaged")).unwrap();
    fs::write(place.path("damaged/a.png"), "no picture").unwrap();
    fs::write(place.path("bad.npz"), "no arrays").unwrap();
    let before = names(&place.path(""));
    for (line, named) in [
        ("eval --samples nowhere.npz --reference set", "nowhere.npz"),
        ("eval --samples nowhere.npz --reference set --work w/deep", "nowhere.npz"),
        ("eval --samples nowhere.npz --reference set --work empty", "nowhere.npz"),
        ("eval --samples bad.npz --reference set", "bad.npz"),
        ("eval --samples nowhere --reference set", "nowhere"),
        ("eval --samples damaged --reference set", "damaged"),
        ("eval --samples set --reference nowhere.npz", "nowhere.npz"),
        ("eval --samples set --reference bad.npz", "bad."),
        ("eval --samples set --reference damaged", "damaged"),
        ("eval --samples set --reference set --features nowhere.safetensors", "nowhere.safetensors"),
        // Too few pictures for a classifier of features.
        ("eval --samples set --reference set --work w", "20 pictures"),
        ("eval --model nowhere --reference set --work w", "nowhere"),
        ("sweep --model nowhere --metrics fid --reference set --out w", "nowhere"),
        ("stats set --out new.npz --features nowhere.safetensors", "nowhere.safetensors"),
        ("stats nowhere --out new.npz", "nowhere"),
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        let output = freeguide().args(&arguments).current_dir(place.path("")).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {stderr}");
        contains(&stderr, &["error: ", named]);
        assert_eq!(names(&place.path("")), before, "{line}: {stderr}");
        assert!(names(&place.path("empty")).is_empty(), "{line}");
    }
}

#[test]
fn agreement_is_of_names_and_numbers_are_held_against_numbers_alone() {
    let place = Place::new();
    write_folder(&place.path("set"));
    let digits = Dataset::open("digits", None).unwrap();
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for (name, label, picture) in pictures() {
        let class = ["nought", "one"][label as usize];
        write_png(place.path("set").join(class).join(format!("b{name}")), &picture, &[]).unwrap();
        write_png(place.path("turned").join(class).join(&name), &picture, &[]).unwrap();
        pixels.extend(picture.pixels.iter().flat_map(|&value| [value; 3]));
        labels.push(i64::from(label));
    }
    // The same pictures behind a class that the network does not know.
    let nine = (0..digits.len()).find(|&i| digits.label(i) == 9).unwrap();
    write_png(place.path("turned/eight/n.png"), &digits.decode(nine).unwrap(), &[]).unwrap();
    let count = labels.len();
    let arrays = [
        ("arr_0", &[count, 8, 8, 3][..], NpzValues::U8(&pixels)),
        ("arr_1", &[count][..], NpzValues::I64(&labels)),
    ];
    write_npz_arrays(place.path("set.npz"), &arrays).unwrap();
    run(&["stats", &place.text("set"), "--out", &place.text("stats.npz")]).expect(0);
    let features = place.text("stats.classifier.safetensors");
    let report = |samples: &str, reference: &str| -> serde_json::Value {
        let (samples, reference) = (place.text(samples), place.text(reference));
        let line =
            ["eval", "--samples", &samples, "--reference", &reference, "--features", &features, "--json"];
        serde_json::from_str(&run(&line).expect(0).stdout).unwrap()
    };
    let notes = |report: &serde_json::Value| report["notes"].to_string();
    let named = report("set", "stats.npz");
    assert!(named["agreement"].as_f64().unwrap() > 0.9, "{named}");
    assert!(notes(&named).contains("by their numbers"), "{named}");
    // "eight" comes before "nought" and "one", so that no number means the same.
    let turned = report("turned", "set");
    assert!(turned["agreement"].as_f64().unwrap() > 0.85, "{turned}");
    let generated = |class: usize| turned["class_recall"][class]["generated"].as_u64();
    assert_eq!(
        generated(0).zip(generated(1)),
        Some((count as u64 - ones(&labels), ones(&labels))),
        "{turned}"
    );
    // A file of samples has numbers, and the network names.
    let numbers = report("set.npz", "set");
    assert!(numbers["agreement"].is_null() && numbers["class_recall"].is_null(), "{numbers}");
    contains(&notes(&numbers), &["class agreement is not measured", "numbers for classes", "names"]);
}

fn ones(labels: &[i64]) -> u64 {
    labels.iter().filter(|label| **label == 1).count() as u64
}
