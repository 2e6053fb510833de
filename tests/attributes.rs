//! Attributes of pictures: read of a data set, trained as a vector, resumed byte for byte, sampled part by part.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{assert_same_file, gpu, tiny};
use freeguide::data::{Attribute, AttributeValues, DataOptions, Dataset, Image};
use freeguide::diffusion::Guidance;
use freeguide::gpu::Gpu;
use freeguide::io::write_png;
use freeguide::model::{Condition, Model};
use freeguide::sample::{Request, Sampler, SamplerOptions};
use freeguide::train::{Outcome, Preset, TrainOptions, Trainer};

fn asked(names: &[&str]) -> DataOptions {
    DataOptions {
        attributes: names.iter().map(|name| (*name).to_owned()).collect(),
        ..DataOptions::default()
    }
}

fn digits(names: &[&str]) -> Arc<Dataset> {
    Arc::new(Dataset::open_with("digits", &asked(names)).unwrap())
}

/// A training on them whose steps take milliseconds.
fn options(data: &Dataset, images: u64) -> TrainOptions {
    let small = tiny(images);
    let own = Preset::named("digits").unwrap().options(data, 0);
    let TrainOptions { attributes, attribute_values, class_names, .. } = own;
    let mut options = TrainOptions { attributes, attribute_values, class_names, part_dropout: 0.3, ..small };
    options.unet.vector_width = own.unet.vector_width;
    options
}

fn train(gpu: &Gpu, data: &Arc<Dataset>, options: &TrainOptions, dir: &Path, steps: usize) -> Outcome {
    let mut trainer = Trainer::open(gpu, data.clone(), options, dir).unwrap();
    let mut left = steps;
    let stop = || {
        left -= 1;
        left == 0
    };
    trainer.run(stop, |_, _| Ok(())).unwrap()
}

#[test]
fn a_training_with_attributes_resumes_byte_for_byte_and_remembers_them() {
    let gpu = gpu();
    let place = tempfile::tempdir().unwrap();
    let (straight, stopped) = (place.path().join("straight"), place.path().join("stopped"));
    let data = digits(&["thickness", "slant"]);
    let options = TrainOptions { microbatch: 4, save_every: 40, ..options(&data, 96) };
    assert_eq!(train(&gpu, &data, &options, &straight, 99), Outcome::Finished);
    assert_eq!(train(&gpu, &data, &options, &stopped, 13), Outcome::Stopped);
    assert_eq!(train(&gpu, &data, &options, &stopped, 99), Outcome::Finished);
    for name in
        ["train.json", "train.jsonl", "config.json", "model.safetensors", "state-000000000096.safetensors"]
    {
        assert_same_file(name, &straight, &stopped);
    }

    // What it was told changes what it learns: without dropping parts another model comes out.
    let whole = TrainOptions { part_dropout: 0.0, ..options.clone() };
    let other = place.path().join("whole");
    assert_eq!(train(&gpu, &data, &whole, &other, 99), Outcome::Finished);
    let read = |dir: &Path| std::fs::read(dir.join("model.safetensors")).unwrap();
    assert!(read(&other) != read(&straight));
    let refused = |data: &Arc<Dataset>, options: &TrainOptions| {
        Trainer::open(&gpu, data.clone(), options, &straight).map(drop).unwrap_err().to_string()
    };
    assert!(refused(&data, &whole).contains("p-part: there 0.3"));
    assert!(refused(&digits(&["slant", "thickness"]), &options).contains("attributes"));

    let model = Model::load(&gpu, &straight).unwrap();
    assert_eq!(model.config.attributes, data.attributes());
    assert_eq!(model.config.part_dropout, 0.3);
    let sampler = |model: &Model, guiders: &str| {
        let options = SamplerOptions {
            guiders: guiders.parse().unwrap(),
            steps: 5,
            ..SamplerOptions::of(&model.config, 1).unwrap()
        };
        Sampler::of(&gpu, model, options)
    };
    let draw = |guiders: &str, class: Option<u32>, attributes: &str| {
        let vector = Some(model.config.vector(attributes).unwrap());
        let request = Request::new(Condition { class, vector, ..Condition::default() }, 1);
        let guidance = Guidance::from_weight(1.0).unwrap();
        sampler(&model, guiders).unwrap().sample(&[request], guidance, || Ok(())).unwrap().remove(0).pixels
    };
    let parts = "parts(thickness:2 slant:1)";
    let all = [
        draw("", Some(3), "thickness=2.2,slant=0.1"),
        draw("", Some(3), "thickness=1.2,slant=0.1"),
        draw("", Some(3), "slant=0.1"),
        draw("", None, "slant=0.1"),
        draw(parts, Some(3), "thickness=2.2,slant=0.1"),
    ];
    for (i, one) in all.iter().enumerate() {
        assert!(!all[..i].contains(one), "{i}");
    }

    // A network that was always told all of it draws nothing of a part.
    let whole = Model::load(&gpu, &other).unwrap();
    let refused = |class: Option<u32>, attributes: Option<&str>| {
        let vector = attributes.map(|text| whole.config.vector(text).unwrap());
        let request = Request::new(Condition { class, vector, ..Condition::default() }, 1);
        let started =
            sampler(&whole, "").unwrap().start(&[request], Guidance::from_weight(0.0).unwrap()).map(drop);
        started.unwrap_err().to_string()
    };
    assert!(refused(Some(1), None).contains("a class without a vector"));
    assert!(refused(None, Some("thickness=2,slant=0")).contains("a vector without a class"));
    let message = refused(Some(1), Some("thickness=2"));
    assert!(message.contains("without slant") && message.contains("part-dropout"), "{message}");
    let message = sampler(&whole, "parts(slant:2)").map(drop).unwrap_err().to_string();
    assert!(message.contains("a condition of slant alone"), "{message}");
}

