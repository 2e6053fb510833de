//! Whatever files lie in a folder: the one that is named is read, or an error names what contradicts it.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::io::{Dtype, TensorBytes, write_safetensors};
use crate::model::{Checkpoint, Format, ModelConfig, convert, model_tensors};
use crate::nn::UNet;
use crate::shape::Extent;

/// Which configuration: one of two that fit the same weights and draw other pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Config {
    A,
    B,
}

impl Config {
    fn config(self) -> ModelConfig {
        let mut config: ModelConfig = serde_json::from_str(include_str!("../convert/config.json")).unwrap();
        let unet = &mut config.unet;
        (unet.sample_size, unet.in_channels, unet.out_channels) = (Extent::square(4), 1, 2);
        (unet.model_channels, unet.norm_num_groups, unet.num_classes) = (4, 2, None);
        unet.attention_head_dim = Some(4);
        config.scheduler.beta_schedule = if self == Config::A { "linear" } else { "cosine" }.into();
        config
    }

    fn text(self) -> String {
        serde_json::to_string(&self.config()).unwrap()
    }
}

/// One file of weights: its name, the configuration that it carries, the average that it says it is.
#[derive(Clone, Debug)]
struct File {
    name: &'static str,
    carries: Option<Config>,
    average: Option<&'static str>,
}

impl File {
    fn write(&self, folder: &Path) {
        let config = Config::A.config();
        let unet = UNet::new(&config.unet).unwrap();
        let tensors = model_tensors(unet.parameters(), &unet.parameters().initial_values(1), "");
        let views: Vec<TensorBytes<'_>> = tensors
            .iter()
            .map(|(name, shape, bytes)| TensorBytes { name, dtype: Dtype::F32, shape, bytes })
            .collect();
        let mut notes = BTreeMap::new();
        notes.extend(self.carries.map(|config| ("freeguide_config".to_owned(), config.text())));
        notes.extend(self.average.map(|rate| ("ema_rate".to_owned(), rate.to_owned())));
        write_safetensors(folder.join(self.name), &views, &notes).unwrap();
    }

    /// What it says it is, or what an earlier version's name says.
    fn held(&self) -> Option<&'static str> {
        self.average.or(match self.name {
            "model-raw.safetensors" => Some("raw"),
            "model-ema-0.99.safetensors" => Some("0.99"),
            _ => None,
        })
    }
}

const NAMES: [&str; 6] = [
    "model.safetensors",
    "model.fp16.safetensors",
    "model.bf16.safetensors",
    "model-raw.safetensors",
    "model-ema-0.99.safetensors",
    "other.safetensors",
];

fn config() -> impl Strategy<Value = Option<Config>> {
    prop_oneof![Just(None), Just(Some(Config::A)), Just(Some(Config::B))]
}

fn file(name: &'static str) -> impl Strategy<Value = Option<File>> {
    let average = prop_oneof![Just(None), Just(Some("raw")), Just(Some("0.99")), Just(Some("0.9999"))];
    let file = (config(), average).prop_map(move |(carries, average)| File { name, carries, average });
    proptest::option::of(file)
}

fn files() -> impl Strategy<Value = Vec<File>> {
    NAMES.map(file).prop_map(|files| files.into_iter().flatten().collect())
}

fn open(path: &Path, average: Option<&str>) -> Result<Checkpoint, String> {
    let average = average.map(|text| text.parse().unwrap());
    Checkpoint::choose(path, &Choice { average, ..Choice::default() }).map_err(|error| error.to_string())
}

/// What a file that is read must be told, beside which `beside` lies: its configuration, or that there is none or two.
fn expected(file: &File, beside: Option<Config>) -> Result<Config, &'static [&'static str]> {
    match (file.carries, beside) {
        (Some(own), Some(beside)) if own != beside => {
            Err(&["`scheduler.beta_schedule`", "\"linear\"", "\"cosine\"", "config.json"])
        }
        (Some(own), _) => Ok(own),
        (None, Some(beside)) => Ok(beside),
        (None, None) => Err(&["noise_schedule", "--config"]),
    }
}

