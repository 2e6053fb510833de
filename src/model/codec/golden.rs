//! Autoencoders of diffusers, small, in float64, under every name that they are published with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{CodecCheckpoint, CodecChoice, CodecConfig, CodecModel};
use crate::error::Result;
use crate::io::{Dtype, SafetensorsFile, TensorBytes, write_safetensors};
use crate::nn::{Halves, Latents};
use crate::shape::{Extent, Shape};
use crate::tensor::DType;
use crate::testing::{Array, Golden, gpu};

/// Named tensors.
pub(super) type Tensors = BTreeMap<String, Array>;

/// What a script said of a case: `kl.config`, `kl.tensors`.
pub(super) fn note(name: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/codec.safetensors");
    SafetensorsFile::open(path).unwrap().metadata()[name].clone()
}

fn shapes(name: &str) -> BTreeMap<String, Vec<usize>> {
    serde_json::from_str(&note(name)).unwrap()
}

/// The tensors of a case, under diffusers' names: the script's `fill`.
pub(super) fn tensors(case: &str) -> Tensors {
    let fill = |(number, (name, shape)): (usize, (String, Vec<usize>))| {
        let number = number as i64;
        let array = match &shape[..] {
            [_, rest @ ..] if !rest.is_empty() => {
                let scale = (3.0 / rest.iter().product::<usize>() as f64).sqrt() as f32;
                Array::filled(&shape, number, scale, 0.0)
            }
            _ if name.contains("norm") && name.ends_with("weight") => {
                Array::filled(&shape, number, 0.25, 1.0)
            }
            _ => Array::filled(&shape, number, 0.25, 0.0),
        };
        (name, array)
    };
    shapes(&format!("{case}.tensors")).into_iter().enumerate().map(fill).collect()
}

pub(super) fn write(path: PathBuf, tensors: &Tensors) -> PathBuf {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let bytes: Vec<Vec<u8>> = tensors.values().map(|a| bytemuck::cast_slice(&a.data).to_vec()).collect();
    let views: Vec<TensorBytes<'_>> = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, array), bytes)| TensorBytes { name, dtype: Dtype::F32, shape: &array.shape, bytes })
        .collect();
    write_safetensors(&path, &views, &BTreeMap::new()).unwrap();
    path
}

/// A folder of diffusers.
pub(super) fn folder(at: &Path, case: &str, tensors: &Tensors) -> PathBuf {
    write(at.join("diffusion_pytorch_model.safetensors"), tensors);
    std::fs::write(at.join("config.json"), note(&format!("{case}.config"))).unwrap();
    at.to_owned()
}

pub(super) fn open(path: &Path) -> Result<CodecModel> {
    CodecModel::open(gpu(), path, DType::F32, &CodecChoice::default())
}

/// Height and width of `[N, C, H, W]`, and the whole in the kernels' order.
pub(super) fn shaped(array: &Array) -> (Shape, Array) {
    let [_, channels, height, width] = array.shape[..] else { panic!("it has four axes") };
    (Shape { channels, extent: Extent::Plane { height, width } }, array.nhwc())
}

/// A case's pictures, noise and latents, in the script's order.
fn inputs(case: &str) -> [Array; 3] {
    let golden = Golden::open("codec");
    let decoded = golden.array(&format!("{case}.decoded"));
    let encoded =
        golden.get(&format!("{case}.mean")).unwrap_or_else(|| golden.array(&format!("{case}.encoded")));
    let most = if case.starts_with("tiny") { 4.0 } else { 3.0 };
    [
        Array::filled(&decoded.shape, 1001, 1.0, 0.0),
        Array::filled(&encoded.shape, 1002, 2.0, 0.0),
        Array::filled(&encoded.shape, 1003, most, 0.0),
    ]
}

/// What a denoiser sees of raw latents.
fn seen(latents: &Latents, raw: &Array) -> Array {
    let channels = *raw.shape.last().unwrap();
    let value = |(at, raw): (usize, &f32)| {
        let [mean, factor] = latents.of_channel(at % channels);
        ((f64::from(*raw) - mean) * factor) as f32
    };
    Array::new(&raw.shape, raw.data.iter().enumerate().map(value).collect())
}

/// Relative to the largest value.
const WITHIN: f32 = 2e-5;

/// What a model makes of a case's pictures and latents: mean, sample and pictures.
fn run(model: &CodecModel, case: &str) -> [Array; 3] {
    let [x, noise, z] = inputs(case);
    let latents = &model.about().latents;
    let ((picture, x), (latent, z)) = (shaped(&x), shaped(&z));
    let n = x.shape[0];
    let array = |shape: Shape, values: Vec<f32>| Array::new(&shape.nhwc(n), values);
    let mean = model.encode(&x.data, picture, None).unwrap();
    let sample = model.encode(&x.data, picture, Some(&noise.nhwc().data)).unwrap();
    let decoded = model.decode(&seen(latents, &z).data, latent).unwrap();
    assert_eq!((mean.shape, decoded.shape, decoded.note), (latent, picture, None));
    [array(latent, mean.values), array(latent, sample.values), array(picture, decoded.values)]
}

