//! A condition that a network was not taught is refused everywhere in the same words: by every sampler, by sessions and
//! measures, and by every command.

mod common;

use std::path::Path;

use common::{digits, gpu, sampler_options, tiny};
use freeguide::data::{Crop, Loader, LoaderOptions};
use freeguide::diffusion::{BetaSchedule, Guidance, Guiders, Method, Prediction, SamplerKind, Variance};
use freeguide::gpu::Gpu;
use freeguide::model::{Model, ModelConfig, SchedulerConfig, TrainedRows};
use freeguide::nn::UNet;
use freeguide::nn::unet::NullClass;
use freeguide::sample::{Nll, NllOptions, Request, Sampler, SamplerOptions, Uncond};
use freeguide::session::{Session, SessionOptions};
use freeguide::shape::Extent;
use freeguide::train::Teacher;

/// The words that every refusal of a missing null class has.
const NULL_CLASS: [&str; 5] = ["null class", "`w` 0", "uncond-model", "from-classes", "label dropout"];

/// What a network lacks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lack {
    Nothing,
    /// There is no row for it.
    NullRow,
    /// No label was left out.
    NullTraining,
    /// All labels were left out.
    Classes,
    /// There was no picture of class 3.
    OneClass,
}

/// The configuration of a network of ten classes, a few parameters each.
fn config(lack: Lack, discrete: bool) -> ModelConfig {
    let text = include_str!("../src/model/convert/config.json");
    let mut config: ModelConfig = serde_json::from_str(text).unwrap();
    let tiny = tiny(8);
    config.unet = tiny.unet.clone();
    config.class_names = tiny.class_names.clone();
    config.sampling = tiny.sampling.clone();
    config.sampling.steps = 2;
    config.scheduler = match discrete {
        true => SchedulerConfig::discrete(BetaSchedule::Linear, 30, Prediction::Eps, Variance::Large),
        false => SchedulerConfig::continuous(-20.0, 20.0),
    };
    (config.unconditional_probability, config.images_seen) = (0.1, 8);
    let labels: Vec<u32> = (0..10).filter(|label| lack != Lack::OneClass || *label != 3).collect();
    let p = match lack {
        Lack::NullTraining => 0.0,
        Lack::Classes => 1.0,
        _ => 0.1,
    };
    config.trained_rows = Some(TrainedRows::of(&labels, 10, p));
    if lack == Lack::NullRow {
        config.unet.null_class = NullClass::Absent;
    }
    config
}

fn model(gpu: &Gpu, config: ModelConfig) -> Model {
    let values = UNet::new(&config.unet).unwrap().parameters().initial_values(3);
    Model::of_values(gpu, config, &values, Path::new("a small model")).unwrap()
}

fn w(weight: f64) -> Guidance {
    Guidance::from_weight(weight).unwrap()
}

/// Every entry of the library to one model; a sampler that cannot be made is the reason.
struct Entries {
    single: Sampler,
    guided: Result<Sampler, String>,
    guiders: Result<Sampler, String>,
    session: Session,
}

impl Entries {
    fn of(gpu: &Gpu, model: &Model) -> Entries {
        let options = |guided| SamplerOptions { guided, ..SamplerOptions::of(&model.config, 1).unwrap() };
        let process = model.config.process().unwrap();
        let guided = Sampler::new(gpu, &model.unet, &model.weights(), process, options(true));
        let guiders: Guiders = "rescale(0.5)".parse().unwrap();
        let guiders = Sampler::of(gpu, model, SamplerOptions { guiders, ..options(true) });
        let (device, queue) = (model.gpu().device(), model.gpu().queue());
        Entries {
            single: Sampler::of(gpu, model, options(false)).unwrap(),
            guided: guided.map_err(|error| error.to_string()),
            guiders: guiders.map_err(|error| error.to_string()),
            session: Session::new(device, queue, model, SessionOptions::default()).unwrap(),
        }
    }