/// Checks what came of reading `file`.
fn check(
    opened: Result<Checkpoint, String>,
    folder: &Path,
    file: &File,
    beside: Option<Config>,
) -> Result<(), TestCaseError> {
    match (opened, expected(file, beside)) {
        (Ok(checkpoint), Ok(config)) => {
            prop_assert_eq!(&checkpoint.found.file, &folder.join(file.name));
            prop_assert_eq!(checkpoint.source.path(), folder.join(file.name));
            prop_assert_eq!(&checkpoint.config.scheduler, &config.config().scheduler);
            let held = file.held().and_then(|held| held.parse::<f64>().ok());
            prop_assert_eq!(checkpoint.config.ema_rate, held);
        }
        (Err(message), Err(parts)) => {
            prop_assert!(message.contains(file.name), "{}", message);
            parts.iter().try_for_each(|part| {
                prop_assert!(message.contains(part), "{}: {}", part, message);
                Ok(())
            })?;
        }
        (Ok(checkpoint), Err(_)) => prop_assert!(false, "{:?} was read", checkpoint.found),
        (Err(message), Ok(_)) => prop_assert!(false, "{}", message),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_file_that_is_named_is_read_or_the_conflict_is_named(
        files in files(),
        beside in config(),
        asked in prop_oneof![Just(None), Just(Some("raw")), Just(Some("0.99"))],
    ) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        files.iter().for_each(|file| file.write(folder));
        if let Some(config) = beside {
            fs::write(folder.join("config.json"), config.text()).unwrap();
        }

        // Each of the names, there or not.
        for name in NAMES {
            let opened = open(&folder.join(name), None);
            match files.iter().find(|file| file.name == name) {
                Some(file) => check(opened, folder, file, beside)?,
                None => prop_assert!(opened.err().is_some_and(|message| message.contains(name))),
            }
        }

        // The folder: the usual name, the one variant, or a question that names each.
        let candidates: Vec<&File> = files.iter().filter(|file| file.name != "other.safetensors").collect();
        let opened = open(folder, None);
        match (candidates.iter().find(|file| file.name == "model.safetensors"), &candidates[..]) {
            (Some(file), _) => check(opened, folder, file, beside)?,
            (None, [file]) => {
                if let Ok(checkpoint) = &opened {
                    prop_assert!(checkpoint.notes.iter().any(|note| note.contains(file.name)));
                }
                check(opened, folder, file, beside)?;
            }
            (None, several) => {
                let message = opened.err().unwrap();
                several.iter().try_for_each(|file| {
                    prop_assert!(message.contains(file.name), "{}", message);
                    Ok(())
                })?;
            }
        }

        // An average of the folder: the file that holds it, or those that there are.
        if let Some(asked) = asked {
            let opened = open(folder, Some(asked));
            let by_path = open(&folder.with_file_name(format!(
                "{}#{asked}", folder.file_name().unwrap().to_str().unwrap()
            )), None);
            prop_assert_eq!(
                opened.as_ref().map(|checkpoint| &checkpoint.found.file).ok(),
                by_path.as_ref().map(|checkpoint| &checkpoint.found.file).ok()
            );
            let holding: Vec<&&File> = candidates.iter().filter(|file| file.held() == Some(asked)).collect();
            match holding[..] {
                [file] => check(opened, folder, file, beside)?,
                _ => {
                    let message = opened.err().unwrap();
                    if holding.is_empty() {
                        candidates.iter().filter(|file| file.held().is_some()).try_for_each(|file| {
                            prop_assert!(message.contains(file.name), "{}", message);
                            Ok(())
                        })?;
                    } else {
                        let named = holding.iter().filter(|file| message.contains(file.name)).count();
                        prop_assert!(named >= 2 && message.contains("twice"), "{}", message);
                    }
                }
            }
            // Of a file that is named and holds another.
            for file in files.iter().filter(|file| file.held() != Some(asked) && expected(file, beside).is_ok()) {
                let message = open(&folder.join(file.name), Some(asked)).err().unwrap();
                prop_assert!(message.contains(file.name) && message.contains(asked), "{}", message);
            }
        }
    }
}