#[test]
fn folders_of_diffusers_match_the_reference() {
    let (golden, place) = (Golden::open("codec"), tempfile::tempdir().unwrap());
    for case in ["kl", "kl_bare", "tiny", "tiny16"] {
        let model = open(&folder(&place.path().join(case), case, &tensors(case))).unwrap();
        let parameters = model.codec().parameters().specs();
        let own: BTreeMap<String, Vec<usize>> =
            parameters.iter().map(|spec| (spec.name.clone(), spec.file_shape())).collect();
        assert_eq!(own, shapes(&format!("{case}.tensors")), "{case}: names and shapes");
        let [mean, sample, decoded] = run(&model, case);
        let of = |name: &str| golden.get(&format!("{case}.{name}")).map(|array| array.nhwc());
        let latents = &model.about().latents;
        let wanted = of("mean").or(of("encoded")).map(|raw| seen(latents, &raw)).unwrap();
        mean.check_within(&format!("{case} mean"), &wanted, WITHIN);
        // The small ones say no distribution.
        let wanted = of("sample").map_or(wanted, |raw| seen(latents, &raw));
        sample.check_within(&format!("{case} sample"), &wanted, WITHIN);
        decoded.check_within(&format!("{case} decoded"), &of("decoded").unwrap(), WITHIN);
    }
}

#[test]
fn f16_stays_close() {
    if !crate::testing::dtypes().contains(&DType::F16) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    for case in ["kl", "tiny"] {
        let path = folder(&place.path().join(case), case, &tensors(case));
        let [want, got] = [DType::F32, DType::F16]
            .map(|dtype| run(&CodecModel::open(gpu(), &path, dtype, &CodecChoice::default()).unwrap(), case));
        for (got, want) in got.iter().zip(&want) {
            assert_ne!(got, want, "{case}: f16 was not used");
            got.check_within(case, want, 2e-2);
        }
    }
}

fn renamed(tensors: &Tensors, name: impl Fn(&str) -> String) -> Tensors {
    tensors.iter().map(|(old, array)| (name(old), array.clone())).collect()
}

/// The names of the case `kl` in latent diffusion's files, by diffusers'. The script had diffusers' own converter check them.
fn ldm_names() -> BTreeMap<String, (String, Vec<usize>)> {
    let theirs = shapes("kl.ldm");
    let own = |name: &str| super::names::names_of(super::names::Naming::Ldm(3), name).remove(0);
    let mut all = BTreeMap::new();
    for name in shapes("kl.tensors").into_keys() {
        let ldm = own(&name);
        let shape = theirs.get(&ldm).unwrap_or_else(|| panic!("{name} is not {ldm}")).clone();
        all.insert(name, (ldm, shape));
    }
    assert_eq!(all.len(), theirs.len());
    all
}

/// The same tensors under each name: the same bits of everything, and the factors that stand in no file.
#[test]
fn every_name_of_a_kl_autoencoder_gives_the_same_bits() {
    let (place, own) = (tempfile::tempdir().unwrap(), tensors("kl"));
    let at = |name: &str| place.path().join(name);
    let want_model = open(&folder(&at("new"), "kl", &own)).unwrap();
    let want = run(&want_model, "kl");
    let old = renamed(&own, |name| {
        let pairs = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")];
        pairs.iter().fold(name.to_owned(), |name, (new, old)| name.replace(new, old))
    });
    let names = ldm_names();
    let ldm = |front: &str, turned: bool| -> Tensors {
        let one = |(name, array): (&String, &Array)| {
            let (ldm, shape) = &names[name];
            let array = if turned { array.reshape(shape) } else { array.clone() };
            (format!("{front}{ldm}"), array)
        };
        own.iter().map(one).collect()
    };
    let other = |name: &str| (name.to_owned(), Array::filled(&[3], 7, 1.0, 0.0));
    let mut single = ldm("first_stage_model.", true);
    single.extend(
        ["model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.x", "alphas_cumprod"].map(other),
    );
    let mut pickled = ldm("state_dict/first_stage_model.", true);
    pickled.extend(["state_dict/model.diffusion_model.input_blocks.0.0.weight"].map(other));
    let mut alone = ldm("", false);
    alone.extend(
        ["model_ema.decay", "model_ema.num_updates", "loss.logvar", "loss.discriminator.main.0.weight"]
            .map(other),
    );
    let plain = write(at("diffusers_names.safetensors"), &own);
    let pipeline = at("pipeline");
    folder(&pipeline.join("vae"), "kl", &own);
    std::fs::write(pipeline.join("model_index.json"), "{}").unwrap();
    let paths = [
        folder(&at("old"), "kl", &old),
        write(at("single.safetensors"), &single),
        write(at("pickled.safetensors"), &pickled),
        write(at("alone.safetensors"), &alone),
        plain,
        pipeline,
    ];
    for path in paths {
        let model = open(&path).unwrap();
        assert_eq!(model.checksum(), want_model.checksum(), "{}", path.display());
        assert_eq!(model.checkpoint().config, want_model.checkpoint().config, "{}", path.display());
        assert!(run(&model, "kl") == want, "{}", path.display());
    }
}

