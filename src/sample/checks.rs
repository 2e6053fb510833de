//! What does not go together, with the reason and the way on: for samplers, upsamplers and sessions.

use crate::diffusion::guiders::{Against, Beside, Guiders};
use crate::diffusion::{ClassPosterior, Clip, Prediction, Process, SamplerKind};
use crate::error::{Error, Result};
use crate::model::{Conditions, KeptVector, Model, check_same_classes};
use crate::nn::{About, Denoiser, Takes, Weights};
use crate::shape::{Extent, Shape};
use crate::tensor::Tensor;

use super::guide::Guide;
use super::networks::Networks;
use super::options::{SamplerOptions, Uncond};
use super::other::Other;
use super::walk::{Form, Walk};

/// Classes at most from which an unconditional half is made: each is an evaluation of the network in every step.
const MOST_CLASSES: usize = 64;

/// Refuses a network that cannot be what it says, and weights that are another one's.
pub(super) fn check_network(name: &str, network: &dyn Denoiser, weights: &Weights) -> Result<()> {
    let refuse = |what: String| Err(Error::Config(what));
    let About { sample, out_channels, divides, takes } = network.about();
    let extent = sample.extent;
    // A line is one high whatever it is long.
    let high = !matches!(extent, Extent::Line(_)) && !extent.height().is_multiple_of(*divides);
    if sample.len() == 0 || high || !extent.width().is_multiple_of(*divides) {
        return refuse(format!(
            "{name} is for samples of {extent} in {} channels, and says that extents are multiples of {divides}",
            sample.channels
        ));
    }
    if *out_channels != sample.channels && *out_channels != 2 * sample.channels {
        return refuse(format!(
            "{name} gives {out_channels} channels for {}: as many are predictions, twice as many predictions and variances",
            sample.channels
        ));
    }
    if takes.moves && (takes.guidance.is_some() || takes.picture.is_some()) {
        return refuse(format!(
            "{name} reads the sampler's moves: closed forms take no weight and no picture"
        ));
    }
    let specs = network.parameters().specs();
    let held: Vec<&Tensor> = weights.iter().collect();
    let other = specs.iter().zip(&held).find(|(spec, tensor)| spec.shape != tensor.shape());
    match other {
        Some((spec, tensor)) => refuse(format!(
            "{name} has {} of {:?}, and the weights that came with it {:?}: they are another network's",
            spec.name,
            spec.shape,
            tensor.shape()
        )),
        None if specs.len() != held.len() => refuse(format!(
            "{name} has {} parameters, and {} weights came with it: they are another network's",
            specs.len(),
            held.len()
        )),
        None => Ok(()),
    }
}

/// Refuses a walk that a network cannot be evaluated along.
pub(super) fn check_walk(name: &str, about: &About, walk: &Walk, kind: SamplerKind) -> Result<()> {
    if about.takes.moves && walk.form != Form::Ancestral {
        return Err(Error::Config(format!(
            "{name} reads α and σ of ancestral steps' rows (`Takes::moves`), and {kind} of this process has none: use the sampler \
             ancestral on continuous time and predicted noise, without a gradient"
        )));
    }
    match walk.form {
        Form::Moves { variance, .. }
            if variance.is_learned() && about.out_channels != 2 * about.sample.channels =>
        {
            Err(Error::Config(format!(
                "variances are learned, and {name} has no channels for them: it gives {} for {}",
                about.out_channels, about.sample.channels
            )))
        }
        _ => Ok(()),
    }
}

