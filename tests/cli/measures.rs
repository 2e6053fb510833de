//! Measures of pictures and sweeps of guidance weights.

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
