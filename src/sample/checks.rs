//! What does not go together, with the reason and the way on; and what options come to where they do.

use crate::diffusion::{Evaluations, Guidance, Process};
use crate::error::{Error, Result};
use crate::model::Conditions;
use crate::nn::UNetConfig;

use super::SamplerOptions;
use super::guide::Guide;
use super::networks::Networks;
use super::options::Request;
use super::walk::Walk;

/// Options that go together, and what follows from them.
pub(crate) struct Settled {
    pub options: SamplerOptions,
    pub conditions: Conditions,
    pub walk: Walk,
    /// The network's own rows that stand for "nothing" beside each picture's class.
    pub others: Vec<u32>,
    has_classes: bool,
    null_label: u32,
    /// Whether something else than the null class is the unconditional half.
    elsewhere: bool,
    by_gradient: bool,
    /// The classes that a guide by a gradient knows, where it is for classes.
    guided_classes: Option<usize>,
    /// The weights that a distilled network was trained for.
    pub distilled: Option<[f64; 2]>,
}

/// What a host writes for a batch of pictures.
pub(crate) struct Written {
    /// `[K·N]`: rows of the class table.
    pub rows: Vec<u32>,
    /// w as distilled networks are told it.
    pub told: f32,
}

impl Settled {
    /// # Errors
    /// [`Error::Config`] for what does not go together.
    pub fn new(networks: &Networks<'_>, process: &Process, options: SamplerOptions) -> Result<Settled> {
        let Networks { unet, unconditional, guide, low_res, .. } = networks;
        let config = unet.config();
        // A distilled network is told w, and its one evaluation is guided.
        let options = SamplerOptions { guided: options.guided && config.guidance_range.is_none(), ..options };
        check_low_res(config, low_res.map(|(buffer, side)| (buffer.bytes(), side)), &options)?;
        crate::sizes::check_batch(options.batch, config.sample_size, config.in_channels)?;
        let has_classes = config.num_classes.is_some();
        if let Some((other, _)) = unconditional {
            check_pair(config, other.config())?;
        }
        // Options of another model say nothing of this network.
        let known = options.conditions.as_ref().filter(|c| c.classes() == config.num_classes.unwrap_or(0));
        let conditions = known.cloned().unwrap_or_else(|| Conditions::of_network(config));
        match unconditional {
            None if options.guided && !has_classes => conditions.check_guidance("guidance")?,
            None if options.guided => conditions.check_null("guidance")?,
            Some((other, _)) => {
                Conditions::of_network(other.config()).check_null("the unconditional half")?
            }
            None => {}
        }
        let walk = Walk::new(process, &options, guide.is_some())?;
        let others = match unconditional {
            None if options.guided => vec![config.null_label()],
            _ => Vec::new(),
        };
        Ok(Settled {
            conditions,
            walk,
            others,
            has_classes,
            null_label: config.null_label(),
            elsewhere: unconditional.is_some(),
            by_gradient: guide.is_some(),
            guided_classes: guide.and_then(Guide::classes),
            distilled: config.guidance_range,
            options,
        })
    }

    /// Refuses what the network, or what guides it, was not taught, and guidance that this was not recorded for; else what a
    /// host writes for `all`, of which `requests` are read.
    ///
    /// # Errors
    /// [`Error::Config`] with the reason.
    pub fn written(&self, requests: &[Request], all: &[Request], guidance: Guidance) -> Result<Written> {
        self.check_classes(requests, guidance)?;
        let both = guidance.evaluations() == Evaluations::Both;
        if self.distilled.is_none() && both && !self.options.guided {
            let w = guidance.weight();
            return Err(Error::Config(format!(
                "w = {w} needs a guided sampler; this one evaluates once a step"
            )));
        }
        let unconditional = guidance.evaluations() == Evaluations::Unconditional;
        let told = match self.distilled {
            None => 0.0,
            // Without a class the guided picture is the unconditional one, whatever w.
            Some([low, _]) if unconditional => low,
            Some([low, high]) if !(low..=high).contains(&guidance.weight()) => {
                return Err(Error::Config(format!(
                    "w = {}: this distilled network was trained for w from {low} to {high}",
                    guidance.weight()
                )));
            }
            Some(_) => guidance.weight(),
        };
        let row = |request: &Request| match request.class {
            Some(class) if !unconditional => class,
            _ => self.null_label,
        };
        let others = self.others.iter().flat_map(|row| std::iter::repeat_n(*row, all.len()));
        Ok(Written { rows: all.iter().map(row).chain(others).collect(), told: told as f32 })
    }

    fn check_classes(&self, requests: &[Request], guidance: Guidance) -> Result<()> {
        let classes = requests.iter().map(|request| request.class);
        if let Some(known) = self.guided_classes
            && let Some(class) = classes.clone().flatten().find(|class| *class as usize >= known)
        {
            return Err(Error::Config(format!(
                "there is no class {class}; the classifier knows 0 to {}",
                known - 1
            )));
        }
        // The classes of a network without any are those of what guides it.
        if !self.has_classes && self.by_gradient {
            return Ok(());
        }
        self.conditions.check(classes, guidance.evaluations(), self.elsewhere)
    }
}

/// Refuses small pictures that do not fit an upsampler, or that a network does not take.
fn check_low_res(config: &UNetConfig, low_res: Option<(u64, usize)>, options: &SamplerOptions) -> Result<()> {
    let channels = config.low_res_channels;
    let what = match low_res {
        None if channels == 0 => return Ok(()),
        None => {
            "this network is an upsampler: it makes pictures of smaller ones (give it as --upsampler)".into()
        }
        Some(_) if channels == 0 => "this network is no upsampler: it takes no small pictures".into(),
        Some(_) if options.guided => "guidance is for the network that makes the small pictures".into(),
        Some((bytes, side)) if bytes < (options.batch * side * side * channels * 4) as u64 => {
            format!("{} small pictures of side {side} do not fit into {bytes} bytes", options.batch)
        }
        Some(_) => return Ok(()),
    };
    Err(Error::Config(what))
}

/// Refuses a pair of networks that do not make the same pictures.
fn check_pair(config: &UNetConfig, other: &UNetConfig) -> Result<()> {
    let of = |c: &UNetConfig| (c.sample_size, c.in_channels, c.out_channels);
    if of(config) == of(other) {
        return Ok(());
    }
    Err(Error::Config(format!(
        "the unconditional network is for {:?} (size, channels in, channels out), the conditional one for {:?}",
        of(other),
        of(config)
    )))
}
