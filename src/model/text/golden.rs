//! Text encoders against transformers in float64, under every name that files give their tensors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::*;
use crate::io::{Dtype, SafetensorsFile, TensorBytes, write_safetensors};
use crate::nn::Given;
use crate::ops::Gelu;
use crate::tensor::DType;
use crate::testing::{Array, Golden, dtypes, gpu};
use crate::text::Tokens;

const WIDTH: usize = 64;
const HIDDEN: usize = 192;
const LAYERS: usize = 3;
const PLACES: usize = 77;
const VOCABULARY: usize = 49408;
const PROJECTION: usize = 48;
/// As in the script; a special word inside is the end, and nothing is an end alone.
const TEXTS: [&str; 3] = ["A cat wearing sunglasses, by the sea", "", "two <|endoftext|> dogs"];
/// Places of a text that are compared.
const KEPT: [usize; 9] = [0, 1, 2, 4, 8, 9, 10, 33, 76];

/// A tensor as files hold it.
#[derive(Clone)]
pub(super) struct Stored {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

pub(super) type File = BTreeMap<String, Stored>;

/// As the script's function of that name.
pub(super) fn filled(shape: &[usize], number: usize, scale: f64, shift: f64, steps: i64) -> Stored {
    let value = |i: i64| {
        let unit = (i * 7919 + number as i64 * 104_729 + i * i % 1009) % (2 * steps) - steps;
        (shift + scale * unit as f64 / steps as f64) as f32
    };
    let count = shape.iter().product::<usize>() as i64;
    Stored { shape: shape.to_vec(), values: (0..count).map(value).collect() }
}

/// The weights under transformers' names, `text_model.` before them.
fn weights(embeddings: f64, projection: usize) -> File {
    let mut file = File::new();
    let mut put = |name: String, shape: &[usize], scale: f64, shift: f64, steps: i64| {
        let number = file.len();
        file.insert(name, filled(shape, number, scale, shift, steps));
    };
    let table = "text_model.embeddings.token_embedding.weight";
    put(table.into(), &[VOCABULARY, WIDTH], 0.5 * embeddings, 0.0, 1024);
    let positions = "text_model.embeddings.position_embedding.weight";
    put(positions.into(), &[PLACES, WIDTH], 0.25 * embeddings, 0.0, 1024);
    let mut layer = |name: &str, inputs: Option<usize>, outputs: usize| {
        match inputs {
            None => put(format!("{name}.weight"), &[outputs], 0.25, 1.0, 16),
            Some(inputs) => {
                let scale = if inputs == WIDTH { 0.25 } else { 0.125 };
                put(format!("{name}.weight"), &[outputs, inputs], scale, 0.0, 1024);
            }
        }
        put(format!("{name}.bias"), &[outputs], 0.25, 0.0, 1024);
    };
    for i in 0..LAYERS {
        let base = format!("text_model.encoder.layers.{i}");
        layer(&format!("{base}.layer_norm1"), None, WIDTH);
        for part in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            layer(&format!("{base}.self_attn.{part}"), Some(WIDTH), WIDTH);
        }
        layer(&format!("{base}.layer_norm2"), None, WIDTH);
        layer(&format!("{base}.mlp.fc1"), Some(WIDTH), HIDDEN);
        layer(&format!("{base}.mlp.fc2"), Some(HIDDEN), WIDTH);
    }
    layer("text_model.final_layer_norm", None, WIDTH);
    put("text_projection.weight".into(), &[projection, WIDTH], 0.25, 0.0, 1024);
    file
}

fn without_projection(mut file: File) -> File {
    file.remove("text_projection.weight");
    file
}

/// Other names for the same tensors; nothing leaves one out.
fn renamed(file: &File, name: impl Fn(&str) -> Option<String>) -> File {
    file.iter().filter_map(|(old, tensor)| Some((name(old)?, tensor.clone()))).collect()
}

fn prefixed(file: &File, prefix: &str) -> File {
    renamed(file, |name| Some(format!("{prefix}{name}")))
}

