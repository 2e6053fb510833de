//! The names that files give a CLIP text encoder's tensors.

/// How a file names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// transformers' `CLIPTextModel`; its names begin with `text_model.`, or, as version 5 writes them, do not.
    Transformers { inner: &'static str },
    /// OpenCLIP's: queries, keys and values are one matrix.
    OpenClip,
}

/// An encoder in a file: what stands before its names, and which names these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Root {
    pub prefix: String,
    pub naming: Naming,
}

/// Where a file keeps a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In one tensor.
    One(String),
    /// In three, behind one another.
    Thirds([String; 3]),
    /// In one that is `[in, out]`, where the parameter is `[out, in]`.
    Turned(String),
}

impl Place {
    pub fn names(&self) -> &[String] {
        match self {
            Place::One(name) | Place::Turned(name) => std::slice::from_ref(name),
            Place::Thirds(names) => names,
        }
    }
}

const TABLE: &str = "token_embedding.weight";
const INNER: &str = "text_model.";

/// The encoders of a file with these names, in their order.
pub(super) fn roots(names: &[String]) -> Vec<Root> {
    let holds = |name: String| names.binary_search(&name).is_ok();
    let root = |name: &String| {
        let front = name.strip_suffix(TABLE)?;
        if let Some(front) = front.strip_suffix("embeddings.") {
            let (prefix, inner) = front.strip_suffix(INNER).map_or((front, ""), |prefix| (prefix, INNER));
            return Some(Root { prefix: prefix.into(), naming: Naming::Transformers { inner } });
        }
        let first = format!("{front}transformer.resblocks.0.attn.in_proj_weight");
        holds(first).then(|| Root { prefix: front.into(), naming: Naming::OpenClip })
    };
    names.iter().filter_map(root).collect()
}

impl Root {
    /// The table of tokens.
    pub fn table(&self) -> String {
        let Root { prefix, naming } = self;
        match naming {
            Naming::Transformers { inner } => format!("{prefix}{inner}embeddings.{TABLE}"),
            Naming::OpenClip => format!("{prefix}{TABLE}"),
        }
    }

    /// The table of positions.
    pub fn positions(&self) -> String {
        let Root { prefix, naming } = self;
        match naming {
            Naming::Transformers { inner } => format!("{prefix}{inner}embeddings.position_embedding.weight"),
            Naming::OpenClip => format!("{prefix}positional_embedding"),
        }
    }

    /// A part of a layer, by its name among our parameters.
    pub fn in_layer(&self, layer: usize, part: &str) -> Place {
        let Root { prefix, naming } = self;
        let (module, leaf) = part.rsplit_once('.').unwrap_or((part, ""));
        match naming {
            Naming::Transformers { inner } => {
                let base = format!("{prefix}{inner}encoder.layers.{layer}.");
                match module {
                    "self_attn.qkv_proj" => Place::Thirds(
                        ["q", "k", "v"].map(|part| format!("{base}self_attn.{part}_proj.{leaf}")),
                    ),
                    _ => Place::One(format!("{base}{part}")),
                }
            }
            Naming::OpenClip => {
                let base = format!("{prefix}transformer.resblocks.{layer}.");
                let module = match module {
                    "self_attn.qkv_proj" => return Place::One(format!("{base}attn.in_proj_{leaf}")),
                    "self_attn.out_proj" => "attn.out_proj",
                    "layer_norm1" => "ln_1",
                    "layer_norm2" => "ln_2",
                    "mlp.fc1" => "mlp.c_fc",
                    "mlp.fc2" => "mlp.c_proj",
                    other => other,
                };
                Place::One(format!("{base}{module}.{leaf}"))
            }
        }
    }

    /// The two tensors of the final norm, by `weight` and `bias`.
    fn last_norm(&self, leaf: &str) -> String {
        let Root { prefix, naming } = self;
        match naming {
            Naming::Transformers { inner } => format!("{prefix}{inner}final_layer_norm.{leaf}"),
            Naming::OpenClip => format!("{prefix}ln_final.{leaf}"),
        }
    }

    /// The projection of the pooled vector, where the file has one: a linear layer's weight is `[out, in]`, and a tensor
    /// without that word in its name, which x is multiplied by from the left, is `[in, out]`. It is often square, so its shape
    /// tells nothing.
    pub fn projection(&self, names: &[String]) -> Option<Place> {
        let plain = format!("{}text_projection", self.prefix);
        let weight = format!("{plain}.weight");
        if names.binary_search(&weight).is_ok() {
            return Some(Place::One(weight));
        }
        names.binary_search(&plain).is_ok().then_some(Place::Turned(plain))
    }