/// Refuses options that contradict each other, or one of the networks.
pub(super) fn check_together(networks: &Networks<'_>, options: &SamplerOptions) -> Result<()> {
    let refuse = |what: String| Err(Error::Config(what));
    let Networks { network, unconditional, weaker, guide, .. } = networks;
    let distilled = network.about().takes.guidance.is_some();
    let from_classes = options.uncond != Uncond::Null;
    let guiders = !options.guiders.is_empty();
    let others =
        [("guider", guiders), ("classifier", guide.is_some()), ("uncond-model", unconditional.is_some())];
    let named =
        |only: &[&str]| others.iter().find(|(name, is)| *is && only.contains(name)).map(|(name, _)| *name);
    if from_classes && let Some(other) = named(&["guider", "classifier", "uncond-model"]) {
        return refuse(format!(
            "`uncond from-classes` does not go together with `{other}`: its steps are those that p(class) is learnt from. Leave \
             one out"
        ));
    }
    if guiders && let Some(other) = named(&["classifier", "uncond-model"]) {
        return refuse(format!(
            "`guider` does not go together with `{other}`: guiders say themselves what their predictions are combined with. \
             Leave one out, or name a weaker model with autoguidance(PATH)"
        ));
    }
    if weaker.is_some() && !matches!(options.guiders.against(), Against::WeakModel(_)) {
        return refuse(
            "a weaker model came, but no guider leads away from it: say autoguidance(PATH)".into(),
        );
    }
    let second = [
        ("uncond-model", unconditional.is_some()),
        ("guider", guiders),
        ("uncond from-classes", from_classes),
    ];
    match second.iter().find(|(_, is)| *is) {
        Some((name, _)) if distilled => refuse(format!(
            "`{name}`: this model is distilled, its guidance is its own; leave it out, and say how strong with `w`"
        )),
        _ => Ok(()),
    }
}

/// Refuses small pictures that do not fit an upsampler, or that a network does not take.
pub(super) fn check_small(
    takes: &Takes,
    small: Option<(u64, Extent)>,
    batch: usize,
    guided: bool,
) -> Result<()> {
    let channels = takes.picture.map_or(0, |picture| picture.channels);
    let what = match small {
        None if channels == 0 => return Ok(()),
        None => {
            "this network is an upsampler: it makes pictures of smaller ones (give it as --upsampler)".into()
        }
        Some(_) if channels == 0 => "this network is no upsampler: it takes no small pictures".into(),
        Some(_) if guided => "guidance is for the network that makes the small pictures".into(),
        Some((bytes, extent)) if bytes < (batch * extent.places() * channels * 4) as u64 => {
            format!("{batch} small pictures of {extent} do not fit into {bytes} bytes")
        }
        Some(_) => return Ok(()),
    };
    Err(Error::Config(what))
}

/// The shape of what is made: of the trained extent, or of another one that all of the networks take.
///
/// # Errors
/// [`Error::Config`] with the reason: an extent of the other kind, one that a network's halvings do not divide, one that is not
/// that of a classifier, or no whole multiple of an upsampler's small pictures.
pub(super) fn check_size(networks: &Networks<'_>, size: Option<Extent>) -> Result<Shape> {
    let sample = networks.network.about().sample;
    let Some(extent) = size else { return Ok(sample) };
    for (_, network, _) in networks.all() {
        network.about().check_extent(extent).map_err(|error| Error::Config(format!("`size`: {error}")))?;
    }
    if let Some(own) = networks.guide.and_then(Guide::extent).filter(|own| *own != extent) {
        return Err(Error::Config(format!(
            "`size` {extent} does not go together with `classifier`: the classifier has a place of its own for each token, and \
             takes {own} alone"
        )));
    }
    if let Some((_, small)) = networks.low_res
        && extent.over(small).is_none()
    {
        return Err(Error::Config(format!(
            "`size` {extent} is no whole multiple of the small pictures' {small}"
        )));
    }
    Ok(Shape { extent, ..sample })
}

/// What two networks must have alike to stand beside each other.
fn makes(about: &About) -> (Shape, usize) {
    (about.sample, about.out_channels)
}

