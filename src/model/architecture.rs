//! What a guided-diffusion file's tensor names and shapes say about its network.
//!
//! They say everything but the pictures' size, the heads, the qkv order and the schedule; those are flags (`flags.rs`).
//! What is said here is checked afterwards: the network is declared and must have exactly the file's tensors.

use std::collections::BTreeMap;

use crate::io::TensorSource;
use crate::nn::unet::{Resample, TimeScaleShift, TransformerConfig};

/// Shapes by name, as guided-diffusion writes them.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// The shapes of all tensors of a file whose names begin with `prefix`, without it.
///
/// # Errors
/// As [`TensorSource::about`].
pub fn shapes(file: &dyn TensorSource, prefix: &str) -> crate::Result<Shapes> {
    let mut shapes = Shapes::new();
    for name in file.names() {
        if let Some(short) = name.strip_prefix(prefix) {
            shapes.insert(short.to_owned(), file.about(&name)?.1);
        }
    }
    Ok(shapes)
}

/// What a file's network is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Denoises, possibly enlarging a small picture.
    UNet,
    /// Tells noisy pictures' classes.
    Classifier,
}

/// What names and shapes say.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// What it is for.
    pub kind: Kind,
    /// Channels of its pictures.
    pub in_channels: usize,
    /// Channels of the small picture of an upsampler.
    pub low_res_channels: usize,
    /// Channels of the picture of its samples' own extent that is given beside them.
    pub beside_channels: usize,
    /// Channels of its output, or a classifier's classes.
    pub out_channels: usize,
    /// The base width.
    pub model_channels: usize,
    /// Each level's width by the base width.
    pub channel_mult: Vec<f64>,
    /// Residual blocks a level.
    pub layers_per_block: usize,
    /// The levels with attention.
    pub attention_levels: Vec<usize>,
    /// How resolution changes.
    pub resample: Resample,
    /// How the embedding enters.
    pub time_scale_shift: TimeScaleShift,
    /// Rows of the class embedding.
    pub num_classes: Option<usize>,
    /// Numbers of the vector that it is told.
    pub vector_width: usize,
    /// The transformers of a network that reads tokens.
    pub transformer: Option<TransformerConfig>,
    /// Height and width of what a classifier pools.
    pub pool_side: Option<usize>,
}

/// Tensors of a network that are there twice over: as many levels as any.
const MOST_BLOCKS: usize = 1024;

/// Reads the architecture off names and shapes; `layers` decides where a classifier leaves it open.
///
/// # Errors
/// What does not fit guided-diffusion's networks, with the tensor's name.
pub fn infer(shapes: &Shapes, layers: Option<usize>) -> Result<Architecture, String> {
    let time = get(shapes, "time_embed.0.weight", 2)?;
    let (embedded, model_channels) = (time[0], time[1]);
    if model_channels == 0 || Some(embedded) != model_channels.checked_mul(4) {
        return Err(format!("`time_embed.0.weight` is {time:?}, where [4·channels, channels] is expected"));
    }
    let blocks = (0..MOST_BLOCKS).take_while(|i| has(shapes, &format!("input_blocks.{i}.0."))).count();
    let kind = if has(shapes, "output_blocks.0.0.") { Kind::UNet } else { Kind::Classifier };
    if blocks < 2 {
        return Err("it has no `input_blocks.1.0`, so it is none of guided-diffusion's networks".into());
    }

    let stem = get(shapes, "input_blocks.0.0.weight", 4)?;
    let (out_channels, pool_side) = match kind {
        Kind::UNet => (get(shapes, "out.2.weight", 4)?[0], None),
        Kind::Classifier => {
            let places = get(shapes, "out.2.positional_embedding", 2)?[1];
            let side = places.saturating_sub(1).isqrt();
            if side == 0 || side.checked_mul(side).and_then(|square| square.checked_add(1)) != Some(places) {
                return Err(format!("`out.2.positional_embedding` has {places} places, no square and one"));
            }
            (get(shapes, "out.2.c_proj.weight", 3)?[0], Some(side))
        }
    };

    let reads_tokens = kind == Kind::UNet && reads_tokens(shapes);
    let (in_channels, low_res_channels, beside_channels) = match stem[1] {
        // Of latents: what comes in beyond what goes out comes beside it.
        all if reads_tokens && all >= out_channels => (out_channels, 0, all - out_channels),
        channels @ (1 | 3) => (channels, 0, 0),
        2 | 6 if kind == Kind::UNet => (stem[1] / 2, stem[1] / 2, 0),
        other => {
            return Err(format!("`input_blocks.0.0.weight` takes {other} channels; pictures have 1 or 3"));
        }
    };

    let (levels, layers_per_block) = match kind {
        Kind::UNet => levels_of_unet(shapes, blocks)?,
        Kind::Classifier => levels_of_classifier(shapes, blocks, layers)?,
    };
    let first = |level: usize| 1 + level * (layers_per_block + 1);
    let mut channel_mult = Vec::with_capacity(levels);
    for level in 0..levels {
        let width = get(shapes, &format!("input_blocks.{}.0.out_layers.3.weight", first(level)), 4)?[0];
        channel_mult.push(width as f64 / model_channels as f64);
    }
    let transformer = match reads_tokens {
        true => Some(transformers(shapes, (0..levels).map(first))?),
        false => None,
    };
    let attends = |level: &usize| match &transformer {
        Some(of) => of.layers[*level] > 0,
        None => shapes.contains_key(&format!("input_blocks.{}.1.qkv.weight", first(*level))),
    };
    let embedding = get(shapes, "input_blocks.1.0.emb_layers.1.weight", 2)?[0];
    let width = get(shapes, "input_blocks.1.0.out_layers.3.weight", 4)?[0];
    let resample = if levels > 1 && shapes.contains_key(&format!("input_blocks.{}.0.op.weight", first(1) - 1))
    {
        Resample::Conv
    } else {
        Resample::Resnet
    };
    Ok(Architecture {
        kind,
        in_channels,
        low_res_channels,
        beside_channels,
        out_channels,
        model_channels,
        channel_mult,
        layers_per_block,
        attention_levels: (0..levels).filter(attends).collect(),
        resample,
        time_scale_shift: if embedding == width {
            TimeScaleShift::Default
        } else {
            TimeScaleShift::ScaleShift
        },
        num_classes: match shapes.contains_key("label_emb.weight") {
            true => Some(get(shapes, "label_emb.weight", 2)?[0]),
            false => None,
        },
        vector_width: match shapes.contains_key(OF_VECTOR) {
            true => get(shapes, OF_VECTOR, 2)?[1],
            false => 0,
        },
        transformer,
        pool_side,
    })
}

