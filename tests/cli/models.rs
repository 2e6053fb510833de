//! Which file, which network and which configuration a command takes of a model, and what it says of that.

use freeguide::io::read_png_text;

use super::*;

#[test]
fn the_average_that_is_asked_for_is_the_one_that_is_read() {
    let place = Place::new();
    let model = model(&place);
    let info = |arguments: &[&str]| run(&[&["info"], arguments].concat());
    let usual = info(&[&model]).expect(0).stdout;
    contains(
        &usual,
        &["model.safetensors\n", "file: the one of that name", "network: the only one", "config.json"],
    );
    contains(&usual, &["average at rate 0.99,"]);
    let raw = info(&[&model, "--average", "raw"]).expect(0).stdout;
    contains(
        &raw,
        &["model-raw.safetensors\n", "the average raw of the folder, as asked", "those of the last step"],
    );
    let by_path = format!("{model}#raw");
    assert_eq!(raw.lines().next(), info(&[&by_path]).expect(0).stdout.lines().next());
    // What is not there, with what is.
    let missing = info(&[&model, "--average", "0.9999"]).expect(1).stderr;
    contains(&missing, &["0.9999", "0.99 (model.safetensors)", "raw (model-raw.safetensors)"]);
    let file = place.text("model/model-raw.safetensors");
    contains(
        &info(&[&file, "--average", "0.99"]).expect(1).stderr,
        &["holds the average raw", "model.safetensors does"],
    );
    contains(&info(&[&model, "--average", "1.5"]).expect(2).stderr, &["1.5", "raw"]);

    // The raw weights are what their file says, whichever way they are asked for; a picture says which it is of.
    let picture = |out: &str, arguments: &[&str]| {
        let out = place.text(out);
        let fixed = ["sample", "--class", "3", "--seeds", "1", "--steps", "2", "--out", &out];
        run(&[&fixed, arguments].concat()).expect(0);
        let text = read_png_text(&out).unwrap();
        let note = |wanted: &str| text.iter().find(|(key, _)| key == wanted).unwrap().1.clone();
        // Of so short a training the two draw alike; the weights themselves are told apart.
        (note("file"), (note("model_weights"), image::open(&out).unwrap().into_bytes()))
    };
    let (name, average) = picture("a.png", &["--model", &model]);
    assert_eq!(name, "model.safetensors");
    let (name, raw) = picture("b.png", &["--model", &model, "--average", "raw"]);
    assert_eq!(name, "model-raw.safetensors");
    assert_eq!((name, raw.clone()), picture("c.png", &["--model", &file]));
    assert_ne!(average.0, raw.0);
}

#[test]
fn folders_of_any_name_are_written_and_read() {
    let place = Place::new();
    let model = model(&place);
    let out = format!("{}/", place.text("run.v2"));
    let fixed = ["sample", "--model", &model, "--class", "3", "--seeds", "1", "--steps", "2", "--out"];
    run(&[&fixed[..], &[&out]].concat()).expect(0);
    assert_eq!(names(&place.path("run.v2")).len(), 1);
    fs::rename(&model, place.path("model.v2")).unwrap();
    run(&["info", &place.text("model.v2")]).expect(0);
    contains(&run(&[&fixed[..], &[&place.text("x.v3")]].concat()).expect(1).stderr, &["x.v3/"]);
}

#[test]
fn what_is_no_model_is_told_for_what_it_is() {
    let place = Place::new();
    for (name, text, parts) in [
        (
            "a.safetensors",
            "version https://git-lfs.github.com/spec/v1\nsize 7\n",
            ["Git LFS pointer", "git lfs pull"],
        ),
        ("a.pt", "version https://git-lfs.github.com/spec/v1\nsize 7\n", ["Git LFS pointer", "git lfs pull"]),
        ("b.pt", "<!DOCTYPE html><html>Virus scan warning</html>", ["web page", "download"]),
        ("config.json", "{\"a\": 1}", ["JSON", "folder"]),
    ] {
        fs::write(place.path(name), text).unwrap();
        for command in [&["info"][..], &["sample", "--model"], &["convert"]] {
            let (path, out) = (place.text(name), place.text("out"));
            let rest: &[&str] = if command == ["convert"] { &[&path, &out] } else { &[&path] };
            contains(&run(&[command, rest].concat()).expect(1).stderr, &parts);
        }
    }
}
