//! What is said of data sets, and what is refused.

use super::*;

fn dry_run(place: &Place, data: &str, more: &[&str]) -> Finished {
    train_two_steps(&place.text(data), &place.text("out"), &[&["--dry-run"], more].concat())
}

#[test]
fn what_was_found_is_shown_before_a_training() {
    let place = Place::new();
    write_folder(&place.path("set"));
    fs::write(place.path("set/one/notes.txt"), "three lines").unwrap();
    fs::write(place.path("set/one/more.txt"), "of text").unwrap();
    let shown = dry_run(&place, "set", &[]).expect(0).stderr;
    contains(
        &shown,
        &[
            "set, 12 grey pictures, 2 classes, labels of the folders' names",
            "nought 7",
            "one    5",
            "sizes: 8x8\n",
        ],
    );
    contains(&shown, &["2 files (one/more.txt, one/notes.txt): each is text"]);
    // Digits as numbers, and a labels file in the folder.
    let labels: Vec<_> = pictures()
        .into_iter()
        .map(|(name, label, _)| {
            format!("{}/{name},{}\n", ["nought", "one"][label as usize], ["x", "y"][label as usize])
        })
        .collect();
    fs::write(place.path("set/metadata.csv"), format!("file_name,letter\n{}", labels.concat())).unwrap();
    let shown = dry_run(&place, "set", &["--label", "letter"]).expect(0).stderr;
    contains(&shown, &["labels of metadata.csv", "x 7", "y 5"]);
    contains(
        &dry_run(&place, "set", &["--label", "colour"]).expect(1).stderr,
        &["`colour`", "file_name, letter"],
    );
}

#[test]
fn without_labels_a_network_has_no_classes() {
    let place = Place::new();
    fs::create_dir(place.path("set")).unwrap();
    for (i, (_, _, picture)) in pictures().into_iter().enumerate() {
        write_png(place.path(&format!("set/{:x}c.png", 7919 * (i + 1))), &picture, &[]).unwrap();
    }
    let refused = dry_run(&place, "set", &[]).expect(1);
    contains(&refused.stderr, &["12 pictures of 12 classes", "unlabelled"]);
    assert!(!place.path("out").exists());
    let out = place.text("out");
    train_two_steps(&place.text("set"), &out, &["--unlabelled", "--sample-every", "8"]).expect(0);
    contains(&run(&["info", &out]).expect(0).stdout, &["classes: "]);
    let sample = ["sample", "--model", &out, "--steps", "2", "--seeds", "0-1", "--out"];
    contains(&run(&[&sample[..], &[&place.text("two.png")]].concat()).expect(0).stdout, &["2 pictures"]);
    assert!(place.path("out/samples-000000000008.png").exists());
}

#[test]
fn damaged_pictures_are_left_out_or_refused() {
    let place = Place::new();
    write_folder(&place.path("set"));
    let file = fs::read_dir(place.path("set/one")).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&file).unwrap();
    fs::write(place.path("set/one/cut.png"), &bytes[..bytes.len() - 30]).unwrap();
    train_two_steps(&place.text("set"), &place.text("out"), &[]).expect(0);
    let refused = train_two_steps(&place.text("set"), &place.text("strict"), &["--strict-data"]).expect(1);
    contains(&refused.stderr, &["cut.png", "damaged"]);
    assert!(!place.path("strict").exists());
}
