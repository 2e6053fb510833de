//! The names that files give an autoencoder's tensors, by those of the parameters: diffusers' own.

use std::collections::BTreeSet;

/// How a file names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// diffusers' `AutoencoderKL`, of any age.
    Kl,
    /// Latent diffusion's, of so many levels.
    Ldm(usize),
    /// diffusers' `AutoencoderTiny`.
    Tiny,
    /// TAESD's own, `encoder.` and `decoder.` before its numbers.
    Taesd,
    /// The same of a file that is one half, of which it says nothing.
    TaesdHalf(Half),
}

/// A half of an autoencoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Encoder,
    Decoder,
}

/// The names, one of which a file has for the parameter `name`; none where the file is the other half. The first is what it
/// lacks where it has none of them.
pub(super) fn names_of(naming: Naming, name: &str) -> Vec<String> {
    match naming {
        Naming::Kl => {
            let old = OLD.iter().find_map(|(new, old)| name.contains(new).then(|| name.replace(new, old)));
            [Some(name.to_owned()), old].into_iter().flatten().collect()
        }
        Naming::Ldm(levels) => vec![ldm(name, levels)],
        Naming::Tiny => vec![name.to_owned()],
        Naming::Taesd => taesd(name).map(|(half, rest)| format!("{half}.{rest}")).into_iter().collect(),
        Naming::TaesdHalf(half) => {
            let own = if half == Half::Encoder { "encoder" } else { "decoder" };
            taesd(name).filter(|(half, _)| *half == own).map(|(_, rest)| rest).into_iter().collect()
        }
    }
}

/// What diffusers called the parts of attention before its version 0.18; files of wide use have these.
const OLD: [(&str, &str); 4] = [
    ("attentions.0.to_q", "attentions.0.query"),
    ("attentions.0.to_k", "attentions.0.key"),
    ("attentions.0.to_v", "attentions.0.value"),
    ("attentions.0.to_out.0", "attentions.0.proj_attn"),
];

/// Parts of a name and what latent diffusion calls them, longer ones first.
const PARTS: [(&str, &str); 13] = [
    ("mid_block.resnets.0", "mid.block_1"),
    ("mid_block.resnets.1", "mid.block_2"),
    ("mid_block.attentions.0.group_norm", "mid.attn_1.norm"),
    ("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out"),
    ("mid_block.attentions.0.to_q", "mid.attn_1.q"),
    ("mid_block.attentions.0.to_k", "mid.attn_1.k"),
    ("mid_block.attentions.0.to_v", "mid.attn_1.v"),
    ("conv_norm_out", "norm_out"),
    ("conv_shortcut", "nin_shortcut"),
    ("downsamplers.0", "downsample"),
    ("upsamplers.0", "upsample"),
    ("down_blocks", "down"),
    ("resnets", "block"),
];

/// Latent diffusion counts levels from that of whole pictures on, on the way up too.
fn ldm(name: &str, levels: usize) -> String {
    let name = PARTS.iter().fold(name.to_owned(), |name, (part, theirs)| name.replace(part, theirs));
    let Some((head, tail)) = name.split_once("up_blocks.") else { return name };
    let Some((level, tail)) = tail.split_once('.') else { return name };
    match level.parse::<usize>() {
        Ok(level) if level < levels => format!("{head}up.{}.{tail}", levels - 1 - level),
        _ => name,
    }
}

/// The half of a parameter and its name in it as TAESD numbers them: its decoder begins with the clamp, which diffusers' has in
/// its code.
fn taesd(name: &str) -> Option<(&'static str, String)> {
    let numbered = |half: &'static str, more: usize| {
        let (number, rest) = name.strip_prefix(half)?.strip_prefix(".layers.")?.split_once('.')?;
        let number = number.parse::<usize>().ok()? + more;
        Some((half, format!("{number}.{rest}")))
    };
    numbered("encoder", 0).or_else(|| numbered("decoder", 1))
}

/// An autoencoder in a file: what stands before its names, and which names these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Root {
    pub prefix: String,
    pub naming: Naming,
}

