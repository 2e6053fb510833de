//! `freeguide sample --prompt`: pictures of texts, drawn as latents.

use std::path::Path;
use std::sync::atomic::Ordering;

use crate::cli::notes::{Notes, note, weights};
use crate::cli::{guider, interrupt, number, outputs, pictures, progress, ranges};
use crate::data::{Image, to_nearest_u8};
use crate::diffusion::{Clip, Guidance, Guiders};
use crate::error::{Error, Result, brief};
use crate::gpu::Gpu;
use crate::io::{NpzValues, NpzWriter, read_npy, write_npy, write_npz_arrays_with};
use crate::model::{
    CodecChoice, CodecModel, Condition, Model, Sequence, TextCheckpoint, TextModel, check_prompted,
};
use crate::sample::{Networks, Request, Sampler, SamplerOptions, check_weaker, noise_of};
use crate::shape::Shape;
use crate::tensor::DType;

use super::args::Args;
use super::method::{default_batch, method};
use super::output::Output;
use super::parameters::{Made, of_one, parameters};
use crate::nn::Denoiser;

/// The guidance scale where none is asked for, as every program of these models has it.
const GUIDANCE_SCALE: f64 = 7.5;

/// Pixels of a picture on a GPU at a time, where no number is asked for: four of 512x512.
const PIXELS_AT_ONCE: usize = 4 * 512 * 512;