/// A diffusers folder whose weights are there under these names.
fn pipeline(folder: &Path, names: &[&str]) {
    let own = folder.join("own");
    fs::create_dir_all(&own).unwrap();
    File { name: "model.safetensors", carries: Some(Config::A), average: None }.write(&own);
    let checkpoint = Checkpoint::open(&own, None).unwrap();
    let out = folder.join("out");
    convert(&checkpoint, &out, Format::Diffusers, None).unwrap();
    let plain = out.join("unet/diffusion_pytorch_model.safetensors");
    let bytes = fs::read(&plain).unwrap();
    fs::remove_file(&plain).unwrap();
    names.iter().for_each(|name| fs::write(out.join("unet").join(name), &bytes).unwrap());
}

#[test]
fn variants_of_diffusers_are_taken_alone_and_asked_for_among_several() {
    const PLAIN: &str = "diffusion_pytorch_model.safetensors";
    const FP16: &str = "diffusion_pytorch_model.fp16.safetensors";
    const EMA: &str = "diffusion_pytorch_model.non_ema.safetensors";
    for (names, taken) in [
        (&[PLAIN, FP16, EMA][..], Some(PLAIN)),
        (&[PLAIN], Some(PLAIN)),
        (&[FP16], Some(FP16)),
        (&[FP16, EMA], None),
        (&["weights-of-mine.safetensors"], None),
    ] {
        let dir = tempfile::tempdir().unwrap();
        pipeline(dir.path(), names);
        let out = dir.path().join("out");
        for folder in [out.clone(), out.join("unet")] {
            match (open(&folder, None), taken) {
                (Ok(checkpoint), Some(taken)) => {
                    assert_eq!(checkpoint.found.file, out.join("unet").join(taken));
                    let told = checkpoint.notes.iter().any(|note| note.contains("only variant"));
                    assert_eq!(told, taken == FP16);
                }
                (Err(message), None) => {
                    assert!(names.len() < 2 || names.iter().all(|name| message.contains(name)), "{message}");
                }
                (opened, _) => panic!("{names:?}: {:?}", opened.map(|checkpoint| checkpoint.found)),
            }
        }
        for name in names {
            let named = open(&out.join("unet").join(name), None).unwrap();
            assert_eq!(named.found.file, out.join("unet").join(name));
        }
    }
}

#[test]
fn a_folder_of_two_models_and_files_that_are_no_models_are_told() {
    let dir = tempfile::tempdir().unwrap();
    pipeline(dir.path(), &["diffusion_pytorch_model.safetensors"]);
    let out = dir.path().join("out");
    File { name: "model.safetensors", carries: None, average: None }.write(&out);
    let message = open(&out, None).err().unwrap();
    assert!(message.contains("two models") && message.contains("model.safetensors"), "{message}");

    let path = dir.path().join("model.safetensors");
    for (bytes, part) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"[..], "git lfs pull"),
        (b"<!DOCTYPE html><html>Sign in</html>", "web page"),
        (b"", "empty"),
        (b"\x93NUMPY\x01\0", "NumPy"),
        (b"{\"a\": 1}", "JSON"),
        (b"PAR1....", "Parquet"),
        (b"GGUF\x03\0\0\0", "llama.cpp"),
    ] {
        fs::write(&path, bytes).unwrap();
        for path in [path.clone(), dir.path().to_owned()] {
            let message = open(&path, None).err().unwrap();
            assert!(message.contains(part) && message.contains("model.safetensors"), "{part}: {message}");
        }
        let pt = dir.path().join("x.pt");
        fs::write(&pt, bytes).unwrap();
        assert!(open(&pt, None).err().unwrap().contains(part));
    }
}
