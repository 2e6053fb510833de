//! The sizes of a text encoder: from `config.json`, or from its tensors' shapes.

use std::path::Path;

use serde::Deserialize;

use super::names::{Naming, Place, Root};
use crate::error::{Error, Result, brief};
use crate::io::TensorSource;
use crate::nn::ClipTextConfig;
use crate::ops::Gelu;

/// transformers' `CLIPTextConfig`, with its defaults.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Theirs {
    /// Null in a configuration that was never saved with its network.
    architectures: Option<Vec<String>>,
    model_type: Option<String>,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    hidden_act: String,
    layer_norm_eps: f32,
    eos_token_id: Option<u32>,
    /// Of a whole CLIP: the part that is of texts.
    text_config: Option<Box<Theirs>>,
}

impl Default for Theirs {
    fn default() -> Self {
        Theirs {
            architectures: None,
            model_type: None,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
            eos_token_id: Some(49407),
            text_config: None,
        }
    }
}

/// What a text encoder is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sizes {
    pub config: ClipTextConfig,
    /// The token whose place stands for the whole text; where nothing is said that of the highest number.
    pub eos: Option<u32>,
}

/// Reads `config.json`; whether there is a projection is the file of weights' affair.
pub(super) fn read(path: &Path, projection: Option<usize>) -> Result<Sizes> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let mut theirs: Theirs =
        serde_json::from_str(&text).map_err(|error| Error::format(path, error.to_string()))?;
    let bad = |what: String| Error::format(path, what);
    let named = theirs.architectures.iter().flatten().next().or(theirs.model_type.as_ref());
    if let Some(other) = named.filter(|name| !name.to_lowercase().starts_with("clip")) {
        let what = "CLIPTextModel, CLIPTextModelWithProjection and CLIPModel are";
        return Err(bad(format!("is of a {}, which is not read; {what}", brief(other))));
    }
    if let Some(text) = theirs.text_config.take() {
        theirs = *text;
    }
    let act = match theirs.hidden_act.as_str() {
        "quick_gelu" => Gelu::Quick,
        "gelu" => Gelu::Erf,
        "gelu_new" | "gelu_pytorch_tanh" => Gelu::Tanh,
        other => {
            return Err(bad(format!(
                "has the hidden_act `{}`, which is not known; quick_gelu, gelu, gelu_new and gelu_pytorch_tanh are",
                brief(other)
            )));
        }
    };
    let config = ClipTextConfig {
        width: theirs.hidden_size,
        layers: theirs.num_hidden_layers,
        heads: theirs.num_attention_heads,
        hidden: theirs.intermediate_size,
        places: theirs.max_position_embeddings,
        act,
        eps: theirs.layer_norm_eps,
        projection,
    };
    config.check().map_err(|error| bad(error.to_string()))?;
    // Configurations before transformers 4.31 say 2, which is no token's that ends a text.
    Ok(Sizes { config, eos: theirs.eos_token_id.filter(|eos| *eos != 2) })
}

/// Head sizes of every CLIP.
const HEAD: usize = 64;
/// Widths of OpenCLIP's encoders, whatever names a file gives them.
const OPEN_CLIP: [usize; 2] = [1024, 1280];

/// The sizes of an encoder that only its tensors tell of, and what was taken for granted.
pub(super) fn infer(
    file: &dyn TensorSource,
    root: &Root,
    projection: Option<usize>,
) -> Result<(Sizes, String)> {
    let names = file.names();
    let width = two(file, &root.table())?[1];
    let places = two(file, &root.positions())?[0];
    let Place::One(widen) = root.in_layer(0, "mlp.fc1.weight") else { unreachable!("it is one tensor") };
    let hidden = two(file, &widen)?[0];
    if !width.is_multiple_of(HEAD) {
        let what =
            format!("is of width {width}, which heads of {HEAD} do not divide: it needs a config.json");
        return Err(Error::tensor(file.path(), root.table(), what));
    }
    let quick = matches!(root.naming, Naming::Transformers { .. }) && !OPEN_CLIP.contains(&width);
    let act = if quick { Gelu::Quick } else { Gelu::Erf };
    let (layers, heads) = (root.layers(&names), width / HEAD);
    let config = ClipTextConfig { width, layers, heads, hidden, places, act, eps: 1e-5, projection };
    config.check().map_err(|error| Error::format(file.path(), error.to_string()))?;
    let curve = if quick { "the quick GELU of OpenAI's" } else { "the GELU of OpenCLIP's" };
    let note =
        format!("its text encoder's tensors say no more than shapes: {heads} heads of {HEAD}, {curve}");
    Ok((Sizes { config, eos: None }, note))
}

/// The numbers of the pooled vector behind a projection, where there is one.
pub(super) fn projection(file: &dyn TensorSource, root: &Root) -> Result<Option<usize>> {
    match root.projection(&file.names()) {
        None => Ok(None),
        Some(Place::Turned(name)) => two(file, &name).map(|[_, outputs]| Some(outputs)),
        Some(place) => two(file, &place.names()[0]).map(|[outputs, _]| Some(outputs)),
    }
}

/// The shape of a matrix.
pub(super) fn two(file: &dyn TensorSource, name: &str) -> Result<[usize; 2]> {
    if file.names().binary_search_by(|known| known.as_str().cmp(name)).is_err() {
        return Err(Error::tensor(file.path(), name, "is missing"));
    }
    let (_, shape) = file.about(name)?;
    shape[..]
        .try_into()
        .map_err(|_| Error::tensor(file.path(), name, format!("is {shape:?}, where a matrix is expected")))
}