/// Runs `sample --prompt`.
pub fn run(args: &Args) -> Result<()> {
    check_together(args)?;
    let guiders: Guiders = args.guider.parse()?;
    let kind = Output::of(&args.out)?;
    match kind {
        Output::Folder => outputs::prove_folder(&args.out)?,
        _ => outputs::prove([&args.out], args.force.force)?,
    }
    outputs::prove(&args.save_noise, args.force.force)?;
    if args.float && kind != Output::Npz {
        return Err(Error::Config(
            "--float: only a .npz (--out X.npz) takes numbers that are no bytes".into(),
        ));
    }
    let guidance = guidance(args, &guiders)?;
    let seeds = ranges::seeds(&args.seeds)?;
    let count = args.prompt.len().saturating_mul(seeds.len());
    if count > number::MOST_COUNT {
        let most = number::MOST_COUNT;
        return Err(Error::Config(format!(
            "{count} pictures are more than the {most} that can be asked for at once"
        )));
    }
    if kind == Output::Folder {
        for (prompt, seed) in
            (0..args.prompt.len()).flat_map(|prompt| seeds.iter().map(move |seed| (prompt, seed)))
        {
            outputs::check_free(&args.out.join(file_name(prompt, *seed)), args.force.force)?;
        }
    }
    let precision = args.precision.read()?;
    let stop = interrupt::flag();
    let gpu = args.device.open()?;
    let dtype = precision.checked_on(gpu.capabilities())?.dtype();

    // What is wrong with one of the parts is told before the largest of them is loaded.
    let checkpoint = args.opening.checkpoint(&args.model)?;
    check_prompted(&checkpoint.config)?;
    let (told, nothing, texts) = encoded(args, &gpu, dtype)?;
    let codec =
        CodecModel::open(&gpu, args.vae.as_deref().unwrap_or(&args.model), dtype, &CodecChoice::default())?;
    codec.notes().iter().for_each(|note| eprintln!("vae: {note}"));
    let config = checkpoint.config.clone();
    let own = config.unet.shape();
    let picture = match args.size {
        Some(extent) => Shape { channels: codec.about().picture_channels, extent },
        None => codec.codec().pixels_of(own),
    };
    let latent = codec.codec().latent_of(picture)?;
    let model = Model::of_in(&gpu, checkpoint, dtype)?;

    let mut requests = Vec::with_capacity(count);
    for tokens in told {
        let condition = Condition { tokens: Some(tokens), ..Condition::default() };
        let negative = Some(nothing.clone());
        requests.extend(seeds.iter().map(|seed| Request {
            condition: condition.clone(),
            negative: negative.clone(),
            seed: *seed,
        }));
    }
    let batch = args
        .batch
        .unwrap_or_else(|| default_batch(&gpu).min(PIXELS_AT_ONCE / picture.extent.places().max(1)).max(1));
    let batch = batch.min(requests.len()).max(1);
    let defaults = SamplerOptions::of(&config, batch)?;
    let options = SamplerOptions {
        size: Some(latent.extent),
        steps: args.steps.unwrap_or(defaults.steps),
        method: method(args, &config)?,
        clip: args.clip.as_deref().map_or(Ok(defaults.clip), str::parse::<Clip>)?,
        guided: Sampler::needs_both(guidance),
        guiders,
        two_pass: args.two_pass,
        tokens: requests[0].condition.tokens.as_ref().map_or(defaults.tokens, Sequence::tokens),
        dtype,
        fast: args.fast,
        ..defaults
    };
    let weaker = guider::weaker(&gpu, &options.guiders, dtype)?;
    weaker.as_ref().map_or(Ok(()), |weaker| check_weaker(&model, weaker))?;
    let away = weaker.as_ref().map(|other| (&other.unet as &dyn Denoiser, other.weights()));
    let of_model = model.weights();
    let networks = Networks {
        weaker: away.as_ref().map(|(network, weights)| (*network, weights)),
        ..Networks::of(&model.unet, &of_model)
    };
    let process = config.process()?;
    let sampler = Sampler::with(&gpu, networks, config.process()?, options)?;
    let noise = match &args.noise {
        Some(path) => given_noise(path, latent, requests.len())?,
        None => Vec::new(),
    };
    if let Some(path) = &args.save_noise {
        let seeds: Vec<u64> = requests.iter().map(|request| request.seed).collect();
        let values = if noise.is_empty() { noise_of(&gpu, &seeds, latent)? } else { noise.clone() };
        write_npy(path, &latent.nhwc(requests.len()), &values)?;
    }

    let made = Made {
        gpu: &gpu,
        model: &model,
        guidance,
        process: &process,
        options: sampler.options(),
        classifier: None,
        without: None,
        weaker: weaker.as_ref(),
        upsampler: None,
    };
    let mut notes = parameters(args, &made);
    notes.extend(texts);
    notes.push(note("vae_weights", weights(codec.checksum())));

    let batches = requests.len().div_ceil(batch) as u64;
    let bar = progress::bar("sampling", "steps", 0, batches * sampler.moves() as u64);
    let on_step = || {
        bar.inc(1);
        if stop.load(Ordering::SeqCst) { Err(Error::Interrupted) } else { Ok(()) }
    };
    let draw = |first: usize, batch: &[Request]| -> Result<Vec<f32>> {
        let latents = match noise.is_empty() {
            true => sampler.values(batch, guidance, on_step)?,
            false => {
                let noise = &noise[first * latent.len()..][..batch.len() * latent.len()];
                sampler.sample_from(noise, batch, guidance, on_step)?
            }
        };
        let coded = codec.decode(&latents, latent)?;
        coded.note.iter().for_each(|note| eprintln!("vae: {note}"));
        Ok(coded.values)
    };
    let [_, height, width, channels] = picture.nhwc(1);
    let image = |values: &[f32]| Image::new(width, height, channels, to_nearest_u8(values));
    let mut values = Vec::new();
    let mut images = Vec::with_capacity(if kind == Output::Png { requests.len() } else { 0 });
    let mut writer = match kind {
        Output::Npz if !args.float => Some(NpzWriter::create(&args.out, requests.len(), picture.extent)?),
        _ => None,
    };
    let said = |request: &Request, at: usize| {
        let prompt = &args.prompt[at / seeds.len()];
        with_text(
            of_one(&notes, request.seed, ""),
            &Said { args, prompt, seed: request.seed, made: &made, picture },
        )
    };
    for (i, chunk) in requests.chunks(batch).enumerate() {
        let first = i * batch;
        let drawn = draw(first, chunk)?;
        let each = drawn.chunks(picture.len());
        match kind {
            Output::Npz if args.float => values.extend(drawn.iter().map(|x| (x / 2.0 + 0.5).clamp(0.0, 1.0))),
            Output::Npz => {
                let labels: Vec<u32> =
                    (first..first + chunk.len()).map(|at| (at / seeds.len()) as u32).collect();
                if let Some(writer) = &mut writer {
                    writer.push(&to_nearest_u8(&drawn), channels, &labels)?;
                }
            }
            Output::Folder => {
                for (at, (request, values)) in chunk.iter().zip(each).enumerate() {
                    let path = args.out.join(file_name((first + at) / seeds.len(), request.seed));
                    pictures::save(&path, &image(values)?, &said(request, first + at))?;
                }
            }
            Output::Png => {
                for values in each {
                    images.push(image(values)?);
                }
            }
        }
    }
    match (kind, writer) {
        (Output::Png, _) => {
            let notes = said(&requests[0], 0);
            pictures::save(&args.out, &sheet(&args.prompt, seeds.len(), images)?, &notes)?;
        }
        (_, Some(mut writer)) => {
            writer.annotate(&notes)?;
            writer.finish()?;
        }
        (Output::Npz, None) => {
            let shape = picture.nhwc(requests.len());
            write_npz_arrays_with(&args.out, &[("arr_0", &shape[..], NpzValues::F32(&values))], &notes)?;
        }
        (Output::Folder, None) => {}
    }
    bar.finish_and_clear();
    println!("wrote {} ({} pictures)", args.out.display(), requests.len());
    if args.profile {
        println!("{}", sampler.profile_step()?);
    }
    Ok(())
}

