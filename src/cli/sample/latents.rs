//! `freeguide sample --from`: pictures to their latents by DDIM's reverse, and latents to pictures.

use std::path::Path;
use std::sync::atomic::Ordering;

use crate::data::transform::prepare;
use crate::data::{CropOffset, Dataset, Image};
use crate::diffusion::{Clip, Guidance, Method, SamplerKind};
use crate::error::{Error, Result, shown};
use crate::io::{NpzArrays, NpzValues, write_npz_arrays_with};
use crate::model::{Condition, Conditions, ModelConfig, check_same_classes};
use crate::sample::{Request, Sampler, SamplerOptions, to_u8};
use crate::shape::Shape;

use super::parameters::{Made, parameters};
use super::{Args, contact_sheet, default_batch, variance};
use crate::cli::notes::note;
use crate::cli::{data, interrupt, outputs, pictures, progress, ranges};

/// What sampling begins with.
struct Given {
    /// `[N, H, W, C]`: pictures in -1..1, or latents.
    values: Vec<f32>,
    /// Each one's class.
    labels: Vec<Option<u32>>,
}

/// Runs `sample --from`; `--seeds` says which of what is there.
pub fn run(args: &Args, from: &str) -> Result<()> {
    let reverse = args.sampler == Some(SamplerKind::DdimReverse);
    let others = [
        ("--guider", !args.guider.is_empty()),
        ("--classifier", args.classifier.is_some()),
        ("--uncond-model", args.uncond_model.is_some()),
        ("--upsampler", args.upsampler.is_some()),
    ];
    if let Some((name, _)) = others.iter().find(|(_, given)| *given) {
        return Err(Error::Config(format!("--from does not go together with {name}")));
    }
    let (what, extension) = if reverse { ("latents go", "npz") } else { ("pictures from latents go", "png") };
    if args.out.extension().is_none_or(|found| found != extension) {
        let out = shown(&args.out);
        return Err(Error::Config(format!("--out {out}: {what} into a .{extension}")));
    }
    outputs::prove([&args.out], args.force.force)?;
    let indices = ranges::seeds(&args.seeds)?;
    let precision = args.precision.read()?;
    let gpu = args.device.open()?;
    let precision = precision.checked_on(gpu.capabilities())?;
    let model = args.opening.model_in(&gpu, &args.model, precision.dtype())?;
    let config = &model.config;
    let shape = Shape { extent: args.size.unwrap_or(config.unet.sample_size), ..config.unet.shape() };
    let given = match reverse {
        true => {
            let own = args.class == "all" && config.unet.num_classes.is_some();
            of_pictures(from, config, shape, &indices, own)?
        }
        false => of_latents(Path::new(from), config, shape, &indices)?,
    };

    let class = |own: Option<u32>| match args.class.as_str() {
        "all" => Ok(own.filter(|_| config.unet.num_classes.is_some())),
        "none" => Ok(None),
        text => config.class(text).map(Some),
    };
    let vector = args.attributes.as_deref().map(|text| config.vector(text)).transpose()?;
    let requests = indices.iter().zip(&given.labels);
    let requests: Vec<Request> = requests
        .map(|(seed, label)| {
            let condition =
                Condition { class: class(*label)?, vector: vector.clone(), ..Condition::default() };
            Ok(Request::new(condition, *seed))
        })
        .collect::<Result<_>>()?;
    let conditions = Conditions::of(config);
    for request in requests.iter().filter(|request| request.condition.class.is_some()) {
        conditions
            .check_class(request.condition.class)
            .map_err(|error| Error::Config(format!("{from}: {error} (give --class)")))?;
    }
    // The way there and the way back are each other's reverse only under one guidance; none is the safe one.
    let guidance = match (args.w, args.guidance_scale) {
        (Some(w), _) => Guidance::from_weight(w)?,
        (_, Some(scale)) => Guidance::from_scale(scale)?,
        _ => Guidance::from_weight(if requests.iter().all(|r| r.condition == Condition::default()) {
            -1.0
        } else {
            0.0
        })?,
    };
    let batch = args.batch.unwrap_or_else(|| default_batch(&gpu)).min(requests.len()).max(1);
    let defaults = SamplerOptions::of(config, batch)?;
    let options = SamplerOptions {
        size: args.size,
        steps: args.steps.unwrap_or(defaults.steps),
        // The sampler is named here, and nothing is taken from the model's own.
        method: Method {
            kind: args.sampler,
            eta: args.eta,
            respacing: args.respacing.clone(),
            spacing: args.spacing,
            variance: args.variance.as_deref().map(variance).transpose()?,
        },
        variance_exponent: args.v.unwrap_or(defaults.variance_exponent),
        clip: args.clip.as_deref().map_or(Ok(defaults.clip), str::parse::<Clip>)?,
        guided: Sampler::needs_both(guidance),
        two_pass: args.two_pass,
        dtype: precision.dtype(),
        ..defaults
    };
    super::check_exponent(args, &options, &config.process()?)?;
    let sampler = Sampler::of(&gpu, &model, options)?;
    let made = Made {
        gpu: &gpu,
        model: &model,
        guidance,
        process: &config.process()?,
        options: sampler.options(),
        classifier: None,
        without: None,
        weaker: None,
        upsampler: None,
    };
    let mut notes = parameters(args, &made);
    notes.push(note(
        "from_values",
        format!("crc32 {:08x}", crc32fast::hash(bytemuck::cast_slice(&given.values))),
    ));
    let stop = interrupt::flag();
    let bar =
        progress::bar("sampling", "steps", 0, (requests.len().div_ceil(batch) * sampler.moves()) as u64);
    let found = sampler.sample_from(&given.values, &requests, guidance, || {
        bar.inc(1);
        if stop.load(Ordering::SeqCst) { Err(Error::Interrupted) } else { Ok(()) }
    })?;
    bar.finish_and_clear();

    if reverse {
        let null = config.unet.null_label();
        let labels: Vec<i64> =
            requests.iter().map(|r| i64::from(r.condition.class.unwrap_or(null))).collect();
        let shape = shape.nhwc(requests.len());
        let arrays =
            [("arr_0", &shape[..], NpzValues::F32(&found)), ("arr_1", &shape[..1], NpzValues::I64(&labels))];
        write_npz_arrays_with(&args.out, &arrays, &notes)?;
        println!("wrote {} ({} latents)", args.out.display(), requests.len());
    } else {
        let [_, height, width, channels] = shape.nhwc(1);
        let one = |values: &[f32]| Image::new(width, height, channels, to_u8(values));
        let images = found.chunks(shape.len()).map(one).collect::<Result<Vec<_>>>()?;
        pictures::save(&args.out, &contact_sheet(config, &[None], &indices, images)?, &notes)?;
        println!("wrote {} ({} pictures)", args.out.display(), requests.len());
    }
    Ok(())
}