/// Under OpenCLIP's names.
fn open_clip(file: &File) -> File {
    let mut theirs = renamed(file, |name| {
        if name == "text_projection.weight" || name.contains("self_attn") && !name.contains("out_proj") {
            return None;
        }
        let mut name = name.replace("text_model.encoder.layers", "transformer.resblocks");
        for (ours, theirs) in [
            ("text_model.embeddings.token_embedding", "token_embedding"),
            ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
            ("text_model.final_layer_norm", "ln_final"),
            ("self_attn.out_proj", "attn.out_proj"),
            ("layer_norm", "ln_"),
            ("mlp.fc1", "mlp.c_fc"),
            ("mlp.fc2", "mlp.c_proj"),
        ] {
            name = name.replace(ours, theirs);
        }
        Some(name)
    });
    for layer in 0..LAYERS {
        for leaf in ["weight", "bias"] {
            let part =
                |part| &file[&format!("text_model.encoder.layers.{layer}.self_attn.{part}_proj.{leaf}")];
            let values: Vec<f32> =
                ["q", "k", "v"].into_iter().flat_map(|name| part(name).values.clone()).collect();
            let mut shape = part("q").shape.clone();
            shape[0] *= 3;
            let name = format!("transformer.resblocks.{layer}.attn.in_proj_{leaf}");
            theirs.insert(name, Stored { shape, values });
        }
    }
    if let Some(projection) = file.get("text_projection.weight") {
        let [outputs, inputs] = projection.shape[..] else { unreachable!() };
        let turned = Array::new(&[outputs, inputs], projection.values.clone()).permute(&[1, 0]);
        theirs.insert("text_projection".into(), Stored { shape: turned.shape, values: turned.data });
    }
    theirs
}

/// Writes a file, and gives its path. The types are made to differ, as those of merged files do: of a layer's tensors alike.
pub(super) fn write(folder: &Path, name: &str, file: &File, types: impl Fn(&str) -> Dtype) -> PathBuf {
    let bytes = |(name, tensor): (&String, &Stored)| -> (Dtype, Vec<u8>) {
        let dtype = types(name);
        let values = tensor.values.iter();
        let bytes = match dtype {
            Dtype::F16 => values.flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect(),
            Dtype::F64 => values.flat_map(|x| f64::from(*x).to_le_bytes()).collect(),
            _ => values.flat_map(|x| x.to_le_bytes()).collect(),
        };
        (dtype, bytes)
    };
    let held: Vec<(Dtype, Vec<u8>)> = file.iter().map(bytes).collect();
    let views: Vec<TensorBytes<'_>> = file
        .iter()
        .zip(&held)
        .map(|((name, tensor), (dtype, bytes))| TensorBytes {
            name,
            dtype: *dtype,
            shape: &tensor.shape,
            bytes,
        })
        .collect();
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join(name);
    write_safetensors(&path, &views, &BTreeMap::new()).unwrap();
    path
}

pub(super) fn halves(_: &str) -> Dtype {
    Dtype::F16
}

/// `config.json` of an encoder's folder.
fn configure(folder: &Path, change: impl Fn(&mut serde_json::Value)) {
    let mut config = serde_json::json!({
        "architectures": ["CLIPTextModel"], "hidden_size": WIDTH, "intermediate_size": HIDDEN,
        "num_hidden_layers": LAYERS, "num_attention_heads": 1, "hidden_act": "quick_gelu", "eos_token_id": 2
    });
    change(&mut config);
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

/// The places that are kept of states.
fn kept(states: &TextStates) -> Array {
    let TextStates { texts, tokens, width, .. } = *states;
    let row = |text: usize, place: &usize| &states.states[(text * tokens + place) * width..][..width];
    let data: Vec<f32> =
        (0..texts).flat_map(|text| KEPT.iter().flat_map(move |place| row(text, place)).copied()).collect();
    Array::new(&[texts, KEPT.len(), width], data)
}

#[track_caller]
fn check(model: &TextModel, states: &str, pooled: Option<&str>, tolerance: f32) {
    let golden = Golden::open("clip_text");
    let got = model.encode(&TEXTS).unwrap();
    kept(&got).check_within(states, &golden.array(states), tolerance);
    let width = model.about().pooled;
    assert_eq!(width.is_some(), pooled.is_some());
    if let (Some(pooled), Some(width)) = (pooled, width) {
        let got = Array::new(&[TEXTS.len(), width], got.pooled.clone().unwrap());
        got.check_within(pooled, &golden.array(pooled), tolerance);
    }
    // Nothing is drawn, and a text's bits do not depend on what is encoded beside it.
    let alone = model.encode(&TEXTS[..1]).unwrap();
    assert_eq!(alone.states[..], got.states[..alone.states.len()]);
}

const EXACT: f32 = 2e-5;

#[test]
fn names_are_those_of_the_libraries() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/clip_text.safetensors");
    let golden = SafetensorsFile::open(path).unwrap();
    let theirs = |library: &str| -> BTreeMap<String, Vec<usize>> {
        serde_json::from_str(&golden.metadata()[library]).unwrap()
    };
    let ours = |file: File| file.into_iter().map(|(name, tensor)| (name, tensor.shape)).collect();
    let whole = weights(1.0, PROJECTION);
    let plain = renamed(&whole, |name| name.strip_prefix("text_model.").map(str::to_owned));
    assert_eq!(theirs("open_clip"), ours(open_clip(&whole)));
    assert_eq!(theirs("transformers_plain"), ours(plain));
    assert_eq!(theirs("transformers"), ours(whole));
}

