//! How a training meets its folder, and what weights it starts from.

use crate::data::fingerprint::Fingerprint;
use crate::error::{Error, Result};
use crate::model::{Checkpoint, TrainedRows, check_same_classes, load_values};
use crate::nn::{Parameters, UNetConfig};

/// Tensors that a refusal lists.
const SHOWN: usize = 3;

/// What may be done with what is in a training's folder already. The default goes on with the training that is there, under
/// the options that it was begun with, or begins one where there is none.
#[derive(Default)]
pub struct Start {
    /// Names of options whose change is accepted from here on, as refusals list them.
    pub accept_changes: Vec<String>,
    /// Moves the training that is there into `old-N/` and begins anew.
    pub restart: bool,
    /// Weights that a new training begins with, instead of such as the seed draws.
    pub init_from: Option<StartingWeights>,
}

/// The weights of a model, to begin a training with.
pub struct StartingWeights {
    checkpoint: Checkpoint,
    fingerprint: String,
}

impl StartingWeights {
    /// The weights of a checkpoint of any kind that can be opened. All of them are read once, for their hash.
    ///
    /// # Errors
    /// When they cannot be read or are not finite.
    pub fn of(checkpoint: Checkpoint) -> Result<StartingWeights> {
        let parameters = checkpoint.parameters()?;
        let mut hash = Fingerprint::new(&[], &[]);
        let values = load_values(checkpoint.source.as_ref(), &parameters, &checkpoint.prefix)?;
        for (spec, values) in parameters.specs().iter().zip(values) {
            hash.text(&spec.name);
            hash.bytes(bytemuck::cast_slice(&values));
        }
        Ok(StartingWeights { checkpoint, fingerprint: hash.finish() })
    }

    /// A hash of their names and values.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The rows of the class embedding that they were trained on, for a training on classes of these names: where the model's
    /// are called otherwise, its rows are those of other things. Nothing of a network without classes.
    pub(super) fn trained_rows(&self, class_names: &[String]) -> Option<TrainedRows> {
        let config = &self.checkpoint.config;
        config.unet.num_classes?;
        let rows = config.known_rows();
        let same =
            check_same_classes(("the training", class_names), ("the model", &config.class_names), false);
        Some(match same {
            Ok(_) => rows,
            Err(_) => TrainedRows { classes: false, without_pictures: Vec::new(), ..rows },
        })
    }

    /// The values of a network's parameters, in the kernels' order.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first tensors that are missing, too many, or of another shape.
    pub(super) fn values(&self, config: &UNetConfig, network: &Parameters) -> Result<Vec<Vec<f32>>> {
        let theirs = self.checkpoint.parameters()?;
        let shape_in = |parameters: &Parameters, name: &str| {
            parameters.specs().iter().find(|spec| spec.name == name).map(|spec| spec.file_shape())
        };
        let missing = network.specs().iter().filter_map(|spec| {
            let (name, want) = (&spec.name, spec.file_shape());
            match shape_in(&theirs, name) {
                None => Some(format!("{name}: not in the model, {want:?} in the network")),
                Some(shape) if shape != want => {
                    Some(format!("{name}: {shape:?} in the model, {want:?} in the network"))
                }
                Some(_) => None,
            }
        });
        let extra = theirs.specs().iter().filter(|spec| shape_in(network, &spec.name).is_none());
        let extra = extra
            .map(|spec| format!("{}: {:?} in the model, not in the network", spec.name, spec.file_shape()));
        let different: Vec<String> =
            missing.chain(extra).chain(meanings(&self.checkpoint.config.unet, config)).collect();
        if !different.is_empty() {
            let more = different.len().saturating_sub(SHOWN);
            let tail = if more > 0 { format!("\n  and {more} more") } else { String::new() };
            return Err(Error::Config(format!(
                "init-from: {} is of another network than the training's; give the training the model's shape. What differs \
                 first:\n  {}{tail}",
                self.checkpoint.source.path().display(),
                different[..different.len().min(SHOWN)].join("\n  ")
            )));
        }
        load_values(self.checkpoint.source.as_ref(), network, &self.checkpoint.prefix)
    }
}

/// What tensors of the same shapes would mean differently.
fn meanings(theirs: &UNetConfig, ours: &UNetConfig) -> Vec<String> {
    let heads = |config: &UNetConfig| {
        config.widths().into_iter().map(|width| config.heads(width)).collect::<Vec<_>>()
    };
    let pairs = [
        ("groups of the group norms", theirs.norm_num_groups.to_string(), ours.norm_num_groups.to_string()),
        ("order of qkv", format!("{:?}", theirs.qkv_order), format!("{:?}", ours.qkv_order)),
        ("heads of each level", format!("{:?}", heads(theirs)), format!("{:?}", heads(ours))),
        ("null class", format!("{:?}", theirs.null_class), format!("{:?}", ours.null_class)),
        (
            "how the embedding enters",
            format!("{:?}", theirs.resnet_time_scale_shift),
            format!("{:?}", ours.resnet_time_scale_shift),
        ),
        ("residual scaling", theirs.residual_scaling.to_string(), ours.residual_scaling.to_string()),
    ];
    let differs = pairs.into_iter().filter(|(_, there, here)| there != here);
    differs
        .map(|(what, there, here)| format!("{what}: {there} in the model, {here} in the training"))
        .collect()
}
