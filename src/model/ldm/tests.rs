//! Families, markers and averages of latent diffusion's files.

use std::io::Read;

use super::*;
use crate::io::{Dtype, SafetensorsFile, TensorBytes, write_safetensors_to};
use crate::model::architecture::{self, Shapes};
use crate::model::{Checkpoint, Choice, diffusers};
use crate::nn::Parameters;
use crate::nn::unet::TransformerConfig;

/// The tensors of published networks, by name and by whose names.
fn layouts() -> BTreeMap<(String, String), Shapes> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/layouts_sd.txt.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    let mut layouts: BTreeMap<(String, String), Shapes> = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        let (name, rest) = line.strip_prefix("# ").unwrap_or(line).split_once(' ').unwrap();
        if line.starts_with("# ") {
            current = Some((name.to_owned(), rest.to_owned()));
        } else {
            let shapes = layouts.entry(current.clone().unwrap()).or_default();
            shapes.insert(name.to_owned(), serde_json::from_str(rest).unwrap());
        }
    }
    assert_eq!(layouts.len(), 6);
    layouts
}

/// A file that has names and shapes and nothing else.
struct Headers(Shapes);

impl TensorSource for Headers {
    fn path(&self) -> &std::path::Path {
        "headers".as_ref()
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn about(&self, name: &str) -> Result<(Dtype, Vec<usize>)> {
        let shape = self.0.get(name).ok_or_else(|| Error::tensor(self.path(), name, "is missing"))?;
        Ok((Dtype::F16, shape.clone()))
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        Ok(vec![0; 2 * self.about(name)?.1.iter().product::<usize>()])
    }
}

fn inferred(shapes: &Shapes) -> (ModelConfig, Vec<String>) {
    let found = architecture::infer(shapes, None).unwrap();
    let prefixed: Shapes =
        shapes.iter().map(|(name, shape)| (format!("{RAW}{name}"), shape.clone())).collect();
    configure(&Headers(prefixed), RAW, &found, &Flags::default()).unwrap()
}

/// The names and shapes that a network takes of a file, by where it finds them.
fn taken(parameters: &Parameters, place: impl Fn(&str) -> Place) -> Shapes {
    let mut shapes = Shapes::new();
    for spec in parameters.specs() {
        let place = place(&spec.name);
        for name in place.names() {
            let mut shape = spec.file_shape();
            shape[0] /= place.names().len();
            shapes.insert(name.clone(), shape);
        }
    }
    shapes
}

/// Without the sizes of 1 behind those of a matrix that is a projection.
fn without_ones(shapes: &Shapes) -> Shapes {
    let plain = |(name, shape): (&String, &Vec<usize>)| {
        let projection = name.contains("proj_in.") || name.contains("proj_out.");
        (name.clone(), if projection { shape.iter().take(2).copied().collect() } else { shape.clone() })
    };
    shapes.iter().map(plain).collect()
}

#[test]
fn every_published_layout_is_the_network_that_is_inferred() {
    let layouts = layouts();
    for (name, parameters, family) in [
        ("sd15", 859_520_964, "the UNet of Stable Diffusion 1"),
        ("sd21", 865_910_724, "the UNet of Stable Diffusion 2"),
        ("sdxl", 2_567_463_684, "the UNet of Stable Diffusion XL"),
    ] {
        let of = |whose: &str| &layouts[&(name.to_owned(), whose.to_owned())];
        let (config, notes) = inferred(of("ldm"));
        assert_eq!(notes[0], family);
        let network = UNet::new(&config.unet).unwrap();
        let declared = network.parameters();
        assert_eq!(declared.count(), parameters, "{name}");
        let single = |parameter: &str| place("", parameter).unwrap_or_else(|| Place::One(parameter.into()));
        assert_eq!(taken(declared, single), without_ones(of("ldm")), "{name}");
        let folder = |parameter: &str| diffusers::place(&config.unet, parameter).unwrap();
        assert_eq!(taken(declared, folder), without_ones(of("diffusers")), "{name}");
        let heads: Vec<usize> =
            config.unet.widths().into_iter().map(|width| config.unet.heads(width)).collect();
        match name {
            "sd15" => assert_eq!(heads, [8, 8, 8, 8]),
            "sd21" => assert_eq!(heads, [5, 10, 20, 20]),
            _ => assert_eq!((&heads[..], config.unet.vector_width), (&[5, 10, 20][..], 2816)),
        }
        config.process().unwrap();
    }
}

#[test]
fn what_comes_in_beside_the_latents_tells_inpainting() {
    let mut shapes = layouts()[&("sd15".to_owned(), "ldm".to_owned())].clone();
    let stem = shapes.get_mut("input_blocks.0.0.weight").unwrap();
    stem[1] = 9;
    let (config, notes) = inferred(&shapes);
    assert_eq!((config.unet.in_channels, config.unet.beside_channels), (4, 5));
    assert!(notes[0].contains("inpainting"), "{notes:?}");
    config.unet.check().unwrap();
}

/// Tensors of a small file by name.
type File = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn small(context: usize) -> UNetConfig {
    UNetConfig {
        model_channels: 32,
        channel_mult: vec![1.0; 4],
        layers_per_block: 2,
        sample_size: Extent::square(64),
        attention_resolutions: vec![64, 32, 16],
        attention_head_dim: None,
        num_attention_heads: Some(8),
        transformer: Some(TransformerConfig {
            context_width: context,
            layers: vec![1, 1, 1, 0],
            middle_layers: 1,
        }),
        ..crate::nn::unet::token_tests::small_latent()
    }
}

/// A network of it under latent diffusion's names, every value of a tensor at `value` and its negative in turn.
fn file(config: &UNetConfig, value: f32) -> File {
    let network = UNet::new(config).unwrap();
    let single = |name: &str| place(RAW, name).unwrap_or_else(|| Place::One(format!("{RAW}{name}")));
    taken(network.parameters(), single)
        .into_iter()
        .map(|(name, shape)| {
            let count: usize = shape.iter().product();
            let values = (0..count).map(|i| if i % 2 == 0 { value } else { -value }).collect();
            (name, (shape, values))
        })
        .collect()
}

fn bytes(file: &File) -> Vec<u8> {
    let views: Vec<TensorBytes<'_>> = file
        .iter()
        .map(|(name, (shape, values))| TensorBytes {
            name,
            dtype: Dtype::F32,
            shape,
            bytes: bytemuck::cast_slice(values),
        })
        .collect();
    let mut bytes = Vec::new();
    write_safetensors_to(&mut bytes, "x".as_ref(), &views, &BTreeMap::new()).unwrap();
    bytes
}

fn open(file: &File, flags: Option<&str>, network: Option<&str>) -> Result<Checkpoint> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.safetensors");
    std::fs::write(&path, bytes(file)).unwrap();
    let mut choice = Choice { network: network.map(str::to_owned), ..Choice::default() };
    if let Some(flags) = flags {
        let path = dir.path().join("flags.json");
        std::fs::write(&path, flags).unwrap();
        choice.flags = Some(path);
    }
    Checkpoint::choose(&path, &choice)
}

