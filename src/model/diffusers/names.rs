//! The tensors of guided-diffusion's UNet under the names of diffusers' `UNet2DModel`, those of latent diffusion's under the
//! names of `UNet2DConditionModel`.

use crate::model::renamed::Place;
use crate::nn::UNetConfig;

/// The place of the parameter `name` of a network of this configuration; `None` for a name that no UNet has.
pub(in crate::model) fn place(config: &UNetConfig, name: &str) -> Option<Place> {
    let (module, leaf) = name.rsplit_once('.')?;
    let fixed = match module {
        "time_embed.0" => Some("time_embedding.linear_1"),
        "time_embed.2" => Some("time_embedding.linear_2"),
        "label_emb" => Some("class_embedding"),
        "vector_embed.0" => Some("add_embedding.linear_1"),
        "vector_embed.2" => Some("add_embedding.linear_2"),
        "input_blocks.0.0" => Some("conv_in"),
        "out.0" => Some("conv_norm_out"),
        "out.2" => Some("conv_out"),
        _ => None,
    };
    if let Some(module) = fixed {
        return Some(Place::One(format!("{module}.{leaf}")));
    }

    let mut parts = module.splitn(4, '.');
    let group = parts.next()?;
    let block: usize = parts.next()?.parse().ok()?;
    if group == "middle_block" {
        let rest: Vec<&str> = parts.collect();
        let base = ["mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"].get(block)?;
        return inside(config, base, &rest.join("."), leaf);
    }
    let part: usize = parts.next()?.parse().ok()?;
    let rest = parts.next()?;
    let (levels, layers) = (config.channel_mult.len(), config.layers_per_block);
    let base = match group {
        "input_blocks" => {
            let (level, i) = (block.checked_sub(1)? / (layers + 1), (block - 1) % (layers + 1));
            match (i == layers, part) {
                (true, 0) => format!("down_blocks.{level}.downsamplers.0"),
                (false, 0) => format!("down_blocks.{level}.resnets.{i}"),
                (false, 1) => format!("down_blocks.{level}.attentions.{i}"),
                _ => return None,
            }
        }
        "output_blocks" => {
            let (up, i) = (block / (layers + 1), block % (layers + 1));
            let attends = config.attends(levels.checked_sub(1 + up)?);
            match part {
                0 => format!("up_blocks.{up}.resnets.{i}"),
                1 if attends => format!("up_blocks.{up}.attentions.{i}"),
                _ => format!("up_blocks.{up}.upsamplers.0"),
            }
        }
        _ => return None,
    };
    inside(config, &base, rest, leaf)
}

/// The tensors of one block.
fn inside(config: &UNetConfig, base: &str, module: &str, leaf: &str) -> Option<Place> {
    if base.contains(".attentions.") && config.transformer.is_some() {
        return Some(of_transformer(base, module, leaf));
    }
    let module = match module {
        "in_layers.0" => "norm1",
        "in_layers.2" => "conv1",
        "emb_layers.1" => "time_emb_proj",
        "out_layers.0" => "norm2",
        "out_layers.3" => "conv2",
        "skip_connection" => "conv_shortcut",
        "norm" => "group_norm",
        "proj_out" => "to_out.0",
        // A convolution that changes resolution by itself.
        "op" | "conv" => "conv",
        "qkv" => return Some(Place::joined(["q", "k", "v"], |part| format!("{base}.to_{part}.{leaf}"))),
        _ => return None,
    };
    Some(Place::One(format!("{base}.{module}.{leaf}")))
}

/// Those of a transformer, which are called as in latent diffusion's files.
fn of_transformer(base: &str, module: &str, leaf: &str) -> Place {
    let apart = |joint: &str, part: &str| {
        format!("{base}.{}.to_{part}.{leaf}", module.trim_end_matches(joint).trim_end_matches('.'))
    };
    match module.rsplit('.').next() {
        Some(joint @ "to_qkv") => Place::joined(["q", "k", "v"], |part| apart(joint, part)),
        Some(joint @ "to_kv") => Place::joined(["k", "v"], |part| apart(joint, part)),
        _ => Place::One(format!("{base}.{module}.{leaf}")),
    }
}