/// Refuses a pair of networks that do not make the same pictures.
pub(super) fn check_pair(about: &About, other: &About) -> Result<()> {
    let what = match other.takes.guidance {
        Some(_) => "the unconditional network is distilled: it has no unconditional half of its own".into(),
        None if other.takes.picture.is_some() => "the unconditional network is an upsampler".into(),
        None if other.takes.vector.is_some() && other.takes.vector != about.takes.vector => {
            "the unconditional network takes a vector of another width".into()
        }
        None if other.takes.tokens.is_some() && other.takes.tokens != about.takes.tokens => {
            "the unconditional network takes tokens of another width".into()
        }
        None if makes(about) == makes(other) => return Ok(()),
        None => {
            let ((other, other_out), (own, own_out)) = (makes(other), makes(about));
            format!(
                "the unconditional network is for {other} and {other_out} out, the conditional one for {own} and {own_out} out"
            )
        }
    };
    Err(Error::Config(what))
}

/// Refuses networks and samplers that a session cannot run.
pub(super) fn check_session(
    networks: &Networks<'_>,
    kind: SamplerKind,
    options: &SamplerOptions,
) -> Result<()> {
    let what = match options.method.respacing {
        _ if networks.network.about().takes.picture.is_some() => {
            "a session cannot run an upsampler: there is no small picture to give it".into()
        }
        _ if networks.guide.is_some() => {
            "a session is not guided by a gradient (`guide`): its class may change at any step".into()
        }
        _ if kind == SamplerKind::DdimReverse => {
            format!("{kind} begins with a picture, and a session with noise: use `Sampler::sample_from`")
        }
        Some(_) => {
            "`respacing` names the steps of a sampler, and each request of a session its own: leave it out, or use `spacing`"
                .into()
        }
        None => return Ok(()),
    };
    Err(Error::Config(what))
}

/// Refuses more conditions at once than a session has room for.
pub(super) fn check_rows(mixed: usize, others: &[Other], most: usize) -> Result<()> {
    if mixed > 1 && others.iter().any(|other| other.class.is_none()) {
        return Err(Error::Config(
            "guiders that name the class as a part do not go together with mixed classes (`mixed_classes`): a mix has no one class"
                .into(),
        ));
    }
    let beside = others.len();
    if mixed + beside <= most {
        return Ok(());
    }
    Err(Error::Config(format!(
        "{mixed} mixed classes (`mixed_classes`) and {beside} conditions beside them are more than the {most} that a session \
         evaluates: mix fewer"
    )))
}

/// Refuses guiders that this network cannot follow; else the rows that they evaluate beside a picture's own.
pub(super) fn check_guiders(
    conditions: &Conditions,
    networks: &Networks<'_>,
    guiders: &Guiders,
) -> Result<Vec<Other>> {
    let refuse = |what: String| Err(Error::Config(what));
    let about = networks.network.about();
    let takes = &about.takes;
    match takes.class.filter(|_| guiders.annealing().is_some()) {
        None if guiders.annealing().is_some() => {
            return refuse(
                "annealing changes the condition's embedding, and this network has no classes".into(),
            );
        }
        Some(class) if !class.anneals => {
            return refuse(
                "annealing changes the class's embedding, and this network has none that it could change (`ClassIn::anneals`)"
                    .into(),
            );
        }
        _ => {}
    }
    let mut others = Vec::new();
    match (guiders.against(), networks.weaker) {
        (Against::WeakModel(path), None) => {
            return refuse(format!("autoguidance needs its weaker model {path} loaded"));
        }
        (Against::WeakModel(path), Some((weaker, _))) => {
            let of =
                |about: &About| (makes(about), about.takes.classes(), about.takes.tokens, about.takes.vector);
            if of(weaker.about()) != of(about) || weaker.about().takes.guidance.is_some() {
                return refuse(format!(
                    "{path} cannot guide this model: size, channels and classes of both must be alike, and none distilled"
                ));
            }
        }
        (Against::Null, _) if takes.class.is_none() && takes.vector.is_none() && takes.tokens.is_none() => {
            return refuse("these guiders need classes, and the network has none".into());
        }
        (Against::Null, _) => {
            conditions.check_null("guidance")?;
            others.push(Other::nothing(takes));
        }
        (Against::Class(class), _) => others.push(class_beside(conditions, &class)?),
        (Against::Only(parts), _) => others.push(parts_beside(conditions, takes, &parts)?),
    }
    for (beside, _) in guiders.more_conditions() {
        others.push(match beside {
            Beside::Class(class) => class_beside(conditions, class)?,
            Beside::Only(parts) => parts_beside(conditions, takes, parts)?,
        });
    }
    Ok(others)
}