    /// What each says to a picture of `class` at `weight`.
    fn ask(&mut self, class: Option<u32>, weight: f64) -> Vec<(&'static str, Result<(), String>)> {
        let (request, guidance) = ([Request::new(class, 0)], w(weight));
        let text = |result: freeguide::Result<()>| result.map_err(|error| error.to_string());
        let session = freeguide::session::Request { condition: class.into(), guidance, ..Default::default() };
        let mut all = vec![("Session", text(self.session.start(&session)))];
        if Sampler::needs_both(guidance) {
            let start = |sampler: &Sampler| text(sampler.start(&request, guidance).map(drop));
            all.push(("Sampler", self.guided.as_ref().map_err(Clone::clone).and_then(start)));
            all.push(("Sampler with guiders", self.guiders.as_ref().map_err(Clone::clone).and_then(start)));
        } else {
            all.push(("Sampler", text(self.single.start(&request, guidance).map(drop))));
        }
        all
    }
}

/// A picture that is asked for, its class and weight, and what a refusal says of it.
type Asked = (Option<u32>, f64, &'static [&'static str]);

#[test]
fn the_library_refuses_what_was_not_taught() {
    let gpu = gpu();
    let asked: [(Lack, &[Asked]); 5] = [
        (
            Lack::Nothing,
            &[
                (Some(3), 1.0, &[]),
                (None, -1.0, &[]),
                (Some(10), 0.0, &["no class 10", "0 to 9"]),
                (Some(10), 1.0, &["no class 10", "0 to 9"]),
                (Some(u32::MAX), -1.0, &["no class 4294967295"]),
            ],
        ),
        (
            Lack::NullRow,
            &[
                (Some(3), 0.0, &[]),
                (Some(3), 1.0, &NULL_CLASS),
                (None, 0.0, &NULL_CLASS),
                (Some(3), -1.0, &NULL_CLASS),
            ],
        ),
        (Lack::NullTraining, &[(Some(3), 0.0, &[]), (Some(3), 1.0, &NULL_CLASS), (None, 0.0, &NULL_CLASS)]),
        (
            Lack::Classes,
            &[
                (None, -1.0, &[]),
                (Some(3), 0.0, &["class 3", "without labels", "`class none`"]),
                (Some(3), 1.0, &["class 3", "without labels"]),
            ],
        ),
        (
            Lack::OneClass,
            &[
                (Some(2), 1.0, &[]),
                (Some(3), 0.0, &["class 3", "no picture of it"]),
                (Some(3), 1.0, &["class 3"]),
            ],
        ),
    ];
    for (lack, asked) in asked {
        let mut entries = Entries::of(&gpu, &model(&gpu, config(lack, false)));
        for (class, weight, said) in asked {
            for (entry, result) in entries.ask(*class, *weight) {
                let as_it_should = match (said, &result) {
                    ([], result) => result.is_ok(),
                    (said, Err(message)) => said.iter().all(|word| message.contains(word)),
                    (_, Ok(())) => false,
                };
                assert!(
                    as_it_should,
                    "{entry} of {lack:?}, {class:?} at w = {weight}: {result:?}, expected {said:?}"
                );
            }
        }
    }
}

