//! `freeguide sample`.

mod args;
mod checks;
mod class_names;
mod latents;
mod method;
mod output;
mod parameters;
mod text;

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use crate::data::Image;
use crate::diffusion::{Clip, Guidance, Guiders};
use crate::error::{Error, Result};
use crate::io::NpzWriter;
use crate::model::{ClassifierModel, Condition, Conditions, Model, ModelConfig, check_same_classes};
use crate::nn::Denoiser;
use crate::sample::{
    ClassifierGuide, Guide, Networks, Request, Sampler, SamplerOptions, Uncond, Upsampling, check_weaker,
};

use super::drawing::no_reverse;
use super::{guider, interrupt, model_args, number, outputs, pictures, progress, ranges};
pub use args::Args;
use checks::{check_classifier, check_exponent, with_classes_of};
use class_names::{ClassNames, class_text};
use method::method;
pub use method::{default_batch, variance};
use output::{Output, contact_sheet};
use parameters::{Made, of_one, parameters};

pub fn run(args: &Args) -> Result<()> {
    if !args.prompt.is_empty() {
        return text::run(args);
    }
    if let Some(from) = &args.from {
        return latents::run(args, from);
    }
    no_reverse(args.sampler)?;
    let guiders: Guiders = args.guider.parse()?;
    let kind = Output::of(&args.out)?;
    match kind {
        Output::Folder => outputs::prove_folder(&args.out)?,
        _ => outputs::prove([&args.out], args.force.force)?,
    }
    let asked = match (args.w, args.guidance_scale) {
        (Some(w), _) => Some(Guidance::from_weight(w)?),
        (_, Some(scale)) => Some(Guidance::from_scale(scale)?),
        // A classifier guides in its own way.
        _ if args.classifier.is_some() => Some(Guidance::from_weight(0.0)?),
        _ => None,
    };
    let told_w = args.w.is_some() || args.guidance_scale.is_some();
    if told_w {
        guiders.check_weight_is_read()?;
    }
    let seeds = ranges::seeds(&args.seeds)?;
    let precision = args.precision.read()?;
    let stop = interrupt::flag();
    let gpu = args.device.open()?;
    let dtype = precision.checked_on(gpu.capabilities())?.dtype();
    let checkpoint = args.opening.checkpoint(&args.model)?;
    if checkpoint.config.unet.takes().tokens.is_some() {
        return Err(Error::Config("this model draws what a text says: give one (--prompt)".into()));
    }
    let model = Model::of_in(&gpu, checkpoint, dtype)?;
    let config = &model.config;
    let classifier = args.classifier.as_ref().map(|path| ClassifierModel::of(&gpu, model_args::other(path)?));
    let classifier = classifier.transpose()?;
    let without =
        args.uncond_model.as_ref().map(|path| model_args::other_model(&gpu, path, dtype)).transpose()?;
    // The classes are those of what guides, where the network itself has none.
    let config = match &classifier {
        Some(classifier) => {
            check_classifier(config, &classifier.config)?.iter().for_each(|note| eprintln!("note: {note}"));
            &with_classes_of(config, &classifier.config)
        }
        None => config,
    };
    let classes = classes(config, &args.class)?;
    let vector = args.attributes.as_deref().map(|text| model.config.vector(text)).transpose()?;
    let unconditional = classes == [None] && vector.is_none();
    // Of a network trained without labels the null class alone means something.
    let unlabelled = model.config.unconditional_probability >= 1.0;
    let elsewhere = without.is_some() || args.uncond == "from-classes" || !guiders.is_empty();
    let guidance = match asked {
        _ if unconditional => Guidance::from_weight(-1.0)?,
        _ if unlabelled && classifier.is_some() && !told_w => Guidance::from_weight(-1.0)?,
        Some(asked) => asked,
        None if elsewhere => Guidance::from_weight(1.0)?,
        None => {
            let (guidance, note) = Conditions::of(&model.config).default_guidance()?;
            note.iter().for_each(|note| eprintln!("note: {note}"));
            guidance
        }
    };
    if unconditional && asked.is_some_and(|asked| told_w && asked != guidance) {
        eprintln!("note: without a condition there is no guidance, and w does not matter");
    }

    if classes.len().saturating_mul(seeds.len()) > number::MOST_COUNT {
        return Err(Error::Config(format!(
            "{} classes with {} seeds each are more pictures than the {} that can be asked for at once",
            classes.len(),
            seeds.len(),
            number::MOST_COUNT
        )));
    }
    // Class-major: all seeds of the first class, then of the next.
    let mut requests: Vec<Request> = Vec::with_capacity(classes.len() * seeds.len());
    for class in &classes {
        let condition = Condition { class: *class, vector: vector.clone(), ..Condition::default() };
        requests.extend(seeds.iter().map(|seed| Request::new(condition.clone(), *seed)));
    }
    if kind == Output::Png {
        let columns = if classes.len() == 1 { seeds.len().isqrt() + 1 } else { seeds.len() };
        let size = args.size.unwrap_or(config.unet.sample_size);
        pictures::check_sheet(requests.len() / columns, columns, 1, size).map_err(|error| {
            Error::Config(format!("{error}, or for a folder or a .npz (--out), which take any number"))
        })?;
    }
    let names = ClassNames::of(config);
    if kind == Output::Folder {
        // What is asked for twice is one file.
        let mut seen = HashSet::new();
        requests.retain(|request| seen.insert(names.file(request)));
        for request in &requests {
            outputs::check_free(&args.out.join(names.file(request)), args.force.force)?;
        }
    }
    let batch = args.batch.unwrap_or_else(|| default_batch(&gpu)).min(requests.len()).max(1);
    let defaults = SamplerOptions::of(config, batch)?;
    let options = SamplerOptions {
        size: args.size,
        steps: args.steps.unwrap_or(defaults.steps),
        method: method(args, config)?,
        variance_exponent: args.v.unwrap_or(defaults.variance_exponent),
        clip: args.clip.as_deref().map_or(Ok(defaults.clip), str::parse::<Clip>)?,
        guided: Sampler::needs_both(guidance),
        uncond: match args.uncond.as_str() {
            "from-classes" => Uncond::FromClasses { prior: None },
            _ => Uncond::Null,
        },
        guiders,
        two_pass: args.two_pass,
        dtype,
        fast: args.fast,
        ..defaults
    };
    let process = config.process()?;
    check_exponent(args, &options, &process)?;
    let guide = classifier.as_ref().map(|classifier| ClassifierGuide {
        network: &classifier.network,
        weights: classifier.weights(),
        scale: args.classifier_scale.unwrap_or(1.0) as f32,
    });
    let weaker = guider::weaker(&gpu, &options.guiders, dtype)?;
    weaker.as_ref().map_or(Ok(()), |weaker| check_weaker(&model, weaker))?;
    let [other, away] = [&without, &weaker]
        .map(|other| other.as_ref().map(|other| (&other.unet as &dyn Denoiser, other.weights())));
    let weights = model.weights();
    let networks = Networks {
        unconditional: other.as_ref().map(|(network, weights)| (*network, weights)),
        weaker: away.as_ref().map(|(network, weights)| (*network, weights)),
        guide: guide.as_ref().map(|guide| guide as &dyn Guide),
        ..Networks::of(&model.unet, &weights)
    };
    if let Some(other) = &without {
        Conditions::of(&other.config).check_null("the unconditional half (`uncond-model`)")?;
    }
    let sampler = Sampler::with(&gpu, networks, config.process()?, options)?;
    if other.is_some() && !Sampler::needs_both(guidance) {
        return Err(Error::Config(format!(
            "--uncond-model is one half of guidance, and w = {} needs only the other",
            guidance.weight()
        )));
    }
    // The second stage, with its own defaults.
    let size = sampler.shape().extent;
    let larger =
        args.upsampler.as_ref().map(|path| model_args::other_model(&gpu, path, dtype)).transpose()?;
    let upsampling = match &larger {
        Some(model) => {
            let names = (&*config.class_names, &*model.config.class_names);
            if !names.0.is_empty() && !names.1.is_empty() {
                check_same_classes(("the model", names.0), ("the upsampler", names.1), false)?
                    .iter()
                    .for_each(|note| eprintln!("note: {note}"));
            }
            let options = SamplerOptions {
                steps: args.upsampler_steps.unwrap_or(model.config.default_steps()),
                dtype,
                fast: args.fast,
                ..SamplerOptions::of(&model.config, batch)?
            };
            Some(Upsampling::new(&gpu, model, size, options)?)
        }
        None => None,
    };
    let size = larger.as_ref().map_or(size, |model| model.config.unet.sample_size);
    let parameters = parameters(
        args,
        &Made {
            gpu: &gpu,
            model: &model,
            guidance,
            process: &config.process()?,
            options: sampler.options(),
            classifier: classifier.as_ref(),
            without: without.as_ref(),
            weaker: weaker.as_ref(),
            upsampler: larger.as_ref().zip(upsampling.as_ref().map(Upsampling::options)),
        },
    );
    let batches = requests.len().div_ceil(sampler.options().batch) as u64;
    let moves = sampler.moves() + upsampling.as_ref().map_or(0, Upsampling::moves);
    let bar = progress::bar("sampling", "steps", 0, batches * moves as u64);
    let on_step = || {
        bar.inc(1);
        if stop.load(Ordering::SeqCst) { Err(Error::Interrupted) } else { Ok(()) }
    };

    let make = |requests: &[Request]| -> Result<Vec<Image>> {
        let images = sampler.sample(requests, guidance, on_step)?;
        match &upsampling {
            Some(upsampling) => upsampling.upsample(&images, requests, on_step),
            None => Ok(images),
        }
    };

    match kind {
        Output::Npz => {
            let mut writer = NpzWriter::create(&args.out, requests.len(), size)?;
            if let Err(error) = writer.annotate(&parameters) {
                // Nothing but a very long list of seeds is that long; the pictures are worth more.
                eprintln!("warning: it will not say how it was made: {error}");
            }
            for batch in requests.chunks(sampler.options().batch) {
                let images = make(batch)?;
                let bytes: Vec<u8> = images.iter().flat_map(|image| image.pixels.iter().copied()).collect();
                let labels: Vec<u32> =
                    batch.iter().map(|r| r.condition.class.unwrap_or(config.unet.null_label())).collect();
                writer.push(&bytes, config.unet.in_channels, &labels)?;
            }
            writer.finish()?;
        }
        Output::Folder => {
            for batch in requests.chunks(sampler.options().batch) {
                let images = make(batch)?;
                for (request, image) in batch.iter().zip(&images) {
                    let own = of_one(&parameters, request.seed, &class_text(config, request.condition.class));
                    pictures::save(&args.out.join(names.file(request)), image, &own)?;
                }
            }
        }
        Output::Png => {
            let images = make(&requests)?;
            pictures::save(&args.out, &contact_sheet(config, &classes, &seeds, images)?, &parameters)?;
        }
    }
    bar.finish_and_clear();
    println!("wrote {} ({} pictures)", args.out.display(), requests.len());
    if args.profile {
        println!("{}", sampler.profile_step()?);
    }
    Ok(())
}

/// The classes that `--class` names.
fn classes(config: &ModelConfig, text: &str) -> Result<Vec<Option<u32>>> {
    let count = config.unet.num_classes.or(Some(config.class_names.len()).filter(|count| *count > 0));
    match (text, count) {
        ("none", _) | ("all", None) => Ok(vec![None]),
        ("all", Some(count)) => Ok((0..count as u32).map(Some).collect()),
        (text, _) => Ok(vec![Some(config.class(text)?)]),
    }
}
