//! Sentence encoders: a BERT of transformers' or sentence-transformers' folders, its tokenizer, and what becomes of its states.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::config::two;
use super::locate::weights_in;
use super::names::Place;
use super::source::Renamed;
#[cfg(not(target_arch = "wasm32"))]
use super::states::{TextStates, read};
use super::table::Table;
use crate::error::{Error, Result, brief};
use crate::gpu::Gpu;
use crate::io::TensorSource;
use crate::model::tensor_file::open_tensors;
use crate::nn::{Arena, BertConfig, BertText, Encoded, Pass, Sequences, TextEncoder};
use crate::ops::Gelu;
use crate::tensor::{Context, DType};
use crate::text::{Tokens, WordPiece};

/// transformers' `BertConfig`, with its defaults.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Theirs {
    model_type: Option<String>,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    hidden_act: String,
    layer_norm_eps: f32,
    position_embedding_type: String,
}

impl Default for Theirs {
    fn default() -> Self {
        Theirs {
            model_type: None,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            hidden_act: "gelu".into(),
            layer_norm_eps: 1e-12,
            position_embedding_type: "absolute".into(),
        }
    }
}

/// What becomes of a text's states to stand for the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pooling {
    Mean,
    FirstToken,
}

/// A sentence encoder, ready to encode. The rows of its table of tokens are read from its file when they are needed.
pub struct SentenceModel {
    /// Where it was read from.
    pub path: PathBuf,
    encoder: BertText,
    tokenizer: WordPiece,
    places: usize,
    pooling: Pooling,
    normalises: bool,
    gpu: Gpu,
    arena: Arena,
    dtype: DType,
    table: Table,
}

impl SentenceModel {
    /// Opens a folder: `config.json` of a `BertModel`, its weights and its tokenizer; of sentence-transformers' files
    /// `modules.json`, `1_Pooling` and `sentence_bert_config.json` where they are there. Without them the mean of a text's states
    /// stands for it.
    ///
    /// # Errors
    /// What is missing, of another kind or of another shape, by name; [`Error::Config`] for f16 on a device without it.
    pub fn open(gpu: &Gpu, folder: &Path, dtype: DType) -> Result<SentenceModel> {
        let config = sizes(&folder.join("config.json"))?;
        let encoder = BertText::new(&config)?;
        let (path, _) = weights_in(folder)?;
        let source: Arc<dyn TensorSource> = Arc::from(open_tensors(&path)?);
        let names = source.names();
        let prefix = ["", "bert."].into_iter().find(|prefix| names.binary_search(&table_of(prefix)).is_ok());
        let prefix = prefix.ok_or_else(|| Error::tensor(&path, table_of(""), "is missing"))?;
        let parameters = encoder.parameters();
        let renamed = Renamed::new(source.as_ref(), parameters, |name| place(prefix, name))?;
        check_table(source.as_ref(), &table_of(prefix), config.width)?;
        check_strangers(source.as_ref(), prefix, &config)?;

        let tokenizer = WordPiece::open(folder)?;
        let rows = two(source.as_ref(), &table_of(prefix))?[0];
        if tokenizer.count() > rows {
            let what = format!(
                "has {rows} rows, but its tokenizer {} tokens: they do not belong together",
                tokenizer.count()
            );
            return Err(Error::tensor(&path, table_of(prefix), what));
        }
        let (arena, _) = renamed.upload(gpu, parameters, dtype)?;
        let (pooling, normalises) = pooling(folder)?;
        let table = Table { source: Arc::clone(&source), name: table_of(prefix), width: config.width };
        let places = most_tokens(folder)?.unwrap_or(config.places).min(config.places);
        let gpu = gpu.clone();
        Ok(SentenceModel { path, encoder, tokenizer, places, pooling, normalises, gpu, arena, dtype, table })
    }

    /// The network.
    pub fn encoder(&self) -> &BertText {
        &self.encoder
    }

    /// The tokens of a text without padding, as many as it has places for; [`Tokens::left_out`] is what had none.
    pub fn tokenize(&self, text: &str) -> Tokens {
        let mut tokens = self.tokenizer.encode(text, self.places);
        tokens.ids.truncate(tokens.used);
        tokens
    }