/// The single files of Stable Diffusion 1, 2 and SDXL: what is given, what pads, which curve, turned projections, junk.
#[test]
fn single_files_give_what_their_families_want() {
    let folder = tempfile::tempdir().unwrap();
    let whole = weights(1.0, PROJECTION);
    let plain = without_projection(whole.clone());
    let mut first = prefixed(&plain, "cond_stage_model.transformer.");
    let positions = Stored { shape: vec![1, PLACES], values: vec![0.0; PLACES] };
    first.insert("cond_stage_model.transformer.text_model.embeddings.position_ids".into(), positions);
    first.insert("model.diffusion_model.out.0.bias".into(), Stored { shape: vec![1], values: vec![0.0] });
    let mixed = |name: &str| match name {
        _ if name.contains("embedding") => Dtype::F16,
        _ if name.contains("layers.1") => Dtype::F64,
        _ => Dtype::F32,
    };
    let path = write(folder.path(), "sd1.safetensors", &first, mixed);
    let opened = &TextCheckpoint::open(&path).unwrap()[0];
    assert_eq!((opened.family, opened.config.act, opened.pad), (TextFamily::Sd1, Gelu::Quick, 49407));
    assert!(opened.summary().contains("3 layers of 64, 1 heads, quick GELU, 77 tokens; gives layer 3 with"));
    let sd1 = TextModel::of(gpu(), opened, DType::F32).unwrap();
    check(&sd1, "quick_gelu.last", None, EXACT);
    assert_eq!(
        sd1.tokenize(TEXTS[0]).ids,
        Golden::open("clip_text").f64s("ids")[..PLACES].iter().map(|id| *id as u32).collect::<Vec<_>>()
    );

    let path = write(
        folder.path(),
        "sd2.safetensors",
        &prefixed(&open_clip(&whole), "cond_stage_model.model."),
        halves,
    );
    let opened = &TextCheckpoint::open(&path).unwrap()[0];
    assert_eq!((opened.family, opened.config.act, opened.pad), (TextFamily::Sd2, Gelu::Erf, 0));
    check(&TextModel::of(gpu(), opened, DType::F32).unwrap(), "gelu.penultimate_norm", None, EXACT);

    let mut both = prefixed(&plain, "conditioner.embedders.0.transformer.");
    both.extend(prefixed(&open_clip(&whole), "conditioner.embedders.1.model."));
    both.insert(
        "conditioner.embedders.1.model.logit_scale".into(),
        Stored { shape: vec![], values: vec![1.0] },
    );
    let path = write(folder.path(), "sdxl.safetensors", &both, halves);
    let sdxl = TextModel::open_all(gpu(), &path, DType::F32).unwrap();
    assert_eq!(
        sdxl.iter().map(|model| model.family).collect::<Vec<_>>(),
        [TextFamily::SdxlFirst, TextFamily::SdxlSecond]
    );
    check(&sdxl[0], "quick_gelu.hidden.2", None, EXACT);
    check(&sdxl[1], "gelu.hidden.2", Some("gelu.pooled"), EXACT);
    let states = sdxl[0].encode(&TEXTS).unwrap().beside(&sdxl[1].encode(&TEXTS).unwrap()).unwrap();
    assert_eq!((states.width, states.pooled.unwrap().len()), (2 * WIDTH, 3 * PROJECTION));
    let told = TextModel::open(gpu(), &path, DType::F32).err().unwrap().to_string();
    assert!(told.contains("2 text encoders"), "{told}");
}

