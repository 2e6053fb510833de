//! What a picture's file says of how it was made.

use crate::cli::notes::{
    Notes, file_name, note, of_classifier, of_model, of_sampling, of_second, program, weights,
};
use crate::diffusion::{Guidance, Process};
use crate::gpu::Gpu;
use crate::model::{ClassifierModel, Model};
use crate::sample::SamplerOptions;

use super::Args;

/// What pictures were made with.
pub(super) struct Made<'a> {
    pub gpu: &'a Gpu,
    pub model: &'a Model,
    pub guidance: Guidance,
    pub process: &'a Process,
    pub options: &'a SamplerOptions,
    pub classifier: Option<&'a ClassifierModel>,
    pub without: Option<&'a Model>,
    /// The weaker model that guiders name.
    pub weaker: Option<&'a Model>,
    pub upsampler: Option<(&'a Model, &'a SamplerOptions)>,
}

pub(super) fn parameters(args: &Args, made: &Made<'_>) -> Notes {
    // What is `_` either is in `made`, as it was understood, or decides no picture.
    let Args {
        model: named,
        opening,
        class,
        attributes,
        prompt,
        negative,
        clip_skip,
        text_encoder,
        vae,
        noise,
        save_noise: _,
        float: _,
        w: _,
        guidance_scale: _,
        guider: _,
        steps: _,
        sampler: _,
        from,
        eta: _,
        respacing: _,
        spacing: _,
        variance: _,
        v: _,
        seeds,
        size: _,
        batch: _,
        clip: _,
        classifier,
        classifier_scale,
        uncond: _,
        uncond_model,
        upsampler,
        upsampler_steps: _,
        two_pass: _,
        fast: _,
        precision: _,
        out: _,
        force: _,
        device: _,
        profile: _,
    } = args;
    let mut notes = program(made.gpu);
    notes.extend(of_model("model", named, made.model));
    notes.push(note("file", &made.model.name));
    notes.extend(opening.notes());
    if prompt.is_empty() {
        notes.push(note("class", class));
    }
    notes.extend(prompt.iter().map(|prompt| note("prompt", prompt)));
    notes.extend(negative.iter().map(|negative| note("negative", negative)));
    notes.extend(clip_skip.iter().map(|skip| note("clip_skip", skip)));
    notes.extend(text_encoder.iter().map(|path| note("text_encoder", file_name(path))));
    notes.extend(vae.iter().map(|path| note("vae", file_name(path))));
    notes.extend(noise.iter().map(|path| note("noise", file_name(path))));
    notes.extend(attributes.iter().map(|attributes| note("attributes", attributes)));
    notes.push(note("seeds", seeds));
    notes.extend(from.iter().map(|from| note("from", file_name(from.as_ref()))));
    // A weight that a guider puts its own in the place of decides nothing.
    if made.options.guiders.check_weight_is_read().is_ok() {
        notes.push(note("guidance_weight", made.guidance.weight()));
        notes.push(note("guidance_scale", made.guidance.scale()));
    }
    notes.extend(of_sampling(made.options, made.process));
    notes.extend(made.weaker.map(|weaker| note("guider_weights", weights(weaker.checksum()))));
    if let (Some(named), Some(model)) = (uncond_model, made.without) {
        notes.extend(of_second("uncond_model", named, model));
    }
    if let (Some(named), Some(classifier)) = (classifier, made.classifier) {
        notes.extend(of_classifier("classifier", named, classifier));
        notes.push(note("classifier_scale", classifier_scale.unwrap_or(1.0)));
    }
    if let (Some(named), Some((model, options))) = (upsampler, made.upsampler) {
        notes.extend(of_second("upsampler", named, model));
        let Ok(process) = model.config.process() else { return notes };
        let named = |(key, value): (String, String)| (format!("upsampler_{key}"), value);
        notes.extend(of_sampling(options, &process).into_iter().map(named));
    }
    notes
}

/// The notes of one picture of a folder: its own seed and class.
pub(super) fn of_one(notes: &Notes, seed: u64, class: &str) -> Notes {
    let own = |(key, value): &(String, String)| match key.as_str() {
        "seeds" => note("seed", seed),
        "class" => note("class", class),
        _ => (key.clone(), value.clone()),
    };
    notes.iter().map(own).collect()
}