/// Pictures of a data set, brought to the size of what the sampler makes.
fn of_pictures(
    from: &str,
    config: &ModelConfig,
    shape: Shape,
    indices: &[u64],
    own_labels: bool,
) -> Result<Given> {
    let size = shape.extent;
    let dataset = Dataset::open_with(from, &data::trusting(Some(size)))?;
    if dataset.channels != config.unet.in_channels {
        return Err(Error::Config(format!(
            "{from} has pictures of {} channels, the model makes {}",
            dataset.channels, config.unet.in_channels
        )));
    }
    // The data's own labels are shown to the network unless a class is given.
    if own_labels {
        let names = (&*config.class_names, &*dataset.class_names);
        let note = check_same_classes(("the model", names.0), (from, names.1), true)?;
        note.iter().for_each(|note| eprintln!("note: {note}"));
    }
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    for &index in indices {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let image = prepare(&dataset.decode(index)?, size, CropOffset::CENTER, false);
        values.extend(image.pixels.iter().map(|&byte| f32::from(byte) / 127.5 - 1.0));
        labels.push(Some(dataset.label(index)));
    }
    Ok(Given { values, labels })
}

/// Latents that this command wrote: `arr_0` `[N, H, W, C]` f32 and `arr_1` `[N]`.
fn of_latents(path: &Path, config: &ModelConfig, shape: Shape, indices: &[u64]) -> Result<Given> {
    let mut file = NpzArrays::open(path)?;
    let missing = |name: &str| Error::format(path, format!("has no {name} of latents"));
    let latents = file.f32("arr_0")?.ok_or_else(|| missing("arr_0"))?;
    let classes = file.i64("arr_1")?.ok_or_else(|| missing("arr_1"))?.values;
    let expected = shape.nhwc(classes.len());
    if latents.shape != expected {
        let found = &latents.shape;
        return Err(Error::format(
            path,
            format!("its latents are {found:?}, the model's would be {expected:?}"),
        ));
    }
    let one = shape.len();
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    for &index in indices {
        let index = usize::try_from(index).ok().filter(|index| *index < classes.len()).ok_or_else(|| {
            Error::Config(format!("--seeds {index}: {} has {} latents", path.display(), classes.len()))
        })?;
        values.extend_from_slice(&latents.values[index * one..][..one]);
        let class = u32::try_from(classes[index]).ok();
        labels.push(class.filter(|class| *class != config.unet.null_label()));
    }
    Ok(Given { values, labels })
}