#[test]
fn every_layer_can_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let plain = without_projection(weights(1.0, PROJECTION));
    let path =
        write(folder.path(), "x.safetensors", &prefixed(&plain, "cond_stage_model.transformer."), halves);
    let mut opened = TextCheckpoint::open(&path).unwrap().remove(0);
    for layer in 0..=LAYERS {
        opened.given = Given { layer, norm: false, pooled: false };
        let model = TextModel::of(gpu(), &opened, DType::F32).unwrap();
        check(&model, &format!("quick_gelu.hidden.{layer}"), None, EXACT);
    }
    opened.given.norm = true;
    opened.skip(2).unwrap();
    assert_eq!(opened.given, Given { layer: 2, norm: true, pooled: false });
    check(&TextModel::of(gpu(), &opened, DType::F32).unwrap(), "quick_gelu.penultimate_norm", None, EXACT);
    assert!(opened.skip(4).unwrap_err().to_string().contains("1 (the last) to 3"));
}

/// A folder with the names of transformers 5 and a configuration; small embeddings, so that the first norm's eps matters; the
/// place that is pooled at is that of the highest number.
#[test]
fn folders_and_small_embeddings() {
    let folder = tempfile::tempdir().unwrap();
    let plain = without_projection(weights(2f64.powi(-10), PROJECTION));
    let short = renamed(&plain, |name| name.strip_prefix("text_model.").map(str::to_owned));
    write(folder.path(), "model.safetensors", &short, halves);
    configure(folder.path(), |_| ());
    let mut opened = TextCheckpoint::open(folder.path()).unwrap().remove(0);
    assert_eq!(
        (opened.family, opened.given),
        (TextFamily::Alone, Given { layer: 3, norm: true, pooled: false })
    );
    opened.given.pooled = true;
    check(&TextModel::of(gpu(), &opened, DType::F32).unwrap(), "small.last", Some("small.pooled"), EXACT);
    configure(folder.path(), |config| config["layer_norm_eps"] = 1e-6.into());
    let other = TextModel::open(gpu(), folder.path(), DType::F32).unwrap().encode(&TEXTS).unwrap();
    let golden = Golden::open("clip_text").array("small.last");
    let error = kept(&other).zip(&golden, |a, b| (a - b).abs()).data.into_iter().fold(0f32, f32::max);
    assert!(error > 1e-2, "eps does not matter here: {error}");
}

/// Fewer tokens than places, a projection by its linear layer's name, and the end token that a configuration names.
#[test]
fn short_texts_projections_and_the_end() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "model.safetensors", &weights(1.0, PROJECTION), halves);
    configure(folder.path(), |config| {
        config["hidden_act"] = "gelu".into();
        config["architectures"] = ["CLIPTextModelWithProjection"].into();
        config["eos_token_id"] = 49407.into();
    });
    let model = TextModel::open(gpu(), folder.path(), DType::F32).unwrap();
    assert_eq!((model.family, model.about().pooled), (TextFamily::Alone, Some(PROJECTION)));
    let ids = model.tokenize(TEXTS[0]).ids[..10].to_vec();
    let short = Tokens { used: ids.len(), ids, left_out: None };
    let got = model.encode_tokens(std::slice::from_ref(&short)).unwrap();
    Array::new(&[1, 10, WIDTH], got.states).check_within(
        "gelu.short",
        &Golden::open("clip_text").array("gelu.short"),
        EXACT,
    );

    let refused = |texts: &[Tokens], words: &str| {
        let told = model.encode_tokens(texts).unwrap_err().to_string();
        assert!(told.contains(words), "{told}");
    };
    refused(&[short.clone(), model.tokenize("")], "a text of 10 tokens and one of 77");
    refused(&[], "takes 1 to 77 tokens");
    refused(&[Tokens { ids: vec![0; 78], ..short.clone() }], "pools at token 49407");
    let endless = Tokens { ids: [vec![0; 77], vec![49407]].concat(), ..short.clone() };
    refused(&[endless], "takes 1 to 77 tokens");
    refused(&[Tokens { ids: vec![49407, 60_000], ..short }], "token_embedding");
}