    /// Encodes texts: their states, zeros behind each one's tokens, and a vector for each. Waits for the device.
    ///
    /// # Errors
    /// [`Error::Config`] for no text; when the file cannot be read any more; what the device objects to.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn encode(&self, texts: &[&str]) -> Result<TextStates> {
        let texts: Vec<Vec<u32>> = texts.iter().map(|text| self.tokenize(text).ids).collect();
        let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
        let Some(&longest) = lengths.iter().max() else {
            return Err(Error::Config("there is no text to encode".into()));
        };
        // Texts of one length together: then there is no padding to be masked.
        let mut alike: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        lengths.iter().enumerate().for_each(|(i, length)| alike.entry(*length).or_default().push(i));
        let mut cx = Context::new(&self.gpu);
        let weights = self.arena.weights(self.encoder.parameters(), 0);
        let mut encoded = Vec::new();
        for (&length, places) in &alike {
            let values = self.table.rows(places.iter().flat_map(|i| &texts[*i]))?;
            let tokens = cx.constant_f32("tokens", &[places.len(), length, self.table.width], &values)?;
            let given = Sequences { tokens: &tokens, ends: None };
            let pass = Pass::inference(self.dtype);
            let Encoded { states, .. } = self.encoder.record(&mut cx, &weights, given, &pass)?;
            cx.keep(&states);
            encoded.push(states);
        }
        let plan = cx.finish("sentence encoder")?;
        plan.run()?;
        let width = self.table.width;
        let mut states = vec![0.0; texts.len() * longest * width];
        for (tensor, (length, places)) in encoded.iter().zip(&alike) {
            let values = read(&self.gpu, &plan, tensor)?;
            for (i, values) in places.iter().zip(values.chunks_exact(length * width)) {
                states[i * longest * width..][..values.len()].copy_from_slice(values);
            }
        }
        let of_text = states.chunks_exact(longest * width).zip(&lengths);
        let pooled = of_text.flat_map(|(states, length)| self.pooled(&states[..length * width])).collect();
        Ok(TextStates { texts: texts.len(), tokens: longest, width, lengths, states, pooled: Some(pooled) })
    }

    /// What stands for a text of these states.
    #[cfg(not(target_arch = "wasm32"))]
    fn pooled(&self, states: &[f32]) -> Vec<f32> {
        let width = self.table.width;
        let mut sums = vec![0f64; width];
        let tokens = match self.pooling {
            Pooling::Mean => states.len() / width,
            Pooling::FirstToken => 1,
        };
        for state in states.chunks_exact(width).take(tokens) {
            sums.iter_mut().zip(state).for_each(|(sum, x)| *sum += f64::from(*x) / tokens as f64);
        }
        let length = sums.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-12);
        let scale = if self.normalises { length.recip() } else { 1.0 };
        sums.into_iter().map(|x| (x * scale) as f32).collect()
    }
}

fn sizes(path: &Path) -> Result<BertConfig> {
    let theirs: Theirs = json(path)?;
    let bad = |what: String| Error::format(path, what);
    if let Some(other) = theirs.model_type.as_ref().filter(|kind| *kind != "bert") {
        return Err(bad(format!("is of the model_type `{}`, where `bert` is expected", brief(other))));
    }
    if theirs.position_embedding_type != "absolute" {
        let kind = brief(&theirs.position_embedding_type).to_string();
        return Err(bad(format!(
            "has the position_embedding_type `{kind}`, which is not read; `absolute` is"
        )));
    }
    let act = match theirs.hidden_act.as_str() {
        "gelu" => Gelu::Erf,
        "gelu_new" | "gelu_pytorch_tanh" => Gelu::Tanh,
        other => {
            return Err(bad(format!("has the hidden_act `{}`, which is not known; gelu is", brief(other))));
        }
    };
    let config = BertConfig {
        width: theirs.hidden_size,
        layers: theirs.num_hidden_layers,
        heads: theirs.num_attention_heads,
        hidden: theirs.intermediate_size,
        places: theirs.max_position_embeddings,
        types: theirs.type_vocab_size,
        act,
        eps: theirs.layer_norm_eps,
    };
    config.check().map_err(|error| bad(error.to_string()))?;
    // Layers are declared one by one: so many no file has.
    if config.layers > 1000 {
        return Err(bad(format!("says {} layers", config.layers)));
    }
    Ok(config)
}

