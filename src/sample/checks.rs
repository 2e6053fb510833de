//! What does not go together, with the reason and the way on: for samplers, upsamplers and sessions.

use crate::diffusion::guiders::{Against, Guiders};
use crate::diffusion::{ClassPosterior, Clip, Prediction, Process, SamplerKind};
use crate::error::{Error, Result};
use crate::model::{Conditions, Model, check_same_classes};
use crate::nn::UNetConfig;
use crate::shape::{Extent, Shape};

use super::guide::Guide;
use super::networks::Networks;
use super::options::{SamplerOptions, Uncond};
use super::walk::{Form, Walk};

/// Classes at most from which an unconditional half is made: each is an evaluation of the network in every step.
const MOST_CLASSES: usize = 64;

/// Refuses options that contradict each other, or one of the networks.
pub(super) fn check_together(networks: &Networks<'_>, options: &SamplerOptions) -> Result<()> {
    let refuse = |what: String| Err(Error::Config(what));
    let Networks { unet, unconditional, weaker, guide, .. } = networks;
    let distilled = unet.config().guidance_range.is_some();
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
    config: &UNetConfig,
    small: Option<(u64, Extent)>,
    batch: usize,
    guided: bool,
) -> Result<()> {
    let channels = config.low_res_channels;
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
    let config = networks.unet.config();
    let Some(extent) = size else { return Ok(config.shape()) };
    let others =
        [networks.unconditional, networks.weaker].into_iter().flatten().map(|(unet, _)| unet.config());
    for config in std::iter::once(config).chain(others) {
        config.check_extent(extent).map_err(|error| Error::Config(format!("`size`: {error}")))?;
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
    Ok(Shape { extent, ..config.shape() })
}

/// Refuses a pair of networks that do not make the same pictures.
pub(super) fn check_pair(config: &UNetConfig, other: &UNetConfig) -> Result<()> {
    let of = |c: &UNetConfig| (c.shape(), c.out_channels);
    let what = match other.guidance_range {
        Some(_) => "the unconditional network is distilled: it has no unconditional half of its own".into(),
        None if other.low_res_channels != 0 => "the unconditional network is an upsampler".into(),
        None if of(config) == of(other) => return Ok(()),
        None => {
            let ((other, other_out), (own, own_out)) = (of(other), of(config));
            format!(
                "the unconditional network is for {other} and {other_out} out, the conditional one for {own} and {own_out} out"
            )
        }
    };
    Err(Error::Config(what))
}

/// Refuses samplers that a session cannot run.
pub(super) fn check_session(kind: SamplerKind, options: &SamplerOptions) -> Result<()> {
    let what = match options.method.respacing {
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
pub(super) fn check_rows(mixed: usize, beside: usize, most: usize) -> Result<()> {
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
    config: &UNetConfig,
    conditions: &Conditions,
    networks: &Networks<'_>,
    guiders: &Guiders,
) -> Result<Vec<u32>> {
    let refuse = |what: String| Err(Error::Config(what));
    if guiders.annealing().is_some() && config.num_classes.is_none() {
        return refuse("annealing changes the condition's embedding, and this network has no classes".into());
    }
    let mut rows = Vec::new();
    match (guiders.against(), networks.weaker) {
        (Against::WeakModel(path), None) => {
            return refuse(format!("autoguidance needs its weaker model {path} loaded"));
        }
        (Against::WeakModel(path), Some((weaker, _))) => {
            let of = |c: &UNetConfig| (c.shape(), c.out_channels, c.num_classes);
            if of(weaker.config()) != of(config) || weaker.config().guidance_range.is_some() {
                return refuse(format!(
                    "{path} cannot guide this model: size, channels and classes of both must be alike, and none distilled"
                ));
            }
        }
        (Against::Null | Against::Class(_), _) if conditions.classes() == 0 => {
            return refuse("these guiders need classes, and the network has none".into());
        }
        (Against::Null, _) => {
            conditions.check_null("guidance")?;
            rows.push(config.null_label());
        }
        (Against::Class(class), _) => rows.push(conditions.class(&class)?),
    }
    for (class, _) in guiders.more_conditions() {
        rows.push(conditions.class(class)?);
    }
    for row in rows.iter().filter(|row| **row != config.null_label()) {
        conditions.check_class(Some(*row))?;
    }
    Ok(rows)
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
    config: &UNetConfig,
    conditions: &Conditions,
    prior: Option<&[f64]>,
    process: &Process,
    options: &SamplerOptions,
) -> Result<Vec<f64>> {
    let refuse = |what: String| Err(Error::Config(what));
    let classes = config.num_classes.unwrap_or(0);
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
