//! A picture's file says all that decides it: from its text alone the same file is made again.

use freeguide::io::{Dtype, SafetensorsFile, TensorBytes, read_npz_text, write_safetensors};

use super::*;

/// The command that a file's notes ask for; models and files that were begun with lie in `place`.
fn command(place: &Place, text: &[(String, String)]) -> Vec<String> {
    let mut line = vec!["sample".to_owned()];
    for (key, value) in text {
        let option = match key.as_str() {
            "model" | "uncond_model" | "classifier" | "upsampler" | "from" if value != "digits" => {
                line.extend([format!("--{}", key.replace('_', "-")), place.text(value)]);
                continue;
            }
            "seeds" | "seed" => "--seeds",
            "guidance_weight" => "--w",
            "fast" => {
                line.push("--fast".into());
                line.extend(["--batch".into(), value.rsplit(' ').next().unwrap().into()]);
                continue;
            }
            "from" => "--from",
            "class" => "--class",
            "sampler" => "--sampler",
            "eta" => "--eta",
            "variance" => "--variance",
            "steps" => "--steps",
            "respacing" => "--respacing",
            "spacing" => "--spacing",
            "average" => "--average",
            "network" => "--network",
            "v" => "--v",
            "clip" => "--clip",
            "precision" => "--precision",
            "guider" => "--guider",
            "uncond" => "--uncond",
            "classifier_scale" => "--classifier-scale",
            "upsampler_steps" => "--upsampler-steps",
            // Which program, device and weights these were, and what the models themselves say.
            "Software" | "device" | "file" | "guidance_scale" | "from_values" => continue,
            key if key.ends_with("_weights") || key.ends_with("_scheduler") => continue,
            key if key.starts_with("upsampler_") => continue,
            key => panic!("nobody reads the note {key} = {value}"),
        };
        line.push(format!("{option}={value}"));
    }
    line
}

fn text(path: &Path) -> Vec<(String, String)> {
    match path.extension().is_some_and(|extension| extension == "npz") {
        true => read_npz_text(path).unwrap(),
        false => read_png_text(path).unwrap(),
    }
}

/// A folder of models: `model`, `plain` (no classes), `weak`, `discrete`, `small` (4x4), `larger` (4x4 to 8x8), `classifier`.
fn models(place: &Place) {
    model(place);
    let tiny = ["--channels", "8", "--channel-mult", "1", "--attention", "none", "--batch", "8"];
    let train = |out: &str, command: &str, more: &[&str]| {
        let out = place.text(out);
        run(&[&[command, "--data", "digits", "--images", "8", "--out", &out], &tiny[..], more].concat())
            .expect(0);
    };
    let groups = ["--norm-groups", "4"];
    train("plain", "train", &[&groups[..], &["--p-uncond", "1"]].concat());
    train("weak", "train", &groups);
    train(
        "discrete",
        "train",
        &[&groups[..], &["--schedule", "cosine", "--steps-total", "20", "--learn-sigma", "--loss", "hybrid"]]
            .concat(),
    );
    train("small", "train", &[&groups[..], &["--image-size", "4"]].concat());
    train("larger", "train", &[&groups[..], &["--upsample-from", "4"]].concat());
    train("classifier", "train-classifier", &[]);
    two_networks(&place.path("plain"), &place.path("both.safetensors"));
}

/// A file of two networks, as trainings of other programs leave: the weights of a training's last step, and the average.
fn two_networks(training: &Path, file: &Path) {
    let files = [("model/", "model-raw.safetensors"), ("ema/", "model.safetensors")];
    let mut tensors = Vec::new();
    for (prefix, name) in files {
        let file = SafetensorsFile::open(training.join(name)).unwrap();
        for name in file.names() {
            let (shape, values) = file.to_f32(&name).unwrap();
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            tensors.push((format!("{prefix}{name}"), shape, bytes));
        }
    }
    let views: Vec<TensorBytes<'_>> = tensors
        .iter()
        .map(|(name, shape, bytes)| TensorBytes { name, dtype: Dtype::F32, shape, bytes })
        .collect();
    let config = fs::read_to_string(training.join("config.json")).unwrap();
    write_safetensors(file, &views, &[("freeguide_config".to_owned(), config)].into_iter().collect())
        .unwrap();
}

#[test]
fn a_student_says_which_weights_taught_it() {
    let place = Place::new();
    let model = model(&place);
    for (out, more, average) in [("first", &[][..], "0.99"), ("raw", &["--average", "raw"], "raw")] {
        let out = place.text(out);
        let fixed = ["distill", "--teacher", &model, "--out", &out, "--images", "8", "--batch", "8"];
        let told = run(&[&fixed[..], more].concat()).expect(0).stderr;
        contains(&told, &["teacher: ", &format!("average {average}")]);
        let text = fs::read_to_string(Path::new(&out).join("train.json")).unwrap();
        let options: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(options["distillation"]["average"], average, "{text}");
        // A folder of an earlier version, which did not say so, goes on.
        let mut options = options;
        options["distillation"].as_object_mut().unwrap().remove("average");
        fs::write(Path::new(&out).join("train.json"), options.to_string()).unwrap();
        run(&[&fixed[..], more].concat()).expect(0);
    }
}