fn table_of(prefix: &str) -> String {
    format!("{prefix}embeddings.word_embeddings.weight")
}

/// Where a file keeps the parameter `name` of [`BertText`].
fn place(prefix: &str, name: &str) -> Place {
    match name.split_once("attention.self.qkv.") {
        Some((layer, leaf)) => Place::Thirds(
            ["query", "key", "value"].map(|part| format!("{prefix}{layer}attention.self.{part}.{leaf}")),
        ),
        None => Place::One(format!("{prefix}{name}")),
    }
}

fn check_table(source: &dyn TensorSource, table: &str, width: usize) -> Result<()> {
    let shape = two(source, table)?;
    if shape[1] != width {
        let what = format!("is {shape:?}, but the configuration makes it {width} wide");
        return Err(Error::tensor(source.path(), table, what));
    }
    Ok(())
}

/// Checks that nothing of the encoder's is left over; heads for other tasks are of no use.
fn check_strangers(source: &dyn TensorSource, prefix: &str, config: &BertConfig) -> Result<()> {
    let encoder = BertText::new(config)?;
    let places = encoder.parameters().specs().iter().map(|spec| place(prefix, &spec.name));
    let known: HashSet<String> = places.flat_map(|place| place.names().to_vec()).collect();
    let strange = |name: &&String| {
        let own = name
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with("encoder.") || rest.starts_with("embeddings."));
        own && !known.contains(*name) && **name != table_of(prefix) && !name.ends_with("position_ids")
    };
    match source.names().iter().find(strange) {
        Some(name) => Err(Error::tensor(source.path(), name.clone(), "is not a part of the text encoder")),
        None => Ok(()),
    }
}

#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// What sentence-transformers' files say of pooling, and whether vectors are brought to length 1.
fn pooling(folder: &Path) -> Result<(Pooling, bool)> {
    let path = folder.join("modules.json");
    if !path.is_file() {
        return Ok((Pooling::Mean, false));
    }
    let modules: Vec<Module> = json(&path)?;
    let (mut pooling, mut normalises) = (Pooling::Mean, false);
    for Module { path: at, kind } in modules {
        match kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" => {}
            "Normalize" => normalises = true,
            "Pooling" => {
                // A name alone: it must not lead out of its folder.
                let name = Path::new(&at).file_name().unwrap_or_default();
                let path = folder.join(name).join("config.json");
                let modes: BTreeMap<String, serde_json::Value> = json(&path)?;
                let on: Vec<&str> = modes
                    .iter()
                    .filter_map(|(name, on)| {
                        name.strip_prefix("pooling_mode_").filter(|_| on.as_bool() == Some(true))
                    })
                    .collect();
                pooling = match on[..] {
                    ["mean_tokens"] => Pooling::Mean,
                    ["cls_token"] => Pooling::FirstToken,
                    _ => {
                        let what =
                            format!("pools by {on:?}, which is not read; mean_tokens and cls_token are");
                        return Err(Error::format(&path, what));
                    }
                };
            }
            other => {
                let what = format!("has a module {}, which is not read", brief(other));
                return Err(Error::format(&path, what));
            }
        }
    }
    Ok((pooling, normalises))
}

#[derive(Deserialize)]
struct Limits {
    max_seq_length: Option<usize>,
}

/// The most tokens of a text, where sentence-transformers' file says it.
fn most_tokens(folder: &Path) -> Result<Option<usize>> {
    let path = folder.join("sentence_bert_config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let Limits { max_seq_length } = json(&path)?;
    match max_seq_length {
        Some(length) if length < 2 => Err(Error::format(&path, format!("allows {length} tokens a text"))),
        other => Ok(other),
    }
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text).map_err(|error| Error::format(path, error.to_string()))
}