/// The autoencoders with means and log-variances of a file with these names. They have both halves, or one.
pub(super) fn kl_roots(names: &[String]) -> Vec<Root> {
    let all: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let front = |name: &'_ String| {
        let front = name.strip_suffix("coder.conv_in.weight")?;
        let prefix = front.strip_suffix("en").or_else(|| front.strip_suffix("de"))?;
        Some(prefix.to_owned())
    };
    let prefixes: BTreeSet<String> = names.iter().filter_map(front).collect();
    let root = |prefix: String| {
        let level = |i: usize| {
            let parts =
                ["encoder.down", "decoder.up"].map(|part| format!("{prefix}{part}.{i}.block.0.conv1.weight"));
            parts.iter().any(|name| all.contains(name.as_str()))
        };
        let levels = (0..64).take_while(|i| level(*i)).count();
        let naming = if levels > 0 { Naming::Ldm(levels) } else { Naming::Kl };
        Root { prefix, naming }
    };
    prefixes.into_iter().map(root).collect()
}

/// The small autoencoder of a file with these names.
pub(super) fn tiny_root(names: &[String]) -> Option<Root> {
    let has = |name: &str| names.binary_search_by(|known| known.as_str().cmp(name)).is_ok();
    let naming = match () {
        () if has("encoder.layers.0.weight") || has("decoder.layers.0.weight") => Naming::Tiny,
        () if has("encoder.1.conv.0.weight") || has("decoder.3.conv.0.weight") => Naming::Taesd,
        () if has("0.weight") && has("1.conv.0.weight") => Naming::TaesdHalf(Half::Encoder),
        () if has("1.weight") && has("3.conv.0.weight") => Naming::TaesdHalf(Half::Decoder),
        () => return None,
    };
    Some(Root { prefix: String::new(), naming })
}

/// What may lie beside a standing-alone autoencoder and is left by its training.
pub(super) fn is_junk(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    ["model_ema.", "loss.", "edm_mean", "edm_std"].iter().any(|junk| name.starts_with(junk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latent_diffusion_counts_levels_the_other_way_up() {
        for (name, theirs) in [
            ("encoder.down_blocks.1.downsamplers.0.conv.weight", "encoder.down.1.downsample.conv.weight"),
            ("decoder.up_blocks.0.resnets.2.norm1.bias", "decoder.up.3.block.2.norm1.bias"),
            ("decoder.up_blocks.2.upsamplers.0.conv.weight", "decoder.up.1.upsample.conv.weight"),
            ("decoder.mid_block.attentions.0.to_out.0.weight", "decoder.mid.attn_1.proj_out.weight"),
            ("encoder.mid_block.attentions.0.group_norm.bias", "encoder.mid.attn_1.norm.bias"),
            (
                "decoder.up_blocks.3.resnets.0.conv_shortcut.weight",
                "decoder.up.0.block.0.nin_shortcut.weight",
            ),
            ("quant_conv.weight", "quant_conv.weight"),
        ] {
            assert_eq!(names_of(Naming::Ldm(4), name), [theirs]);
        }
        let old = names_of(Naming::Kl, "encoder.mid_block.attentions.0.to_out.0.weight");
        assert_eq!(old[1], "encoder.mid_block.attentions.0.proj_attn.weight");
    }

    #[test]
    fn taesd_counts_its_clamp() {
        let (encoder, decoder) = ("encoder.layers.14.weight", "decoder.layers.2.conv.4.bias");
        assert_eq!(names_of(Naming::Taesd, decoder), ["decoder.3.conv.4.bias"]);
        assert_eq!(names_of(Naming::Taesd, encoder), ["encoder.14.weight"]);
        assert_eq!(names_of(Naming::TaesdHalf(Half::Decoder), decoder), ["3.conv.4.bias"]);
        assert!(names_of(Naming::TaesdHalf(Half::Decoder), encoder).is_empty());
        assert_eq!(names_of(Naming::TaesdHalf(Half::Encoder), encoder), ["14.weight"]);
    }
}