#[test]
fn measures_and_teachers_refuse_it_too() {
    let gpu = gpu();
    let refused = |result: freeguide::Result<()>| result.unwrap_err().to_string();
    let from_classes = |lack| {
        let uncond = Uncond::FromClasses { prior: None };
        SamplerOptions { uncond, ..SamplerOptions::of(&config(lack, false), 1).unwrap() }
    };
    for lack in [Lack::NullRow, Lack::NullTraining] {
        let model = model(&gpu, config(lack, false));
        let message = refused(Teacher::new(model).map(drop));
        assert!(NULL_CLASS.iter().all(|word| message.contains(word)), "{message}");
    }
    for lack in [Lack::Classes, Lack::OneClass] {
        let message = refused(Teacher::new(model(&gpu, config(lack, false))).map(drop));
        assert!(message.contains("never trained"), "{message}");
        let made = Sampler::of(&gpu, &model(&gpu, config(lack, false)), from_classes(lack));
        assert!(refused(made.map(drop)).contains("never trained"));
    }
    let sampler =
        Sampler::of(&gpu, &model(&gpu, config(Lack::NullRow, false)), from_classes(Lack::NullRow)).unwrap();
    let message = refused(sampler.start(&[Request::new(Some(10), 0)], w(1.0)).map(drop));
    assert!(message.contains("no class 10"), "{message}");
    sampler.start(&[Request::default()], w(1.0)).unwrap();

    let nll = |lack, conditional| {
        let options =
            NllOptions { batch: 8, respacing: Some("2".parse()?), variance: None, conditional, seed: 0 };
        Nll::new(&gpu, &model(&gpu, config(lack, true)), options)
    };
    let message = refused(nll(Lack::NullRow, false).map(drop));
    assert!(NULL_CLASS.iter().all(|word| message.contains(word)), "{message}");
    let loader = LoaderOptions { image_size: Extent::square(8), crop: Crop::Center, flip: false, seed: 0 };
    let batch = Loader::new(digits(), loader).batch(0, 8).unwrap();
    let message = refused(nll(Lack::Classes, true).unwrap().add(&batch, || Ok(())));
    assert!(message.contains("without labels"), "{message}");
    nll(Lack::NullRow, true).unwrap().add(&batch, || Ok(())).unwrap();
}

/// Any number of steps up to T makes a picture with every sampler, t between two steps included.
#[test]
fn every_number_of_steps_is_sampled() {
    let gpu = gpu();
    let model = model(&gpu, config(Lack::Nothing, true));
    for kind in [SamplerKind::Ancestral, SamplerKind::Heun, SamplerKind::Dpmpp2m] {
        for steps in [1, 29] {
            let method = Method { kind: Some(kind), ..Method::default() };
            let options = SamplerOptions { guided: false, method, ..sampler_options(1, steps) };
            let sampler = Sampler::of(&gpu, &model, options).unwrap();
            let pictures = sampler.sample(&[Request::new(Some(1), 0)], w(0.0), || Ok(())).unwrap();
            assert_eq!(pictures.len(), 1, "{kind} {steps}");
        }
        let method = Method { kind: Some(kind), ..Method::default() };
        let options = SamplerOptions { guided: false, method, ..sampler_options(1, 200) };
        let message = Sampler::of(&gpu, &model, options).map(drop).unwrap_err().to_string();
        assert!(message.contains("the model has 30"), "{kind}: {message}");
    }
}

#[cfg(feature = "cli")]
mod commands {
    use super::*;
    use common::program::run;
    use freeguide::io::read_npz_images;
    use freeguide::model::write_model;

