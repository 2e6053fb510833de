//! Sentence encoders against transformers in float64.

use std::collections::BTreeMap;
use std::path::Path;

use super::golden::{File, Stored, filled, halves, write};
use super::*;
use crate::io::SafetensorsFile;
use crate::tensor::DType;
use crate::testing::{Array, Golden, dtypes, gpu};

const WIDTH: usize = 48;
const HIDDEN: usize = 96;
const LAYERS: usize = 2;
const PLACES: usize = 12;
const VOCABULARY: usize = 40;
/// As in the script, where word wN is token 4 + N.
const TEXTS: [&str; 3] = ["w7", "w0 W35 w13 w13 w16", "w1"];

fn weights() -> File {
    let mut file = File::new();
    let mut put = |name: &str, shape: &[usize], scale: f64, shift: f64, steps: i64| {
        let number = file.len();
        file.insert(name.to_owned(), filled(shape, number, scale, shift, steps));
    };
    put("embeddings.word_embeddings.weight", &[VOCABULARY, WIDTH], 0.5, 0.0, 1024);
    put("embeddings.position_embeddings.weight", &[PLACES, WIDTH], 0.25, 0.0, 1024);
    put("embeddings.token_type_embeddings.weight", &[2, WIDTH], 0.25, 0.0, 1024);
    let mut layer = |name: &str, inputs: Option<usize>, outputs: usize| {
        match inputs {
            None => put(&format!("{name}.weight"), &[outputs], 0.25, 1.0, 16),
            Some(inputs) => put(&format!("{name}.weight"), &[outputs, inputs], 0.25, 0.0, 1024),
        }
        put(&format!("{name}.bias"), &[outputs], 0.25, 0.0, 1024);
    };
    layer("embeddings.LayerNorm", None, WIDTH);
    for i in 0..LAYERS {
        let base = format!("encoder.layer.{i}");
        for part in ["query", "key", "value"] {
            layer(&format!("{base}.attention.self.{part}"), Some(WIDTH), WIDTH);
        }
        layer(&format!("{base}.attention.output.dense"), Some(WIDTH), WIDTH);
        layer(&format!("{base}.attention.output.LayerNorm"), None, WIDTH);
        layer(&format!("{base}.intermediate.dense"), Some(WIDTH), HIDDEN);
        layer(&format!("{base}.output.dense"), Some(HIDDEN), WIDTH);
        layer(&format!("{base}.output.LayerNorm"), None, WIDTH);
    }
    file
}

/// A folder of such weights, and of words `w0` to `w35`.
fn folder(file: &File) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "model.safetensors", file, halves);
    let words: Vec<String> = (0..VOCABULARY - 4).map(|i| format!("w{i}")).collect();
    put(folder.path(), "vocab.txt", &format!("[PAD]\n[UNK]\n[CLS]\n[SEP]\n{}\n", words.join("\n")));
    put(
        folder.path(),
        "config.json",
        &serde_json::json!({
            "model_type": "bert", "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
            "intermediate_size": HIDDEN, "max_position_embeddings": PLACES, "hidden_act": "gelu"
        })
        .to_string(),
    );
    folder
}

fn put(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

const MODULES: &str = r#"[{"path": "", "type": "sentence_transformers.models.Transformer"},
    {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]"#;

#[track_caller]
fn check(folder: &Path, dtype: DType, pooled: &str, tolerance: f32) {
    let golden = Golden::open("bert_text");
    let model = SentenceModel::open(gpu(), folder, dtype).unwrap();
    let got = model.encode(&TEXTS).unwrap();
    assert_eq!((got.texts, got.tokens, got.width, &got.lengths[..]), (3, 7, WIDTH, &[3, 7, 3][..]));
    Array::new(&[3, 7, WIDTH], got.states).check_within("states", &golden.array("states"), tolerance);
    Array::new(&[3, WIDTH], got.pooled.unwrap()).check_within(pooled, &golden.array(pooled), tolerance);
}

#[test]
fn names_are_those_of_transformers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/bert_text.safetensors");
    let golden = SafetensorsFile::open(path).unwrap();
    let theirs: BTreeMap<String, Vec<usize>> = serde_json::from_str(&golden.metadata()["names"]).unwrap();
    let ours: BTreeMap<String, Vec<usize>> =
        weights().into_iter().map(|(name, tensor)| (name, tensor.shape)).collect();
    assert_eq!(ours, theirs);
}