/// Refuses options that say nothing of a text-to-image model.
fn check_together(args: &Args) -> Result<()> {
    let others = [
        ("--from", args.from.is_some()),
        ("--classifier", args.classifier.is_some()),
        ("--uncond-model", args.uncond_model.is_some()),
        ("--uncond", args.uncond != "null"),
        ("--upsampler", args.upsampler.is_some()),
        ("--v", args.v.is_some()),
    ];
    match others.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Error::Config(format!("--prompt does not go together with {name}"))),
        None => super::no_reverse(args.sampler).map(drop),
    }
}

/// The guidance asked for. At a scale below 1 these models are shown the prompt alone, as turbo's usual 0 means.
fn guidance(args: &Args, guiders: &Guiders) -> Result<Guidance> {
    let asked = match (args.w, args.guidance_scale) {
        (Some(w), _) => Guidance::from_weight(w)?,
        (_, Some(scale)) => Guidance::from_scale(scale)?,
        _ => return Guidance::from_scale(GUIDANCE_SCALE),
    };
    guiders.check_weight_is_read()?;
    if asked.weight() < 0.0 {
        eprintln!(
            "note: a guidance scale below 1 is the prompt alone, without guidance, as for every text-to-image model"
        );
        return Guidance::from_weight(0.0);
    }
    Ok(asked)
}

/// What the text encoders make of the prompts, and of what stands for nothing; with notes of the encoders. Their memory is free
/// again afterwards.
fn encoded(args: &Args, gpu: &Gpu, dtype: DType) -> Result<(Vec<Sequence>, Sequence, Notes)> {
    let mut checkpoints = TextCheckpoint::open(args.text_encoder.as_deref().unwrap_or(&args.model))?;
    if let Some(skip) = args.clip_skip {
        checkpoints.iter_mut().try_for_each(|checkpoint| checkpoint.skip(skip))?;
    }
    let texts: Vec<&str> = args
        .prompt
        .iter()
        .map(String::as_str)
        .chain([args.negative.as_deref().unwrap_or_default()])
        .collect();
    let mut notes = Notes::new();
    let mut states = None;
    for checkpoint in &checkpoints {
        let model = TextModel::of(gpu, checkpoint, dtype)?;
        if states.is_none() {
            texts
                .iter()
                .filter_map(|text| model.tokenize(text).warning())
                .for_each(|cut| eprintln!("warning: {cut}"));
        }
        let made = model.encode(&texts)?;
        notes.push(note("text_encoder_weights", weights(model.checksum())));
        states = Some(match states {
            None => made,
            Some(before) => made.beside(&before)?,
        });
    }
    let states =
        states.ok_or_else(|| Error::Config("the model brings no text encoder (--text-encoder)".into()))?;
    let mut all = states.sequences()?;
    let nothing = all.pop().expect("the negative is the last text");
    Ok((all, nothing, notes))
}

/// The file of a picture in a folder.
fn file_name(prompt: usize, seed: u64) -> String {
    format!("prompt{prompt:03}-seed{seed:06}.png")
}

/// Noise of a file, one for each picture.
fn given_noise(path: &Path, latent: Shape, count: usize) -> Result<Vec<f32>> {
    let (shape, values) = read_npy(path)?;
    let expected = latent.nhwc(count);
    match shape == expected {
        true => Ok(values),
        false => Err(Error::format(
            path,
            format!("holds noise of {shape:?}; these pictures begin with {expected:?}"),
        )),
    }
}

/// Rows of prompts, columns of seeds; of one prompt a square.
fn sheet(prompts: &[String], seeds: usize, images: Vec<Image>) -> Result<Image> {
    if let [one] = &images[..] {
        return Ok(one.clone());
    }
    let columns = if prompts.len() == 1 { (images.len() as f64).sqrt().ceil() as usize } else { seeds };
    let rows: Vec<Vec<Vec<Image>>> =
        images.chunks(columns).map(|row| row.iter().map(|image| vec![image.clone()]).collect()).collect();
    let labels = if prompts.len() == 1 {
        Vec::new()
    } else {
        prompts.iter().map(|text| brief(text).to_string()).collect()
    };
    pictures::sheet(&rows, &labels, &[])
}

/// What a picture's text says.
struct Said<'a> {
    args: &'a Args,
    prompt: &'a str,
    seed: u64,
    made: &'a Made<'a>,
    picture: Shape,
}

/// The notes and `parameters`, one text as the tools that people sort such pictures with read it.
fn with_text(mut notes: Notes, said: &Said<'_>) -> Notes {
    let Said { args, prompt, seed, made, picture } = said;
    let mut text = (*prompt).to_string();
    if let Some(negative) = &args.negative {
        text += &format!("\nNegative prompt: {negative}");
    }
    let options = made.options;
    text += &format!(
        "\nSteps: {}, Sampler: {}, CFG scale: {}, Seed: {seed}, Size: {}x{}, Model: {}",
        options.steps,
        made.process.sampler(&options.method, options.steps),
        made.guidance.scale(),
        picture.extent.width(),
        picture.extent.height(),
        Path::new(&made.model.name)
            .file_stem()
            .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned()),
    );
    notes.insert(0, note("parameters", text));
    notes
}
