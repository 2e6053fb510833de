//! Labels files, class folders, and what is no labelling.

use super::*;

#[test]
fn labels_files_are_read_in_folders_and_zips() {
    let (a, b, c) = (grey(1), grey(2), grey(3));
    let pictures = [("0/a.png", &a[..]), ("0/b.png", &b), ("1/c.png", &c)];
    let with = |file: &str, text: &str, options: &DataOptions| {
        let place = Place::new(&[&pictures[..], &[(file, text.as_bytes())]].concat());
        let set = place.everywhere(options);
        let classes: Vec<String> =
            set.labels().iter().map(|label| set.class_names[*label as usize].clone()).collect();
        (classes, set)
    };
    let plain = DataOptions::default();
    for json in [
        r#"{"labels": [["0/b.png", 0], ["0/a.png", 2], ["1/c.png", 2]]}"#,
        r#"{"labels": [["0/b.png", 0.0], ["0/a.png", 2.0], ["1/c.png", 2.0]]}"#,
        r#"{"labels": [["0/b.png", [1, 0, 0]], ["0/a.png", [0, 0, 1]], ["1/c.png", [0, 0, 1]]]}"#,
        r#"{"labels": {"0/b.png": 0, "0/a.png": 2, "1/c.png": 2}}"#,
    ] {
        let (classes, set) = with("dataset.json", json, &plain);
        assert_eq!((classes.join(" "), set.num_classes()), ("2 0 2".into(), 3), "{json}");
        assert!(set.warnings()[0].contains("1 of 3 classes has no pictures: 1"), "{:?}", set.warnings());
    }
    let (classes, set) = with("dataset.json", r#"{"labels": null}"#, &plain);
    assert!(classes == ["all"; 3] && set.is_unlabelled());
    let (classes, set) =
        with("dataset.json", r#"{"labels": [["0/a.png", 1], ["1/c.png", 1], ["x.png", 0]]}"#, &plain);
    assert_eq!((classes.join(" "), left_out(&set)), ("1 1".into(), vec!["0/b.png", "x.png"]));
    assert!(set.warnings()[0].contains("count from 1"));

    let csv = "file_name,label,kind,text\n0/a.png,owl,x,\"a, b\"\n./0/b.png,cat,y,\n1/c.png,cat,y,c\n";
    let (classes, set) = with("metadata.csv", csv, &plain);
    assert_eq!(classes, ["owl", "cat", "cat"]);
    assert_eq!((set.caption(0), set.caption(2)), (Some("a, b"), Some("c")));
    let kind = DataOptions { label: Some("kind".into()), ..plain.clone() };
    assert_eq!(with("metadata.csv", csv, &kind).0, ["x", "y", "y"]);
    let lines =
        "{\"file_name\": \"a.png\", \"label\": \"cat\"}\n{\"file_name\": \"b.png\", \"label\": \"cat\"}\n";
    let (classes, set) = with("0/metadata.jsonl", lines, &plain);
    assert_eq!((classes.join(" "), left_out(&set)), ("cat cat".into(), vec!["1/c.png"]));
    // Without a column of labels, folders tell; that is said.
    let (classes, set) = with("metadata.csv", "file_name,text,kind\n0/a.png,owl,x\n", &plain);
    assert_eq!((classes.join(" "), set.caption(0)), ("0 0 1".into(), Some("owl")));
    assert!(set.warnings()[0].contains("no column `label`") && set.warnings()[0].contains("kind"));
    let none = DataOptions { labelling: Labelling::None, ..plain };
    assert_eq!(with("metadata.csv", csv, &none).0, ["all"; 3]);
}

#[test]
fn damaged_labels_files_are_named() {
    let a = grey(3);
    let message = |files: &[(&str, &str)]| {
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
        let place = Place::new(&[&[("a.png", &a[..])], &files[..]].concat());
        let plain = DataOptions::default();
        let message = refusal(place.folder(&plain));
        assert_eq!(
            message.split_once(": ").unwrap().1,
            refusal(place.zip("", &plain)).split_once(": ").unwrap().1
        );
        message
    };
    for (file, text, part) in [
        ("dataset.json", "{", "dataset.json"),
        ("dataset.json", "{}", "`labels`"),
        ("dataset.json", r#"{"labels": [["a.png", -1]]}"#, "-1"),
        ("dataset.json", r#"{"labels": [["a.png", 4000000000]]}"#, "4000000000"),
        ("dataset.json", r#"{"labels": [["b.png", 0]]}"#, "no label in dataset.json"),
        ("metadata.csv", "name,label\na.png,1\n", "no column `file_name`, but label, name"),
        ("metadata.csv", "file_name,label\na.png,1\na.png,2\n", "twice"),
        ("metadata.csv", "file_name,label\na.png\n", "metadata.csv"),
        ("metadata.jsonl", "{\"file_name\": 3}\n", "metadata.jsonl"),
        ("metadata.jsonl", "{\"file_name\": \"a.png\"}\nx\n", "line 2"),
    ] {
        assert!(message(&[(file, text)]).contains(part), "{text}: {}", message(&[(file, text)]));
    }
    let three = r#"{"labels": [["a.png", 3]]}"#;
    assert!(message(&[("dataset.json", three), ("classes.json", r#"["x"]"#)]).contains("up to 3"));
    assert!(
        message(&[("dataset.json", three), ("metadata.csv", "file_name,label\n")]).contains("keep the one")
    );
    let rows = "file_name,label\n";
    assert!(message(&[("test/metadata.csv", rows), ("train/metadata.csv", rows)]).contains("parts of a set"));
    let wrong = DataOptions { label: Some("colour".into()), ..DataOptions::default() };
    assert!(refusal(Place::new(&[("a.png", &a)]).folder(&wrong)).contains("`colour`"));
}

#[test]
fn what_is_no_labelling_is_refused() {
    let picture = grey(9);
    let place =
        |names: &[&str]| Place::new(&names.iter().map(|name| (*name, &picture[..])).collect::<Vec<_>>());
    let splits = ["train/cat/a.png", "train/dog/b.png", "val/cat/c.png", "val/dog/d.png"];
    let unlabelled = DataOptions { labelling: Labelling::None, ..DataOptions::default() };
    for (names, part) in [
        (&splits[..], "set/train"),
        (&["8f3a.png", "b77e.png", "c1d4.png"], "3 pictures of 3 classes"),
        (&["a/0.png", "b/0.png"], "2 pictures of 2 classes"),
    ] {
        let place = place(names);
        let message = refusal(place.folder(&DataOptions::default()));
        assert!(message.contains(part) && message.contains("unlabelled"), "{message}");
        assert_eq!(place.folder(&unlabelled).unwrap().class_names, ["all"]);
        let trusting = DataOptions { labelling: Labelling::Trusted, ..DataOptions::default() };
        assert!(place.folder(&trusting).unwrap().warnings()[0].contains(part));
    }
    let parts = place(&["train/a.png", "train/b.png", "val/a.png"]).folder(&DataOptions::default()).unwrap();
    assert!(parts.warnings()[0].contains("parts of a set"));
    std::fs::create_dir_all(place(&splits).path("set/none")).unwrap();
    let empties = place(&["full/a.png", "full/b.png"]);
    std::fs::create_dir(empties.path("set/none")).unwrap();
    assert!(empties.folder(&DataOptions::default()).unwrap().warnings()[0].contains("none without pictures"));
}