/// What takes the vector of latent diffusion's networks in.
const OF_VECTOR: &str = "label_emb.0.0.weight";

/// Whether the network has transformers where it attends: the middle always does.
pub fn reads_tokens(shapes: &Shapes) -> bool {
    has(shapes, "middle_block.1.transformer_blocks.0.")
}

/// The transformers of a network whose levels begin with the input blocks `firsts`.
fn transformers(shapes: &Shapes, firsts: impl Iterator<Item = usize>) -> Result<TransformerConfig, String> {
    let layers = |block: &str| {
        let layer = |i: &usize| has(shapes, &format!("{block}.1.transformer_blocks.{i}."));
        (0..MOST_BLOCKS).take_while(layer).count()
    };
    let keys = get(shapes, "middle_block.1.transformer_blocks.0.attn2.to_k.weight", 2)?;
    Ok(TransformerConfig {
        context_width: keys[1],
        layers: firsts.map(|first| layers(&format!("input_blocks.{first}"))).collect(),
        middle_layers: layers("middle_block"),
    })
}

/// The way up tells the levels: each but the first ends with a block that enlarges.
fn levels_of_unet(shapes: &Shapes, blocks: usize) -> Result<(usize, usize), String> {
    let enlarges = |i: &usize| {
        (1..3).any(|j| {
            let name = format!("output_blocks.{i}.{j}.");
            has(shapes, &format!("{name}in_layers.")) || has(shapes, &format!("{name}conv."))
        })
    };
    let levels = 1 + (0..blocks).filter(enlarges).count();
    split(blocks, levels).ok_or_else(|| format!("{blocks} input blocks do not divide into {levels} levels"))
}

/// A classifier has no way up: its levels are told by which blocks attend, change width, or halve by a convolution.
fn levels_of_classifier(
    shapes: &Shapes,
    blocks: usize,
    layers: Option<usize>,
) -> Result<(usize, usize), String> {
    let halvings =
        (0..blocks).filter(|i| shapes.contains_key(&format!("input_blocks.{i}.0.op.weight"))).count();
    let fits = |(levels, layers): &(usize, usize)| {
        (0..blocks - 1).all(|i| {
            let (level, place) = (i / (layers + 1), i % (layers + 1));
            let name = |i: usize| format!("input_blocks.{}", i + 1);
            let attends = |i: usize| shapes.contains_key(&format!("{}.1.qkv.weight", name(i)));
            let widens = shapes.contains_key(&format!("{}.0.skip_connection.weight", name(i)));
            if place == *layers {
                return !attends(i) && !widens && level + 1 < *levels;
            }
            attends(i) == attends(level * (layers + 1)) && (place == 0 || !widens)
        })
    };
    let mut found: Vec<(usize, usize)> = (1..=blocks)
        .filter(|levels| halvings == 0 || *levels == halvings + 1)
        .filter_map(|levels| split(blocks, levels))
        .filter(|(_, found)| layers.is_none_or(|layers| layers == *found))
        .filter(fits)
        .collect();
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(format!("{blocks} input blocks do not divide into levels of one kind each")),
        _ => Err(format!(
            "its levels cannot be told from its tensors: (levels, blocks a level) may be {found:?}; give \
             \"classifier_depth\" in --config"
        )),
    }
}

/// Blocks are a stem, and at each level `layers` of them and one that halves, but for the last level's.
fn split(blocks: usize, levels: usize) -> Option<(usize, usize)> {
    let layers = (blocks / levels).checked_sub(1)?;
    (blocks.is_multiple_of(levels) && layers > 0).then_some((levels, layers))
}

fn has(shapes: &Shapes, prefix: &str) -> bool {
    shapes.range(prefix.to_owned()..).next().is_some_and(|(name, _)| name.starts_with(prefix))
}

fn get<'a>(shapes: &'a Shapes, name: &str, dimensions: usize) -> Result<&'a [usize], String> {
    let shape = shapes
        .get(name)
        .ok_or_else(|| format!("it has no tensor `{name}`, so it is none of guided-diffusion's networks"))?;
    if shape.len() != dimensions || shape.contains(&0) {
        return Err(format!("`{name}` is {shape:?}, where {dimensions} sizes are expected"));
    }
    Ok(shape)
}