#[test]
fn markers_and_the_spread_of_a_bias_say_what_is_predicted() {
    let told = |file: &File, flags: Option<&str>| {
        let found = open(file, flags, None).unwrap();
        let scheduler = &found.config.scheduler;
        let size = found.config.unet.sample_size.longer();
        (scheduler.prediction_type.clone(), scheduler.rescale_betas_zero_snr, size, found.notes.join("; "))
    };
    let one = file(&small(768), 0.05);
    let (prediction, zero_snr, size, notes) = told(&one, None);
    assert_eq!((prediction.as_str(), zero_snr, size), ("epsilon", false, 64));
    assert!(notes.contains("nothing in the file says") && notes.contains("v_prediction"), "{notes}");
    let (prediction, ..) = told(&one, Some(r#"{"prediction_type": "v_prediction"}"#));
    assert_eq!(prediction, "v_prediction");

    // v alone is no zero SNR: those are two switches.
    let mut marked = one.clone();
    marked.insert("v_pred".into(), (vec![0], Vec::new()));
    let (prediction, zero_snr, _, notes) = told(&marked, None);
    assert_eq!((prediction.as_str(), zero_snr), ("v_prediction", false));
    assert!(notes.contains("`v_pred`"), "{notes}");
    marked.insert("ztsnr".into(), (vec![0], Vec::new()));
    let (prediction, zero_snr, ..) = told(&marked, None);
    assert_eq!((prediction.as_str(), zero_snr), ("v_prediction", true));
    open(&marked, None, None).unwrap().config.process().unwrap();

    let two = |value: f32, beside: usize| {
        file(
            &UNetConfig {
                num_attention_heads: None,
                attention_head_dim: Some(64),
                beside_channels: beside,
                ..small(1024)
            },
            value,
        )
    };
    let (prediction, zero_snr, size, notes) = told(&two(0.1, 0), None);
    assert_eq!((prediction.as_str(), zero_snr, size), ("v_prediction", false, 96));
    assert!(notes.contains("spread 0.100"), "{notes}");
    assert_eq!(told(&two(0.08, 0), None).0, "epsilon");
    // That of inpainting predicts the noise.
    assert_eq!(told(&two(0.1, 5), None).0, "epsilon");

    let mut edm = one;
    edm.insert("edm_vpred.sigma_max".into(), (vec![1], vec![120.0]));
    let message = open(&edm, None, None).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("edm_vpred.sigma_max"), "{message}");
}

#[test]
fn an_average_without_dots_is_found_and_told() {
    let config = small(768);
    let mut both = file(&config, 0.05);
    for (name, (shape, values)) in both.clone() {
        let twin = format!("model_ema.diffusion_model{}", name[RAW.len()..].replace('.', ""));
        both.insert(twin, (shape, values.iter().map(|v| 2.0 * v).collect()));
    }
    both.insert("model_ema.decay".into(), (vec![1], vec![0.9999]));
    both.insert("model_ema.num_updates".into(), (vec![1], vec![3.0]));
    let first = |found: &Checkpoint| {
        let name = format!("{}middle_block.1.transformer_blocks.0.attn1.to_qkv.weight", found.prefix);
        (found.source.about(&name).unwrap().1, found.source.values(&name).unwrap().1[0])
    };
    let found = open(&both, None, None).unwrap();
    assert_eq!(first(&found), (vec![96, 32], 0.1));
    let notes = found.notes.join("; ");
    assert!(
        notes.contains("model_ema is read, an average") && notes.contains("model.diffusion_model"),
        "{notes}"
    );
    let raw = open(&both, None, Some("model.diffusion_model")).unwrap();
    assert_eq!(first(&raw), (vec![96, 32], 0.05));

    // One that is not whole is none.
    both.remove("model_ema.diffusion_modelout2bias").unwrap();
    assert_eq!(first(&open(&both, None, None).unwrap()).1, 0.05);
}

#[test]
fn an_unknown_family_is_asked_for_its_heads() {
    let strange = file(&small(48), 0.05);
    let message = open(&strange, None, None).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("tokens of 48 numbers") && message.contains("num_heads"), "{message}");
    let found = open(&strange, Some(r#"{"num_heads": 4}"#), None).unwrap();
    assert_eq!(found.config.unet.num_attention_heads, Some(4));
}

#[test]
fn a_part_that_is_missing_or_misshapen_is_named_as_the_file_has_it() {
    let config = small(768);
    let name = format!("{RAW}input_blocks.1.1.transformer_blocks.0.attn1.to_v.weight");
    let mut without = file(&config, 0.05);
    without.remove(&name).unwrap();
    let message = open(&without, None, None).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains(&name) && message.contains("is missing"), "{message}");
    let mut more = file(&config, 0.05);
    more.insert(
        format!("{RAW}input_blocks.1.1.transformer_blocks.0.attn1.to_q.bias"),
        (vec![32], vec![0.0; 32]),
    );
    let message = open(&more, None, None).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("to_q.bias") && message.contains("not a part"), "{message}");
    SafetensorsFile::from_bytes("x", bytes(&more)).unwrap();
}