#[test]
fn a_picture_is_made_again_from_its_text_alone() {
    let place = Place::new();
    models(&place);
    let guider = format!("autoguidance({})", place.text("weak"));
    for (model, out, more) in [
        ("model", "plain.png", &["--w=-0.5", "--seeds", "0-1,5", "--v", "0.7", "--clip", "none"][..]),
        ("model", "plain.npz", &["--seeds", "3", "--sampler", "heun"]),
        ("model", "none.png", &["--class", "none", "--seeds", "3"]),
        ("model", "raw.png", &["--class", "2", "--average", "raw"]),
        ("model", "eta.png", &["--class", "2", "--sampler", "ddim", "--eta", "0.5"]),
        (
            "model",
            "guider.png",
            &["--class", "2", "--w", "2", "--guider", "interval(lo=-2,hi=6)+rescale(0.7)"],
        ),
        ("model", "weak.png", &["--class", "2", "--guider", &guider]),
        ("model", "uncond.png", &["--class", "2", "--uncond-model", "plain"]),
        (
            "model",
            "classifier.png",
            &["--class", "2", "--classifier", "classifier", "--classifier-scale", "3"],
        ),
        ("plain", "classified.png", &["--class", "2", "--classifier", "classifier"]),
        ("model", "classes.png", &["--class", "2", "--uncond", "from-classes"]),
        ("model", "fast.png", &["--class", "2", "--fast", "--batch", "2"]),
        ("discrete", "respaced.png", &["--class", "2", "--respacing", "2,2,2", "--sampler", "ancestral"]),
        ("discrete", "variance.png", &["--class", "2", "--variance", "small", "--sampler", "ancestral"]),
        ("small", "larger.png", &["--class", "2", "--upsampler", "larger", "--upsampler-steps", "2"]),
        ("model", "latents.npz", &["--from", "digits", "--sampler", "ddim-reverse", "--seeds", "3,4"]),
        (
            "model",
            "back.png",
            &["--from", "latents.npz", "--sampler", "ddim", "--seeds", "0-1", "--class", "1"],
        ),
        ("model", "folder", &["--class", "2", "--seeds", "0,4"]),
        // Which weights of a second model, by name, by a slash too many, and without being asked for.
        ("model", "second-raw.png", &["--class", "2", "--uncond-model", "plain#raw"]),
        ("model", "second-slash.png", &["--class", "2", "--uncond-model", "plain/#raw"]),
        ("model", "second-ema.png", &["--class", "2", "--uncond-model", "both.safetensors"]),
        ("model", "second-net.png", &["--class", "2", "--uncond-model", "both.safetensors#model"]),
        ("model", "judge-raw.png", &["--class", "2", "--classifier", "classifier#raw"]),
        ("small", "larger-raw.png", &["--class", "2", "--upsampler", "larger#raw"]),
    ] {
        let mut line = vec!["sample", "--model", model, "--out", out];
        if !more.iter().any(|option| ["--respacing", "--steps"].contains(option)) {
            line.extend(["--steps", "3"]);
        }
        line.extend(more);
        let output = freeguide().args(&line).current_dir(place.path("")).output().unwrap();
        assert!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));

        let file = if out == "folder" { "folder/2-seed000004.png" } else { out };
        let text = text(&place.path(file));
        let again = if out == "folder" { "again".to_owned() } else { format!("again-{out}") };
        let mut line = command(&place, &text);
        line.extend(["--out".to_owned(), place.text(&again)]);
        run(&line.iter().map(String::as_str).collect::<Vec<_>>()).expect(0);
        let again = if out == "folder" { "again/2-seed000004.png".to_owned() } else { again };
        let [before, after] = [file, &again].map(|name| fs::read(place.path(name)).unwrap());
        assert!(before == after, "{out}: another file came of {line:?}");
    }
}

#[test]
fn a_sheet_says_how_its_pictures_were_drawn() {
    let place = Place::new();
    let model = model(&place);
    let out = place.text("swept");
    let more = ["--w", "-1:1:1", "--steps", "2", "--count", "1", "--guider", "rescale(0.5)", "--out", &out];
    run(&[&["sweep", "--model", &model], &more[..]].concat()).expect(0);
    let text = read_png_text(place.path("swept/sweep.png")).unwrap();
    for (key, value) in [
        ("model", "model"),
        ("guidance_weights", "-1,0,1"),
        ("count", "1"),
        ("steps", "2"),
        ("sampler", "ancestral"),
        ("guider", "rescale(0.5)"),
        ("precision", "f32"),
    ] {
        assert!(text.contains(&(key.into(), value.into())), "{key} = {value} in {text:?}");
    }
    assert!(
        text.iter().any(|(key, value)| key == "model_weights" && value.starts_with("crc32 ")),
        "{text:?}"
    );
    // On the way of a training, too.
    let trained = place.text("trained");
    train_two_steps("digits", &trained, &["--sample-every", "16"]).expect(0);
    let text = read_png_text(place.path("trained/samples-000000000016.png")).unwrap();
    for (key, value) in [("data", "digits"), ("images", "16"), ("guidance_weights", "0,2"), ("count", "4")] {
        assert!(text.contains(&(key.into(), value.into())), "{key} = {value} in {text:?}");
    }
}