#[test]
fn texts_of_different_lengths_are_those_of_the_reference() {
    let mut file: File =
        weights().into_iter().map(|(name, tensor)| (format!("bert.{name}"), tensor)).collect();
    file.insert("cls.predictions.bias".into(), Stored { shape: vec![1], values: vec![0.0] });
    let folder = folder(&file);
    check(folder.path(), DType::F32, "mean", 2e-5);
    put(folder.path(), "modules.json", MODULES);
    put(
        folder.path(),
        "1_Pooling/config.json",
        r#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}"#,
    );
    check(folder.path(), DType::F32, "normalised", 2e-5);
    if dtypes().contains(&DType::F16) {
        check(folder.path(), DType::F16, "normalised", 5e-3);
    }
}

#[test]
fn what_files_beside_say_is_followed_or_refused() {
    let folder = folder(&weights());
    let open = || SentenceModel::open(gpu(), folder.path(), DType::F32);
    put(folder.path(), "sentence_bert_config.json", r#"{"max_seq_length": 4, "do_lower_case": false}"#);
    let model = open().unwrap();
    let tokens = model.tokenize("w1 w2 w3 w4");
    assert_eq!((&tokens.ids[..], tokens.left_out.as_deref()), (&[2, 5, 6, 3][..], Some("w3 w4")));
    assert!(model.encode(&[]).unwrap_err().to_string().contains("no text"));

    let refused = |name: &str, text: &str, words: &[&str]| {
        let path = folder.path().join(name);
        let before = std::fs::read(&path).ok();
        put(folder.path(), name, text);
        let told = open().err().expect("it is refused").to_string();
        assert!(words.iter().all(|word| told.contains(word)), "{told}");
        before.map_or_else(|| std::fs::remove_file(&path), |before| std::fs::write(&path, before)).unwrap();
    };
    let config = |field: &str| {
        let sizes = r#""hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 96, "max_position_embeddings": 12"#;
        format!("{{{sizes}, \"num_hidden_layers\": 2, {field}}}")
    };
    refused("config.json", &config(r#""model_type": "roberta""#), &["roberta", "bert"]);
    refused("config.json", &config(r#""hidden_act": "relu""#), &["relu", "gelu"]);
    refused(
        "config.json",
        &config(r#""position_embedding_type": "relative_key""#),
        &["relative_key", "absolute"],
    );
    refused("config.json", r#"{"num_hidden_layers": 1000000}"#, &["1000000 layers"]);
    refused(
        "config.json",
        &config(r#""type_vocab_size": 3"#),
        &["token_type_embeddings", "[2, 48]", "[3, 48]"],
    );
    refused(
        "config.json",
        &config("\"num_hidden_layers\": 1").replacen("\"num_hidden_layers\": 2, ", "", 1),
        &["layer.1.", "not a part"],
    );
    refused(
        "modules.json",
        &MODULES.replace("models.Transformer", "models.Dense"),
        &["modules.json", "Dense"],
    );
    refused("sentence_bert_config.json", r#"{"max_seq_length": 1}"#, &["1 tokens"]);
    put(folder.path(), "modules.json", MODULES);
    refused("1_Pooling/config.json", r#"{"pooling_mode_max_tokens": true}"#, &["max_tokens", "mean_tokens"]);
    std::fs::remove_file(folder.path().join("modules.json")).unwrap();
    let many: String = (0..50).map(|i| format!("x{i}\n")).collect();
    refused("vocab.txt", &format!("[PAD]\n[UNK]\n[CLS]\n[SEP]\n{many}"), &["40 rows", "54 tokens"]);
    open().unwrap();
}