/// A square projection loads whichever way round it lies: its name alone tells.
#[test]
fn a_square_projection_is_turned_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let square = weights(1.0, WIDTH);
    let single = write(
        folder.path(),
        "x.safetensors",
        &prefixed(&open_clip(&square), "conditioner.embedders.0.model."),
        halves,
    );
    let pipeline = folder.path().join("refiner");
    write(&pipeline.join("text_encoder_2"), "model.fp16.safetensors", &square, halves);
    configure(&pipeline.join("text_encoder_2"), |config| config["hidden_act"] = "gelu".into());
    std::fs::write(pipeline.join("model_index.json"), "{}").unwrap();
    let [a, b] = [&single, &pipeline].map(|path| TextModel::open(gpu(), path, DType::F32).unwrap());
    assert_eq!([a.family, b.family], [TextFamily::SdxlSecond; 2]);
    assert_eq!(a.encode(&TEXTS).unwrap(), b.encode(&TEXTS).unwrap());
    assert_eq!(a.checksum(), b.checksum());
}

#[test]
fn f16_stays_close() {
    if !dtypes().contains(&DType::F16) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = write(
        folder.path(),
        "x.safetensors",
        &prefixed(&open_clip(&weights(1.0, PROJECTION)), "conditioner.embedders.1.model."),
        halves,
    );
    check(&TextModel::open(gpu(), &path, DType::F16).unwrap(), "gelu.hidden.2", Some("gelu.pooled"), 5e-3);
}

#[test]
fn what_does_not_fit_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let whole = prefixed(&without_projection(weights(1.0, PROJECTION)), "cond_stage_model.transformer.");
    let refused = |change: &dyn Fn(&mut File), words: &[&str]| {
        let mut file = whole.clone();
        change(&mut file);
        let path = write(folder.path(), "x.safetensors", &file, halves);
        let told = TextCheckpoint::open(&path).err().expect("it is refused").to_string();
        assert!(words.iter().all(|word| told.contains(word)), "{told}");
    };
    const BASE: &str = "cond_stage_model.transformer.text_model.";
    let layer = |part: &str| format!("{BASE}encoder.layers.{part}");
    refused(&|file| drop(file.remove(&layer("1.mlp.fc2.bias"))), &["layers.1.mlp.fc2.bias", "is missing"]);
    refused(
        &|file| drop(file.remove(&format!("{BASE}final_layer_norm.bias"))),
        &["final_layer_norm.bias", "is missing"],
    );
    refused(
        &|file| drop(file.remove(&layer("1.layer_norm1.weight"))),
        &["layers.1.", "not a part of the text encoder"],
    );
    let wide = Stored { shape: vec![WIDTH, 65], values: vec![0.0; 65 * WIDTH] };
    refused(
        &|file| drop(file.insert(layer("2.self_attn.k_proj.weight"), wide.clone())),
        &["k_proj", "[64, 65]", "[64, 64]"],
    );
    let few = Stored { shape: vec![10, WIDTH], values: vec![0.0; 10 * WIDTH] };
    let table = format!("{BASE}embeddings.token_embedding.weight");
    refused(&|file| drop(file.insert(table.clone(), few.clone())), &["10 rows", "49408 tokens"]);
    refused(
        &|file| file.retain(|name, _| name.contains("layers.0")),
        &["holds no text encoder", "cond_stage_model."],
    );
    refused(
        &|file| *file = prefixed(file, "text_encoders."),
        &["text_encoders.cond_stage_model.transformer.", "no model that is read"],
    );

    let other = folder.path().join("other");
    write(&other, "model.safetensors", &weights(1.0, PROJECTION), halves);
    let configured = |change: &dyn Fn(&mut serde_json::Value), words: &[&str]| {
        configure(&other, change);
        let told = TextCheckpoint::open(&other).err().expect("it is refused").to_string();
        assert!(words.iter().all(|word| told.contains(word)), "{told}");
    };
    configured(
        &|config| config["architectures"] = ["T5EncoderModel"].into(),
        &["config.json", "T5EncoderModel"],
    );
    configured(&|config| config["hidden_act"] = "relu".into(), &["`relu`", "quick_gelu"]);
    configured(&|config| config["num_attention_heads"] = 3.into(), &["width 64", "3 heads"]);
    configured(
        &|config| config["hidden_size"] = 128.into(),
        &["position_embedding", "[77, 64]", "[77, 128]"],
    );
    configured(&|config| config["num_hidden_layers"] = 4.into(), &["layers.3.", "is missing"]);
    configured(&|config| config["num_hidden_layers"] = 1_000_000.into(), &["layers.3.", "1000000 layers"]);
    configured(&|config| config["num_hidden_layers"] = 2.into(), &["layers.2.", "not a part"]);
    configured(&|config| config["layer_norm_eps"] = 0.into(), &["layer norms add 0"]);
}