/// A class in the place of a picture's own; its vector stays.
fn class_beside(conditions: &Conditions, class: &str) -> Result<Other> {
    if conditions.classes() == 0 {
        return Err(Error::Config("these guiders need classes, and the network has none".into()));
    }
    let class = conditions.class(class)?;
    conditions.check_class(Some(class))?;
    Ok(Other { class: Some(class), tokens: true, vector: KeptVector::Whole })
}

/// A picture's own condition, of its parts only some.
fn parts_beside(conditions: &Conditions, takes: &Takes, parts: &[String]) -> Result<Other> {
    let kept = conditions.only(parts)?;
    Ok(Other { class: (!kept.class).then(|| takes.null_row()), tokens: false, vector: kept.vector })
}

/// Refuses a weaker model that is of another kind than the one it guides.
///
/// # Errors
/// [`Error::Config`] naming what differs.
pub fn check_weaker(model: &Model, weaker: &Model) -> Result<()> {
    let shape = |model: &Model| {
        let config = model.unet.config();
        (config.shape(), config.out_channels, config.num_classes)
    };
    if shape(model) != shape(weaker) || model.config.scheduler != weaker.config.scheduler {
        let (path, weaker) = (model.path.display(), weaker.path.display());
        return Err(Error::Config(format!(
            "{weaker} cannot guide {path}: size, channels, classes and schedule of both must be alike"
        )));
    }
    let name = |model: &Model| model.path.display().to_string();
    let ours = (&*name(model), &*model.config.class_names);
    check_same_classes(ours, (&name(weaker), &weaker.config.class_names), false).map(drop)
}

/// Refuses a network, a sampler or a prior that the unconditional score from classes means nothing to; else p(c).
pub(super) fn check_from_classes(
    conditions: &Conditions,
    prior: Option<&[f64]>,
    process: &Process,
    options: &SamplerOptions,
) -> Result<Vec<f64>> {
    let refuse = |what: String| Err(Error::Config(what));
    let classes = conditions.classes();
    if !(2..=MOST_CLASSES).contains(&classes) {
        return refuse(format!(
            "the unconditional score from classes takes 2 to {MOST_CLASSES} classes, an evaluation each; this network has {classes}"
        ));
    }
    conditions.check_every_class()?;
    let prior = prior.map_or_else(|| vec![1.0; classes], <[f64]>::to_vec);
    if prior.len() != classes {
        return refuse(format!("the prior has {} classes, the network {classes}", prior.len()));
    }
    let prior = ClassPosterior::new(&prior)?.probabilities();
    let walk = Walk::new(process, options, false)?;
    if walk.form != Form::Ancestral {
        let kind = process.sampler(&options.method, options.steps);
        let time = if process.is_continuous() { "continuous" } else { "discrete" };
        let fits = process.is_continuous() && process.prediction == Prediction::Eps;
        return refuse(format!(
            "the unconditional score from classes follows the noise of ancestral steps, and a network that predicts eps in \
             continuous time; {}",
            match fits {
                true =>
                    format!("the sampler {kind} has no such noise: use --sampler ancestral, or --uncond null"),
                false => {
                    format!("this model predicts {} in {time} time: use --uncond null", process.prediction)
                }
            }
        ));
    }
    if matches!(options.clip, Clip::Dynamic { .. }) {
        return refuse(
            "a dynamic threshold scales each class's prediction in its own way; use --clip static or none"
                .into(),
        );
    }
    Ok(prior)
}
