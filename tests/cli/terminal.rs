//! Standard output that nobody reads, or that is full; a machine without a window system.

use super::*;

/// Every command that prints, with what it leaves. They follow one another: later ones use what earlier ones made.
fn printers(place: &Place) -> Vec<(Vec<String>, &'static str)> {
    let line = |text: &str| text.split(' ').map(|word| word.replace("AT", &place.text(""))).collect();
    let small = "--channels 8 --channel-mult 1 --attention none --batch 8";
    let tiny = format!("{small} --norm-groups 4");
    [
        ("--help".to_owned(), ""),
        ("sample --help".into(), ""),
        ("--version".into(), ""),
        ("devices".into(), ""),
        ("devices --json".into(), ""),
        ("info ATmodel".into(), ""),
        ("info ATmodel --classes".into(), ""),
        (format!("train --data digits --out ATnone --dry-run {tiny}"), ""),
        (
            format!("train --data digits --out ATtrained --images 8 --schedule cosine --steps-total 8 {tiny}"),
            "trained/model.safetensors",
        ),
        (format!("train-classifier --data digits --out ATclass --images 8 {small}"), "class/model.safetensors"),
        ("distill --teacher ATmodel --out ATstudent --images 8 --batch 8".into(), "student/model.safetensors"),
        ("sample --model ATmodel --steps 1 --seeds 0 --out ATone.png".into(), "one.png"),
        ("sample --model ATmodel --steps 1 --seeds 0 --out ATall.npz".into(), "all.npz"),
        ("sample --model ATmodel --steps 1 --seeds 0 --out ATfolder".into(), "folder/0-seed000000.png"),
        ("sweep --model ATmodel --steps 1 --count 1 --out ATswept".into(), "swept/sweep.csv"),
        ("stats ATset --features ATfeatures.safetensors --out ATagain.npz".into(), "again.npz"),
        (
            "eval --samples ATset --reference ATstats.npz --features ATfeatures.safetensors --work ATwork".into(),
            "work/reports.jsonl",
        ),
        (
            "eval --samples ATset --reference ATstats.npz --features ATfeatures.safetensors --work ATjson --json".into(),
            "json/reports.jsonl",
        ),
        (
            "sweep --model ATmodel --metrics fid --reference ATstats.npz --features ATfeatures.safetensors --w 0 --steps 1 \
             --count 12 --out ATmeasured"
                .into(),
            "measured/sweep.png",
        ),
        ("plot --sweeps ATmeasured/sweep.csv --out ATplots --steps-total 8".into(), "plots/sweeps.md"),
        ("nll --model ATtrained --data digits --images 4 --out ATnll.json".into(), "nll.json"),
        ("convert ATmodel ATconverted".into(), "converted/model.safetensors"),
        (
            "toy --samples 64 --network-samples 64 --steps 2 --train-steps 2 --out ATtoy.png".into(),
            "toy.png",
        ),
    ]
    .into_iter()
    .map(|(text, left)| (line(&text), left))
    .collect()
}

fn prepared() -> Place {
    let place = Place::new();
    model(&place);
    write_folder(&place.path("set"));
    for (name, label, picture) in pictures() {
        let folder = place.path("set").join(["nought", "one"][label as usize]);
        write_png(folder.join(format!("b{name}")), &picture, &[]).unwrap();
    }
    run(&["stats", &place.text("set"), "--out", &place.text("stats.npz")]).expect(0);
    fs::rename(place.path("stats.classifier.safetensors"), place.path("features.safetensors")).unwrap();
    place
}

#[test]
fn a_reader_that_has_gone_ends_a_command_quietly_and_its_results_are_there() {
    let place = prepared();
    for (line, left) in printers(&place) {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = freeguide().args(&line).stdout(writer).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(141), "{line:?}: {stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains("error"), "{line:?}: {stderr}");
        assert!(place.path(left).exists(), "{line:?}: {stderr}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_standard_output_is_an_error_and_the_results_are_there() {
    let place = prepared();
    for (line, left) in printers(&place) {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = freeguide().args(&line).stdout(full).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{line:?}: {stderr}");
        contains(&stderr, &["error: standard output: ", "No space left"]);
        assert!(place.path(left).exists(), "{line:?}: {stderr}");
    }
    // Numbers that nobody saw are in a file, and what they are of has not been thrown away.
    let kept = fs::read_to_string(place.path("work/reports.jsonl")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(kept.trim()).unwrap();
    assert_eq!(kept["report"]["pictures"], 24, "{kept}");
    assert!(place.path("work/pictures/part-00000.safetensors").exists());
    // Seen, they need it no more.
    let again = printers(&place).into_iter().map(|(line, _)| line).find(|line| line[0] == "eval").unwrap();
    run(&again.iter().map(String::as_str).collect::<Vec<_>>()).expect(0);
    assert_eq!(names(&place.path("work")), [".freeguide-work", "reports.jsonl"]);
    assert_eq!(fs::read_to_string(place.path("work/reports.jsonl")).unwrap().lines().count(), 2);
    // A full standard error cannot be told to anybody, and is no panic.
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let status = freeguide().args(["info", "nowhere"]).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn nothing_is_said_of_a_window_system_where_there_is_none() {
    let windowless = |line: &[&str]| {
        let mut command = freeguide();
        command.args(line);
        for name in ["XDG_RUNTIME_DIR", "WAYLAND_DISPLAY", "DISPLAY"] {
            command.env_remove(name);
        }
        command.output().unwrap()
    };
    let output = windowless(&["devices"]);
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}