#[test]
fn every_name_of_a_small_autoencoder_gives_the_same_bits() {
    let (place, own) = (tempfile::tempdir().unwrap(), tensors("tiny"));
    let at = |name: &str| place.path().join(name);
    let want_model = open(&folder(&at("diffusers"), "tiny", &own)).unwrap();
    let want = run(&want_model, "tiny");
    // TAESD's own: the decoder's clamp has a number.
    let theirs = renamed(&own, |name| {
        let (half, rest) = name.split_once(".layers.").unwrap();
        let (number, rest) = rest.split_once('.').unwrap();
        let number = number.parse::<usize>().unwrap() + usize::from(half == "decoder");
        format!("{half}.{number}.{rest}")
    });
    let half = |half: &str| -> Tensors {
        let own = theirs
            .iter()
            .filter_map(|(name, array)| Some((name.strip_prefix(half)?.to_owned(), array.clone())));
        own.collect()
    };
    let encoder = write(at("taesd/taesd_encoder.safetensors"), &half("encoder."));
    let decoder = write(at("taesd/taesd_decoder.safetensors"), &half("decoder."));
    let paths = [
        write(at("whole.safetensors"), &theirs),
        write(at("named.safetensors"), &own),
        at("taesd"),
        encoder,
        decoder.clone(),
    ];
    for path in paths {
        let model = open(&path).unwrap();
        assert_eq!(model.checksum(), want_model.checksum(), "{}", path.display());
        assert!(run(&model, "tiny") == want, "{}", path.display());
    }
    // A half is enough for what it does.
    let model = CodecModel::open(gpu(), &decoder, DType::F32, &CodecChoice::of(Halves::Decoder)).unwrap();
    let (latent, z) = shaped(&inputs("tiny")[2]);
    assert_eq!(model.decode(&z.data, latent).unwrap().values, want[2].data);
    let error = model.encode(&[0.0; 192], Shape::square(3, 8), None).unwrap_err().to_string();
    assert!(error.contains("without its encoder"), "{error}");
    let alone = write(at("lonely_decoder.safetensors"), &half("decoder."));
    assert_eq!(open(&alone).unwrap().about().halves, Halves::Decoder);
    let error = CodecCheckpoint::open(&alone, &CodecChoice::of(Halves::Encoder)).err().unwrap().to_string();
    assert!(error.contains("has no encoder"), "{error}");
    let CodecConfig::Tiny(config) = &model.checkpoint().config else { panic!("it is a small one") };
    assert_eq!((&config.encoder_blocks[..], &config.decoder_blocks[..]), (&[1, 2, 1][..], &[2, 1, 1][..]));
}

/// As a browser has them.
#[test]
fn files_in_memory_are_opened_too() {
    let (place, own) = (tempfile::tempdir().unwrap(), tensors("kl"));
    let path = folder(place.path(), "kl", &own);
    let bytes = std::fs::read(path.join("diffusion_pytorch_model.safetensors")).unwrap();
    let source = SafetensorsFile::from_bytes("vae", bytes).unwrap();
    let config = CodecConfig::parse(Path::new("vae"), &note("kl.config")).unwrap();
    let checkpoint =
        CodecCheckpoint::of_sources(vec![std::sync::Arc::new(source)], config, &CodecChoice::default())
            .unwrap();
    let model = CodecModel::of(gpu(), checkpoint, DType::F32).unwrap();
    assert_eq!(model.checksum(), open(&path).unwrap().checksum());
    let error =
        CodecCheckpoint::of_sources(Vec::new(), None, &CodecChoice::default()).err().unwrap().to_string();
    assert_eq!(error, "an autoencoder of no file");
}

/// More pictures than are coded at once, and strips that a picture is coded in.
#[test]
fn pictures_in_groups_and_in_strips_are_the_same_pictures() {
    let place = tempfile::tempdir().unwrap();
    let path = folder(place.path(), "kl", &tensors("kl"));
    let model = open(&path).unwrap();
    let (latent, z) = shaped(&inputs("kl")[2]);
    let both = model.decode(&z.data, latent).unwrap().values;
    let first = model.decode(&z.data[..latent.len()], latent).unwrap().values;
    assert!(both[..first.len()] == first, "a picture does not depend on those beside it");
    let checkpoint = CodecCheckpoint::open(&path, &CodecChoice::default()).unwrap();
    let strips = CodecModel::in_strips_of(gpu(), checkpoint, DType::F32, 20_000).unwrap();
    let array = |values: Vec<f32>| Array::new(&[values.len()], values);
    array(strips.decode(&z.data, latent).unwrap().values).check_within("strips", &array(both), 1e-5);
    let plan = model.decoder(latent, 2).unwrap();
    assert_eq!((plan.pictures(), plan.input().shape().to_vec()), (2, latent.nhwc(2).to_vec()));
    assert!(plan.bytes() > 0 && plan.noise().is_none());
}
