//! What ADM's paper varies of the network, and what EDM's trains, from the command line: in the files that training leaves.

use freeguide::io::SafetensorsFile;
use serde_json::{Value, json};

use super::*;

/// A training of four steps: its folder, and the network in its config.json.
fn trained(place: &Place, name: &str, more: &[&str]) -> (PathBuf, Value) {
    let out = place.text(name);
    let fixed = ["train", "--data", "digits", "--out", &out, "--images", "16", "--batch", "4"];
    let network = ["--channels", "8", "--norm-groups", "4", "--channel-mult", "1,1", "--attention", "4"];
    run(&[&fixed[..], &network, more].concat()).expect(0);
    let config = fs::read_to_string(place.path(name).join("config.json")).unwrap();
    (place.path(name), serde_json::from_str(&config).unwrap())
}

fn weights(folder: &Path) -> SafetensorsFile {
    SafetensorsFile::open(folder.join("model-raw.safetensors")).unwrap()
}

fn bytes(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("model-raw.safetensors")).unwrap()
}

#[test]
fn each_variation_of_adms_network_trains_and_stands_in_its_files() {
    let place = Place::new();
    let (plain, config) = trained(&place, "plain", &[]);
    assert_eq!(config["unet"]["attention_head_dim"], 32);

    // Two heads of eight channels are heads of four.
    let (two, config) = trained(&place, "two", &["--heads", "2"]);
    assert_eq!(config["unet"]["num_attention_heads"], 2);
    assert_eq!(config["unet"]["attention_head_dim"], Value::Null);
    let (fours, config) = trained(&place, "fours", &["--head-channels", "4"]);
    assert_eq!(config["unet"]["attention_head_dim"], 4);
    assert!(bytes(&two) == bytes(&fours) && bytes(&two) != bytes(&plain));

    let shape =
        |folder: &Path, name: &str| weights(folder).tensor(name).map(|(_, shape, _)| shape.to_vec()).ok();
    let embedding = "input_blocks.1.0.emb_layers.1.weight";
    assert_eq!(shape(&plain, embedding), Some(vec![16, 32]));
    let (added, config) = trained(&place, "added", &["--embedding", "add"]);
    assert_eq!(config["unet"]["resnet_time_scale_shift"], "default");
    assert_eq!(shape(&added, embedding), Some(vec![8, 32]));

    let (convolution, block) = ("input_blocks.2.0.op.weight", "input_blocks.2.0.in_layers.2.weight");
    assert_eq!((shape(&plain, convolution), shape(&plain, block)), (None, Some(vec![8, 8, 3, 3])));
    let (resampled, config) = trained(&place, "resampled", &["--up-down", "plain"]);
    assert_eq!(config["unet"]["resample"], "conv");
    assert_eq!((shape(&resampled, convolution), shape(&resampled, block)), (Some(vec![8, 8, 3, 3]), None));

    let (scaled, config) = trained(&place, "scaled", &["--scale-residuals"]);
    assert_eq!(config["unet"]["residual_scaling"], true);
    assert!(bytes(&scaled) != bytes(&plain));

    // The presets' own, by name.
    let named = ["--head-channels", "32", "--embedding", "adagn", "--up-down", "biggan"];
    assert!(bytes(&trained(&place, "named", &named).0) == bytes(&plain));
}

#[test]
fn variations_that_cannot_be_are_refused() {
    let place = Place::new();
    let out = place.text("out");
    for (more, code, parts) in [
        (&["--heads", "3"][..], 1, &["32 channels", "3 heads"][..]),
        (&["--heads", "2", "--head-channels", "8"], 2, &["--heads", "--head-channels"]),
        (&["--embedding", "film"], 2, &["film", "adagn", "add"]),
        (&["--up-down", "resnet"], 2, &["resnet", "biggan", "plain"]),
        (&["--sigma-data", "0.5"], 1, &["--sigma-data", "--schedule edm"]),
        (&["--predict", "edm"], 1, &["prediction edm", "its schedule is edm"]),
        (&["--schedule", "edm", "--predict", "flow"], 1, &["--schedule flow"]),
        (&["--schedule", "edm", "--learn-sigma"], 1, &["discrete process"]),
    ] {
        let refused = run(&[&["train", "--data", "digits", "--out", &out], more].concat()).expect(code);
        contains(&refused.stderr, parts);
    }
}

#[test]
fn a_preconditioned_network_is_trained_and_sampled() {
    let place = Place::new();
    let (folder, config) = trained(&place, "edm", &["--schedule", "edm", "--sigma-data", "0.6"]);
    let scheduler = &config["scheduler"];
    assert_eq!(scheduler["beta_schedule"], "edm");
    assert_eq!(scheduler["sigma_data"], 0.6);
    assert!((scheduler["log_snr_min"].as_f64().unwrap() + 2.0 * 80f64.ln()).abs() < 1e-9);
    assert_eq!(config["sampling"]["steps"], json!(18));
    let (folder, out) = (folder.to_str().unwrap().to_owned(), place.text("one.png"));
    let fixed = ["sample", "--model", &folder, "--class", "3", "--seeds", "1", "--out", &out];
    run(&fixed).expect(0);
    for (more, parts) in
        [(["--spacing", "trailing"], &["`trailing`", "karras"][..]), (["--sampler", "halving"], &["`edm`"])]
    {
        contains(&run(&[&fixed[..], &more, &["--force"]].concat()).expect(1).stderr, parts);
    }
}