#[test]
fn columns_of_a_data_set_are_numbers_or_names() {
    let dir = tempfile::tempdir().unwrap();
    for (i, value) in [10, 90, 200].into_iter().enumerate() {
        write_png(dir.path().join(format!("{i}.png")), &Image::filled(4, 4, 1, value), &[]).unwrap();
    }
    let metadata =
        "file_name,label,size,colour,text\n0.png,cat,1.5,red,a\n1.png,dog,,blue,b\n2.png,cat,2.5,red,c\n";
    std::fs::write(dir.path().join("metadata.csv"), metadata).unwrap();
    let spec = dir.path().to_str().unwrap();
    let open = |names: &[&str]| Dataset::open_with(spec, &asked(names));
    let data = open(&["size", "class", "colour"]).unwrap();
    let names =
        |names: &[&str]| AttributeValues::Names(names.iter().map(|name| (*name).to_owned()).collect());
    let numbers = AttributeValues::Numbers { mean: 2.0, deviation: 0.5, least: 1.5, most: 2.5 };
    let attribute = |name: &str, values| Attribute { name: name.into(), values };
    assert_eq!(
        data.attributes(),
        [
            attribute("size", numbers),
            attribute("class", names(&["cat", "dog"])),
            attribute("colour", names(&["blue", "red"]))
        ]
    );
    assert_eq!(data.vector(0), [-1.0, 1.0, 1.0, 0.0, 0.0, 1.0]);
    // A size that is not known is not the mean one.
    assert_eq!(data.vector(1), [0.0, 0.0, 0.0, 1.0, 1.0, 0.0]);
    assert!(data.table().to_string().contains("attribute: colour (blue, red)"));
    assert!(open(&[]).unwrap().vectors_fingerprint().is_none());
    assert_ne!(
        open(&["size"]).unwrap().vectors_fingerprint(),
        open(&["colour"]).unwrap().vectors_fingerprint()
    );
    let refused = |names: &[&str]| open(names).map(drop).unwrap_err().to_string();
    assert!(refused(&["weight"]).contains("has no column `weight`, but colour, file_name"));
    assert!(refused(&["size", "size"]).contains("named twice"));
    let refused = Dataset::open_with("digits", &asked(&["size"])).map(drop).unwrap_err().to_string();
    assert!(refused.contains("no attribute \"size\", but thickness, slant, class"), "{refused}");

    // The same lines in JSON, numbers being numbers.
    let lines = "{\"file_name\": \"0.png\", \"size\": 1.5, \"glasses\": true}\n{\"file_name\": \"1.png\", \"glasses\": false}\n\
                 {\"file_name\": \"2.png\", \"size\": 2.5, \"glasses\": null}\n";
    std::fs::remove_file(dir.path().join("metadata.csv")).unwrap();
    std::fs::write(dir.path().join("metadata.jsonl"), lines).unwrap();
    let data = open(&["size", "glasses"]).unwrap();
    assert_eq!(data.vector(0), [-1.0, 1.0, 1.0, 1.0]);
    assert_eq!(data.vector(1), [0.0, 0.0, -1.0, 1.0]);
    assert_eq!(data.vector(2), [1.0, 1.0, 0.0, 0.0]);
}

