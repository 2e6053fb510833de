//! Standard output that nobody reads, or that is full; a machine without a window system.

use super::*;

/// Every command that prints, with what it leaves in the folder `out`. They follow one another: later ones use what earlier
/// ones made.
fn printers(place: &Place, out: &str) -> Vec<(Vec<String>, &'static str)> {
    let (at, out) = (place.text(""), place.text(out) + "/");
    let line =
        |text: &str| text.split(' ').map(|word| word.replace("AT", &at).replace("OUT", &out)).collect();
    let small = "--channels 8 --channel-mult 1 --attention none --batch 8";
    let tiny = format!("{small} --norm-groups 4");
    [
        ("--help".to_owned(), ""),
        ("--version".into(), ""),
        ("devices".into(), ""),
        ("devices --json".into(), ""),
        ("info ATmodel".into(), ""),
        ("info ATmodel --classes".into(), ""),
        (format!("train --data digits --out OUTnone --dry-run {tiny}"), ""),
        (
            format!("train --data digits --out OUTtrained --images 8 --schedule cosine --steps-total 8 {tiny}"),
            "trained/model.safetensors",
        ),
        (format!("train-classifier --data digits --out OUTclass --images 8 {small}"), "class/model.safetensors"),
        ("distill --teacher ATmodel --out OUTstudent --images 8 --batch 8".into(), "student/model.safetensors"),
        ("sample --model ATmodel --steps 1 --seeds 0 --out OUTone.png".into(), "one.png"),
        ("sweep --model ATmodel --steps 1 --count 1 --out OUTswept".into(), "swept/sweep.csv"),
        ("stats ATset --features ATfeatures.safetensors --out OUTagain.npz".into(), "again.npz"),
        (
            "eval --samples ATset --reference ATstats.npz --features ATfeatures.safetensors --work OUTwork".into(),
            "work/reports.jsonl",
        ),
        (
            "eval --samples ATset --reference ATstats.npz --features ATfeatures.safetensors --work OUTjson --json".into(),
            "json/reports.jsonl",
        ),
        (
            "sweep --model ATmodel --metrics fid --reference ATstats.npz --features ATfeatures.safetensors --w 0 --steps 1 \
             --count 12 --out OUTmeasured"
                .into(),
            "measured/sweep.png",
        ),
        ("plot --sweeps OUTmeasured/sweep.csv --out OUTplots --steps-total 30".into(), "plots/sweeps.md"),
        ("nll --model OUTtrained --data digits --images 4 --out OUTnll.json".into(), "nll.json"),
        ("convert ATmodel OUTconverted".into(), "converted/model.safetensors"),
        (
            "toy --samples 64 --network-samples 64 --steps 2 --train-steps 2 --out OUTtoy.png".into(),
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
fn whoever_does_not_read_loses_no_result() {
    let place = prepared();
    // A reader that has gone ends a command quietly.
    for (line, left) in printers(&place, "closed") {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = freeguide().args(&line).stdout(writer).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(141), "{line:?}: {stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains("error"), "{line:?}: {stderr}");
        assert!(place.path("closed").join(left).exists() || left.is_empty(), "{line:?}: {stderr}");
    }
    #[cfg(target_os = "linux")]
    full(&place);
}

/// A full standard output is an error.
#[cfg(target_os = "linux")]
fn full(place: &Place) {
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    for (line, left) in printers(place, "full") {
        let output = freeguide().args(&line).stdout(full()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{line:?}: {stderr}");
        contains(&stderr, &["error: standard output: ", "No space left"]);
        assert!(place.path("full").join(left).exists() || left.is_empty(), "{line:?}: {stderr}");
    }
    // Numbers that nobody saw are in a file, and what they are of has not been thrown away.
    let reports = place.path("full/work/reports.jsonl");
    let kept: serde_json::Value = serde_json::from_str(fs::read_to_string(&reports).unwrap().trim()).unwrap();
    assert_eq!(kept["report"]["pictures"], 24, "{kept}");
    assert!(place.path("full/work/pictures/part-00000.safetensors").exists());
    // Seen, they need it no more.
    let again = printers(place, "full").into_iter().map(|(line, _)| line).find(|line| line[0] == "eval");
    run(&again.unwrap().iter().map(String::as_str).collect::<Vec<_>>()).expect(0);
    assert_eq!(names(&place.path("full/work")), [".freeguide-work", "reports.jsonl"]);
    assert_eq!(fs::read_to_string(reports).unwrap().lines().count(), 2);
    // A full standard error cannot be told to anybody, and is no panic.
    let status = freeguide().args(["info", "nowhere"]).stderr(full()).status().unwrap();
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