    /// A folder with a model.
    fn folder(lack: Lack, discrete: bool) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let config = config(lack, discrete);
        let network = UNet::new(&config.unet).unwrap();
        let values = network.parameters().initial_values(3);
        write_model(&dir.path().join("model.safetensors"), Some(&config), network.parameters(), &values)
            .unwrap();
        dir
    }

    #[test]
    fn every_command_refuses_it() {
        let null = folder(Lack::NullRow, false);
        let discrete = folder(Lack::NullTraining, true);
        let (null, discrete) = (null.path().to_str().unwrap(), discrete.path().to_str().unwrap());
        let out = tempfile::tempdir().unwrap();
        let at = |name: &str| out.path().join(name).to_str().unwrap().to_owned();
        let (png, folder) = (at("x.png"), at("out"));
        for line in [
            &["sample", "--model", null, "--class", "none", "--out", &png][..],
            &["sample", "--model", null, "--w", "2", "--seeds", "0", "--out", &png],
            &["sample", "--model", discrete, "--w", "-1", "--seeds", "0", "--out", &png],
            &["sample", "--model", null, "--guider", "rescale(0.5)", "--seeds", "0", "--out", &png],
            &["sweep", "--model", null, "--w", "0:1:1", "--count", "1", "--out", &folder],
            &[
                "eval",
                "--model",
                null,
                "--w",
                "1",
                "--reference",
                "digits",
                "--count",
                "4",
                "--work",
                &folder,
            ],
            &["distill", "--teacher", null, "--data", "digits", "--out", &folder],
            &[
                "nll",
                "--model",
                discrete,
                "--data",
                "digits",
                "--unconditional",
                "--images",
                "1",
                "--out",
                &at("nll.json"),
            ],
        ] {
            let said = run(line).expect(1).stderr;
            for word in NULL_CLASS {
                assert!(said.contains(word), "{line:?}: {said}");
            }
        }
        // The default is one that the model can do, and is named.
        let said =
            run(&["sample", "--model", null, "--class", "3", "--seeds", "0", "--steps", "1", "--out", &png])
                .expect(0);
        assert!(said.stderr.contains("w = 0") && said.stderr.contains("null class"), "{}", said.stderr);
        assert!(run(&["info", null]).expect(0).stdout.contains("there is no null class"));
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let (continuous, discrete) = (folder(Lack::Nothing, false), folder(Lack::Nothing, true));
        let (continuous, discrete) = (continuous.path().to_str().unwrap(), discrete.path().to_str().unwrap());
        let out = tempfile::tempdir().unwrap();
        let png = out.path().join("x.png").to_str().unwrap().to_owned();
        for (model, options, code, said) in [
            (discrete, &["--v", "0.3"][..], 1, "discrete time"),
            (continuous, &["--v", "0.3", "--sampler", "euler"], 1, "--v is for ancestral"),
            (continuous, &["--w", "2", "--guider", "cfg++(0.6)"], 1, "cfg++(0.6) sets the weight"),
            (continuous, &["--w", "2", "--guider", "linear(0,3)"], 1, "sets the weight"),
            (continuous, &["--classifier-scale", "2"], 2, "--classifier"),
            (discrete, &["--steps", "200"], 1, "the model has 30"),
            (continuous, &["--null-class", "last"], 1, "has a null class already"),
        ] {
            let line =
                [&["sample", "--model", model, "--class", "1", "--seeds", "0", "--out", &png][..], options]
                    .concat();
            let message = run(&line).expect(code).stderr;
            assert!(message.contains(said), "{line:?}: {message}");
        }
    }

    /// DiT's convention: K + 1 rows, the last of which is the null class; what `convert` writes knows it.
    #[test]
    fn the_last_of_k_and_one_rows_can_be_the_null_class() {
        let out = tempfile::tempdir().unwrap();
        let at = |name: &str| out.path().join(name).to_str().unwrap().to_owned();
        // The same values as a network of ten classes with a null class, and as one of eleven without.
        let ten = folder(Lack::Nothing, false);
        let ten = ten.path().to_str().unwrap();
        let text = std::fs::read_to_string(format!("{ten}/config.json")).unwrap();
        let mut config: ModelConfig = serde_json::from_str(&text).unwrap();
        (config.unet.num_classes, config.unet.null_class) = (Some(11), NullClass::Absent);
        config.class_names.push("none of them".into());
        (config.trained_rows, config.images_seen, config.unconditional_probability) = (None, 0, 0.0);
        let eleven = at("eleven");
        std::fs::create_dir(&eleven).unwrap();
        std::fs::copy(format!("{ten}/model.safetensors"), format!("{eleven}/model.safetensors")).unwrap();
        std::fs::write(format!("{eleven}/config.json"), serde_json::to_string(&config).unwrap()).unwrap();

        run(&["convert", &eleven, &at("known"), "--null-class", "last"]).expect(0);
        let npz = |model: &str, name: &str, more: &[&str]| {
            let (png, line) =
                (at(name), ["sample", "--model", model, "--class", "3", "--w", "2", "--seeds", "0"]);
            run(&[&line[..], &["--out", &png], more].concat()).expect(0);
            read_npz_images(png).unwrap().images
        };
        let want = npz(ten, "ten.npz", &[]);
        assert_eq!(want, npz(&eleven, "eleven.npz", &["--null-class", "last"]));
        assert_eq!(want, npz(&at("known"), "known.npz", &[]));
    }
}