#[test]
fn the_digits_are_measured() {
    let data = digits(&["class", "thickness", "slant"]);
    let widths: Vec<usize> = data.attributes().iter().map(Attribute::width).collect();
    assert_eq!(widths, [10, 2, 2]);
    for index in [0, 5, 1796] {
        let (vector, label) = (data.vector(index), data.label(index) as usize);
        assert_eq!(vector[..10].iter().position(|x| *x == 1.0), Some(label));
        assert_eq!((vector[11], vector[13]), (1.0, 1.0));
    }
    // Standardised over the set.
    for at in [10, 12] {
        let all: Vec<f64> = (0..data.len()).map(|i| f64::from(data.vector(i)[at])).collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64;
        assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5, "{mean} {variance}");
    }
}

#[cfg(feature = "cli")]
#[test]
fn the_program_trains_and_samples_them() {
    use common::program::{TINY, run};

    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let train = |names: &str, out: &str, more: &[&str]| {
        let data = ["train", "--data", "digits", "--attributes", names, "--images", "16", "--out", out];
        run(&[&data[..], TINY, more].concat())
    };
    train("thickness,slant", &path("both"), &[]).expect(0);
    let told = run(&["info", &path("both")]).expect(0).stdout;
    assert!(told.contains("attribute: thickness (numbers from 1.09"), "{told}");
    let sample = |model: &str, more: &[&str]| {
        let (model, out) = (path(model), path("one.png"));
        let common = ["sample", "--model", &model, "--steps", "3", "--seeds", "0", "--force", "--out", &out];
        run(&[&common[..], more].concat())
    };
    let parts =
        ["--class", "7", "--attributes", "thickness=2,slant=0.2", "--guider", "parts(thickness:2 slant:1)"];
    sample("both", &parts).expect(0);
    let notes = freeguide::io::read_png_text(path("one.png")).unwrap();
    assert!(notes.contains(&("attributes".to_owned(), "thickness=2,slant=0.2".to_owned())), "{notes:?}");
    for (more, part) in [
        (["--attributes", "width=2"], "there are thickness, slant"),
        (["--attributes", "thickness=thin"], "in training"),
        (["--guider", "parts(width:2)"], "it has class, vector, thickness, slant"),
    ] {
        let said = sample("both", &more).expect(1).stderr;
        assert!(said.contains(part), "{said}");
    }
    // The class as a part of the vector, and no table of classes.
    train("class,thickness", &path("one"), &[]).expect(0);
    sample("one", &["--attributes", "class=7,thickness=2", "--guider", "parts(class:2)"]).expect(0);
    let said = sample("one", &["--class", "7"]).expect(1).stderr;
    assert!(said.contains("there is no class"), "{said}");
    let said = train("slant", &path("two"), &["--flip"]).expect(1).stderr;
    assert!(said.contains("mirrored"), "{said}");
}