    /// Where the file keeps the parameter `name` of [`ClipText`](crate::nn::ClipText).
    pub fn place(&self, name: &str, names: &[String]) -> Place {
        if name == "text_projection.weight" {
            let missing = || Place::One(format!("{}{name}", self.prefix));
            return self.projection(names).unwrap_or_else(missing);
        }
        let name = name.strip_prefix(INNER).unwrap_or(name);
        if let Some((layer, part)) =
            name.strip_prefix("encoder.layers.").and_then(|rest| rest.split_once('.'))
        {
            return self.in_layer(layer.parse().expect("layers are numbered"), part);
        }
        match name.strip_prefix("final_layer_norm.") {
            Some(leaf) => Place::One(self.last_norm(leaf)),
            None => Place::One(self.positions()),
        }
    }

    /// The layers that are there, from the first on.
    pub fn layers(&self, names: &[String]) -> usize {
        let there = |layer: &usize| {
            let Place::One(name) = self.in_layer(*layer, "layer_norm1.weight") else { return false };
            names.binary_search(&name).is_ok()
        };
        (0..).take_while(there).count()
    }

    /// A tensor below the encoder's prefix that is none of its own, and none of those that are known to be of no use.
    pub fn stranger<'a>(&self, names: &'a [String], layers: usize) -> Option<&'a str> {
        const PARTS: [&str; 12] = [
            "layer_norm1.weight",
            "layer_norm1.bias",
            "layer_norm2.weight",
            "layer_norm2.bias",
            "self_attn.qkv_proj.weight",
            "self_attn.qkv_proj.bias",
            "self_attn.out_proj.weight",
            "self_attn.out_proj.bias",
            "mlp.fc1.weight",
            "mlp.fc1.bias",
            "mlp.fc2.weight",
            "mlp.fc2.bias",
        ];
        // What is of pictures, or of training, or a buffer that older versions saved.
        const OF_NO_USE: [&str; 7] = [
            "visual.",
            "vision_model.",
            "visual_projection.",
            "logit_scale",
            "logit_bias",
            "attn_mask",
            "text_projection",
        ];
        let own = (0..layers).flat_map(|layer| PARTS.map(|part| self.in_layer(layer, part)));
        let mut known: std::collections::HashSet<String> =
            own.flat_map(|place| place.names().to_vec()).collect();
        known.extend([self.table(), self.positions(), self.last_norm("weight"), self.last_norm("bias")]);
        let below = names.iter().filter(|name| name.starts_with(&self.prefix));
        let strange = |name: &&String| {
            let rest = &name[self.prefix.len()..];
            !known.contains(*name)
                && !rest.ends_with("embeddings.position_ids")
                && !OF_NO_USE.iter().any(|of_no_use| rest.starts_with(of_no_use))
        };
        below.map(|name| name as &String).find(strange).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn encoders_are_found_wherever_they_lie() {
        let there = names(&[
            "state_dict/cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
            "conditioner.embedders.0.transformer.embeddings.token_embedding.weight",
            "conditioner.embedders.1.model.token_embedding.weight",
            "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight",
            // A table of another network's.
            "caption.token_embedding.weight",
        ]);
        let found: Vec<(String, Naming)> =
            roots(&there).into_iter().map(|root| (root.prefix, root.naming)).collect();
        let wanted = [
            ("conditioner.embedders.0.transformer.".to_owned(), Naming::Transformers { inner: "" }),
            ("conditioner.embedders.1.model.".to_owned(), Naming::OpenClip),
            ("state_dict/cond_stage_model.transformer.".to_owned(), Naming::Transformers { inner: INNER }),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_projection_is_turned_by_its_name() {
        let root = Root { prefix: "p.".into(), naming: Naming::OpenClip };
        assert_eq!(
            root.projection(&names(&["p.text_projection"])),
            Some(Place::Turned("p.text_projection".into()))
        );
        let both = names(&["p.text_projection", "p.text_projection.weight"]);
        assert_eq!(root.projection(&both), Some(Place::One("p.text_projection.weight".into())));
        assert_eq!(root.projection(&[]), None);
    }

    #[test]
    fn what_is_not_the_encoders_is_named() {
        let root = Root { prefix: "p.".into(), naming: Naming::Transformers { inner: INNER } };
        let mut there = names(&[
            "p.text_model.embeddings.position_ids",
            "p.text_model.embeddings.token_embedding.weight",
            "p.text_model.encoder.layers.0.self_attn.q_proj.bias",
            "p.vision_model.x",
            "p.logit_scale",
            "other",
        ]);
        assert_eq!(root.stranger(&there, 1), None);
        there.push("p.text_model.encoder.layers.0.self_attn.q_norm.weight".into());
        assert_eq!(root.stranger(&there, 1), there.last().map(String::as_str));
        // A layer that is not counted, for one before it is missing.
        assert!(root.stranger(&there, 0).unwrap().contains("layers.0"));
    }
}
